"""When to stop a trial: asynchronous successive halving as a pure function of what was reported.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), MLSys 2020, in the form
that stops trials and never resumes stopped ones. Nothing is remembered between calls: a driver that
starts again finds every decision in the study's history.

How others decide (both are checked in the tests):

- Optuna's `SuccessiveHalvingPruner` (min_resource=grace, reduction_factor=eta) decides the same:
  the best max(1, floor(n / eta)) of the n values seen, own value included, ties kept, NaN stopped.
  It keeps notes in the storage of what was seen at a rung, where this looks at the reports.
- Ray's `AsyncHyperBandScheduler` compares with the (1 - 1/eta) percentile of the *earlier* values,
  own value left out, interpolated between two of them. With eta = 2 and an odd number of earlier
  values that is their median, a real value, and the two rules coincide; so they do on sequences
  that only rise or only fall. Else Ray may keep one trial more or less: of the values 1, 2, then
  1.6 it keeps 1.6 (cutoff 1.5), while 1.6 is not the best floor(3 / 2) = 1 of three. And it never
  stops a NaN.

A few of the stopped trials may run on to their full length (`runs_on`): outside the search, so that
what stopping cost can be told without bias (`studies.stopping`).

Where each exit counts by itself (`--objective front`) there is no such order. A trial then passes
if no other beats it as a whole, or if the rule above keeps it at any exit (`keeps_front`).
"""

from collections.abc import Iterable, Sequence

import numpy as np

RUN_ON = 0x0E  # so that the draw is none of a sampler's, which begin with (seed, number) too


def rung_epochs(grace: int, eta: int, epochs: int, given: Sequence[int] | None = None) -> list[int]:
    """The epochs after which a trial is judged: grace · eta^k, all before the last epoch.

    Args:
        grace: Epochs before the first rung, at least 1.
        eta: Reduction factor, at least 2.
        epochs: Full length of a trial.
        given: These and no others, rising and before the last epoch, where somebody chose them.
    """
    if given is not None:
        return list(given)
    rungs = []
    epoch = grace
    while epoch < epochs:
        rungs.append(epoch)
        epoch *= eta
    return rungs


def after_drops(milestones: Iterable[int], epochs: int) -> tuple[int, ...]:
    """One epoch after each drop of the learning rate: before it the order says little (LOG.md).

    Args:
        milestones: Completed epochs after which the rate drops.
        epochs: Full length of a trial.
    """
    return tuple(sorted({drop + 1 for drop in milestones if drop + 1 < epochs}))


def places(count: int, eta: int) -> int:
    """How many of `count` values a rung keeps: max(1, floor(count / eta))."""
    return max(1, count // eta)


def keeps(value: float, values: Iterable[float], eta: int, tolerance: float = 0.0) -> bool:
    """Whether a trial passes a rung.

    Args:
        value: Its objective there; higher is better.
        values: What every trial reported at that rung, whatever became of it, this one included.
            NaN (diverged) is no competitor.
        eta: Reduction factor: the best 1 in eta passes.
        tolerance: How far below the last of these is good enough, too: what is noise.

    Returns:
        True if `value` is among the best max(1, floor(n / eta)) of the n finite `values`; equal to
        the last of these is good enough. False for NaN.
    """
    if np.isnan(value):
        return False
    seen = np.array(list(values), dtype=np.float64)
    seen = np.sort(seen[~np.isnan(seen)])[::-1]
    if not len(seen):
        return True
    # Raised, as in `keeps_front`: lowering the threshold may round to the other side.
    return bool(value + tolerance >= seen[places(len(seen), eta) - 1])


def runs_on(seed: int, number: int, share: float) -> bool:
    """Whether a trial that a rung stops runs on to its full length, outside the search.

    The choice is random, the same in every process, and knows nothing of how the trial did.

    Args:
        seed: Of the study.
        number: Of the trial.
        share: How many of the stopped ones, a fraction.
    """
    drawn = np.random.default_rng(np.random.SeedSequence([seed, number, RUN_ON])).random()
    return bool(drawn < share)


def keeps_front(
    values: Sequence[float],
    rivals: Iterable[Sequence[float]],
    eta: int,
    tolerance: float = 0.0,
    exits: int | None = None,
) -> bool:
    """Whether a trial passes a rung where each exit counts by itself.

    Beaten as a whole within noise is additive ε-dominance (Laumanns et al., "Combining Convergence
    and Diversity in Evolutionary Multiobjective Optimization", 2002), with ε the tolerance. With
    one exit this is `keeps`. A trial that beats all others is never stopped; Syne Tune's MOASHA,
    which takes a sorted list of numbers for ranks, does stop such ones (see the tests).

    Args:
        values: (columns,) of the trial, higher is better in each.
        rivals: (n, columns) of every trial at that rung, whatever became of it, this one included.
            A row with a NaN (diverged) is no competitor.
        eta: Reduction factor: the best 1 in eta of any exit passes.
        tolerance: Accuracy that is noise at one exit.
        exits: How many of the columns, the first ones, are exits; None is all. What comes after
            them (costs, negative) is without noise and says who is beaten, not who is best.

    Returns:
        True if no rival is at least as good in every column and better in one, the trial's exits
        raised by the tolerance; or if `keeps` says so of any exit. False for a NaN.
    """
    own = np.array(values, dtype=np.float64)
    if np.isnan(own).any():
        return False
    seen = np.array(list(rivals), dtype=np.float64).reshape(-1, len(own))
    seen = seen[~np.isnan(seen).any(axis=1)]
    count = len(own) if exits is None else exits
    raised = own + tolerance * (np.arange(len(own)) < count)
    beaten = (seen >= raised).all(axis=1) & (seen > raised).any(axis=1)
    if not beaten.any():
        return True
    return any(keeps(own[i], seen[:, i], eta, tolerance) for i in range(count))
