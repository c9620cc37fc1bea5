"""MSDNet (Huang et al. 2018) as in the paper's budget mode (Section 4.7.6): 5 exits, 15 layers.

Features at three resolutions, coarse ones made beside the fine ones from the first layer on, so
that an early exit has coarse features too. nBlocks 5, base 1, step 1, lin_grow, bottleneck, prune
max, reduction 0.5: the setting of MSDNet's own code whose FLOPs Table 7 lies on.

Layer l works on the scales that are still needed: 3 up to layer 5, 2 up to 10, 1 up to 15. A stage
takes and gives a list of tensors, fine first; the finest is dropped by the layer whose output has
one less, and a 1x1 convolution halves the channels there.
"""

import torch
from torch import Tensor, nn

from trainers.stages import Backbone, conv_bn_relu, scaled

LAYERS = (1, 2, 3, 4, 5)  # of each stage
SCALES = 3
FACTORS = (1, 2, 4)  # channels of each scale, and inner channels of its bottlenecks
CHANNELS, GROWTH, REDUCTION, HEAD = 16, 6, 0.5, 128


def _scales(layer: int) -> int:
    """Scales that a layer gives, counted from 0: 3, 2, 1 over thirds of the network."""
    return SCALES - layer // -(-sum(LAYERS) // SCALES)


def _bottleneck(cin: int, cout: int, factor: int, stride: int) -> nn.Sequential:
    inner = min(cin, factor * cout)
    return nn.Sequential(*conv_bn_relu(cin, inner, kernel=1), *conv_bn_relu(inner, cout, stride))


class _First(nn.Module):
    """An image as a list of scales, each made of the finer one."""

    def __init__(self, cin: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for scale, factor in enumerate(FACTORS):
            stride = 1 if scale == 0 else 2
            self.layers.append(nn.Sequential(*conv_bn_relu(cin, channels * factor, stride)))
            cin = channels * factor

    def forward(self, image: Tensor) -> list[Tensor]:
        scales = []
        for layer in self.layers:
            image = layer(image)
            scales.append(image)
        return scales


class _Layer(nn.Module):
    """New features at each scale: half from the scale itself, half from the finer one.

    The finest scale of all has only itself. Where a scale is dropped, it still feeds the next.
    """

    def __init__(self, channels: int, growth: int, given: int, made: int) -> None:
        super().__init__()
        self.dropped = given - made
        self.same, self.finer = nn.ModuleList(), nn.ModuleList()
        for scale in range(SCALES - made, SCALES):
            factor, alone = FACTORS[scale], scale == SCALES - given
            new = growth * factor if alone else growth * factor // 2
            self.same.append(_bottleneck(channels * factor, new, factor, 1))
            if not alone:
                factor = FACTORS[scale - 1]
                self.finer.append(_bottleneck(channels * factor, new, factor, 2))

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        kept = scales[self.dropped :]
        finer = scales[: len(self.finer)]
        alone = len(kept) - len(finer)
        made = []
        for i, (x, same) in enumerate(zip(kept, self.same, strict=True)):
            parts = [x] if i < alone else [x, self.finer[i - alone](finer[i - alone])]
            made.append(torch.cat([*parts, same(x)], dim=1))
        return made


class _Transition(nn.Module):
    """Fewer channels at each scale, by a 1x1 convolution."""

    def __init__(self, cin: int, cout: int, scales: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(cin * factor, cout * factor, kernel=1))
            for factor in FACTORS[SCALES - scales :]
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, scales, strict=True)]


class _Head(nn.Sequential):
    """F of an exit from the coarsest scale: two 3x3 convolutions of stride 2, then pooling."""

    def __init__(self, cin: int, features: int) -> None:
        super().__init__(
            *conv_bn_relu(cin, features, stride=2),
            *conv_bn_relu(features, features, stride=2),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )

    def forward(self, scales: list[Tensor]) -> Tensor:
        features: Tensor = super().forward(scales[-1])  # type: ignore[no-untyped-call]
        return features


def msdnet(width: float, image_size: int, image_channels: int) -> Backbone:
    """MSDNet for 32x32 images; F^k is the vector before its linear classifier.

    The width multiplies the initial channels and the growth, to even numbers, since half of the
    growth comes from the finer scale; of the heads, to multiples of 8.
    """
    channels, growth = (max(2, 2 * round(c * width / 2)) for c in (CHANNELS, GROWTH))
    features = scaled(HEAD, width)
    stages, taps, given, index = [], [], SCALES, 0
    for k, layers in enumerate(LAYERS):
        stage: list[nn.Module] = [_First(image_channels, channels)] if k == 0 else []
        for _ in range(layers):
            made = _scales(index)
            stage.append(_Layer(channels, growth, given, made))
            channels += growth
            if made < given:
                fewer = int(REDUCTION * channels)
                stage.append(_Transition(channels, fewer, made))
                channels = fewer
            given, index = made, index + 1
        stages.append(nn.Sequential(*stage))
        taps.append(channels * FACTORS[-1])
    return Backbone(
        stages=tuple(stages),
        channels=tuple(taps),
        classifier=nn.Linear,
        head=lambda k: _Head(taps[k], features),
        features=features,
    )
