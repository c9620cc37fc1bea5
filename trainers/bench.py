"""What is timed: interleaved rounds of several ways to do the same, and what they cost.

Machines are shared: times drift, ratios of interleaved rounds hold to 3 to 5 %. Rounds in which
other processes had more than a tenth of the machine are dropped and counted, while enough are left.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.losses import loss
from trainers.plain import PlainRun, plain_loss
from trainers.run import Run
from trainers.teachers import Teachers

FOREIGN = 0.1  # share of the machine in other hands from which a round is dropped
ENOUGH = 3  # rounds that are kept in any case

# The networks that a gain is named for: what a step is timed on.
NETS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits"},
    "digits128": {"dataset": "digits", "batch_size": 128},
    "vgg16x0.25": {"dataset": "cifar100", "width": 0.25},
    "vgg16": {"dataset": "cifar100"},
    "resnet18": {"dataset": "cifar100", "backbone": "resnet18"},
}
SHORT = ("digits", "vgg16x0.25")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        what: The thing that is done, e.g. a network's name.
        side: The way in which.
        value: How much of `unit`, median of the rounds.
        unit: E.g. "images/s".
        ratio, low, high: Better than the first side of the same thing by this factor: median,
            least and greatest of the rounds. None where nothing is compared.
        rounds, dropped: Rounds that count, and those that foreign load took.
        note: What else there is to say.
    """

    what: str
    side: str
    value: float
    unit: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    dropped: int = 0
    note: str = ""


class Foreign:
    """How much of the machine other processes had since this was made; None if unknown."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._busy, self._own = _busy(), _own()

    def share(self, beside: float = 0.0) -> float | None:
        """Of all cores, 0 to 1.

        Args:
            beside: CPU seconds of processes of ours that still run.
        """
        now = _busy()
        if now is None or self._busy is None:
            return None
        passed = (time.perf_counter() - self._begin) * (os.cpu_count() or 1)
        return max(0.0, (now - self._busy - beside - (_own() - self._own)) / max(passed, 1e-9))


def _busy() -> float | None:
    """Seconds that the cores of this machine have worked."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    return sum(os.times()[:4])


def kept(shares: Sequence[float | None]) -> list[int]:
    """The rounds that count: those without foreign load, or all if these are too few."""
    clean = [i for i, share in enumerate(shares) if share is None or share <= FOREIGN]
    return clean if len(clean) >= min(ENOUGH, len(shares)) else list(range(len(shares)))


def interleaved(
    what: str,
    sides: Mapping[str, Callable[[], object]],
    *,
    amount: float,
    unit: str = "images/s",
    rounds: int = 6,
    seconds: float = 0.2,
    clock: Callable[[], float] = time.thread_time,
) -> list[Row]:
    """Several ways to do the same, in turns.

    Args:
        what: Name of the thing.
        sides: What to call, by name; ratios are against the first.
        amount: What one call comes to, in `unit` times seconds.
        rounds: How often each has its turn, after a warm-up.
        seconds: Of each turn, at least one call.
        clock: Seconds; the CPU time of this thread, or e.g. `time.perf_counter`.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    calls = {}
    for name, call in sides.items():
        call()
        begin = clock()
        call()
        calls[name] = max(1, int(seconds / max(clock() - begin, 1e-6)))
    shares = []
    for _ in range(rounds):
        foreign = Foreign()
        for name, call in sides.items():
            begin = clock()
            for _ in range(calls[name]):
                call()
            times[name].append((clock() - begin) / calls[name])
        shares.append(foreign.share())
    good = kept(shares)
    return compared(
        what,
        {name: [amount / values[i] for i in good] for name, values in times.items()},
        unit,
        dropped=rounds - len(good),
    )


def compared(
    what: str, values: Mapping[str, Sequence[float]], unit: str, dropped: int = 0
) -> list[Row]:
    """Rows of values by side and round, the more the better, with ratios against the first side."""
    first = next(iter(values.values()))
    rows = []
    for side, found in values.items():
        ratios = [ours / theirs for ours, theirs in zip(found, first, strict=True)]
        rows.append(
            Row(
                what,
                side,
                statistics.median(found),
                unit,
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                len(found),
                dropped,
            )
        )
    return rows


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the ATen operations that compute: views, which only relabel memory, do not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not func.is_view and func.name() not in ("aten::_unsafe_view", "aten::detach"):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def loss_operations(config: TrialConfig, plain: bool = False) -> list[str]:
    """ATen operations of a config's loss, forward and backward, down to features and logits."""
    features, logits, labels, teachers = _given(config)
    with Operations() as seen:
        _loss(features, logits, labels, teachers, config, plain).backward()  # type: ignore[no-untyped-call]
    names: list[str] = seen.names
    return names


