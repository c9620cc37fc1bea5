"""A search against a table of learning curves, in virtual time: policies compared in seconds.

Nothing is trained. Workers take trials of a study in memory, through the same record, rungs and
samplers as any search, and each epoch takes the seconds that it took when the table was recorded.
What a sampler proposes becomes the nearest config of the table (`studies.snapping`).

Repetition r takes the sampler's seed r and one column of the table, r modulo the number of seeds,
for all its runs. What a config is truly worth is its mean over the other columns, which the search
never sees; the regret is what the best config is truly worth minus what the chosen one is.
"""

from __future__ import annotations

import heapq
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage

from studies.curve_tables import CurveTable
from studies.plan import SAMPLERS, StudyPlan, settled_grace
from studies.record import StudyRecord, Ticket
from studies.snapping import Snapping
from studies.verdict import ranked
from trainers.catalog import DATASETS, InputError, unknown

STUDY = "replay"


@dataclass(frozen=True)
class Policy:
    """How to search: what of a plan is not the table's.

    Attributes:
        sampler: See `studies.plan.SAMPLERS`.
        early_stopping: Whether rungs stop trials.
        eta: A rung keeps 1 in eta.
        grace: Epochs before the first rung; the default of a search if None.
        rungs: The epochs after which trials are judged, instead of grace times powers of eta.
        tolerance: How far below a rung's threshold a trial is not stopped, a fraction.
        objective, budgets: See `StudyPlan`.
    """

    sampler: str = "tpe"
    early_stopping: bool = True
    eta: int = 2
    grace: int | None = None
    rungs: tuple[int, ...] | None = None
    tolerance: float = 0.0
    objective: str = "anytime"
    budgets: tuple[float, ...] | None = None

    def plan(self, table: CurveTable, trials: int, seed: int) -> StudyPlan:
        """The plan of one search. Raises InputError: whatever does not fit."""
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if not 1 <= trials <= table.configs:
            raise InputError(
                f"trials needs to be from 1 to the {table.configs} configs of the table, "
                f"got {trials}"
            )
        return StudyPlan(
            study=STUDY,
            space=table.space,
            base=table.base,
            trials=trials,
            sampler=self.sampler,
            objective=self.objective,
            budgets=self.budgets,
            seed=seed,
            early_stopping=self.early_stopping,
            eta=self.eta,
            grace=settled_grace(self.grace, self.rungs, table.epochs),
            rungs=self.rungs,
            tolerance=self.tolerance,
        )


@dataclass(frozen=True)
class Replayed:
    """One search that was replayed.

    Attributes:
        chosen: The config that it recommends, its place in the table.
        said: The objective that the search saw of it, a fraction.
        true: What it is truly worth.
        regret: What the table's best config is truly worth, minus that.
        epochs: Trained, of all trials.
        seconds: Virtual, from the first trial's beginning to the last one's end.
        busy: Share of the workers' time in which they trained.
        stopped: Trials that a rung stopped.
    """

    chosen: int
    said: float
    true: float
    regret: float
    epochs: int
    seconds: float
    busy: float
    stopped: int

    @property
    def optimism(self) -> float:
        """What the search said minus what is true."""
        return self.said - self.true


