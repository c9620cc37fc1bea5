"""Rows of a timing: interleaved rounds of several ways to do the same, foreign load left out.

Machines are shared: times drift, ratios of interleaved rounds hold to 3 to 5 %. Rounds in which
other processes had more than a tenth of the machine are dropped and counted, while enough are left.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOREIGN = 0.1  # share of the machine in other hands from which a round is dropped
ENOUGH = 3  # rounds that are kept in any case


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
