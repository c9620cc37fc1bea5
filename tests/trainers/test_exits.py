"""Heads, exits and the whole network, of every backbone."""

import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.trainers.networks import config
from trainers.backbones import BACKBONES
from trainers.catalog import BACKBONES as ENTRIES
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.exits import SepConv, _rows, build_network
from trainers.resnets import Projection

NARROW = 0.125
SCHEMES = ("mate", "baseline")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_step_of_every_backbone_reaches_every_parameter(backbone, scheme):
    torch.manual_seed(0)
    c = config(backbone, width=NARROW, scheme=scheme)
    network = build_network(c).to(memory_format=torch.channels_last)
    images = torch.randn(3, c.channels, c.image_size, c.image_size)
    features, logits = network(images.contiguous(memory_format=torch.channels_last))
    assert features.shape == (c.exits, 3, network.features)
    assert logits.shape == (c.exits, 3, c.classes)
    assert torch.isfinite(logits).all()
    labels = torch.arange(3).repeat(c.exits)
    nn.functional.cross_entropy(logits.flatten(0, 1), labels).backward()
    untouched = [name for name, p in network.named_parameters() if p.grad is None]
    assert not untouched, untouched
    # A parameter before ReLUs may by chance get zeros; a whole layer must not.
    assert all(module.weight.grad.any() for module in network.modules() if is_layer(module))


def is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


LARGE = [(name, 224) for name, entry in ENTRIES.items() if 224 in entry.image_sizes]


@pytest.mark.parametrize(("backbone", "size"), LARGE)
def test_large_images_go_through_the_original_stem(backbone, size):
    fields = {"dataset": "./birds", "classes": 20, "image_size": size}
    c = TrialConfig(**fields, backbone=backbone, width=NARROW)
    network = build_network(c).eval()
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert (first.kernel_size, first.stride) == ((7, 7), (2, 2))
    with torch.inference_mode():
        x = network.stages[0](torch.randn(1, 3, size, size))
        assert x.shape[-2:] == (56, 56)
        assert network(torch.randn(1, 3, size, size))[1].shape == (4, 1, 20)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_exit_alone_gives_what_the_whole_network_gives_there(backbone, scheme):
    torch.manual_seed(0)
    c = config(backbone, width=NARROW, scheme=scheme)
    network = build_network(c).eval()
    images = torch.randn(2, c.channels, c.image_size, c.image_size)
    with torch.inference_mode():
        logits = network(images)[1]
        for index in range(c.exits):
            assert torch.equal(network.path(index)(images), logits[index])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_network_takes_another_ones_weights(backbone):
    c = config(backbone, width=NARROW)
    one, two = build_network(c).eval(), build_network(c).eval()
    names = list(one.state_dict())
    assert {name.split(".")[0] for name in names} == {"stages", "heads", "classifiers"}
    two.load_state_dict(one.state_dict())
    images = torch.randn(2, c.channels, c.image_size, c.image_size)
    with torch.inference_mode():
        assert torch.equal(one(images)[1], two(images)[1])


@pytest.mark.parametrize(
    ("backbone", "names"),
    [  # checkpoints and weights that exist already hold these
        ("cnn4", ("stages.3.0.weight", "heads.0.2.4.weight", "classifiers.3.bias")),
        ("vgg16", ("stages.0.0.0.weight", "stages.0.1.3.bias", "classifiers.1.4.weight")),
        ("resnet18", ("stages.0.0.weight", "stages.0.3.conv1.weight", "stages.3.0.bn2.bias")),
    ],
)
def test_names_of_weights_are_stable(backbone, names):
    assert set(names) <= set(build_network(config(backbone, width=NARROW)).state_dict())


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


@pytest.mark.parametrize("pretrained", [False, True])
def test_pretrained_stages_keep_their_weights(tmp_path, pretrained):
    path = tmp_path / "mine.py"
    trained = (
        "    for part in stages: nn.init.constant_(part.weight, 0.25), nn.init.ones_(part.bias)\n"
    )
    text = MINE.replace("    return", f"{trained}    return")
    path.write_text(text.replace("nn.Linear)", f"nn.Linear, pretrained={pretrained})"))
    torch.manual_seed(0)
    network = build_network(TrialConfig(dataset="digits", backbone=str(path), alpha=3.0))
    for stage in network.stages:
        assert stage.weight.eq(0.25).all() == stage.bias.eq(1).all() == pretrained
    mixes = [m for m in network.heads.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert mixes and all(
        m.weight.abs().max() > m.in_channels**-0.5 for m in mixes
    )  # PyTorch's most


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


def test_a_projection_is_the_strided_convolution_that_it_stands_for():
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 1, stride=2, bias=False).double()
    ours = Projection(5, 7, 1, stride=2, bias=False).double()
    ours.load_state_dict(plain.state_dict())
    for side in (1, 4, 7):
        images = torch.randn(2, 5, side, side, dtype=torch.float64, requires_grad=True)
        made = [layer(images) for layer in (plain, ours)]
        torch.testing.assert_close(*made)
        wanted = [
            torch.autograd.grad(out.square().sum(), (images, layer.weight))
            for out, layer in zip(made, (plain, ours), strict=True)
        ]
        torch.testing.assert_close(*wanted)


