"""What a plan settles for where it runs: how fast that is, workers, threads, device."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.devices import check_threads, settled_device
from trainers.sources import epoch_images

# Seconds of serial training from which starting Ray (2 to 4 s, and a process a core) pays.
RAY_PAYS_FROM = 120.0
TOGETHER = 4  # trials that share a GPU: 1.5 to 2.3 times the images a second of one (LOG.md)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Machine:
    """Where trials run: this machine, or the nodes of a Ray cluster (`studies.joining.Nodes`).

    Attributes:
        spread: Whether every trial has a process of its own that costs nothing more to start.
    """

    spread = False

    @property
    def cores(self) -> int:
        """CPU cores, of all nodes."""
        return cores()

    @property
    def gpus(self) -> int | None:
        """GPUs, of all nodes; None for those that this process sees."""
        return None

    @property
    def alone(self) -> int:
        """CPU cores that a trial can have which runs by itself."""
        return cores()

    def beside_gpu(self, share: float, workers: int) -> int:
        """CPU cores for each of several trials, each with a share of a GPU."""
        return max(1, cores() // workers)

    def ask(self, question: Callable[..., Any], *given: Any, device: str = "cpu") -> Any:
        """What a function of a module says where trials run, on one of the nodes.

        Args:
            question: Called with what is given.
            *given: Its arguments.
            device: What it needs to see.
        """
        return question(*given)


HERE = Machine()


@dataclass(frozen=True)
class Speed:
    """What one trial reaches on this machine, measured.

    Attributes:
        images_per_second: Training images, on random data.
        threads: CPU threads with which it was reached.
    """

    images_per_second: float
    threads: int


def measure(config: TrialConfig, device: str, threads: tuple[int, ...]) -> Speed:
    """The fastest of some thread counts, by a fraction of a second of training each."""
    from trainers.speed import throughput

    speeds = throughput(config, device, threads)
    return max(map(Speed, speeds, threads), key=lambda speed: speed.images_per_second)


def best_threads(config: TrialConfig, device: str, most: int) -> int:
    """One thread or as many as there are, whichever is faster."""
    most = min(most, cores())
    return measure(config, device, (1, most)).threads if most > 1 else 1


def measure_precisions(config: TrialConfig) -> dict[str, float]:
    """Images per second in each precision, of one CPU thread; 0 where bf16 is wrong here."""
    from trainers.speed import precisions

    return precisions(config)


def bf16_in_hardware() -> bool:
    """Whether the GPU computes in bf16, which then is what it is fastest in."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def settled(
    base: TrialConfig,
    trials: int,
    data_root: str | Path | None,
    workers: int | None,
    threads: int | None,
    gpus_per_trial: float | None,
    device: str | None,
    one_thread: float | None = None,
    where: Machine = HERE,
) -> dict[str, Any]:
    """workers, threads, gpus_per_trial and device of a plan: what is None is chosen for where its
    trials run.

    Args:
        one_thread: Images per second of a CPU thread, where that was measured already.
        where: They run.

    Raises:
        InputError: No such device, or one that is not there; a share of a GPU on a CPU.
    """
    device = settled_device(device, where.gpus)
    check_threads(threads)
    if device == "cpu" and gpus_per_trial:
        raise InputError(
            f"gpus_per_trial {gpus_per_trial:g} goes with --device cuda, the device is cpu: leave "
            "it out"
        )
    if device == "cuda":
        gpus = where.gpus
        if gpus is None:
            import torch

            gpus = torch.cuda.device_count()
        if gpus_per_trial is None:
            # In processes of their own trials take turns on a GPU: then one has it for itself.
            shared = workers or (min(TOGETHER, trials) if gpus == 1 and not where.spread else gpus)
            gpus_per_trial = min(1.0, gpus / shared)
        workers = workers or (max(1, int(gpus / gpus_per_trial)) if gpus_per_trial else 1)
        threads = threads or where.beside_gpu(gpus_per_trial, workers)
    elif workers is None and where.spread:
        workers = max(1, min(trials, where.cores // (threads or 1)))
    elif workers is None:
        if one_thread is None or threads not in (None, 1):
            one_thread = measure(base, device, (threads or 1,)).images_per_second
        images, _ = epoch_images(base, data_root)
        serial = trials * base.epochs * images / one_thread
        workers = cores() if serial > RAY_PAYS_FROM else 1
    if threads is None:
        threads = where.ask(best_threads, base, device, where.alone) if workers == 1 else 1
    return {
        "workers": workers,
        "threads": threads,
        "gpus_per_trial": gpus_per_trial or 0.0,
        "device": device,
    }
