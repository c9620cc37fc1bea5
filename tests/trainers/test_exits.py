"""Networks, exits and their FLOPs: Table 1 to the printed digit."""

import pytest
import torch
from torch import nn

from trainers import catalog
from trainers.backbones import BACKBONES, backbone_named, scaled
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.exits import SepConv, build_network, costs

TABLE_1 = {
    "vgg16": ("99.19", "192.79", "286.39", "314.18"),
    "resnet18": ("163.19", "294.05", "425.02", "556.03"),
}
PARAMETERS = {  # M: paths to exits 1..4, and all exits together
    "vgg16": (1.6281, 3.0527, 8.7528, 15.2997, 19.0940),
    "resnet18": (0.4699, 0.9817, 3.0292, 11.2201, 12.1006),
}


def config(backbone: str, **changes) -> TrialConfig:
    entry = catalog.BACKBONES[backbone]
    dataset = "digits" if entry.image_sizes == (8,) else "cifar100"
    return TrialConfig(dataset=dataset, backbone=backbone, **changes)


@pytest.mark.parametrize("backbone", TABLE_1)
def test_flops_equal_table_1_to_the_printed_digit(backbone):
    points = costs(config(backbone))
    assert tuple(f"{point.flops / 1e6:.2f}" for point in points) == TABLE_1[backbone]


def test_cascade_flops_of_resnet18():
    points = costs(config("resnet18"))
    cascade = [f"{point.flops_cascade / 1e6:.2f}" for point in points]
    assert cascade == ["163.19", "304.15", "441.72", "576.03"]


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_parameters_equal_the_reference_sheet(backbone):
    c = config(backbone)
    got = [point.parameters / 1e6 for point in costs(c)]
    got.append(sum(p.numel() for p in build_network(c).parameters()) / 1e6)
    assert [f"{value:.4f}" for value in got] == [f"{value:.4f}" for value in PARAMETERS[backbone]]


def test_names_exits_and_functions_agree():
    assert set(BACKBONES) == set(catalog.BACKBONES)
    for name, entry in catalog.BACKBONES.items():
        backbone = backbone_named(name)(1.0, entry.image_sizes[0], 3)
        assert len(backbone.stages) == len(backbone.channels) == entry.exits


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_shapes_of_features_and_logits(name, width):
    c = config(name, width=width)
    network = build_network(c).eval()
    images = torch.randn(2, c.channels, c.image_size, c.image_size)
    features, logits = network(images)
    assert features.shape == (c.exits, 2, network.features)
    assert logits.shape == (c.exits, 2, c.classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_deeper_exits_cost_more_and_the_cascade_never_less(name):
    points = costs(config(name, width=0.5))
    flops = [point.flops for point in points]
    assert flops == sorted(flops)
    assert points[0].flops == points[0].flops_cascade
    assert all(point.flops_cascade >= point.flops >= point.macs for point in points)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_baseline_is_the_last_exit_alone(name):
    alone, deepest = costs(config(name, scheme="baseline")), costs(config(name))[-1]
    assert len(alone) == 1
    assert (alone[0].flops, alone[0].parameters) == (deepest.flops, deepest.parameters)
    network = build_network(config(name, scheme="baseline"))
    assert sum(p.numel() for p in network.parameters()) == deepest.parameters


def test_sepconv_halves_the_resolution_down_to_one_pixel():
    for side in (8, 4, 2, 1):
        assert SepConv(16, 24)(torch.randn(2, 16, side, side)).shape[2:] == ((side + 1) // 2,) * 2


def test_initial_weights_follow_the_recipe():
    torch.manual_seed(0)
    network = build_network(config("resnet18"))
    convolution = network.stages[3][0].conv1
    fan_out = convolution.out_channels * 9
    assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert all(
        m.weight.eq(1).all() and m.bias.eq(0).all()
        for m in network.modules()
        if isinstance(m, nn.BatchNorm2d)
    )


def test_width_scales_to_multiples_of_eight():
    assert scaled(64, 1.0) == 64
    assert scaled(64, 0.25) == 16
    assert scaled(16, 0.1) == 8
    assert costs(config("vgg16", width=0.25))[-1].flops < costs(config("vgg16"))[-1].flops / 8


MINE = """
from torch import nn
from trainers.backbones import Backbone
EXITS = 2
def build(width, image_size, image_channels):
    stages = (nn.Conv2d(image_channels, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, padding=1))
    return Backbone(stages=stages, channels=(8, 12), classifier=nn.Linear)
"""


def test_a_users_own_backbone_is_a_file_of_the_same_form(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    c = TrialConfig(dataset="digits", backbone=str(path), alpha=(1.0, 2.0))
    assert c.exits == 2
    assert len(costs(c)) == 2
    features, logits = build_network(c)(torch.randn(3, 1, 8, 8))
    assert logits.shape == (2, 3, 10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINE.replace("EXITS = 2", ""), "needs a line 'EXITS"),
        (MINE.replace("EXITS = 2", "EXITS = 3"), "EXITS = 3 but builds 2"),
        (MINE.replace("def build", "def made"), "needs a function build"),
        (MINE + "\nraise OSError('no luck')", "no luck"),
        ("EXITS = 2\ndef (", "not valid Python"),
    ],
)
def test_a_broken_backbone_file_gets_one_line(tmp_path, text, says):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        build_network(TrialConfig(dataset="digits", backbone=str(path), alpha=3.0))
    assert "\n" not in str(caught.value)
