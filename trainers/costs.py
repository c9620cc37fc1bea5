"""What each exit costs, counted: FLOPs in Table 1's convention, MACs, parameters."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainers import catalog
from trainers.config import TrialConfig
from trainers.draws import Draws
from trainers.exits import build_network
from trainers.layers import counts_itself, function_flops, is_layer, layer_flops
from trainers.own import file_digest


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


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOPs and MACs of every call below a network's direct parts: of layers, and of
    functions that are called beside them.

    Attributes:
        totals: Name of the part -> [FLOPs, MACs].
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.totals: dict[str, list[int]] = {}
        self._parts: list[str] = []  # that run, the innermost last
        # Of each module that runs: in a layer, whose functions it stands for; counts its own.
        self._running: list[tuple[bool, bool]] = []

    def _add(self, flops: int, macs: int) -> None:
        total = self.totals.setdefault(self._parts[-1], [0, 0])
        total[0] += flops
        total[1] += macs

    def function(self, flops: int, macs: int = 0) -> None:
        """Counts a function, unless the module that calls it is counted for it."""
        if self._parts and not any(self._running[-1]):
            self._add(flops, macs)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        self.function(*function_flops(function, args, made))
        return made

    def begin(self, module: nn.Module, part: str | None) -> None:
        """A module is called; `part` is its name, if it is one."""
        self._parts += [] if part is None else [part]
        within = bool(self._running) and self._running[-1][0]
        self._running.append((within or is_layer(module), counts_itself(module)))

    def end(self, module: nn.Module, part: str | None, given: Tensor, made: Tensor) -> None:
        """It has returned."""
        self._add(*layer_flops(module, given, made))
        self._running.pop()
        if part is not None:
            self._parts.pop()


class _PoolsToOne(TorchFunctionMode):
    """What pools to one pixel, which PyTorch dispatches as a mean."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function is functional.adaptive_avg_pool2d and made.shape[-2:] == (1, 1):
            self.counter.function(args[0].numel())
        return made


@contextmanager
def _counted(root: nn.Module, functions: bool) -> Iterator[dict[str, list[int]]]:
    """Counts FLOPs and MACs of every call below `root`'s direct parts, by the part's name.

    Args:
        root: The network.
        functions: Whether those count that are called beside layers: ours call none that would, and
            looking at them brings PyTorch's compiler in, a second of a start.
    """
    counter, handles = _Counter(), []
    # stages.0, heads.2, classifiers.1
    parts = {module: name for name, module in root.named_modules() if name.count(".") == 1}
    for module in {module: None for part in parts for module in part.modules()}:  # each once

        def before(module: nn.Module, args: Any) -> None:
            counter.begin(module, parts.get(module))

        def after(module: nn.Module, args: Any, made: Tensor) -> None:
            counter.end(module, parts.get(module), next(iter(args), made), made)

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))
    try:
        with ExitStack() as stack:
            if functions:
                stack.enter_context(counter)
                stack.enter_context(_PoolsToOne(counter))
            yield counter.totals
    finally:
        for handle in handles:
            handle.remove()


def costs(config: TrialConfig) -> tuple[ExitCost, ...]:
    """What each exit of a config's network costs, counted without its weights (no memory, no time).

    Convention: the one that gives all 20 cells of the paper's Table 1. Convolution:
    multiply-accumulates without bias; Linear: weights + bias; ReLU and its like: one an element;
    pooling: the elements it reads; norms, residual additions, softmax: nothing.

    Raises:
        InputError: A user's backbone whose parts do not fit together, or cannot be counted.
    """
    # Only what the network is made of: searches ask for one network under thousands of settings.
    return _costs(
        TrialConfig(
            dataset=config.dataset,
            classes=config.classes,
            image_size=config.image_size,
            backbone=config.backbone,
            width=config.width,
            scheme="baseline" if config.scheme == "baseline" else "branchynet",
        ),
        file_digest(config.backbone),
    )


def _only_shapes(network: nn.Module) -> None:
    """Layers that were made on the meta device, so that they pass on a shape; others are moved.

    Running on the meta device would bring PyTorch's compiler in, a second of every start.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = _same  # type: ignore[method-assign, assignment]
        elif isinstance(module, nn.Linear):
            module.forward = partial(_widened, module)  # type: ignore[method-assign]
        elif isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
            module.forward = partial(_convolved, module)  # type: ignore[method-assign]
        else:
            module.to_empty(device="cpu", recurse=False)


def _same(given: Tensor) -> Tensor:
    return given


def _widened(layer: nn.Linear, given: Tensor) -> Tensor:
    return given.new_zeros(*given.shape[:-1], layer.out_features)


def _convolved(layer: nn.Conv2d, given: Tensor) -> Tensor:
    assert isinstance(layer.padding, tuple)
    sides = [
        (side + 2 * layer.padding[i] - layer.dilation[i] * (layer.kernel_size[i] - 1) - 1)
        // layer.stride[i]
        + 1
        for i, side in enumerate(given.shape[2:])
    ]
    return given.new_zeros(len(given), layer.out_channels, *sides)


@lru_cache(maxsize=64)
def _costs(config: TrialConfig, _digest: str | None) -> tuple[ExitCost, ...]:
    own = catalog.is_path(config.backbone)
    if own:
        # What it does in its own layers and functions needs all there is.
        with Draws(0).taken():
            network = build_network(config).eval()
    else:
        with torch.device("meta"):
            network = build_network(config).eval()
        _only_shapes(network)
    with _counted(network, functions=own) as totals, torch.no_grad():
        network(torch.zeros(1, config.channels, config.image_size, config.image_size))

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
                parameters=sum(p.numel() for p in network.path(index).parameters()),
            )
        )
    return tuple(points)
