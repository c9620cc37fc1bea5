"""What other seeds and other images would have given: the runs of a race drawn anew.

Pure functions. The accuracy of an exit is uncertain for two reasons: another seed makes another
network and holds out other images, and other images of the same kind would be right or wrong in
other numbers. Each draw therefore takes

- the seeds anew: what a round did to all configs together, and what was left of each run (the
  residuals of the two-way layout, `studies.comparison`), pooled over the configs and whole over
  the exits of a network;
- the images anew: those of all hold-outs together, with replacement. An image that is drawn twice
  counts twice in every round that held it out, for every config and every exit.

A config that left the race early needs no round of its own in a draw: the layout's means take what
its rounds were worth from those that ran on.

A plain bootstrap of five seeds is too narrow: its variance is (S - 1) / S of what it should be, and
that it comes from so few is not in it. Both are put back, by the degrees of freedom and a χ² of as
many as a mean has (Satterthwaite 1946). And a plain one in two levels is too wide: that each round
holds out images of its own is in the scatter of the rounds already. What drawn images explain of
that scatter is therefore taken off it first, in every draw, down to nothing at the least (Davison
and Hinkley 1997, 3.8). What the images then add is what rounds have in common, which no number of
seeds shows: a tenth of CIFAR's hold-outs, four fifths of the digits'. What this is worth in
simulation is counted by `tests/benchmarks/fronts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studies.comparison import LEVEL, fit
from studies.confirmed import Estimate
from trainers.hits import Hits

Values = NDArray[np.float64]
HitsOf = Mapping[tuple[int, int], Hits]  # (row, round) -> what that run had right

DRAWS = 2_000  # of means; a probability is then known to 0.022
AT_A_TIME = 2_000_000  # images drawn, so that their weights stay small in memory
SEED = 0  # of every draw here: the same runs give the same figures
ROUNDING = 1e-9  # points of accuracy: means of equal runs differ by less, any others by more
LEAST = 0.05  # of the noise, that configs are taken to differ by where it explains all


@dataclass(frozen=True, eq=False)
class Points:
    """The exits of the configs, with what is not known of them.

    Attributes:
        means: (C, M) accuracy, with its 95 % interval.
        on_front: (C, M) probability that no other point beats it, as `studies.front` says; NaN from
            one seed.
        images: Whether the images were drawn anew, or the seeds alone.
    """

    means: tuple[tuple[Estimate, ...], ...]
    on_front: Values
    images: bool


def points(exits: Values, flops: Values, hits: HitsOf | None = None) -> Points:
    """The exits of the configs of a race.

    Args:
        exits: (C, S, M) accuracies in %, NaN where there is no run.
        flops: (C, M) per image.
        hits: Of the runs; without them only the seeds are drawn.
    """
    drawn = resampled(exits, hits)
    shares = np.full(flops.shape, np.nan) if drawn is None else on_front(together(drawn), flops)
    return Points(intervals(drawn, exits), shares, bool(hits) and drawn is not None)


def resampled(
    exits: Values, hits: HitsOf | None = None, draws: int = DRAWS, rng: int = SEED
) -> Values | None:
    """(D, C, M): the mean of each exit, drawn anew.

    Args:
        exits: (C, S, M) accuracies in %, NaN where there is no run.
        hits: Of the runs; without them only the seeds are drawn.
        draws: D.
        rng: Of the draws.

    Returns:
        None where nothing can be drawn: from one seed, or where no config ran every round.
    """
    ran = np.flatnonzero(~np.isnan(exits[:, :, 0]).all(axis=0))
    exits = exits[:, ran]
    there = ~np.isnan(exits[:, :, 0])
    configs, rounds, m = exits.shape
    whole = np.logical_and.reduce(there, axis=1)
    if rounds < 2 or not whole.any():
        return None
    fitted = fit(exits[:, :, 0])
    if fitted.freedom < 1 and configs > 1:
        return None
    runs, (row, column) = exits[there], np.nonzero(there)  # (R, M)
    weights = fitted.solution[:configs]
    per_image = None
    if hits:
        keys = [(int(r), int(ran[s])) for r, s in zip(row, column, strict=True)]
        per_image = _per_image([hits.get(key) for key in keys], m)
    means = np.zeros((rounds, len(runs)))  # of a round, over the configs that ran all of them
    means[column, np.arange(len(runs))] = whole[row] / whole.sum()
    whole_mean = means.mean(axis=0)
    each = np.full((1, rounds), 1 / rounds)
    parts = [_part(runs, per_image, means - whole_mean, rounds - 1, each)]
    if configs > 1:
        own = np.eye(len(runs)) - fitted.design @ fitted.solution
        parts.append(_part(runs, per_image, own, fitted.freedom, weights - whole_mean))
    generator = np.random.default_rng(rng)
    found = np.broadcast_to(weights @ runs, (draws, configs, m)).copy()
    freedom = _freedom(parts)
    now = freedom / generator.chisquare(freedom, draws)
    for part in parts:
        found += part.drawn(now, generator)
    if per_image is not None:
        found += _images_drawn(np.einsum("cr,rmu->ucm", weights, per_image), draws, generator)
    return found


def _per_image(hits: Sequence[Hits | None], m: int) -> NDArray[np.float32]:
    """(R, M, U): what each of the U images that were held out adds to a run's accuracy, %.

    About its mean: a row sums to zero. Zero where the run did not hold it out, or has no hits.
    """
    pool = np.unique(np.concatenate([one.rows for one in hits if one is not None]))
    made = np.zeros((len(hits), m, len(pool)), dtype=np.float32)
    for place, one in enumerate(hits):
        if one is not None:
            right = 100.0 * one.right[:m]
            share = (right - right.mean(axis=1, keepdims=True)) / right.shape[1]
            made[place][:, np.searchsorted(pool, one.rows)] = share
    return made


@dataclass(frozen=True, eq=False)
class _Part:
    """One of the two parts of what the seeds do: to all configs together, or to a run by itself.

    Attributes:
        left: (N, M), the deviations, of so many degrees of freedom.
        freedom: Of them.
        weights: (C, N'), what is summed to the means of N' drawn deviations; (1, N') of all alike.
        variance: Of a deviation, summed over the exits.
        explained: How much of that the draw of images makes.
    """

    left: Values
    freedom: int
    weights: Values
    variance: float
    explained: float

    @property
    def of_mean(self) -> float:
        """The variance of the mean of a config of which most is known."""
        return self.variance * float((self.weights**2).sum(axis=1).min())

    def drawn(self, now: Values, generator: np.random.Generator) -> Values:
        """(D, C, M): weighted sums of deviations drawn with replacement.

        Args:
            now: (D,) how large the variance is taken to be in each draw, in units of its estimate.
            generator: Of the draws.
        """
        count = len(self.left)
        if not self.variance:
            return np.zeros((len(now), len(self.weights), self.left.shape[1]))
        kept = np.maximum(0.0, now - self.explained / self.variance)
        scale = np.sqrt(kept * count / self.freedom)[:, None, None]
        taken = generator.integers(count, size=(len(now), self.weights.shape[1]))
        found: Values = scale * np.einsum("cn,dnm->dcm", self.weights, self.left[taken])
        return found


def _part(
    runs: Values,
    per_image: NDArray[np.float32] | None,
    take: Values,
    freedom: int,
    weights: Values,
) -> _Part:
    """The part that a matrix (N, R) takes of the runs (R, M), whose images add (R, M, U)."""
    left, explained = take @ runs, 0.0
    if per_image is not None:
        explained = float((np.tensordot(take, per_image, axes=1) ** 2).sum()) / freedom
    return _Part(left, freedom, weights, float((left**2).sum()) / freedom, explained)


def _freedom(parts: Sequence[_Part]) -> float:
    """Degrees of freedom of a mean's variance, which is the sum of several (Satterthwaite 1946)."""
    if not (total := sum(part.of_mean for part in parts)):
        return 1.0
    return total**2 / sum(part.of_mean**2 / part.freedom for part in parts)


def _images_drawn(adds: Values, draws: int, generator: np.random.Generator) -> Values:
    """(D, C, M): what changes with the images, to first order in their number.

    Args:
        adds: (U, C, M), what each image adds to the means.
    """
    count = len(adds)
    flat = adds.reshape(count, -1).astype(np.float64)
    made = np.empty((draws, flat.shape[1]))
    step = max(1, AT_A_TIME // count)
    for start in range(0, draws, step):
        many = min(step, draws - start)
        taken = generator.integers(count, size=(many, count)) + count * np.arange(many)[:, None]
        weights = np.bincount(taken.reshape(-1), minlength=many * count).reshape(many, count)
        made[start : start + many] = weights @ flat
    return made.reshape(draws, *adds.shape[1:])


def intervals(drawn: Values | None, exits: Values) -> tuple[tuple[Estimate, ...], ...]:
    """(C, M): the mean of each exit, and the interval that holds 95 % of the draws.

    Args:
        drawn: From `resampled`; None makes the intervals infinite.
        exits: (C, S, M), as there.
    """
    means = np.stack([fit(exits[:, :, k]).means for k in range(exits.shape[2])], axis=1)
    low, high = np.full_like(means, -np.inf), np.full_like(means, np.inf)
    if drawn is not None:
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    counts = (~np.isnan(exits[:, :, 0])).sum(axis=1)
    return tuple(
        tuple(
            Estimate(float(means[c, k]), float(low[c, k]), float(high[c, k]), int(counts[c]))
            for k in range(means.shape[1])
        )
        for c in range(len(means))
    )


def on_front(drawn: Values, flops: Values) -> Values:
    """(C, M): the share of draws (D, C, M) in which no other point beats this one.

    As in `studies.front`: what costs as much beats it by being more accurate, what is cheaper by
    being as accurate. Points that are equal in a draw are both on its front.
    """
    every = drawn.reshape(len(drawn), -1)
    cost = flops.reshape(-1)
    hidden = np.zeros(every.shape, dtype=bool)
    for point, own in enumerate(every.T):
        cheaper = every[:, cost < cost[point]].max(axis=1, initial=-np.inf)
        alike = every[:, cost == cost[point]].max(axis=1)  # itself among them
        hidden[:, point] = (cheaper >= own - ROUNDING) | (alike > own + ROUNDING)
    share: Values = 1 - hidden.mean(axis=0)
    return share.reshape(flops.shape)


def together(drawn: Values, rng: int = SEED) -> Values:
    """The draws, those of each config drawn toward the mean of all, for probabilities.

    Of several noisy means the best is too high, so that what leads by luck would be called sure of
    the front. As in `confirmed.expected`, by what noise explains of the configs' scatter, here all
    exits together; the scatter itself is drawn too, as it comes from few configs. Less than three
    say nothing of it, and stay.

    Args:
        drawn: (D, C, M), of `resampled`.
        rng: Of the scatter.
    """
    draws, count, _ = drawn.shape
    means = drawn.mean(axis=0)
    noise = drawn.var(axis=0).mean(axis=1)
    if count < 3 or not (noise > 0).all():
        return drawn
    for _ in range(2):  # the noise of a config, then that about the mean of all
        share = (1 / noise) / (1 / noise).sum()
        centres = np.einsum("c,dck->dk", share, drawn)[:, None]
        middle = means - share @ means
        left = drawn - centres - middle
        noise = np.maximum(left.var(axis=0).mean(axis=1), 1e-9)
    scatter, chance = float(share @ (middle**2).mean(axis=1)), float(share @ noise)
    now = scatter * (count - 1) / np.random.default_rng(rng).chisquare(count - 1, draws)
    between = np.maximum(now - chance, LEAST * chance) / (1 - float(share @ share))
    kept = (between[:, None] / (between[:, None] + noise))[:, :, None]
    made: Values = centres + kept * middle + np.sqrt(kept) * left
    return made