def test_a_narrow_resnet_trains_on_large_images():
    """In a process of its own: what it guards against is a crash."""
    code = (
        "import torch; from trainers.config import TrialConfig; from trainers.run import Run\n"
        "run = Run(TrialConfig(dataset='stanford_dogs', width=0.0625))\n"
        "for _ in range(2): run.forward(torch.rand(2, 3, 224, 224))[1].sum().backward()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OWN = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


class Nothing(nn.Module):
    def forward(self, x): pass


class Broken(nn.Module):
    def forward(self, x):
        return 1 / 0 if self.training else x  # a search would meet it in its first step


def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())


def build(width, image_size, image_channels):
    return Backbone((block(image_channels, 8), block(8, 16)), (8, 16), nn.Linear)
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("width, image_size, image_channels", "size", "fails: TypeError"),
        ("return Backbone", "return list", "fails: line 22: TypeError: list expected at most 1"),
        ("return Backbone((", "return ((", "needs to return a Backbone .*, got tuple"),
        ("(8, 16), nn", "(8, 24), nn", "stage 2 gives 16 channels, channels says 24$"),
        ("block(image_channels, 8)", "block(3, 8)", r"1 fails on 1x8x8 \(image_channels first\): "),
        ("block(8, 16)", "block(9, 16)", "stage 2 fails on 8x4x4: RuntimeError: .*9 channels"),
        ("b), nn.ReLU()", "b), Nothing()", "stage 1 gives nothing, channels says 8$"),
        ("b), nn.ReLU()", "b), Broken()", "stage 1 fails on 1x8x8 .*: line 14: ZeroDivisionError"),
        ("nn.Linear", "lambda a, b: Nothing()", "1x8x8 does not pass the exits: TypeError"),
        ("EXITS = 2", "EXITS = 3", "says EXITS = 3 but builds 2 stages"),
        ("nn.Linear", "lambda: 1", "its exits cannot be put to its stages: TypeError: .*lambda"),
        ("nn.Linear", "nn.Linear, head=lambda k: 1 / 0", "stages: line 22: ZeroDivisionError"),
        ("(8, 16), nn", "('a', 'b'), nn", "its exits cannot be put to its stages: "),
        ("block(8, 16))", "len)", "stages: TypeError: stages need to be modules"),
        ("nn.Conv2d(a, b,", "nn.LazyConv2d(b,", "lazy layers have no size yet: give their"),
        ("(block(image_channels, 8), block(8, 16))", "None", "channels, classifier. needs a tuple"),
    ],
)
def test_a_backbone_of_the_users_that_does_not_fit_is_refused(tmp_path, right, wrong, said):
    file = tmp_path / f"net_{abs(hash(wrong))}.py"
    file.write_text(OWN.replace(right, wrong))
    with pytest.raises(InputError, match=said) as caught:
        build_network(TrialConfig(backbone=str(file)))
    assert "\n" not in str(caught.value)


