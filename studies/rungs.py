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
"""

from collections.abc import Iterable

import numpy as np


def rung_epochs(grace: int, eta: int, epochs: int) -> list[int]:
    """The epochs after which a trial is judged: grace · eta^k, all before the last epoch.

    Args:
        grace: Epochs before the first rung, at least 1.
        eta: Reduction factor, at least 2.
        epochs: Full length of a trial.
    """
    rungs = []
    epoch = grace
    while epoch < epochs:
        rungs.append(epoch)
        epoch *= eta
    return rungs


def places(count: int, eta: int) -> int:
    """How many of `count` values a rung keeps: max(1, floor(count / eta))."""
    return max(1, count // eta)


def keeps(value: float, values: Iterable[float], eta: int) -> bool:
    """Whether a trial passes a rung.

    Args:
        value: Its objective there; higher is better.
        values: What every trial reported at that rung, whatever became of it, this one included.
            NaN (diverged) is no competitor.
        eta: Reduction factor: the best 1 in eta passes.

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
    return bool(value >= seen[places(len(seen), eta) - 1])
