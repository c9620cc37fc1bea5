"""What a backbone is made of: its record, the width multiplier, and the layers that all share."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Backbone:
    """The parts that an exit is attached to.

    Attributes:
        stages: M modules, run one after another; an exit taps each one's output
            (B, channels[k], H_k, W_k). The stem belongs to the first. With heads of its own, a
            backbone may pass whatever its stages and heads agree on, e.g. a list of scales.
        channels: Channels after each stage, of what its head reads.
        classifier: (C, K) -> the module from F (B, C) to logits (B, K); one is made per exit.
        head: k (from 0) -> the module from stage k's output to F (B, C). None: one SepConv per
            remaining stage, then pooling.
        features: C, the width of every exit's F. None: the channels after the last stage.
        pretrained: Whether the stages keep the weights that they come with.
    """

    stages: tuple[nn.Module, ...]
    channels: tuple[int, ...]
    classifier: Callable[[int, int], nn.Module]
    head: Callable[[int], nn.Module] | None = None
    features: int | None = None
    pretrained: bool = False


Build = Callable[[float, int, int], Backbone]  # width, image size, image channels


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, a multiple of 8 (for vector units), at least 8."""
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def every_other(images: Tensor, rows: int, columns: int) -> Tensor:
    """The rows and columns that a 1x1 convolution with a stride reads.

    The gradient lies in memory channels last, as the images do: sliced otherwise it would not, and
    the sums and activations of the residual stream before it would take three times as long.

    Args:
        images: (B, C, H, W). rows, columns: The stride.

    Returns:
        (B, C, ceil(H / rows), ceil(W / columns)).
    """
    return images.permute(0, 2, 3, 1)[:, ::rows, ::columns].permute(0, 3, 1, 2)


def conv_bn_relu(
    cin: int, cout: int, stride: int = 1, bias: bool = False, kernel: int = 3
) -> list[nn.Module]:
    """A convolution that keeps the size but for its stride, batch norm, ReLU."""
    return [
        nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=bias),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    ]


def stem(image_channels: int, cout: int, image_size: int) -> list[nn.Module]:
    """The first layers of a network made for ImageNet.

    Up to 64 pixels a 3x3 stride-1 convolution and no pooling, beyond the original 7x7 stride-2
    convolution and 3x3 stride-2 max-pool (Table 1's networks at 32x32 and 224x224).
    """
    if image_size <= 64:
        return conv_bn_relu(image_channels, cout)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return [*conv_bn_relu(image_channels, cout, stride=2, kernel=7), pool]