def default_trials(table: CurveTable) -> int:
    """A search's default number of trials, at most half of the table's configs."""
    entry = DATASETS.get(table.base.dataset)
    return max(1, min(entry.trials if entry else 30, table.configs // 2))


class Replays:
    """Many searches of one table, shared among processes that are started once.

    Args:
        table: With more than one seed, else what is true is what the search itself sees.
        processes: Of this machine. More than one needs to be made under
            `if __name__ == "__main__"`, as all of `multiprocessing` does.
    """

    def __init__(self, table: CurveTable, processes: int = 1) -> None:
        self.table, self.processes = table, processes
        self._searcher = Searcher(table)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Replays:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def check(self, policy: Policy, trials: int, workers: int, repetitions: int, seed: int) -> None:
        """Refuses what `run` would, before any process starts. Raises InputError."""
        for name, value in (("workers", workers), ("repetitions", repetitions)):
            if value < 1:
                raise InputError(f"{name} needs to be at least 1, got {value}")
        policy.plan(self.table, trials, seed)
        self.table.values(policy.objective, policy.budgets)

    def run(
        self,
        policy: Policy,
        *,
        trials: int,
        workers: int = 1,
        repetitions: int = 100,
        seed: int = 0,
    ) -> list[Replayed]:
        """Searches the table many times, each with another sampler seed and its next column.

        Args:
            policy: How to search.
            trials: Of each search.
            workers: That train at a time, each one trial.
            repetitions: How many searches.
            seed: Of the first search's sampler.

        Raises:
            InputError: Whatever does not fit, in one line.
        """
        self.check(policy, trials, workers, repetitions, seed)
        job = partial(_some, policy, trials, workers, seed)
        processes = min(self.processes, repetitions)
        if processes <= 1:
            return job(range(repetitions), searcher=self._searcher)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, _begin, (self.table,))
        parts = [range(first, repetitions, processes) for first in range(processes)]
        found: dict[int, Replayed] = {}
        for part, done in zip(parts, self._pool.map(job, parts), strict=True):
            found |= dict(zip(part, done, strict=True))
        return [found[repetition] for repetition in range(repetitions)]


_here: Searcher | None = None  # of a process of the pool


def _begin(table: CurveTable) -> None:
    global _here
    _here = Searcher(table)


def _some(
    policy: Policy,
    trials: int,
    workers: int,
    seed: int,
    repetitions: Sequence[int],
    searcher: Searcher | None = None,
) -> list[Replayed]:
    searcher = searcher or _here
    assert searcher is not None
    table = searcher.table
    values = table.values(policy.objective, policy.budgets)
    made = []
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # as `storage.connect` has it
    with tempfile.TemporaryDirectory() as folder:
        for repetition in repetitions:
            plan = policy.plan(table, trials, seed + repetition)
            column = repetition % table.seeds
            run = searcher.search(plan, column, workers, Path(folder))
            made.append(_judged(run, values, column))
    return made


@dataclass
class _Run:
    """One search, before it is judged."""

    chosen: int
    said: float
    epochs: int
    seconds: float
    trained: float
    workers: int
    stopped: int


def _judged(run: _Run, values: NDArray[np.float64], column: int) -> Replayed:
    true = true_values(values, [column])
    return Replayed(
        chosen=run.chosen,
        said=run.said,
        true=float(true[run.chosen]),
        regret=float(true.max() - true[run.chosen]),
        epochs=run.epochs,
        seconds=run.seconds,
        busy=run.trained / (run.seconds * run.workers) if run.seconds else 1.0,
        stopped=run.stopped,
    )


def true_values(values: NDArray[np.float64], seen: Sequence[int]) -> NDArray[np.float64]:
    """(C,), the mean over all seeds but the seen ones; over all where none is left.

    Args:
        values: (C, S), after the last epoch.
        seen: Columns that were used to choose.
    """
    others = [column for column in range(values.shape[1]) if column not in seen]
    return np.asarray(values[:, others or slice(None)].mean(axis=1))


class _Record(StudyRecord):
    """A study that trains nothing, so its trials need no folder each."""

    def checkpoint(self, number: int) -> Path:
        """One path for all; nothing is ever written there."""
        return self.folder / "checkpoint.pt"


class Searcher:
    """Searches of one table, which share what is worked out once.

    Args:
        table: To search.
    """

    def __init__(self, table: CurveTable) -> None:
        self.table = table
        self.snapping = Snapping(table)

    def search(self, plan: StudyPlan, column: int, workers: int, folder: Path) -> _Run:
        """One search in virtual time.

        Args:
            plan: What to search, over the table's space and base.
            column: Of the table: the seed of all runs.
            workers: That train at a time.
            folder: Where nothing is written.
        """
        rows: dict[int, int] = {}  # trial -> config
        space = self.snapping.space(STUDY, rows)
        record = _Record.create_or_open(plan, InMemoryStorage(), folder, space=space)
        queue: list[tuple[float, int, int, Ticket]] = []  # (when, order, epoch, ticket)
        order, epochs, trained, now = 0, 0, 0.0, 0.0

        def begin(ticket: Ticket, epoch: int) -> None:
            nonlocal order, trained
            seconds = float(self.table.seconds[rows[ticket.number], column])
            heapq.heappush(queue, (now + seconds, order, epoch, ticket))
            order, trained = order + 1, trained + seconds

        for _ in range(min(workers, plan.trials)):
            if (ticket := record.ask()) is not None:
                begin(ticket, 1)
        while queue:
            now, _, epoch, ticket = heapq.heappop(queue)
            epochs += 1
            report = self.table.reports(rows[ticket.number], column)[epoch - 1]
            if record.report(ticket, report):
                begin(ticket, epoch + 1)
            elif (following := record.ask()) is not None:
                begin(following, 1)
        outcomes = record.outcomes()
        record.release()
        if bad := [outcome for outcome in outcomes if outcome.state == "FAIL"]:
            raise InputError(f"table {self.table.name} cannot be replayed: {bad[0].reason}")
        best = next(iter(ranked(outcomes)), None)
        if best is None or best.value is None:
            raise InputError(
                f"table {self.table.name}: no trial of a search ran its full length, so there is "
                "nothing to compare; give more trials"
            )
        stopped = sum(o.state == "PRUNED" and not o.diverged for o in outcomes)
        return _Run(rows[best.number], best.value, epochs, now, trained, workers, stopped)
