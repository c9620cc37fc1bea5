"""What training a scheme takes beside others: time and memory, in interleaved rounds.

Other load on the machine comes and goes, so every round measures each config once and only ratios
within a round are compared. Random images: what is measured is the step, not the reading.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import memory
from trainers.config import TrialConfig
from trainers.losses import loss
from trainers.run import Run


@dataclass(frozen=True)
class Footprint:
    """One round of one config.

    Attributes:
        seconds: Of one training step, a batch.
        peak: Bytes that building and training it took at most: on CUDA of its allocator, on Linux
            resident memory of this process; None elsewhere.
        saved: Bytes that one forward pass keeps for the backward pass, counted, without noise.
    """

    seconds: float
    peak: int | None
    saved: int


def footprints(
    configs: Mapping[str, TrialConfig],
    *,
    device: str = "cpu",
    rounds: int = 5,
    steps: int = 4,
    on_round: Callable[[int], None] = lambda number: None,
) -> dict[str, list[Footprint]]:
    """Time and memory of training each config.

    Args:
        configs: By name; measured in this order in every other round, backwards in the rest.
        device: "cpu" or "cuda".
        rounds: How often each is measured.
        steps: Training steps a round, after one that is not timed.
        on_round: Called with the number of rounds done.

    Returns:
        By name, a footprint a round.
    """
    found: dict[str, list[Footprint]] = {name: [] for name in configs}
    for config in configs.values():  # what a library takes once is nobody's
        _measured(config, device, 1)
    for number in range(rounds):
        for name in list(configs)[:: -1 if number % 2 else 1]:
            found[name].append(_measured(configs[name], device, steps))
        on_round(number + 1)
    return found


def _measured(config: TrialConfig, device: str, steps: int) -> Footprint:
    generator = torch.Generator().manual_seed(0)
    size = (config.batch_size, config.channels, config.image_size, config.image_size)
    images = torch.randn(size, generator=generator).to(device)
    labels = torch.randint(config.classes, size[:1], generator=generator).to(device)
    before = _start(device)
    run = Run(config, device)
    run.network.train()
    run.teachers.train()
    with _saved() as storages:
        value = _loss(run, images, labels)
    own = {t.untyped_storage().data_ptr() for t in (*run.network.parameters(), images)}
    saved = sum(size for place, size in storages.items() if place not in own)
    _back(run, value)
    begin = _clock(device)
    for _ in range(steps):
        _back(run, _loss(run, images, labels))
    seconds = (_clock(device) - begin) / steps
    return Footprint(seconds, _peak(device, before), saved)


def _loss(run: Run, images: Tensor, labels: Tensor) -> Tensor:
    features, logits = run.forward(images)
    return loss(features, logits, labels, run.teachers, run.config).total


def _back(run: Run, value: Tensor) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Storage -> bytes of every tensor that is kept for the backward pass, each storage once."""
    kept: dict[int, int] = {}
    held = []  # else a freed storage's place would be counted for another

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _start(device: str) -> int | None:
    """Bytes that are held before; the peak begins anew from here."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return memory.status("VmRSS") if memory.begin() else None


def _peak(device: str, before: int | None) -> int | None:
    if before is None:
        return None
    if device == "cuda":
        return torch.cuda.max_memory_allocated() - before
    peak = memory.status("VmHWM")
    return None if peak is None else max(0, peak - before)
