"""Latency and memory of each exit, measured beside its FLOPs: the three rank exits differently.

for timing in profile(TrialConfig(dataset="cifar100", backbone="resnet18")):
    print(timing.exit, timing.flops, timing.seconds)
"""

import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.devices import settled_device
from trainers.exits import build_network

WARM_UP = 2  # untimed rounds: the first calls choose kernels and fill caches
ENOUGH = 5  # timed rounds from which quartiles are a spread


@dataclass(frozen=True)
class ExitTiming:
    """One exit run alone: the backbone up to it and its own head.

    Attributes:
        backbone: Name, or path of the user's file.
        image_size: Pixels a side.
        exit: 1 = shallowest.
        flops: Per image, Table 1's convention.
        seconds: Per image: a batch's time over its images, median of the rounds.
        low, high: First and third quartile of the rounds, seconds per image.
        rounds: How many.
        batch_size: Images at a time.
        activations: Bytes, the most that one batch holds at a time beside weights and images.
        weights: Bytes of the parameters and buffers on the way to this exit.
    """

    backbone: str
    image_size: int
    exit: int
    flops: int
    seconds: float
    low: float
    high: float
    rounds: int
    batch_size: int
    activations: int
    weights: int


@dataclass
class _Path:
    """An exit to be measured, and its times so far."""

    config: TrialConfig
    exit: int
    flops: int
    network: nn.Module
    images: Tensor
    times: list[float]


def profile(
    *configs: TrialConfig,
    batch_size: int = 1,
    repeats: int = 20,
    device: str = "cpu",
    threads: int | None = None,
) -> tuple[ExitTiming, ...]:
    """Runs every exit of every config's network alone, on random images, in evaluation mode.

    A round runs each exit of each network once, beginning at another one each time, so that a
    machine that slows down slows all of them alike and none always follows the same other.

    Memory is the allocator's peak on CUDA. On the CPU it is the largest sum of tensors alive at a
    time, followed operation by operation; what a kernel takes for itself while it runs is not seen.

    Args:
        configs: The network, its width, image size, classes and precision are read.
        batch_size: Images at a time.
        repeats: Timed rounds.
        device: "cpu" or "cuda".
        threads: CPU threads; as they are if None.

    Returns:
        A row an exit, in the given order.

    Raises:
        InputError: A number below 1, no such device, or a user's backbone that does not fit.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} needs to be at least 1, got {value}")
    device = settled_device(device)
    with _threads(threads), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        paths = [path for config in configs for path in _paths(config, batch_size, device)]
        for number in range(WARM_UP + repeats):
            first = number % max(len(paths), 1)
            for path in paths[first:] + paths[:first]:
                seconds = _timed(path)
                if number >= WARM_UP:
                    path.times.append(seconds / batch_size)
        return tuple(_timing(path, batch_size) for path in paths)


def _paths(config: TrialConfig, batch_size: int, device: str) -> Iterator[_Path]:
    network = build_network(config).eval()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = config.image_size
    images = torch.rand(batch_size, config.channels, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    for index, cost in enumerate(costs(config)):
        yield _Path(config, cost.exit, cost.flops, network.path(index), images, [])


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


def _run(path: _Path) -> None:
    mixed = path.config.precision == "bf16"
    with torch.autocast(path.images.device.type, dtype=torch.bfloat16, enabled=mixed):
        path.network(path.images)
    if path.images.device.type == "cuda":
        torch.cuda.synchronize()


def _timed(path: _Path) -> float:
    """Seconds of one batch. Nothing of an earlier one is left to wait for on the device."""
    begin = time.perf_counter()
    _run(path)
    return time.perf_counter() - begin


def _timing(path: _Path, batch_size: int) -> ExitTiming:
    low, median, high = (float(x) for x in np.quantile(path.times, (0.25, 0.5, 0.75)))
    held = [*path.network.parameters(), *path.network.buffers()]
    return ExitTiming(
        backbone=path.config.backbone,
        image_size=path.config.image_size,
        exit=path.exit,
        flops=path.flops,
        seconds=median,
        low=low,
        high=high,
        rounds=len(path.times),
        batch_size=batch_size,
        activations=_peak(path),
        weights=sum(tensor.nbytes for tensor in held),
    )


def _peak(path: _Path) -> int:
    """Bytes that a forward holds at most, beside the weights and the images."""
    if path.images.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _run(path)
        return torch.cuda.max_memory_allocated() - before
    alive = Alive((*path.network.parameters(), *path.network.buffers(), path.images))
    with alive:
        _run(path)
    return alive.peak


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of tensors that operations make, until the last view of it is gone.

    Attributes:
        peak: Bytes alive at a time, at most.

    Args:
        before: Tensors that do not count, such as weights: an operation may return a view of them.
    """

    def __init__(self, before: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._views: Counter[int] = Counter()  # tensors that share a storage, by its address
        self._before = {tensor.untyped_storage().data_ptr() for tensor in before}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not size or address in self._before:
            return
        if not self._views[address]:
            self._now += size
            self.peak = max(self.peak, self._now)
        self._views[address] += 1
        weakref.finalize(tensor, self._gone, address, size).atexit = False

    def _gone(self, address: int, size: int) -> None:
        self._views[address] -= 1
        if not self._views[address]:
            self._now -= size


def ranked_apart(timings: Sequence[ExitTiming]) -> list[tuple[ExitTiming, ExitTiming]]:
    """The pairs (one, two) of which one has fewer FLOPs and takes longer, beyond their spread.

    Beyond the spread: the middle halves of their times do not overlap. The largest ratio of times
    comes first. Fewer than `ENOUGH` rounds have no spread to go by: then there is no pair.
    """
    timings = [timing for timing in timings if timing.rounds >= ENOUGH]
    ordered = [sorted(pair, key=lambda t: t.flops) for pair in combinations(timings, 2)]
    apart = [(one, two) for one, two in ordered if one.flops < two.flops and one.low > two.high]
    return sorted(apart, key=lambda pair: -pair[0].seconds / pair[1].seconds)
