"""Whether one config is better than another, from several seeds of each: pure functions.

The runs of C configs on S seeds are a table y (C, S); a seed is the same weights' and order's seed
and the same hold-out for every config, so configs are compared within seeds. NaN stands for a run
that was not made. The model is the two-way layout

    y_cs = μ_c + b_s + e_cs,     e_cs of one variance σ² for all configs,

fitted by least squares: b_s takes out what a seed does to every config, and σ² is pooled over all
of them, which with few seeds is worth more than it costs. Comparisons of many candidates with one
reference are corrected together (Dunnett 1955, single step), with the correlation that the shared
reference and the missing runs bring, by simulation.
"""

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class UnlinkedError(ValueError):
    """Configs that share no seed, not even by way of others."""


DRAWS = 20_000  # of the simulated maximum; its 95 % point is then known to 1 %
LEVEL = 0.95
MOST = 10_000  # seeds that anyone would think of


def crossed(there: NDArray[np.bool_], least: int = 1) -> tuple[list[int], list[int]]:
    """The configs and seeds of which every config has every seed, where runs are missing.

    While a run is missing, the seed or the config that lacks the largest share of its runs is left
    out; of equal ones the seed, and the later one. So a config that lost most of its seeds goes,
    and a seed that most configs lack.

    Args:
        there: (C, S), whether the run was made.
        least: Of configs, which seeds give way to; fewer are kept only where fewer are given.

    Returns:
        Rows and columns, in order.
    """
    rows, columns = list(range(there.shape[0])), list(range(there.shape[1]))
    while not (kept := there[np.ix_(rows, columns)]).all():
        of_rows, of_columns = 1 - kept.mean(axis=1), 1 - kept.mean(axis=0)
        if of_columns.max() >= of_rows.max() or len(rows) <= least:
            del columns[len(columns) - 1 - int(of_columns[::-1].argmax())]
        else:
            del rows[len(rows) - 1 - int(of_rows[::-1].argmax())]
    return rows, columns


@dataclass(frozen=True)
class Fit:
    """The two-way layout, fitted.

    Attributes:
        means: (C,) estimate of each config, as if it had run on all seeds.
        covariance: (C, C) of `means` in units of σ².
        sigma: σ, the spread of one run about config and seed; NaN without degrees of freedom.
        freedom: Degrees of freedom of σ.
        counts: (C,) runs of each config.
        design: (R, C + S - 1) of the R runs, by config and then by seed.
        solution: (C + S - 1, R), which makes the estimates of the runs; the first C are `means`.
    """

    means: Values
    covariance: Values
    sigma: float
    freedom: int
    counts: NDArray[np.int64]
    design: Values
    solution: Values


def fit(values: Values) -> Fit:
    """Least squares of the two-way layout.

    Args:
        values: y (C, S), NaN where there is no run. Every config has one at least.

    Raises:
        ValueError: A config without a run; an UnlinkedError: seeds that no config links to others.
    """
    there = ~np.isnan(values)
    if not there.any(axis=1).all():
        raise ValueError("every config needs at least one run")
    values, there = values[:, there.any(axis=0)], there[:, there.any(axis=0)]
    configs, seeds = values.shape
    row, column = np.nonzero(there)
    # Columns: a mean for each config, then each seed's deviation, which sum to zero.
    design = np.zeros((len(row), configs + seeds - 1))
    design[np.arange(len(row)), row] = 1.0
    for place, seed in enumerate(column):
        if seed < seeds - 1:
            design[place, configs + seed] = 1.0
        else:
            design[place, configs:] = -1.0
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UnlinkedError("the configs share no seeds: they cannot be compared")
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ design.T
    estimates = solution @ values[there]
    residuals = values[there] - design @ estimates
    freedom = len(row) - design.shape[1]
    sigma = math.sqrt(float(residuals @ residuals) / freedom) if freedom > 0 else math.nan
    return Fit(
        means=estimates[:configs],
        covariance=inverse[:configs, :configs],
        sigma=sigma,
        freedom=freedom,
        counts=there.sum(axis=1),
        design=design,
        solution=solution,
    )


