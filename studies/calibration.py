"""When early stopping is right, from learning curves of full length: pure functions, numpy only.

Curves are (C, S, E, K), see `studies.halving`: one number, or the accuracy of each exit of a front.

- `spread`: how far runs of one config scatter, epoch by epoch, beyond what a seed does to all
  configs alike.
- `agreement`: Kendall's tau-b between the order of the configs after an epoch and the last one's,
  within each seed, with a bootstrap interval over the configs (Kendall 1945; Efron 1979).
- `calibrate`: the cheapest rule that is safe, and the first epoch from which stopping is.

Safe is what keeps the config that would be best at the end, or one whose end is within one
spread of it, in 95 of 100 searches drawn from the curves (`halving.outcome`), and whose first rung
sees an order that has anything to do with the end's (the interval of tau lies above 0): where all
differences are noise, whatever is kept is good enough, and a rung that draws lots would pass. Both
have to hold for every later first rung, too.

Of a front it is 95 of 100 of the networks that no other beats at the end, or one within one spread
at every exit, and the order has to be one at every exit: what owes its place on the front to one
exit is lost where that exit's early order is luck, whatever the mean of them says. So of the taus
the least sure one counts, and of the spreads, for the one tolerance that rungs have, the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studies.halving import DRAWS, Curves, Outcome, Rule, outcome, pools

SAFE = 0.95  # of the searches; what a dozen configs choose then holds on fresh ones, see LOG.md
LEVEL = 0.95  # of intervals
ETAS = (2, 3, 4)  # reduction factors that are tried
TOLERANCES = (0.0, 1.0)  # in spreads at the first rung
FEWEST = 5  # configs below which an order says nothing
MOST = 20  # trials of a search for a front: all pairs are compared


class Range(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def least_sure(taus: Iterable[Range]) -> Range | None:
    """The one whose interval begins lowest; None of none."""
    return min(taus, key=lambda tau: tau.low, default=None)


@dataclass(frozen=True)
class Moment:
    """The curves after one epoch.

    Attributes:
        epoch: Completed.
        spreads: Between runs that share a search's seed, standard deviation in the objective's
            unit; of a front one an exit, of accuracy. None known from one seed.
        taus: Agreement of the order with the last epoch's, likewise.
        halved: Stopping half of the trials here, and nowhere else.
    """

    epoch: int
    spreads: tuple[Range, ...]
    taus: tuple[Range, ...]
    halved: Outcome

    @property
    def spread(self) -> Range | None:
        """The largest; None from one seed."""
        return max(self.spreads, default=None)

    @property
    def tau(self) -> Range:
        """The least sure."""
        found = least_sure(self.taus)
        assert found is not None
        return found


@dataclass(frozen=True)
class Calibration:
    """What the curves say.

    Attributes:
        configs, seeds, epochs: C, S, E.
        moments: One an epoch; the last one is the end itself.
        anywhere: The spread at the end between runs that share no seed, of a front one an exit;
            none known from one seed.
        again: Agreement of the last epoch's order with that of the other seeds' means, of a front
            the least sure of the exits': the best that any early order can come to; None from one
            seed.
        safe: The first epoch from which stopping half is safe; None if it never is.
        chosen: The cheapest safe rule; without one, no stopping.
        usual: The rule that is taken where nothing was calibrated.
    """

    configs: int
    seeds: int
    epochs: int
    moments: tuple[Moment, ...]
    anywhere: tuple[Range, ...]
    again: Range | None
    safe: int | None
    chosen: Outcome
    usual: Outcome

    @property
    def stops(self) -> bool:
        """Whether the chosen rule stops any trial."""
        return self.chosen.rule.grace < self.epochs


def spread(curves: Curves, shared: bool = False) -> list[Range] | None:
    """(E,), the standard deviation between runs of a config after each epoch, over all configs.

    What a seed does to all configs alike is left out, because the trials of a search share one
    seed: the residuals of a two-way layout, with (C - 1)(S - 1) degrees of freedom. Its interval is
    that of a variance of normal deviates. None from one seed.

    Args:
        curves: (C, S, E), the same seeds for all configs.
        shared: Whether to leave in what is shared, C (S - 1) degrees: two runs anywhere.
    """
    from scipy.stats import chi2

    configs, seeds, _ = curves.shape
    if seeds < 2:
        return None
    apart = curves - curves.mean(axis=1, keepdims=True)
    free = configs * (seeds - 1)
    if not shared:
        apart -= apart.mean(axis=0, keepdims=True)
        free -= seeds - 1
    pooled = np.sqrt((apart**2).sum(axis=(0, 1)) / free)
    ends = chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], free)
    low, high = (float(end) for end in np.sqrt(free / ends))
    return [Range(float(s), float(s) * low, float(s) * high) for s in pooled]


def kendall(
    early: NDArray[np.float64],
    late: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Kendall's tau-b, with multiplicities.

    Args:
        early, late: (C,), two values of each config.
        weights: (B, C), how often each config counts; once if None.

    Returns:
        (B,); NaN where all values of one side are tied.
    """
    weights = np.ones((1, len(early))) if weights is None else weights
    one, two = (np.sign(side[:, None] - side[None, :]) for side in (early, late))

    def total(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(((weights @ pairs) * weights).sum(axis=1))

    with np.errstate(invalid="ignore", divide="ignore"):
        return total(one * two) / np.sqrt(total(one**2) * total(two**2))


def _resampled(configs: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(1 + B, C): each config once, then B bootstrap samples as multiplicities."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(configs, np.full(configs, 1 / configs), size=draws)
    return np.vstack([np.ones(configs), drawn])


def agreement(early: Curves, late: Curves, draws: int = DRAWS, seed: int = 0) -> Range:
    """The mean over seeds of tau-b between two values of every run, with its interval.

    Args:
        early, late: (C, S).
        draws: Of the bootstrap over configs.
        seed: Of the bootstrap.
    """
    weights = _resampled(len(early), draws, seed)
    columns = [kendall(early[:, s], late[:, s], weights) for s in range(early.shape[1])]
    with np.errstate(invalid="ignore"):
        taus = np.nan_to_num(np.mean(columns, axis=0), nan=0.0)  # all tied: nothing is known
    low, high = np.quantile(taus[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Range(float(taus[0]), float(low), float(high))


def repeated(curves: Curves, draws: int = DRAWS, seed: int = 0) -> Range | None:
    """Agreement of one run's last order with that of the other seeds' means; None from one seed."""
    seeds = curves.shape[1]
    if seeds < 2:
        return None
    last = curves[:, :, -1]
    others = (last.sum(axis=1, keepdims=True) - last) / (seeds - 1)
    return agreement(last, others, draws, seed)


def calibrate(
    curves: Curves,
    usual: Rule,
    draws: int = DRAWS,
    seed: int = 0,
    listed: Sequence[int] = (),
    exits: int | None = None,
) -> Calibration:
    """What curves of full length say about stopping.

    Args:
        curves: (C, S, E, K), at least `FEWEST` configs and two epochs; a diverged run has the value
            of chance from there on.
        usual: The rule to compare with.
        draws: Of the bootstrap, and searches.
        seed: Of all draws.
        listed: Rungs after the drops of the learning rate (`rungs.after_drops`): one more rule, as
            they stand. Every other list would be one more ticket in a lottery (LOG.md).
        exits: How many of the columns, the first ones, are exits; None is all of them.

    Raises:
        ValueError: Too few configs or epochs, or values that are missing.
    """
    configs, seeds, epochs, columns = curves.shape
    if configs < FEWEST or epochs < 2 or not np.isfinite(curves).all():
        raise ValueError(f"curves of {configs} configs over {epochs} epochs cannot be calibrated")
    sides = [curves[:, :, :, column] for column in range(columns if exits is None else exits)]
    scatter = [ranges for side in sides if (ranges := spread(side)) is not None]
    margins = [ranges[-1].value for ranges in scatter] or [0.0] * len(sides)
    trials = configs if columns == 1 else min(configs, MOST)
    searches = pools(curves, draws, seed, trials)

    def judged(rule: Rule) -> Outcome:
        return outcome(searches, rule, margins, exits)

    moments = tuple(
        Moment(
            epoch=epoch,
            spreads=tuple(ranges[epoch - 1] for ranges in scatter),
            taus=tuple(
                agreement(side[:, :, epoch - 1], side[:, :, -1], draws, seed) for side in sides
            ),
            halved=judged(Rule(epoch, rungs=(epoch,))),
        )
        for epoch in range(1, epochs + 1)
    )
    safe = first_safe(
        [moment.halved.kept >= SAFE for moment in moments],
        [moment.tau.low > 0 for moment in moments],
    )
    found = [judged(Rule(epochs)), *_safe_rules(moments, judged, listed)]
    anywhere = [spread(side[:, :, -1:], shared=True) for side in sides]
    again = [repeated(side, draws, seed) for side in sides]
    return Calibration(
        configs=configs,
        seeds=seeds,
        epochs=epochs,
        moments=moments,
        anywhere=tuple(ranges[0] for ranges in anywhere if ranges is not None),
        again=least_sure(tau for tau in again if tau is not None),
        safe=safe if safe is not None and safe < epochs else None,
        chosen=min(found, key=lambda found: (found.epochs, -found.kept)),
        usual=judged(usual),
    )


def first_safe(kept: Sequence[bool], ordered: Sequence[bool]) -> int | None:
    """The first epoch (from 1) from which both hold at every epoch; None if there is none."""
    safe = None
    for epoch in range(len(kept), 0, -1):
        if not (kept[epoch - 1] and ordered[epoch - 1]):
            break
        safe = epoch
    return safe


def _safe_rules(
    moments: Sequence[Moment], judged: Callable[[Rule], Outcome], listed: Sequence[int]
) -> list[Outcome]:
    """The rules that are safe with their first rung where it is and anywhere later."""
    epochs, found = len(moments), []
    ordered = [moment.tau.low > 0 for moment in moments]
    for eta in ETAS:
        for factor in TOLERANCES if moments[0].spread is not None else TOLERANCES[:1]:

            def rule(
                grace: int,
                rungs: tuple[int, ...] | None = None,
                eta: int = eta,
                factor: float = factor,
            ) -> Rule:
                near = moments[grace - 1].spread
                return Rule(grace, eta, rounded(factor * near.value) if near else 0.0, rungs)

            row = [judged(rule(grace)) for grace in range(1, epochs)]
            first = first_safe([one.kept >= SAFE for one in row], ordered)
            found += row[first - 1 :] if first is not None else []
            if listed:  # as a whole later, too
                moved = [
                    tuple(rung + by for rung in listed if rung + by < epochs)
                    for by in range(epochs - listed[0])
                ]
                row = [judged(rule(rungs[0], rungs)) for rungs in moved]
                safe = first_safe([one.kept >= SAFE for one in row], ordered[listed[0] - 1 :])
                found += row[:1] if safe == 1 else []
    return found


def rounded(tolerance: float) -> float:
    """Two significant digits: more would be noise."""
    return float(f"{tolerance:.2g}")
