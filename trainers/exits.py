"""The multi-exit network: a head and a classifier at the end of each stage."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trainers import catalog, own
from trainers.backbones import backbone_named
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.layers import OWN, uncounted
from trainers.stages import Backbone


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
    """M stages with an exit after each: head and classifier.

    A head is the backbone's own, or one SepConv per remaining stage and pooling, so that the last
    exit is the backbone's own pooling and classifier. With `only_last` the earlier exits are left
    out (the one-exit baseline).
    """

    def __init__(self, backbone: Backbone, classes: int, only_last: bool = False) -> None:
        super().__init__()
        channels = backbone.channels
        last = len(channels) - 1
        self.features = backbone.features or channels[-1]
        self.stages = nn.ModuleList(backbone.stages)
        self.taps = [last] if only_last else list(range(last + 1))
        self.heads = nn.ModuleList(
            backbone.head(k) if backbone.head else _sepconv_head(channels[k:]) for k in self.taps
        )
        self.classifiers = nn.ModuleList(
            backbone.classifier(self.features, classes) for _ in self.taps
        )
        begun = (self.heads, self.classifiers) if backbone.pretrained else (self,)
        for part in begun:
            part.apply(_initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of all exits.

        Args:
            images: (B, channels, H, W), normalised.

        Returns:
            features F (M, B, C) and logits z (M, B, K), shallow first.
        """
        features = []
        x: Any = images  # what stages pass on is theirs: a tensor, or a list of scales
        exit_index = 0
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in self.taps:
                features.append(self.heads[exit_index](x))
                exit_index += 1
        return self._read(features)

    def _read(self, features: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
        """Features of all exits (M, B, C), and what their classifiers say of them (M, B, K)."""
        pairs = zip(self.classifiers, features, strict=True)
        logits = torch.stack([classifier(feature) for classifier, feature in pairs])
        stacked = features if isinstance(features, Tensor) else torch.stack(list(features))
        return stacked, logits

    def stop_early(self, images: Tensor, limits: Sequence[float]) -> tuple[Tensor, Tensor]:
        """What each image's first exit says that is sure enough, and which exit that is.

        An exit is sure if the largest value of its softmax is at least its threshold (Huang et al.
        2018); the last one answers whatever is left. Later stages run on what is left alone.

        Args:
            images: (B, channels, H, W), normalised.
            limits: M thresholds, e.g. a row of `trainers.dynamic.thresholds`.

        Returns:
            logits (B, K), and (B,) int64, 0 = shallowest.
        """
        left = torch.arange(len(images), device=images.device)  # who has not answered yet
        exits, logits = torch.empty_like(left), torch.empty(0)
        x: Any = images
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k not in self.taps:
                continue
            index = self.taps.index(k)
            said = self.classifiers[index](self.heads[index](x))
            sure = said.softmax(dim=-1).amax(dim=-1).double() >= limits[index]
            if index == len(self.taps) - 1:
                sure = torch.ones_like(sure)
            if index == 0:
                logits = said.new_empty(len(images), said.shape[-1])
            logits[left[sure]], exits[left[sure]] = said[sure], index
            left = left[~sure]
            if not len(left):
                break
            x = _rows(x, ~sure)
        return logits, exits

    def path(self, index: int) -> nn.Sequential:
        """One exit alone: the stages up to it, its head and its classifier; the weights are shared.

        Args:
            index: 0 = shallowest.

        Returns:
            (B, channels, H, W) -> logits (B, K).
        """
        stages = list(self.stages)[: self.taps[index] + 1]
        return nn.Sequential(*stages, self.heads[index], self.classifiers[index])


def _rows(x: Any, keep: Tensor) -> Any:
    """Some images of what a stage passes on, a tensor or a list of them. keep: (B,) bool."""
    if isinstance(x, Tensor) and x.shape[:1] == keep.shape:
        return x[keep]
    if isinstance(x, list | tuple):
        parts = [_rows(part, keep) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    raise InputError(
        "images cannot leave early where a stage passes on what is no tensor of a row an image, "
        f"and no list of them, got {type(x).__name__}"
    )


def _sepconv_head(channels: tuple[int, ...]) -> nn.Module:
    """A SepConv from each stage's channels to the next one's, then pooling: F (B, C)."""
    return nn.Sequential(
        *(SepConv(cin, cout) for cin, cout in pairwise(channels)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _initialise(module: nn.Module) -> None:
    """Convolutions Kaiming normal (fan-out, ReLU); batch norm 1/0; Linear as PyTorch has it."""
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # only counted, not run
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_network(config: TrialConfig) -> MultiExitNet:
    """The network of a config, with fresh weights from torch's global random state.

    Raises:
        InputError: A user's backbone that cannot be built or counted, or whose parts do not fit
            together.
    """
    build = backbone_named(config.backbone)
    try:
        backbone = build(config.width, config.image_size, config.channels)
    except InputError:
        raise
    except Exception as error:  # whatever the user's file raises is the user's to read
        if not catalog.is_path(config.backbone):
            raise
        raise InputError(
            f"backbone file {config.backbone!r}: its build(width, image_size, image_channels) "
            f"fails: {own.told(error, config.backbone)}"
        ) from error
    if not isinstance(backbone, Backbone):
        raise InputError(
            f"backbone file {config.backbone!r}: build needs to return a Backbone (from "
            f"trainers.backbones), got {type(backbone).__name__}"
        )
    stages, built = own.exits_of(config.backbone), [backbone.stages, backbone.channels]
    if not all(isinstance(given, tuple | list | nn.ModuleList) for given in built):
        raise InputError(
            f"backbone file {config.backbone!r}: Backbone(stages, channels, classifier) needs a "
            "tuple of modules and one of whole numbers"
        )
    if not len(backbone.stages) == len(backbone.channels) == stages:
        raise InputError(
            f"backbone {config.backbone!r} says EXITS = {stages} but builds "
            f"{len(backbone.stages)} stages with {len(backbone.channels)} channel counts"
        )
    network = _assembled(backbone, config)
    if catalog.is_path(config.backbone):
        if (layer := uncounted(network)) is not None:
            raise InputError(
                f"backbone file {config.backbone!r}: the FLOPs of {layer}, which has parameters of "
                "its own, cannot be counted: expected layers of torch.nn (convolutions, Linear, "
                f"norms, activations); give its class a method {OWN}(given, made) for it"
            )
        _passes(network, backbone, config)
    return network


def _assembled(backbone: Backbone, config: TrialConfig) -> MultiExitNet:
    """The exits put to the stages, by the user's own classifier and heads where there are any."""
    try:
        if not all(isinstance(stage, nn.Module) for stage in backbone.stages):
            raise TypeError("stages need to be modules")
        weights = (weight for stage in backbone.stages for weight in stage.parameters())
        if any(isinstance(weight, nn.UninitializedParameter) for weight in weights):
            raise TypeError("lazy layers have no size yet: give their channels")
        network = MultiExitNet(backbone, config.classes, only_last=config.scheme == "baseline")
    except Exception as error:  # whatever the user's file raises is the user's to read
        if not catalog.is_path(config.backbone):
            raise
        raise InputError(
            f"backbone file {config.backbone!r}: its exits cannot be put to its stages: "
            f"{own.told(error, config.backbone)}"
        ) from error
    return network


_PASSED: set[tuple[object, ...]] = set()  # once a process is enough


def _passes(network: MultiExitNet, backbone: Backbone, config: TrialConfig) -> None:
    """Sends black images through a user's backbone. Raises InputError where they do not pass."""
    size = config.channels, config.image_size, config.image_size
    only_last, digest = config.scheme == "baseline", own.file_digest(config.backbone)
    key = (config.backbone, digest, config.width, config.classes, size, only_last)
    if key in _PASSED:
        return
    mode, state = network.training, {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (False, True):
            network.train(training)
            _try_stages(network, backbone, config, torch.zeros(2, *size))
    network.load_state_dict(state)  # batch norm has seen them
    network.train(mode)
    _PASSED.add(key)


def _try_stages(
    network: MultiExitNet, backbone: Backbone, config: TrialConfig, images: Tensor
) -> None:
    """One stage after another, then the exits, so that the error says which it is."""
    file, x = f"backbone file {config.backbone!r}", images  # x: theirs, mostly a tensor
    for number, stage in enumerate(network.stages, start=1):
        given = "x".join(map(str, x.shape[1:])) if isinstance(x, Tensor) else "what comes before it"
        try:
            x = stage(x)
        except Exception as error:  # whatever the user's file raises is the user's to read
            first = " (image_channels first)" if number == 1 else ""
            said = own.told(error, config.backbone)
            raise InputError(f"{file}: stage {number} fails on {given}{first}: {said}") from error
        said_channels = backbone.channels[number - 1]
        if x is None or (isinstance(x, Tensor) and x.dim() == 4 and x.shape[1] != said_channels):
            gives = "nothing" if x is None else f"{x.shape[1]} channels"
            raise InputError(f"{file}: stage {number} gives {gives}, channels says {said_channels}")
    try:
        network(images)
    except Exception as error:
        said = own.told(error, config.backbone)
        shape = "x".join(map(str, images.shape[1:]))
        raise InputError(f"{file}: an image of {shape} does not pass the exits: {said}") from error
