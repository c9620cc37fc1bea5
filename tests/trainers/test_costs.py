"""FLOPs, MACs and parameters: Table 1 to the printed digit, and the reference sheet's figures."""

from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainers.networks import config
from trainers.backbones import BACKBONES
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.exits import build_network
from trainers.layers import uncounted

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


OWN = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


class Scaled(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(nn.Conv2d(1, channels, 1).weight[0])
        self.act = nn.GELU()

    def forward(self, x):
        return self.act(x * self.scale)


def build(width, image_size, image_channels):
    first = nn.Sequential(
        nn.Conv2d(image_channels, 8, 3, padding=2, dilation=2, groups=1),
        nn.GroupNorm(2, 8),
        nn.GELU(),
        nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1, groups=4),
    )
    second = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1, groups=2), nn.Flatten(2),
                           nn.Conv1d(16, 16, 5, padding=2, dilation=1), nn.Unflatten(2, (8, 8)))
    return Backbone((first, second), (12, 16), nn.Linear)
"""


@pytest.fixture
def own(tmp_path):
    """A user's network of a text, on digits (1x8x8)."""

    def made(text: str) -> TrialConfig:
        path = tmp_path / f"net_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return TrialConfig(backbone=str(path))

    return made


def test_layers_of_a_users_network_are_counted(own):
    from torch.utils.flop_counter import FlopCounterMode

    c = own(OWN)
    network = build_network(c).eval()
    for point in costs(c):
        with FlopCounterMode(display=False) as counter:
            network.path(point.exit - 1)(torch.zeros(1, 1, 8, 8))
        assert counter.get_total_flops() == 2 * point.macs
    # GELU 8x8x8; in the last head no ReLU, 16 values pooled over 8x8, and the classifier's bias
    assert costs(c)[1].flops == costs(c)[1].macs + 8 * 64 + 16 * 64 + 10


FUNCTIONS = """
from torch import nn
from torch.nn import functional
from trainers.backbones import Backbone

EXITS = 2


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)

    def forward(self, images):
        made = functional.conv2d(images, self.conv.weight, padding=1)
        return functional.max_pool2d(functional.relu(made, inplace=True), 2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, images):
        given = images.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(given).chunk(3, dim=-1)
        heads = (part[:, None] for part in (query, key, value))
        made = functional.scaled_dot_product_attention(*heads)[:, 0]
        made = made + (query @ key.transpose(1, 2)).softmax(dim=-1) @ value
        made = functional.gelu(made).transpose(1, 2).reshape(images.shape)
        return functional.avg_pool2d(functional.adaptive_avg_pool2d(made, 4), (2, 2))


def build(width, image_size, image_channels):
    return Backbone((Stem(), Attention()), (8, 8), nn.Linear)
"""


def test_functions_are_counted_as_layers_are(own):
    first, second = costs(own(FUNCTIONS))
    stem = 9 * 8 * 64 + 8 * 64 + 8 * 64  # convolution, ReLU, what pooling reads
    pixels = 4 * 4
    attention = 2 * pixels * pixels * 8  # of queries and keys, and of values
    rest = pixels * 8 + pixels * 8 + pixels * 8  # GELU, and what each pooling reads
    linear = pixels * 24 * 8
    head = 8 * 2 * 2 + 10 * 8 + 10  # the last exit's: pooled, classified
    assert second.flops == stem + linear + pixels * 24 + 2 * attention + rest + head
    assert second.macs == 9 * 8 * 64 + linear + 2 * attention + 10 * 8
    assert first.flops - stem == second.flops_cascade - second.flops  # the first exit's head


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        ("nn.AdaptiveAvgPool2d(1)", "functional.adaptive_avg_pool2d(x, 1)"),
        ("nn.CELU()", "functional.celu(x)"),
        ("nn.Sequential(nn.Flatten(), self.fc)", "functional.linear(x.flatten(1), *self.both)"),
        ("self.conv", "functional.conv2d(x, self.conv.weight, self.conv.bias, groups=2)"),
        ("self.norm", "functional.batch_norm(x, self.norm.running_mean, self.norm.running_var)"),
    ],
)
def test_a_function_costs_what_its_layer_does(own, layer, function):
    block = """
from torch import nn
from torch.nn import functional
from trainers.backbones import Backbone

EXITS = 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1, groups=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 8 * 8, 8)
        self.layer = {layer}

    @property
    def both(self):
        return self.fc.weight, self.fc.bias

    def forward(self, x):
        made = {call}
        return made if made.dim() == 4 else made[..., None, None]


def build(width, image_size, image_channels):
    return Backbone((nn.Conv2d(1, 8, 1), Block()), (8, 8), nn.Linear)
"""
    as_layer = costs(own(block.replace("{layer}", layer).replace("{call}", "self.layer(x)")))
    as_call = costs(own(block.replace("{layer}", "None").replace("{call}", function)))
    assert as_call == as_layer


