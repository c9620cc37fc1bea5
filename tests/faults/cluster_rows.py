"""Rows of the table: workers of a real Ray are killed and frozen, nodes of it are lost."""

import contextlib
import os
import random
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from studies import faults
from studies.record import StudyRecord
from studies.trial import Event
from tests.faults.counting import (
    Described,
    Row,
    compared,
    count_told,
    plan,
    told_in,
    trained,
    untouched,
)
from tests.faults.nodes import Nodes

TRIALS, EPOCHS = 8, 12
FROZEN_FOR = 6.0  # seconds without a report; in a search a minute at least

Harm = Callable[[Event, dict[int, int]], None]


@contextlib.contextmanager
def a_ray() -> Iterator[None]:
    """One on this machine; workers of killed ones have room beside those that come after."""
    from studies import cluster  # noqa: F401  # sets Ray's environment first

    os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = "3"
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def worker_of() -> Iterator[dict[int, int]]:
    """The process that reported a trial last, by the trial's number."""
    from studies.dispatch import Dispatch

    take, found = Dispatch.take, {}

    def seen(self: Any, ray_id: str, result: dict[str, Any]) -> bool:
        if ray_id in self.tickets:
            found[self.tickets[ray_id].number] = int(result["pid"])
        return take(self, ray_id, result)

    Dispatch.take = seen  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Dispatch.take = take  # type: ignore[method-assign]


def searched(whole: Described, harm: Harm, address: str | None = None) -> Row:
    """A search on Ray with two workers, while harm is done."""
    from studies import cluster

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = StudyRecord.create_or_open(plan(home, TRIALS, EPOCHS, workers=2), runs=home)
        with closing(made) as record, worker_of() as pids:
            database = home / "s" / "study.db"
            count_told(database)
            assert cluster.search(record, lambda event: harm(event, pids), address=address) is None
            return compared(record, whole, told_in(database), trained(home))


class Strikes:
    """Signals to workers, a moment after one of their trials' epochs: each trial is hit once.

    A worker may have taken up another trial by then, which is hit then, so at most twice.
    """

    def __init__(self, most: int, rng: random.Random, strike: Callable[[int], None]) -> None:
        self.most, self.rng, self.strike = most, rng, strike
        self.hit: Counter[int] = Counter()
        self.at = {number: rng.randint(1, EPOCHS - 1) for number in range(TRIALS)}
        self.timers: list[threading.Timer] = []
        self.done = 0

    def __call__(self, event: Event, pids: dict[int, int]) -> None:
        number = event.number
        if event.report is None or self.hit[number] or len(self.timers) == self.most:
            return
        if event.report.epoch >= self.at[number]:
            self.hit[number] += 1
            delay = self.rng.uniform(0, 2 * event.report.seconds)
            self.timers.append(threading.Timer(delay, self._hit, (pids[number],)))
            self.timers[-1].start()

    def _hit(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.strike(pid)
            self.done += 1

    def over(self) -> int:
        """How often it hit, once all have."""
        for timer in self.timers:
            timer.join()
        return self.done


def killed(times: int, rng: random.Random) -> Iterator[Row]:
    """SIGKILL, as a person or the kernel out of memory sends it."""
    whole, done = untouched(TRIALS, EPOCHS), 0
    with a_ray():
        while done < times:
            strikes = Strikes(times - done, rng, lambda pid: os.kill(pid, signal.SIGKILL))
            row = searched(whole, strikes)
            row.tried = strikes.over()
            done += row.tried
            yield row


def frozen(times: int, rng: random.Random) -> Iterator[Row]:
    """SIGSTOP; half of them thaw once another worker has their trial, and come too late."""
    whole, done, stopped = untouched(TRIALS, EPOCHS), 0, []
    before = faults.HUNG_AT_LEAST
    faults.HUNG_AT_LEAST = FROZEN_FOR

    def freeze(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        if len(stopped) % 2:
            threading.Timer(FROZEN_FOR + 1.5, thaw, (pid,)).start()
        stopped.append(pid)

    def thaw(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    try:
        with a_ray():
            while done < times:
                strikes = Strikes(min(4, times - done), rng, freeze)
                row = searched(whole, strikes)
                row.tried = strikes.over()
                done += row.tried
                yield row
    finally:
        faults.HUNG_AT_LEAST = before
        for pid in stopped:
            thaw(pid)


def nodes_lost(times: int, rng: random.Random) -> Iterator[Row]:
    """Of two nodes one is killed while both train, and another one joins."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own"
        own.mkdir()
        with Nodes(2, own) as nodes:
            yield from nodes_lost_of(nodes, times, rng)


def nodes_lost_of(nodes: Nodes, times: int, rng: random.Random) -> Iterator[Row]:
    """The same of nodes that are there; two in a study, so that no trial loses more."""
    whole, done = untouched(TRIALS, EPOCHS), 0
    while done < times:
        most = min(2, times - done)
        at = sorted(rng.sample(range(5, TRIALS * EPOCHS // 2), most))  # epochs of all trials
        seen = lost = cut = 0

        def lose(event: Event, pids: dict[int, int], at: list[int] = at) -> None:
            nonlocal cut, lost, seen
            seen += event.kind == "epoch"
            cut += event.kind == "given back"
            if lost < len(at) and seen >= at[lost]:
                nodes.lose(rng.randrange(2))
                nodes.add()
                lost += 1

        row = searched(whole, lose, nodes.address)
        assert cut, "something ran there"
        row.tried = lost
        done += lost
        yield row
