"""Backbones: name -> stages, the channels after each, and the classifier of an exit.

A user's own backbone is a Python file of the same form:

    from trainers.backbones import Backbone

    EXITS = 4

    def build(width: float, image_size: int, image_channels: int) -> Backbone:
        return Backbone(stages=(...), channels=(...), classifier=lambda c, k: nn.Linear(c, k))
"""

from torch import nn

from trainers import own
from trainers.catalog import InputError
from trainers.densenet import densenet121
from trainers.msdnet import msdnet
from trainers.resnets import resnet18, resnet50, resnext50, wrn_14_4, wrn_50_2
from trainers.stages import Backbone, Build, conv_bn_relu, scaled

__all__ = ["BACKBONES", "Backbone", "Build", "backbone_named"]


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


BACKBONES: dict[str, Build] = {
    "cnn4": cnn4,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnext50": resnext50,
    "wrn_14_4": wrn_14_4,
    "wrn_50_2": wrn_50_2,
    "densenet121": densenet121,
    "msdnet": msdnet,
}


def backbone_named(name: str) -> Build:
    """The function that builds a backbone, by name or from a user's Python file (which is run).

    Raises:
        InputError: Unknown name, or a file that cannot be run or has no `build`.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    own.exits_of(name)  # refuses an unknown name, a missing file, a file without EXITS
    build = getattr(own.run_file("backbone", name), "build", None)
    if not callable(build):
        raise InputError(
            f"backbone file {name!r} needs a function build(width, image_size, image_channels)"
        )
    return build  # type: ignore[no-any-return]
