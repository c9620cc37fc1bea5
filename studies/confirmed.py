"""What a confirmation comes to, as numbers: pure functions over (candidate, seed).

Row 0 is the reference (the paper's default), the others are what the search thought best, in its
order. NaN stands for a run that the race spared. Seeds and hold-outs are fresh and the same for
all, so comparisons are paired (`studies.comparison`), and a seed's own hold-out makes the draw of
images a part of the scatter between seeds (of the digits less so: their hold-outs share four
fifths). Units are the caller's: points of accuracy as a rule.

Of several noisy means the best is too high on average, confirmed or not. What is to be *expected*
of a config is therefore its mean drawn toward the mean of all, by the share of their scatter that
noise explains (empirical Bayes, Efron and Morris 1975; the variance between configs by DerSimonian
and Laird 1986). Where the configs differ by much more than the noise, that changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studies.comparison import LEVEL, Difference, Fit, against, fit, student

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over fresh seeds and hold-outs.

    Attributes:
        mean: As if every candidate had run on all seeds.
        low, high: 95 % interval; infinite from one seed.
        n: Runs it comes from.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval's width: `mean ± half`."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Optimism:
    """What the search said minus what was confirmed.

    Attributes:
        row: Of the candidate; None of the average over all but the reference.
        said: By the search, from one run each.
        confirmed: On fresh seeds and hold-outs.
    """

    row: int | None
    said: float
    confirmed: Estimate

    @property
    def gap(self) -> float:
        """Positive where the search said too much."""
        return self.said - self.confirmed.mean

    @property
    def low(self) -> float:
        """Lower end of the gap's 95 % interval."""
        return self.said - self.confirmed.high

    @property
    def high(self) -> float:
        """Upper end of the gap's 95 % interval."""
        return self.said - self.confirmed.low


@dataclass(frozen=True)
class Judgement:
    """The verdict's numbers. C candidates.

    Attributes:
        means: (C,) of the objective.
        expected: (C,) of the objective, for new runs.
        differences: Of the other finalists to the reference, corrected for all candidates. What
            left the race gets none: it left because it looked bad, so that it looks bad is no news
            (on equal configs such a claim is wrong in 6 to 9 of 100 studies).
        sigma: Scatter of a run about config and seed; NaN from one seed.
        finalists: The reference, and the rows that ran every round.
        best: The finalist with the highest mean.
        chosen: The simplest finalist within one standard error of the best.
        within: The finalists that are within it, simplest first.
        naive: What the search's best value came to; None where the search said nothing.
        average: The same, averaged over all candidates but the reference.
        default: The same of the reference, which nobody chose for its value: what is no luck of
            choosing but the search's own seed and hold-out.
        detectable: The difference that these seeds find 4 times in 5; None from one seed.
    """

    means: tuple[Estimate, ...]
    expected: tuple[float, ...]
    differences: tuple[Difference, ...]
    sigma: float
    finalists: tuple[int, ...]
    best: int
    chosen: int
    within: tuple[int, ...]
    naive: Optimism | None
    average: Optimism | None
    default: Optimism | None
    detectable: float | None

    def difference(self, row: int) -> Difference | None:
        """A row's difference to the reference; None of the reference itself."""
        return next((one for one in self.differences if one.config == row), None)

    @property
    def separated(self) -> tuple[Difference, ...]:
        """Those whose interval leaves out zero, the largest first."""
        some = [one for one in self.differences if one.separated]
        return tuple(sorted(some, key=lambda one: -one.difference))


