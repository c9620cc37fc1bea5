"""The multi-exit network: a head and a classifier at the end of each stage, and what each costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from trainers import catalog
from trainers.backbones import Backbone, backbone_named
from trainers.catalog import InputError
from trainers.config import TrialConfig


class SepConv(nn.Sequential):
    """Two depthwise-separable 3x3 convolutions, the first of stride 2 (BYOT's bottleneck).

    (B, cin, H, W) -> (B, cout, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.Conv2d(cin, cin, 3, stride=2, padding=1, groups=cin, bias=False),
            nn.Conv2d(cin, cin, 1, bias=False),
            nn.BatchNorm2d(cin),
            nn.ReLU(inplace=True),
            nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )


class MultiExitNet(nn.Module):
    """M stages with an exit after each: one SepConv per remaining stage, pooling, classifier.

    The last exit is the backbone's own pooling and classifier. With `only_last` the earlier exits
    are left out (the one-exit baseline).
    """

    def __init__(self, backbone: Backbone, classes: int, only_last: bool = False) -> None:
        super().__init__()
        channels = backbone.channels
        last = len(channels) - 1
        self.stages = nn.ModuleList(backbone.stages)
        self.taps = [last] if only_last else list(range(last + 1))
        self.heads = nn.ModuleList(
            nn.Sequential(
                *(SepConv(channels[j], channels[j + 1]) for j in range(k, last)),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            for k in self.taps
        )
        self.classifiers = nn.ModuleList(
            backbone.classifier(channels[-1], classes) for _ in self.taps
        )
        self.features = channels[-1]
        self.apply(_initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of all exits.

        Args:
            images: (B, channels, H, W), normalised.

        Returns:
            features F (M, B, C) and logits z (M, B, K), shallow first.
        """
        features, logits = [], []
        x = images
        exit_index = 0
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in self.taps:
                feature = self.heads[exit_index](x)
                features.append(feature)
                logits.append(self.classifiers[exit_index](feature))
                exit_index += 1
        return torch.stack(features), torch.stack(logits)


def _initialise(module: nn.Module) -> None:
    """Convolutions Kaiming normal (fan-out, ReLU); batch norm 1/0; Linear as PyTorch has it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_network(config: TrialConfig) -> MultiExitNet:
    """The network of a config, with fresh weights from torch's global random state.

    Raises:
        InputError: A user's backbone whose parts do not fit together.
    """
    backbone = backbone_named(config.backbone)(config.width, config.image_size, config.channels)
    stages = catalog.exits_of(config.backbone)
    if not len(backbone.stages) == len(backbone.channels) == stages:
        raise InputError(
            f"backbone {config.backbone!r} says EXITS = {stages} but builds "
            f"{len(backbone.stages)} stages with {len(backbone.channels)} channel counts"
        )
    return MultiExitNet(backbone, config.classes, only_last=config.scheme == "baseline")


@dataclass(frozen=True)
class ExitCost:
    """What running one image to an exit costs.

    Attributes:
        exit: 1 = shallowest.
        flops: Table 1's convention: backbone to here and this head only.
        flops_cascade: Earlier heads too, as dynamic inference pays.
        macs: Multiply-accumulates of convolutions and linear layers alone, this head only.
        parameters: Of the backbone to here and this head.
    """

    exit: int
    flops: int
    flops_cascade: int
    macs: int
    parameters: int


def _layer_flops(module: nn.Module, given: Tensor, made: Tensor) -> tuple[int, int]:
    """(FLOPs in Table 1's convention, MACs) of one call for one image."""
    per_image = made[0].numel()
    if isinstance(module, nn.Conv2d):
        kernel = module.kernel_size[0] * module.kernel_size[1]
        macs = per_image * kernel * module.in_channels // module.groups
        return macs, macs
    if isinstance(module, nn.Linear):
        macs = module.in_features * per_image
        return macs + (per_image if module.bias is not None else 0), macs
    if isinstance(module, nn.ReLU):
        return per_image, 0
    if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
        side = module.kernel_size
        kernel = side * side if isinstance(side, int) else side[0] * side[1]
        return per_image * kernel, 0
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return given[0].numel(), 0
    return 0, 0


@contextmanager
def _counted(root: nn.Module) -> Iterator[dict[str, list[int]]]:
    """Counts FLOPs and MACs of every call below `root`'s direct parts, by the part's name."""
    totals: dict[str, list[int]] = {}
    handles = []
    for part_name, part in root.named_modules():
        if part_name.count(".") != 1:  # stages.0, heads.2, classifiers.1
            continue

        def hook(
            module: nn.Module, args: tuple[Tensor, ...], made: Tensor, name: str = part_name
        ) -> None:
            flops, macs = _layer_flops(module, args[0], made)
            total = totals.setdefault(name, [0, 0])
            total[0] += flops
            total[1] += macs

        handles += [m.register_forward_hook(hook) for m in part.modules() if not list(m.children())]
    try:
        yield totals
    finally:
        for handle in handles:
            handle.remove()


def costs(config: TrialConfig) -> tuple[ExitCost, ...]:
    """What each exit of a config's network costs, counted on the meta device (no memory, no time).

    Convention: reproduction of Table 1's cells. Convolution: multiply-accumulates without bias;
    Linear: weights + bias; ReLU: one an element; pooling: the elements it reads; batch norm,
    residual additions, softmax: nothing.
    """
    one_exit = config.scheme == "baseline"
    return _costs(
        config.backbone, config.width, config.image_size, config.channels, config.classes, one_exit
    )


@lru_cache(maxsize=64)
def _costs(
    name: str, width: float, size: int, channels: int, classes: int, one_exit: bool
) -> tuple[ExitCost, ...]:
    with torch.device("meta"):
        backbone = backbone_named(name)(width, size, channels)
        network = MultiExitNet(backbone, classes, only_last=one_exit).eval()
        with _counted(network) as totals, torch.no_grad():
            network(torch.empty(1, channels, size, size))

    def parameters(*parts: nn.Module) -> int:
        return sum(p.numel() for part in parts for p in part.parameters())

    def total(index: int, *names: str) -> int:
        return sum(totals.get(name, [0, 0])[index] for name in names)

    points, heads_so_far = [], 0
    for index, tap in enumerate(network.taps):
        head = (f"heads.{index}", f"classifiers.{index}")
        trunk = tuple(f"stages.{k}" for k in range(tap + 1))
        heads_so_far += total(0, *head)
        points.append(
            ExitCost(
                exit=index + 1,
                flops=total(0, *trunk, *head),
                flops_cascade=total(0, *trunk) + heads_so_far,
                macs=total(1, *trunk, *head),
                parameters=parameters(
                    *list(network.stages)[: tap + 1],
                    network.heads[index],
                    network.classifiers[index],
                ),
            )
        )
    return tuple(points)
