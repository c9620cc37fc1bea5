"""FLOPs, MACs and parameters: Table 1 to the printed digit, and the reference sheet's figures."""

from itertools import accumulate

import pytest
import torch
from torch import nn

from tests.trainers.networks import config
from trainers.backbones import BACKBONES
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.exits import build_network

# M FLOPs of exits 1 to 4 at 32x32 and 100 classes, as the paper prints them (Table 1).
TABLE_1 = {
    "vgg16": ("99.19", "192.79", "286.39", "314.18"),
    "resnet18": ("163.19", "294.05", "425.02", "556.03"),
    "resnet50": ("374.76", "659.48", "1087.25", "1300.99"),
    "resnext50": ("364.14", "668.10", "1116.04", "1348.20"),
}
STANFORD_DOGS = ("614.68", "1015.44", "1416.52", "1817.76")  # Table 1's ResNet18 at 224x224
# Not in Table 1: computed in the same convention by other code than ours.
OTHERS = {
    "wrn_50_2": ("802.97", "1692.03", "3017.63", "3688.62"),
    "wrn_14_4": ("860.91", "1648.84", "2437.08", "3225.46"),
    "densenet121": ("479.97", "696.32", "859.52", "893.61"),
    "msdnet": ("6.86", "12.12", "22.20", "33.85", "46.33"),
}
PARAMETERS = {  # M: paths to exits 1..4, and all exits together
    "vgg16": (1.6281, 3.0527, 8.7528, 15.2997, 19.0940),
    "resnet18": (0.4699, 0.9817, 3.0292, 11.2201, 12.1006),
    "resnet50": (4.5943, 5.6112, 11.9108, 23.7053, 35.6311),
    "resnext50": (4.5844, 5.5787, 11.8025, 23.1771, 35.1029),
}
# As MSDNet's own code counts them, earlier classifiers included.
MSDNET_FLOPS = (6_859_876, 14_350_024, 27_536_684, 41_714_576, 58_480_628)
MSDNET_PARAMETERS = (0.2997, 0.6497, 1.0183, 1.4924, 2.0789)


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


@pytest.mark.parametrize(("backbone", "printed"), [*TABLE_1.items(), *OTHERS.items()])
def test_flops_equal_the_paper_and_the_sheet_to_the_printed_digit(backbone, printed):
    points = costs(config(backbone))
    assert tuple(f"{point.flops / 1e6:.2f}" for point in points) == printed


def test_flops_of_resnet18_on_stanford_dogs():
    dogs = TrialConfig(dataset="./dogs", classes=120, image_size=224, backbone="resnet18")
    assert tuple(f"{point.flops / 1e6:.2f}" for point in costs(dogs)) == STANFORD_DOGS


@pytest.mark.parametrize(
    ("backbone", "more"), [("vgg16", 1.8), ("resnet18", 3.6), ("resnet50", 23.6)]
)
def test_the_cascade_pays_the_earlier_heads(backbone, more):
    deepest = costs(config(backbone))[-1]
    assert round(100 * (deepest.flops_cascade / deepest.flops - 1), 1) == more


def test_cascade_flops_of_resnet18():
    points = costs(config("resnet18"))
    cascade = [f"{point.flops_cascade / 1e6:.2f}" for point in points]
    assert cascade == ["163.19", "304.15", "441.72", "576.03"]


def test_msdnet_counts_as_its_own_code_does():
    assert tuple(point.flops_cascade for point in costs(config("msdnet"))) == MSDNET_FLOPS
    network = build_network(config("msdnet"))
    parts = zip(network.stages, network.heads, network.classifiers, strict=True)
    so_far = accumulate(count(*part) for part in parts)
    assert tuple(round(number / 1e6, 4) for number in so_far) == MSDNET_PARAMETERS


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_parameters_equal_the_reference_sheet(backbone):
    c = config(backbone)
    got = [point.parameters / 1e6 for point in costs(c)]
    with torch.device("meta"):
        got.append(count(build_network(c)) / 1e6)
    assert [f"{value:.4f}" for value in got] == [f"{value:.4f}" for value in PARAMETERS[backbone]]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_deeper_exits_cost_more_and_the_cascade_never_less(backbone, width):
    points = costs(config(backbone, width=width))
    flops = [point.flops for point in points]
    assert flops == sorted(set(flops))
    assert points[0].flops == points[0].flops_cascade
    assert all(point.flops_cascade >= point.flops >= point.macs > 0 for point in points)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_baseline_is_the_last_exit_alone(backbone):
    alone, deepest = costs(config(backbone, scheme="baseline")), costs(config(backbone))[-1]
    assert len(alone) == 1
    assert (alone[0].flops, alone[0].parameters) == (deepest.flops, deepest.parameters)
    assert alone[0].flops_cascade == alone[0].flops
    with torch.device("meta"):
        assert count(build_network(config(backbone, scheme="baseline"))) == deepest.parameters


def test_macs_are_those_of_torchs_own_counter():
    from torch.utils.flop_counter import FlopCounterMode

    c = config("msdnet", width=0.5)
    network = build_network(c).eval()
    for point in costs(c):
        with FlopCounterMode(display=False) as counter:
            network.path(point.exit - 1)(torch.zeros(1, 3, 32, 32))
        assert counter.get_total_flops() == 2 * point.macs


def test_costs_depend_on_the_network_alone():
    assert costs(config("vgg16", alpha=9.0, epochs=3)) is costs(config("vgg16", lr=0.2))
