"""A race of candidates over seeds: pure functions, numpy only.

A round is a seed, the same one for all that still run. After each round the worst leave, as many as
the schedule says: from 8 to 6, to 4, to 2 on five seeds. Row 0, what the others are compared with
(the paper's default), runs every round and is not counted. A whole grid of 8 and the default on 5
seeds would be 45 runs; the race has 27.

A decision is a function of what was reported in the rounds before: any driver, at any time, comes
to the same one. A candidate with a run that broke cannot be compared and leaves first.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SHARE = Fraction(3, 5)  # of the whole grid, at most
LAST = 2  # candidates that run every round
TOP, SEEDS = 8, 5  # of a race where nothing is said


def schedule(top: int, seeds: int) -> tuple[int, ...]:
    """How many candidates run in each round, row 0 not counted: 8 and 5 give (8, 6, 4, 2, 2).

    Evenly down to `LAST`, as late as `SHARE` of the whole grid allows. Of few candidates, or on few
    seeds, no race is as cheap: then only `LAST` run from the second round on.

    Args:
        top: Candidates, at least 1.
        seeds: Rounds, at least 1.
    """
    last = min(top, LAST)
    for end in range(seeds, 1, -1):  # the round in which only the last ones run
        slope = (top - last) / (end - 1)
        rounds = tuple(max(last, round(top - slope * k)) for k in range(seeds))
        if cost(rounds) <= SHARE * (top + 1) * seeds:
            return rounds
    return (top, *(last,) * (seeds - 1))


def cost(rounds: Sequence[int]) -> int:
    """Runs of a race, those of row 0 counted."""
    return sum(rounds) + len(rounds)


def fitting(runs: int, top: int = TOP, seeds: int = SEEDS) -> tuple[int, int] | None:
    """The largest race that so many runs pay for.

    Seeds before candidates: what was not seen often enough separates nothing.

    Args:
        runs: That may be spent.
        top, seeds: Wanted, at most.

    Returns:
        Candidates and seeds; None if not even one candidate and row 0 have two seeds.
    """
    for fewer in range(min(seeds, runs // 2), 1, -1):
        for many in range(top, 0, -1):
            if cost(schedule(many, fewer)) <= runs:
                return many, fewer
    return None


def order(values: Values) -> list[int]:
    """The rows, best first: by their mean over the rounds, ties by row; NaN anywhere is last.

    Args:
        values: (C, R), of rounds that all of the rows ran.
    """
    means = values.mean(axis=1) if values.shape[1] else np.zeros(len(values))
    means = np.where(np.isnan(means), -np.inf, means)
    return [int(row) for row in np.argsort(-means, kind="stable")]


def field(values: Values, ended: NDArray[np.bool_], rounds: Sequence[int]) -> list[list[int]]:
    """Who runs in each round, as far as that is settled.

    Args:
        values: (C, S), NaN where a run has no value (yet); row 0 is the reference.
        ended: (C, S), whether the run has ended, with a value or without.
        rounds: From `schedule`, S of them.

    Returns:
        Rows of each round, row 0 first, then by row; the first round is always settled, and so is
        one before which nobody leaves; another once all runs of the rounds before have ended.
    """
    settled = [list(range(min(len(values), rounds[0] + 1)))] if len(rounds) else []
    for number in range(1, len(rounds)):
        rows = settled[-1]
        if rounds[number] >= len(rows) - 1:
            settled.append(list(rows))
            continue
        if not ended[rows, :number].all():
            break
        rest = rows[1:]
        best = order(values[rest, :number])[: rounds[number]]
        settled.append([0, *sorted(rest[place] for place in best)])
    return settled


def run(grid: Values, rounds: Sequence[int]) -> Values:
    """What a race sees of a whole grid: NaN where it does not run.

    Args:
        grid: (C, S), row 0 the reference.
        rounds: From `schedule`.
    """
    seen = np.full_like(grid, np.nan)
    for number, rows in enumerate(field(grid, np.ones(grid.shape, dtype=bool), rounds)):
        seen[rows, number] = grid[rows, number]
    return seen
