"""What a confirmation's trials came to, as arrays and numbers: a pure function of what is stored.

Accuracies are in % here, differences in points; of the
hypervolume both are plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from studies import front
from studies.comparison import UnlinkedError
from studies.confirmed import Judgement, judge
from studies.finalists import simplicity
from studies.plan import Finalist, StudyPlan
from studies.resampling import Points, points
from studies.states import ENDED, Outcome
from trainers.hits import unpacked
from trainers.reports import EpochReport

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Confirmation:
    """A search's best on fresh seeds and hold-outs. C rows, S rounds, M exits.

    Attributes:
        plan: Of the confirmation.
        kept: (C,) places of the rows among the plan's finalists: all but those whose runs all
            broke, which nothing can be said of once the race is over.
        values: (C, S) objective, NaN where there is no run (yet).
        exits: (C, S, M) accuracy on the hold-outs, likewise.
        flops: (C, M) per image.
        hits: (row, round) -> which held-out images that run had right, as `trainers.hits` packs
            them; none at all where a run was made before they were kept.
        ended: Trials that have ended, those of configs that left included.
        failed: Runs that broke.
        test_values, test_exits: As `values` and `exits`, on the test split; of finalists alone.
        readings: After how many seeds the test split was read, each time that it was.
        judged: The numbers, once the race is over and any two rows can be compared.
        outdated: Whether the search has gone on since, and its best are others now.
    """

    plan: StudyPlan
    kept: tuple[int, ...]
    values: Values
    exits: Values
    flops: Values
    hits: Mapping[tuple[int, int], str]
    ended: int
    failed: int
    test_values: Values
    test_exits: Values
    readings: tuple[int, ...]
    judged: Judgement | None
    outdated: bool = False

    @property
    def rows(self) -> tuple[Finalist, ...]:
        """The default, then the candidates."""
        every = self.plan.finalists or ()
        return tuple(every[row] for row in self.kept)

    @property
    def lost(self) -> tuple[Finalist, ...]:
        """Those whose runs all broke."""
        every = self.plan.finalists or ()
        return tuple(row for place, row in enumerate(every) if place not in self.kept)

    @property
    def over(self) -> bool:
        """Whether no run is left."""
        return self.ended >= self.plan.trials

    @property
    def runs(self) -> int:
        """Runs with a value."""
        return int((~np.isnan(self.values)).sum())

    @property
    def rounds(self) -> list[int]:
        """(C,) rounds that each row has run."""
        return [int(count) for count in (~np.isnan(self.values)).sum(axis=1)]

    @cached_property
    def points(self) -> Points:
        """The exits of each row: means, intervals, and how probably they are on the front."""
        found = {key: unpacked(text) for key, text in self.hits.items()}
        known = {key: hits for key, hits in found.items() if hits is not None}
        return points(self.exits, self.flops, known if len(known) == len(found) else None)

    @cached_property
    def test_points(self) -> Points:
        """The exits of the finalists on the test split, whose images are the same for all seeds."""
        rows = list(self.judged.finalists) if self.judged is not None else []
        return points(self.test_exits[rows], self.flops[rows])

    @cached_property
    def tested(self) -> Judgement | None:
        """The finalists on the test split; its rows are places in `judged.finalists`."""
        if self.judged is None:
            return None
        rows = list(self.judged.finalists)
        values = self.test_values[rows]
        if np.isnan(values).all(axis=1).any() or len(rows) < 2:
            return None
        return _judged(values)


def _judged(
    values: Values, said: Sequence[float] | None = None, simple: Sequence[int] | None = None
) -> Judgement | None:
    """The verdict; None where runs broke so that rows are left which share no seed."""
    try:
        return judge(values, said, simple)
    except UnlinkedError:
        return None


def confirmed(
    plan: StudyPlan,
    outcomes: Sequence[Outcome],
    tests: Mapping[int, EpochReport],
    readings: tuple[int, ...] = (),
) -> Confirmation:
    """From the trials of a confirmation, and what its finalists reached on the test split.

    A run that diverged counts as guessing; one that broke is not there.

    Args:
        plan, outcomes: Of the confirmation.
        tests: Trial -> its network on the test split.
        readings: After how many seeds that was read.
    """
    assert plan.finalists is not None and plan.race is not None
    rows, rounds = len(plan.finalists), len(plan.race)
    m = min(row.config.exits for row in plan.finalists)  # the exits that all of them have
    factor = 1.0 if plan.objective == "hypervolume" else 100.0
    values, exits = np.full((rows, rounds), math.nan), np.full((rows, rounds, m), math.nan)
    test_values, test_exits = values.copy(), exits.copy()
    flops, diverged = np.full((rows, m), math.nan), np.zeros((rows, rounds), dtype=bool)
    hits: dict[tuple[int, int], str] = {}
    ended = failed = 0
    for outcome in outcomes:
        if outcome.number >= plan.trials:
            continue
        this, row = divmod(outcome.number, rows)
        ended += outcome.state in ENDED
        failed += outcome.state == "FAIL"
        if outcome.state == "COMPLETE" and outcome.report and outcome.value is not None:
            values[row, this] = factor * outcome.value
            exits[row, this] = 100 * np.array(outcome.report.accuracies[:m])
            hits[row, this] = outcome.report.hits
            flops[row] = [point.flops for point in outcome.report.exits[:m]]
            report = tests.get(outcome.number)
            if report is not None and report.exits:
                value = front.objective(
                    plan.objective, report.exits, plan.budgets, plan.box, report.budget
                )
                test_values[row, this] = factor * value
                test_exits[row, this] = 100 * np.array(report.accuracies[:m])
        elif outcome.diverged and outcome.value is not None:
            values[row, this], diverged[row, this] = factor * outcome.value, True
            exits[row, this] = 100 / plan.base.classes
    # A diverged network guesses on the test images too, where those of its row were read.
    guesses = diverged & ~np.isnan(test_values).all(axis=1, keepdims=True)
    test_values[guesses], test_exits[guesses] = values[guesses], exits[guesses]
    flops = np.where(np.isnan(flops), np.nanmax(flops, axis=0, initial=0.0), flops)
    over, ran = ended >= plan.trials, ~np.isnan(values).all(axis=1)
    kept = [row for row in range(rows) if ran[row] or not over or row == 0]
    judged = None
    if over and ran[0] and len(kept) > 1:
        chosen = [plan.finalists[row] for row in kept]
        said = [math.nan if row.said is None else factor * row.said for row in chosen]
        judged = _judged(values[kept], said, simplicity(chosen))
    if not all(hits.values()):
        hits = {}
    return Confirmation(
        plan=plan,
        kept=tuple(kept),
        values=values[kept],
        exits=exits[kept],
        flops=flops[kept],
        hits={(kept.index(row), this): text for (row, this), text in hits.items()},
        ended=ended,
        failed=failed,
        test_values=test_values[kept],
        test_exits=test_exits[kept],
        readings=readings,
        judged=judged,
    )