def _given(config: TrialConfig, width: int = 512) -> tuple[Tensor, Tensor, Tensor, Teachers]:
    generator = torch.Generator().manual_seed(0)
    shape = (config.exits, config.batch_size)
    features = torch.randn(*shape, width, generator=generator)
    logits = torch.randn(*shape, config.classes, generator=generator).requires_grad_()
    labels = torch.randint(config.classes, (config.batch_size,), generator=generator)
    return features, logits, labels, Teachers(config, width)


def _loss(
    features: Tensor,
    logits: Tensor,
    labels: Tensor,
    teachers: Teachers,
    config: TrialConfig,
    plain: bool,
) -> Tensor:
    if plain:
        return plain_loss(features, logits, labels, teachers, config)
    return loss(features, logits, labels, teachers, config).total


def step_table(nets: Sequence[str], *, rounds: int = 6, seconds: float = 0.2) -> list[Row]:
    """A training step of MATE in one thread: plain, each precision of ours; schemes in the best."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for net in nets:
            config = TrialConfig(**NETS[net])
            images = torch.rand(config.batch_size, config.channels, *[config.image_size] * 2)
            batch = images, torch.randint(config.classes, (config.batch_size,))
            amount = float(config.batch_size)
            sides = {"plain": PlainRun(config).step}
            for precision in ("fp32", "bf16"):
                run = Run(config.with_(precision=precision))
                run.network.train()
                sides[precision] = run.step
            calls = {name: _calling(step, batch) for name, step in sides.items()}
            found = interleaved(net, calls, amount=amount, rounds=rounds, seconds=seconds)
            rows += found
            best = max(found[1:], key=lambda row: row.value).side
            calls = {}
            for scheme in ("branchynet", "eed", "mate"):
                run = Run(config.with_(precision=best, scheme=scheme))
                run.network.train()
                calls[f"{scheme} {best}"] = _calling(run.step, batch)
            # A difference of some hundredths: many short turns, a few steps each.
            rows += interleaved(
                f"{net} schemes", calls, amount=amount, rounds=8 * rounds, seconds=seconds / 8
            )
    finally:
        torch.set_num_threads(before)
    return rows


def _calling(step: Callable[..., object], given: tuple[Any, ...]) -> Callable[[], object]:
    return lambda: step(*given)


def _loss_step(*given: Any) -> None:
    _loss(*given).backward()  # type: ignore[no-untyped-call]


def loss_table(*, rounds: int = 6, seconds: float = 0.1) -> list[Row]:
    """The loss alone, forward and backward, B 128, K 100, C 512: time and operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for scheme in ("branchynet", "eed", "dks", "mate"):
            config = TrialConfig(dataset="cifar100", scheme=scheme)
            given = _given(config)

            sides = {
                "plain": _calling(_loss_step, (*given, config, True)),
                "ours": _calling(_loss_step, (*given, config, False)),
            }
            rows += interleaved(scheme, sides, amount=1, unit="/s", rounds=rounds, seconds=seconds)
            for side in ("plain", "ours"):
                number = len(loss_operations(config, plain=side == "plain"))
                rows.append(Row(scheme, side, number, "ATen operations"))
    finally:
        torch.set_num_threads(before)
    return rows


def machine() -> dict[str, Any]:
    """What was timed on: versions, cores, vector units."""
    return {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def peak(precision: str, threads: int = 1, size: int = 1024) -> float:
    """FLOP/s of a square matrix product, the best of some rounds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size).to(dtype)
        best = float("inf")
        for _ in range(8):
            begin = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best


def step_flops(config: TrialConfig) -> float:
    """FLOPs of a training step per image: multiply and add are two, backward is twice forward."""
    return 6.0 * costs(config)[-1].flops_cascade
