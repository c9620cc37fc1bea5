"""DenseNet121 (Huang et al. 2017), of torchvision's own blocks."""

from torch import nn

from trainers.stages import Backbone, scaled, stem

BLOCKS, GROWTH, BOTTLENECK = (6, 12, 24, 16), 32, 4


def densenet121(width: float, image_size: int, image_channels: int) -> Backbone:
    """DenseNet121; taps after each dense block, heads 256-512-1024-1024.

    The paper does not say where it taps. After the dense blocks the heads end at the backbone's own
    1024 channels and 4x4 pixels, as its text asks; after the transitions they would not.
    The width multiplies the growth and the stem.
    """
    # Imported here: torchvision takes a second, which no other backbone needs to pay.
    from torchvision.models.densenet import _DenseBlock, _Transition

    growth = scaled(GROWTH, width)
    channels = scaled(2 * GROWTH, width)
    stages, taps = [], []
    for k, layers in enumerate(BLOCKS):
        if k == 0:
            stage = stem(image_channels, channels, image_size)
        else:
            stage = [_Transition(channels, channels // 2)]
            channels //= 2
        stage.append(_DenseBlock(layers, channels, BOTTLENECK, growth, 0.0))
        channels += layers * growth
        if k == len(BLOCKS) - 1:
            stage += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        stages.append(nn.Sequential(*stage))
        taps.append(channels)
    return Backbone(tuple(stages), tuple(taps), nn.Linear)
