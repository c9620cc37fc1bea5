"""The residual networks, of torchvision's own blocks; taps after each of the four layers."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from trainers.stages import Backbone, every_other, scaled, stem

PLANES = (64, 128, 256, 512)


@dataclass(frozen=True)
class Family:
    """What tells one residual network from another.

    Attributes:
        blocks: In each layer.
        bottleneck: Blocks of 1x1, 3x3, 1x1 with 4 times the planes out, not of two 3x3.
        base_width: Inner channels of a bottleneck, per 64 planes and per group.
        groups: Of the 3x3 convolution of a bottleneck.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    base_width: int = 64
    groups: int = 1


class Projection(nn.Conv2d):
    """A 1x1 convolution with a stride, as one without a stride of every other pixel.

    The same values and gradients. PyTorch's CPU backward of the strided form corrupts memory on few
    channels and large maps (8 to 16 channels at 56x56, channels_last, torch 2.14: a crash).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, ceil(H / stride), ceil(W / stride))."""
        rows, columns = self.stride
        return functional.conv2d(every_other(input, rows, columns), self.weight, self.bias)


def resnet(family: Family, width: float, image_size: int, image_channels: int) -> Backbone:
    """A residual network.

    The width multiplies the planes. Of grouped convolutions it multiplies the number of groups,
    each as wide as it was (ResNeXt's 32x4d becomes 8x4d at 0.25), so that a narrow network does not
    end with groups of less than one channel.
    """
    # Imported here: torchvision takes a second, which no other backbone needs to pay.
    from torchvision.models.resnet import BasicBlock, Bottleneck

    block = Bottleneck if family.bottleneck else BasicBlock
    planes = tuple(scaled(c, width) for c in PLANES)
    groups, base_width = 1, float(family.base_width)
    if family.groups > 1:
        groups = planes[0] * family.groups // PLANES[0]
        # The block rounds planes * base_width / 64 down: a hair more, for the sake of the floats.
        base_width = base_width * PLANES[0] / planes[0] + 1e-6
    stages, cin = [], planes[0]
    for k, (count, cout) in enumerate(zip(family.blocks, planes, strict=True)):
        layer = stem(image_channels, planes[0], image_size) if k == 0 else []
        for index in range(count):
            stride = 2 if k > 0 and index == 0 else 1
            made, shortcut = cout * block.expansion, None
            if stride != 1 or cin != made:
                shortcut = nn.Sequential(
                    Projection(cin, made, 1, stride=stride, bias=False), nn.BatchNorm2d(made)
                )
            layer.append(block(cin, cout, stride, shortcut, groups, base_width))
            cin = made
        stages.append(nn.Sequential(*layer))
    return Backbone(tuple(stages), tuple(c * block.expansion for c in planes), nn.Linear)


def resnet18(width: float, image_size: int, image_channels: int) -> Backbone:
    """ResNet18 (He et al. 2016)."""
    family = Family((2, 2, 2, 2), bottleneck=False)
    return resnet(family, width, image_size, image_channels)


def resnet50(width: float, image_size: int, image_channels: int) -> Backbone:
    """ResNet50 (He et al. 2016)."""
    return resnet(Family((3, 4, 6, 3)), width, image_size, image_channels)


def resnext50(width: float, image_size: int, image_channels: int) -> Backbone:
    """ResNeXt50 32x4d (Xie et al. 2017)."""
    family = Family((3, 4, 6, 3), base_width=4, groups=32)
    return resnet(family, width, image_size, image_channels)


def wrn_50_2(width: float, image_size: int, image_channels: int) -> Backbone:
    """WRN-50-2 (Zagoruyko & Komodakis 2016): ResNet50 with inner channels twice as wide."""
    return resnet(Family((3, 4, 6, 3), base_width=128), width, image_size, image_channels)


def wrn_14_4(width: float, image_size: int, image_channels: int) -> Backbone:
    """WRN-14-4: one bottleneck a layer, inner channels four times as wide.

    The paper names it and prints no figure of it: this reading (14 = 4 blocks of 3 + 2) is ours.
    """
    return resnet(Family((1, 1, 1, 1), base_width=256), width, image_size, image_channels)