def test_what_a_module_says_of_itself_leaves_the_modules_in_it_to_themselves(own):
    plain = FUNCTIONS.replace("Stem(), Attention()", "Stem(), nn.Sequential(Attention())")
    scaled = plain.replace("nn.Sequential(Attention())", "Scaled(Attention())") + (
        "\n\nclass Scaled(nn.Module):\n    def __init__(self, inner):\n"
        "        super().__init__()\n        self.inner = inner\n"
        "        self.gamma = nn.Parameter(torch.ones(()))\n\n"
        "    def count_flops(self, given, made):\n        return 7\n\n"
        "    def forward(self, images):\n        return self.gamma * self.inner(images).relu()\n"
    )
    more = costs(own(f"import torch\n{scaled}"))[1].flops - costs(own(plain))[1].flops
    assert more == 7, "its own ReLU is among what it says"


def test_an_edited_file_is_counted_anew(own):
    config = own(OWN)
    before = costs(config)
    Path(config.backbone).write_text(OWN.replace("nn.Linear)", "lambda c, k: nn.Linear(c, k))"))
    assert costs(config) == before
    Path(config.backbone).write_text(
        OWN.replace("padding=2, dilation=2", "padding=4, dilation=4").replace(
            "groups=4", "groups=1"
        )
    )
    assert costs(config)[0].flops > before[0].flops


def test_a_layer_that_two_stages_share_counts_where_it_runs(own):
    text = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


def build(width, image_size, image_channels):
    relu = {relu}
    first = nn.Sequential(nn.Conv2d(1, 8, 1), relu)
    return Backbone((first, nn.Sequential(nn.Conv2d(8, 8, 1), {again})), (8, 8), nn.Linear)
"""
    shared = costs(own(text.replace("{relu}", "nn.ReLU()").replace("{again}", "relu")))
    assert shared == costs(own(text.replace("{relu}", "nn.ReLU()").replace("{again}", "nn.ReLU()")))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("nn.Bilinear(3, 4, 5)", r"stages\.0\.2 \(Bilinear\)"),
        ("nn.MultiheadAttention(8, 2)", r"stages\.0\.2 \(MultiheadAttention\)"),
        ("Scaled(8)", r"stages\.0\.2 \(Scaled\)"),  # parameters beside a layer
    ],
)
def test_a_layer_that_cannot_be_counted_is_refused(own, layer, named):
    said = f"the FLOPs of {named}, .* cannot be counted: expected .*count_flops"
    with pytest.raises(InputError, match=said) as caught:
        costs(own(OWN.replace("nn.GELU(),", f"{layer},")))
    assert "\n" not in str(caught.value)


def test_a_layer_of_the_users_counts_itself(own):
    text = OWN.replace("nn.GELU(),", "Scaled(8),")
    counting = "    def count_flops(self, given, made):\n        return {}\n\n    def forward"
    c = own(text.replace("    def forward", counting.format("given.numel() + made[0].numel()")))
    plain = costs(own(OWN))
    more = [one.flops - two.flops for one, two in zip(costs(c), plain, strict=True)]
    assert more == [2 * 8 * 64] * 2  # and its own GELU, as the plain network has it
    broken = own(text.replace("    def forward", counting.format("1 / 0")))
    with pytest.raises(InputError, match=r"Scaled.count_flops\(given, made\) fails: ZeroDiv"):
        costs(broken)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_of_our_networks_is_counted(backbone):
    with torch.device("meta"):
        assert uncounted(build_network(config(backbone))) is None


def test_costs_depend_on_the_network_alone():
    assert costs(config("vgg16", alpha=9.0, epochs=3)) is costs(config("vgg16", lr=0.2))