def test_heads_are_tried_though_the_same_file_passed_without_them(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(OWN.replace("nn.Linear)", "nn.Linear, head=lambda k: nn.Linear(3, 3))"))
    alone = OWN.replace("nn.Linear)", "nn.Linear, head=HEAD)").replace(
        "def block",
        "def HEAD(k):\n    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return pool if k else nn.Linear(3, 3)\n\n\ndef block",
    )
    file.write_text(alone)
    build_network(TrialConfig(backbone=str(file), scheme="baseline"))
    with pytest.raises(InputError, match="does not pass the exits"):
        build_network(TrialConfig(backbone=str(file)))
    file.write_text(alone.replace("if k else nn.Linear(3, 3)", ""))
    with pytest.raises(InputError, match="does not pass the exits"):  # 8 features of 16
        build_network(TrialConfig(backbone=str(file)))
    file.write_text(OWN)
    build_network(TrialConfig(backbone=str(file)))


def test_an_error_in_a_users_forward_is_told_with_its_line(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        OWN.replace(
            "def block",
            "class Scaled(nn.Module):\n    def forward(self, x):\n"
            "        return x * self.scale\n\n\ndef block",
        ).replace("nn.ReLU())", "Scaled())")
    )
    with pytest.raises(InputError) as caught:
        build_network(TrialConfig(backbone=str(file)))
    assert str(caught.value) == (
        f"backbone file {str(file)!r}: stage 1 fails on 1x8x8 (image_channels first): line 19: "
        "AttributeError: 'Scaled' object has no attribute 'scale'"
    )


def test_the_number_of_exits_is_read_without_running_the_file(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(OWN.replace("EXITS = 2", "EXITS: int = 2"))
    assert TrialConfig(backbone=str(file)).exits == 2
    for wrong in ("EXITS = len((8, 16))", "EXITS: int", "EXITS = 0", "EXITS = True", ""):
        file.write_text(OWN.replace("EXITS = 2", wrong))
        with pytest.raises(
            InputError, match="needs a line 'EXITS = 3' .* without running the file"
        ):
            TrialConfig(backbone=str(file))


def test_a_backbone_of_the_users_draws_no_other_weights_for_being_tried(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(OWN.replace("nn.ReLU())", "nn.ReLU(), nn.Dropout())"))
    torch.manual_seed(0)
    first = build_network(TrialConfig(backbone=str(file)))
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(
        build_network(TrialConfig(backbone=str(file))).state_dict()["stages.0.0.weight"],
        first.state_dict()["stages.0.0.weight"],
    )
    assert torch.equal(torch.rand(()), after) and first.training


def early_by_a_loop(logits, limits):
    """Each image's first exit whose largest softmax reaches its threshold, one at a time."""
    exits, images = logits.shape[:2]
    found = []
    for i in range(images):
        sure = (k for k in range(exits) if logits[k, i].softmax(-1).max().item() >= limits[k])
        found.append(next(sure, exits - 1))
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_leaves_at_the_first_exit_that_is_sure(backbone):
    """What comes after sees the images that are left alone; float64, so that batches agree."""
    torch.manual_seed(0)
    c = config(backbone, width=NARROW)
    network = build_network(c).double().eval()
    images = torch.randn(12, c.channels, c.image_size, c.image_size, dtype=torch.float64)
    rows = []
    for stage in network.stages:
        stage.register_forward_pre_hook(lambda _, given: rows.append(batch_of(given[0])))
    with torch.inference_mode():
        whole = network(images)[1]
        rows.clear()
        # between two confidences, so that a third of those that are left leave each time
        limits, left = [], list(range(len(images)))
        for k in range(c.exits):
            sure = sorted((whole[k, i].softmax(-1).max().item() for i in left), reverse=True)
            place = len(left) // 3
            limits.append(sum(sure[place - 1 : place + 1]) / 2 if place else float("inf"))
            left = [i for i in left if whole[k, i].softmax(-1).max().item() < limits[-1]]
        logits, exits = network.stop_early(images, limits)
    expected = early_by_a_loop(whole, limits)
    assert exits.tolist() == expected and len(set(expected)) >= 3
    assert_close(logits, whole[expected, range(len(images))])
    counts = [sum(e >= k for e in expected) for k in range(c.exits)]
    assert rows == counts, "images that each stage saw"


def batch_of(passed):
    return len(passed) if isinstance(passed, torch.Tensor) else batch_of(passed[0])


def test_all_images_may_leave_at_one_exit():
    network = build_network(TrialConfig()).eval()
    images = torch.randn(5, 1, 8, 8)
    never = float("inf")
    with torch.inference_mode():
        whole = network(images)[1]
        for k in range(4):
            limits = [never] * k + [0.0] + [never] * (3 - k)
            logits, exits = network.stop_early(images, limits)
            assert exits.tolist() == [k] * 5
            assert_close(logits, whole[k])
        assert network.stop_early(images, [never] * 4)[1].tolist() == [3] * 5, "whatever is left"
        logits, exits = network.stop_early(images[:0], [0.5] * 4)
        assert logits.shape == (0, 10) and exits.shape == (0,)


def test_a_network_is_exported_by_torch_as_any_other():
    """For whatever runs it elsewhere: it is a plain module, of one pass to all exits."""
    network = build_network(TrialConfig()).eval()
    images = torch.randn(3, 1, 8, 8)
    exported = torch.export.export(network, (images,)).module()
    with torch.inference_mode():
        for one, other in zip(exported(images), network(images), strict=True):
            assert_close(one, other)


class Pair(NamedTuple):
    x: torch.Tensor
    half: torch.Tensor


def test_what_stages_pass_on_keeps_its_kind():
    x, keep = torch.arange(6.0).view(3, 2), torch.tensor([True, False, True])
    left = _rows(Pair(x, x / 2), keep)
    assert type(left) is Pair and left.half.tolist() == [[0, 0.5], [2, 2.5]]
    assert type(_rows((x, [x]), keep)) is tuple and type(_rows([x], keep)) is list
    for odd in ({"x": x}, [x, torch.ones(1)], 3):
        with pytest.raises(InputError, match="images cannot leave early where a stage passes on"):
            _rows(odd, keep)