def judge(
    values: Values,
    said: Sequence[float] | None = None,
    simplicity: Sequence[int] | None = None,
) -> Judgement:
    """The numbers of a verdict, after a race or after a whole grid.

    Args:
        values: (C, S) objective of each run, NaN where there is none; row 0 the reference.
        said: (C,) the objective as the search saw it, NaN where it did not.
        simplicity: (C,) rank of each config, 0 the simplest; by row if not given.

    Raises:
        ValueError: A row without any run; an UnlinkedError: rows that share no seed.
    """
    fitted = fit(values)
    ran = ~np.isnan(values)
    seeds = int(ran.any(axis=0).sum())
    finalists = [row for row in range(len(values)) if not row or ran[row].sum() == seeds]
    ranks = list(range(len(values))) if simplicity is None else list(simplicity)
    best = max(finalists, key=lambda row: (fitted.means[row], -ranks[row]))
    behind = {row: float(fitted.means[best] - fitted.means[row]) for row in finalists}
    near = (row for row in finalists if behind[row] <= standard_error(fitted, best, row))
    within = sorted(near, key=lambda row: ranks[row])
    naive = average = default = None
    if said is not None and not np.isnan(said).all():
        row = int(np.nanargmax(said))
        naive = Optimism(row, float(said[row]), estimate(values, _only(row, len(values))))
        if not math.isnan(said[0]):
            default = Optimism(0, float(said[0]), estimate(values, _only(0, len(values))))
        known = ~np.isnan(said)
        known[0] = False
        if known.any():
            weights = known / known.sum()
            shown = float(np.asarray(said)[known].mean())
            average = Optimism(None, shown, estimate(values, weights))
    return Judgement(
        means=estimates(values),
        expected=tuple(expected(fitted).tolist()),
        differences=tuple(one for one in against(values, 0) if one.config in finalists),
        sigma=fitted.sigma,
        finalists=tuple(finalists),
        best=best,
        chosen=within[0],
        within=tuple(within),
        naive=naive,
        average=average,
        default=default,
        detectable=detectable(fitted.sigma, seeds, len(values) - 1),
    )


def _only(row: int, count: int) -> Values:
    weights = np.zeros(count)
    weights[row] = 1.0
    return weights


def standard_error(fitted: Fit, one: int, other: int) -> float:
    """Of the difference of two rows' means; 0 of a row with itself, infinite from one seed."""
    if one == other:
        return 0.0
    c = fitted.covariance
    variance = max(0.0, float(c[one, one] + c[other, other] - 2 * c[one, other]))
    return math.inf if math.isnan(fitted.sigma) else fitted.sigma * math.sqrt(variance)


def estimate(values: Values, weights: Values, level: float = LEVEL) -> Estimate:
    """A weighted mean of the rows over fresh seeds, with its interval.

    What a seed and its hold-out do to all rows together is seen in the rows that ran every round,
    what they do to each row by itself in the residuals; their variances are added, the degrees of
    freedom are Satterthwaite's.

    Args:
        values: (C, S), NaN where there is no run.
        weights: (C,), of sum 1.
        level: Of the interval.
    """
    fitted = fit(values)
    mean = float(weights @ fitted.means)
    there = ~np.isnan(values)
    count = int(there[weights > 0].sum())
    seeds = there.any(axis=0)
    rows = there[:, seeds].all(axis=1)
    number, whole = int(seeds.sum()), int(rows.sum())
    if number < 2 or not whole or not (fitted.sigma >= 0 or len(values) == 1):
        return Estimate(mean, -math.inf, math.inf, count)
    columns = values[rows][:, seeds].mean(axis=0)
    common = float(columns.var(ddof=1)) / number
    own = 0.0
    if len(values) > 1:
        factor = float(weights @ fitted.covariance @ weights) - 1 / (whole * number)
        own = fitted.sigma**2 * max(0.0, factor)
    total = common + own
    if not total:
        return Estimate(mean, mean, mean, count)
    spent = common**2 / (number - 1) + (own**2 / fitted.freedom if own else 0.0)
    half = student(total**2 / spent, (1 + level) / 2) * math.sqrt(total)
    return Estimate(mean, mean - half, mean + half, count)


def estimates(values: Values) -> tuple[Estimate, ...]:
    """Each row by itself."""
    return tuple(estimate(values, _only(row, len(values))) for row in range(len(values)))


def expected(fitted: Fit) -> Values:
    """(C,) means drawn together by what noise explains of their scatter."""
    means = fitted.means
    noise = np.diag(fitted.covariance) * fitted.sigma**2
    if len(means) < 3 or not (noise > 0).all():
        return means
    weights = 1 / noise
    centre = float(weights @ means / weights.sum())
    scatter = float(weights @ (means - centre) ** 2)
    scale = float(weights.sum() - (weights**2).sum() / weights.sum())
    between = max(0.0, (scatter - (len(means) - 1)) / scale)
    drawn: Values = centre + (means - centre) * between / (between + noise)
    return drawn


def detectable(
    sigma: float, seeds: int, comparisons: int, level: float = LEVEL, power: float = 0.8
) -> float | None:
    """The difference that would be found with a probability of `power`; None if nothing would.

    The inverse of `comparison.seeds_needed`, with the same correction.
    """
    if seeds < 2 or comparisons < 1 or not sigma > 0:
        return None
    freedom = (seeds - 1) * comparisons
    tail = (1 - level) / 2 / comparisons
    needed = student(freedom, 1 - tail) + student(freedom, power)
    return needed * sigma * math.sqrt(2 / seeds)
