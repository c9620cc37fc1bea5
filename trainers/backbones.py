"""Backbones: name -> stages, the channels after each, and the classifier of an exit.

A user's own backbone is a Python file of the same form:

    EXITS = 4

    def build(width: float, image_size: int, image_channels: int) -> Backbone:
        return Backbone(stages=(...), channels=(...), classifier=lambda c, k: nn.Linear(c, k))
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from trainers import catalog
from trainers.catalog import InputError

Build = Callable[[float, int, int], "Backbone"]


@dataclass(frozen=True)
class Backbone:
    """The parts that an exit is attached to.

    Attributes:
        stages: M modules, run one after another; an exit taps each one's output
            (B, channels[k], H_k, W_k). The stem belongs to the first.
        channels: Channels after each stage; the last is C, the width of every exit's feature F.
        classifier: (C, K) -> the module from F (B, C) to logits (B, K); one is made per exit.
    """

    stages: tuple[nn.Module, ...]
    channels: tuple[int, ...]
    classifier: Callable[[int, int], nn.Module]


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, a multiple of 8 (for vector units), at least 8."""
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def conv_bn_relu(cin: int, cout: int, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """A 3x3 convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=bias),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    ]


def cnn4(width: float, image_size: int, image_channels: int) -> Backbone:
    """Four plain convolutions for 8x8 images; each but the first halves the resolution."""
    channels = tuple(scaled(c, width) for c in (16, 32, 48, 64))
    cins = (image_channels, *channels[:-1])
    stages = tuple(
        nn.Sequential(*conv_bn_relu(cin, cout, stride=1 if k == 0 else 2))
        for k, (cin, cout) in enumerate(zip(cins, channels, strict=True))
    )
    return Backbone(stages, channels, nn.Linear)


def vgg16(width: float, image_size: int, image_channels: int) -> Backbone:
    """VGG16 with batch norm; taps after the max-pools of stages 2 to 5 (Table 1's VGG16)."""
    plan = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    cin, blocks, channels = image_channels, [], []
    for cout, convolutions in plan:
        cout, layers = scaled(cout, width), []
        for _ in range(convolutions):
            layers += conv_bn_relu(cin, cout, bias=True)
            cin = cout
        blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        channels.append(cout)
    stages = (nn.Sequential(blocks[0], blocks[1]), *blocks[2:])

    def classifier(features: int, classes: int) -> nn.Module:
        # Dropout(0) of the original is left out: it computes and counts nothing.
        hidden = scaled(512, width)
        return nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, classes),
        )

    return Backbone(stages, tuple(channels[1:]), classifier)


def resnet18(width: float, image_size: int, image_channels: int) -> Backbone:
    """torchvision's ResNet18 with the 3x3 stride-1 stem and no max-pool; taps after each layer."""
    # Imported here: torchvision takes a second, which no other backbone needs to pay.
    from torchvision.models.resnet import BasicBlock

    planes = tuple(scaled(c, width) for c in (64, 128, 256, 512))
    stages = []
    cin = planes[0]
    for k, cout in enumerate(planes):
        stride = 1 if k == 0 else 2
        shortcut = None
        if stride != 1 or cin != cout:
            shortcut = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout)
            )
        layer: list[nn.Module] = [
            BasicBlock(cin, cout, stride, shortcut),
            BasicBlock(cout, cout),
        ]
        if k == 0:
            layer = [*conv_bn_relu(image_channels, planes[0]), *layer]
        stages.append(nn.Sequential(*layer))
        cin = cout
    return Backbone(tuple(stages), planes, nn.Linear)


BACKBONES: dict[str, Build] = {"cnn4": cnn4, "vgg16": vgg16, "resnet18": resnet18}


def backbone_named(name: str) -> Build:
    """The function that builds a backbone, by name or from a user's Python file (which is run).

    Raises:
        InputError: Unknown name, or a file that cannot be run or has no `build`.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    catalog.exits_of(name)  # refuses an unknown name, a missing file, a file without EXITS
    build = getattr(catalog.run_file("backbone", name), "build", None)
    if not callable(build):
        raise InputError(
            f"backbone file {name!r} needs a function build(width, image_size, image_channels)"
        )
    return build  # type: ignore[no-any-return]
