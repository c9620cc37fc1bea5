"""What a rule of stopping keeps and costs, in searches drawn from curves of full length: pure
functions, numpy only.

Curves are (C, S, E, K): what C configs, each with S seeds, reached after each of E epochs, higher
is better. K is 1 where one number is maximised. Of a front (`--objective front`) it is the accuracy
of each exit, and what comes after these, a cost, is negative and without noise.

A search is drawn from the curves: configs with replacement, all with one seed, as the trials of a
real search have it. All its trials are judged at a rung together, which is stricter than one after
another, as they really come.

What should be kept is what no other trial beats at the end: of one number the best, of several the
front. It is kept if a trial that ran to the end is as good, within the noise, in every column: of
several this is a covering by additive ε-dominance (Laumanns et al. 2002). Whether each network of a
front is kept itself would be the wrong question: within the noise of several exits nearly every
trial is on it (LOG.md), and a search needs only one of those that cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studies.rungs import rung_epochs

Curves = NDArray[np.float64]
Flags = NDArray[np.bool_]

DRAWS = 1000  # searches
CLOSE = 1e-12  # what a difference of accuracies may be off


@dataclass(frozen=True)
class Rule:
    """When a trial is stopped, see `studies.rungs`.

    Attributes:
        grace: Epochs before the first rung; the full length is no stopping at all.
        eta: A rung keeps 1 in eta.
        tolerance: How far below a rung's threshold is good enough, in the objective's unit; of a
            front in accuracy, the same at every exit.
        rungs: The epochs after which trials are judged; grace times powers of eta if None.
    """

    grace: int
    eta: int = 2
    tolerance: float = 0.0
    rungs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a rule does to a search, on average.

    Attributes:
        rule: Which one.
        kept: Share of what no other trial beats at the end that is kept, or something as good
            within the noise: of one number the share of searches that keep their best.
        loss: How far the nearest that is kept falls short of it, at the exit where that is most; in
            the objective's unit, of a front in accuracy.
        epochs: Trained, as a share of those of all trials at full length.
    """

    rule: Rule
    kept: float
    loss: float
    epochs: float


def pools(curves: Curves, draws: int = DRAWS, seed: int = 0, trials: int | None = None) -> Curves:
    """(D, N, E, K): searches of N trials as the curves could have given them.

    Args:
        curves: (C, S, E, K).
        draws: D.
        seed: Of the draws.
        trials: N; C if None.
    """
    rng = np.random.default_rng([seed, 1])
    configs, seeds = curves.shape[:2]
    size = (draws, trials or configs)
    made: Curves = curves[rng.integers(configs, size=size), rng.integers(seeds, size=(draws, 1))]
    return made


def outcome(
    searches: Curves,
    rule: Rule,
    margins: Sequence[float] | float = 0.0,
    exits: int | None = None,
) -> Outcome:
    """What a rule keeps and costs.

    Args:
        searches: (D, N, E, K), from `pools`.
        rule: When trials are stopped.
        margins: What counts as equally good at the end: of each exit, or one for all.
        exits: How many of the columns, the first ones, are exits (or the one objective); None is
            all of them.
    """
    draws, trials, epochs, columns = searches.shape
    exits = columns if exits is None else exits
    alive = np.ones((draws, trials), dtype=bool)
    trained, before = np.zeros(draws), 0
    for rung in rung_epochs(rule.grace, rule.eta, epochs, rule.rungs):
        trained += alive.sum(axis=1) * (rung - before)
        alive = passing(searches[:, :, rung - 1], alive, rule, exits)
        before = rung
    trained += alive.sum(axis=1) * (epochs - before)
    kept, loss = _covered(searches[:, :, -1], alive, margins, exits)
    return Outcome(
        rule,
        kept=float(kept.mean()),
        loss=float(loss.mean()),
        epochs=float(trained.mean() / (trials * epochs)),
    )


def passing(seen: Curves, alive: Flags, rule: Rule, exits: int) -> Flags:
    """(D, N), which trials pass a rung: `rungs.keeps`, or of several columns `rungs.keeps_front`,
    of many searches at once.

    Args:
        seen: (D, N, K), of all trials at the rung.
        alive: (D, N), those that have come to it.
        rule: Of its eta and tolerance.
        exits: See `outcome`.
    """
    there = np.where(alive[:, :, None], seen, -np.inf)
    raised = there.copy()
    raised[:, :, :exits] += rule.tolerance
    places = np.maximum(1, alive.sum(axis=1) // rule.eta)
    best_first = -np.sort(-there[:, :, :exits], axis=1)
    worst = np.take_along_axis(best_first, places[:, None, None] - 1, axis=1)
    best = np.asarray((raised[:, :, :exits] >= worst).any(axis=2))
    if seen.shape[2] == 1:  # who is beaten by none is the best
        return alive & best
    return np.asarray(alive & (best | ~_beaten(raised, there)))


def _beaten(own: Curves, rivals: Curves) -> Flags:
    """(D, N), whether a rival is as good in every column and better in one. Both (D, N, K)."""
    draws, trials, columns = own.shape
    as_good = np.ones((draws, trials, trials), dtype=bool)
    better = np.zeros_like(as_good)
    for column in range(columns):
        mine, theirs = own[:, :, None, column], rivals[:, None, :, column]
        as_good &= theirs >= mine
        better |= theirs > mine
    return np.asarray((as_good & better).any(axis=2))


def _covered(
    ends: Curves, alive: Flags, margins: Sequence[float] | float, exits: int
) -> tuple[Curves, Curves]:
    """(D,) twice: the share of the front that something kept is as good as, and the mean gap.

    Args:
        ends: (D, N, K), after the last epoch.
        alive: (D, N), what ran to it.
        margins, exits: See `outcome`.
    """
    columns = ends.shape[2]
    if columns == 1:
        best = ends[:, :, 0].max(axis=1)
        gaps = best - np.where(alive, ends[:, :, 0], -np.inf).max(axis=1)
        return (gaps <= np.max(margins) + CLOSE).astype(float), gaps
    limits = np.zeros(columns)
    limits[:exits] = margins
    front = ~_beaten(ends, ends)
    stands_in = np.repeat(alive[:, None, :], ends.shape[1], axis=1)  # (D, of the front, kept)
    for column in range(exits, columns):
        stands_in &= ends[:, None, :, column] >= ends[:, :, None, column]
    as_good, short = stands_in.copy(), np.zeros(stands_in.shape)
    for column in range(exits):
        gap = ends[:, :, None, column] - ends[:, None, :, column]
        as_good &= gap <= limits[column] + CLOSE
        np.maximum(short, gap, out=short)
    nearest = np.where(stands_in, short, np.inf).min(axis=2)
    count = front.sum(axis=1)
    kept = (as_good.any(axis=2) & front).sum(axis=1) / count
    return kept, np.where(front, nearest, 0.0).sum(axis=1) / count