@dataclass(frozen=True)
class Difference:
    """One candidate against the reference.

    Attributes:
        config: Row of the candidate.
        difference: Its mean minus the reference's; positive is better.
        low, high: Simultaneous interval: all intervals together hold with the level asked for.
        p: Two-sided, corrected for all comparisons made.
        seeds_needed: Seeds with which a difference of this size would be found with 80 %
            probability, if it is real; None if it is zero or the spread is unknown.
    """

    config: int
    difference: float
    low: float
    high: float
    p: float
    seeds_needed: int | None

    @property
    def separated(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.low > 0 or self.high < 0


def against(
    values: Values, reference: int, level: float = LEVEL, rng: int = 0
) -> tuple[Difference, ...]:
    """Every config against one, corrected for all of them together (Dunnett 1955).

    Args:
        values: y (C, S), NaN where there is no run.
        reference: Row of the reference.
        level: Of the simultaneous intervals.
        rng: Seed of the simulated maximum.

    Returns:
        One for each other row, in order. Without degrees of freedom the intervals are infinite and
        every p is 1.
    """
    fitted = fit(values)
    others = [c for c in range(len(values)) if c != reference]
    if not others:
        return ()
    contrast = np.zeros((len(others), len(values)))
    contrast[np.arange(len(others)), others] = 1.0
    contrast[:, reference] -= 1.0
    differences = contrast @ fitted.means
    scale = np.sqrt(np.diag(contrast @ fitted.covariance @ contrast.T))
    if fitted.freedom < 1 or not fitted.sigma > 0:
        known = fitted.freedom >= 1  # σ = 0: nothing varies, so what differs, differs
        return tuple(
            Difference(c, float(d), *((float(d),) * 2 if known else (-math.inf, math.inf)),
                       p=0.0 if known and d else 1.0, seeds_needed=None)
            for c, d in zip(others, differences, strict=True)
        )  # fmt: skip
    correlation = (contrast @ fitted.covariance @ contrast.T) / np.outer(scale, scale)
    # The maximum does not know the order of the rows; one order for all lets it be remembered.
    by_scale = np.argsort(scale.round(9), kind="stable")
    ordered = correlation[np.ix_(by_scale, by_scale)].round(9)
    largest = _maximum(ordered.tobytes(), len(others), fitted.freedom, rng)
    critical = float(np.quantile(largest, level))
    errors = fitted.sigma * scale
    made = []
    for place, config in enumerate(others):
        difference, error = float(differences[place]), float(errors[place])
        t = abs(difference) / error
        made.append(
            Difference(
                config=config,
                difference=difference,
                low=difference - critical * error,
                high=difference + critical * error,
                p=float((1 + (largest >= t).sum()) / (1 + DRAWS)),
                seeds_needed=seeds_needed(difference, fitted.sigma, len(others), level),
            )
        )
    return tuple(made)


@functools.lru_cache(maxsize=32)
def _maximum(correlation: bytes, count: int, freedom: int, rng: int) -> Values:
    """(DRAWS,): simulated largest |t| of comparisons with that (count, count) correlation."""
    matrix = np.frombuffer(correlation).reshape(count, count)
    generator = np.random.default_rng(rng)
    normal = generator.multivariate_normal(
        np.zeros(count), matrix, size=DRAWS, check_valid="ignore"
    )
    spread = np.sqrt(generator.chisquare(freedom, size=DRAWS) / freedom)
    found: Values = np.abs(normal / spread[:, None]).max(axis=1)
    found.flags.writeable = False
    return found


def student(freedom: float, probability: float) -> float:
    """The value that Student's t stays below with that probability."""
    from scipy.special import stdtrit  # here, or every search would wait for it at its start

    return float(stdtrit(freedom, probability))


def seeds_needed(
    difference: float, sigma: float, comparisons: int, level: float = LEVEL, power: float = 0.8
) -> int | None:
    """Seeds a config with which a paired difference would be found.

    Args:
        difference: That is to be found, same unit as sigma.
        sigma: Spread of one run about config and seed.
        comparisons: Made with the reference; corrected for by Bonferroni, a little too careful.
        level, power: 1 - probability of a false claim; probability of finding it.

    Returns:
        At least 2; None if the difference is zero, sigma unknown, or MOST would not do.
    """
    if not difference or not sigma > 0:
        return None
    tail = (1 - level) / 2 / max(1, comparisons)

    def enough(seeds: int) -> bool:
        freedom = (seeds - 1) * max(1, comparisons)
        needed = student(freedom, 1 - tail) + student(freedom, power)
        return bool(abs(difference) >= needed * sigma * math.sqrt(2 / seeds))

    # Once enough, more are enough too.
    seeds = 2 + bisect_left(range(2, MOST + 1), True, key=enough)
    return seeds if seeds <= MOST else None
