"""When early stopping is right, from learning curves of full length: pure functions, numpy only.

Curves are (C, S, E): the objective of C configs, each with S seeds, after each of E epochs.

- `spread`: how far runs of one config scatter, epoch by epoch, beyond what a seed does to all
  configs alike.
- `agreement`: Kendall's tau-b between the order of the configs after an epoch and the last one's,
  within each seed, with a bootstrap interval over the configs (Kendall 1945; Efron 1979).
- `outcome`: what a rule of stopping keeps and costs, in searches drawn from the curves: configs
  with replacement, all with one seed, as the trials of a real search have it. All trials are
  judged at a rung together, which is stricter than one after another, as they really come.
- `calibrate`: the cheapest rule that is safe, and the first epoch from which stopping is.

Safe is what keeps the config that would be best at the end, or one whose end is within one
spread of it, in 95 of 100 such searches, and whose first rung sees an order that has
anything to do with the end's (the interval of tau lies above 0): where all differences are noise,
whatever is kept is good enough, and a rung that draws lots would pass. Both have to hold for every
later first rung, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studies.rungs import rung_epochs

Curves = NDArray[np.float64]

SAFE = 0.95  # of the searches; what a dozen configs choose then holds on fresh ones, see LOG.md
LEVEL = 0.95  # of intervals
DRAWS = 1000  # of the bootstrap, and searches drawn
ETAS = (2, 3, 4)  # reduction factors that are tried
TOLERANCES = (0.0, 1.0)  # in spreads at the first rung
FEWEST = 5  # configs below which an order says nothing


class Range(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rule:
    """When a trial is stopped, see `studies.rungs`.

    Attributes:
        grace: Epochs before the first rung; the full length is no stopping at all.
        eta: A rung keeps 1 in eta.
        tolerance: How far below a rung's threshold is good enough, in the objective's unit.
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
        kept: Share of searches that keep their best config, or one as good within the spread.
        loss: How much worse the best that is kept ends than the best of all, in the objective's
            unit.
        epochs: Trained, as a share of those of all trials at full length.
    """

    rule: Rule
    kept: float
    loss: float
    epochs: float


@dataclass(frozen=True)
class Moment:
    """The curves after one epoch.

    Attributes:
        epoch: Completed.
        spread: Between runs that share a search's seed, standard deviation in the objective's
            unit; None from one seed.
        tau: Agreement of the order with the last epoch's.
        halved: Stopping half of the trials here, and nowhere else.
    """

    epoch: int
    spread: Range | None
    tau: Range
    halved: Outcome


@dataclass(frozen=True)
class Calibration:
    """What the curves say.

    Attributes:
        configs, seeds, epochs: C, S, E.
        moments: One an epoch; the last one is the end itself.
        anywhere: The spread at the end between runs that share no seed; None from one seed.
        again: Agreement of the last epoch's order with that of the other seeds' means: the best
            that any early order can come to; None from one seed.
        safe: The first epoch from which stopping half is safe; None if it never is.
        chosen: The cheapest safe rule; without one, no stopping.
        usual: The rule that is taken where nothing was calibrated.
    """

    configs: int
    seeds: int
    epochs: int
    moments: tuple[Moment, ...]
    anywhere: Range | None
    again: Range | None
    safe: int | None
    chosen: Outcome
    usual: Outcome

    @property
    def stops(self) -> bool:
        """Whether the chosen rule stops any trial."""
        return self.chosen.rule.grace < self.epochs

    @property
    def margin(self) -> float:
        """What counts as equally good at the end: the spread there; 0 if not known."""
        last = self.moments[-1].spread
        return 0.0 if last is None else last.value


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


def pools(curves: Curves, draws: int = DRAWS, seed: int = 0, trials: int | None = None) -> Curves:
    """(D, N, E): searches of N trials as the curves could have given them.

    Args:
        curves: (C, S, E).
        draws: D.
        seed: Of the draws.
        trials: N; C if None.
    """
    rng = np.random.default_rng([seed, 1])
    configs, seeds, _ = curves.shape
    size = (draws, trials or configs)
    made: Curves = curves[rng.integers(configs, size=size), rng.integers(seeds, size=(draws, 1))]
    return made


def outcome(searches: Curves, rule: Rule, margin: float = 0.0) -> Outcome:
    """What a rule keeps and costs.

    Args:
        searches: (D, N, E), from `pools`.
        rule: When trials are stopped.
        margin: What counts as equally good at the end, in the objective's unit.
    """
    draws, trials, epochs = searches.shape
    alive = np.ones((draws, trials), dtype=bool)
    trained, before = np.zeros(draws), 0
    for rung in rung_epochs(rule.grace, rule.eta, epochs, rule.rungs):
        count = alive.sum(axis=1)
        trained += count * (rung - before)
        seen = np.where(alive, searches[:, :, rung - 1], -np.inf)
        places = np.maximum(1, count // rule.eta)
        worst = np.take_along_axis(-np.sort(-seen, axis=1), places[:, None] - 1, axis=1)
        alive &= seen + rule.tolerance >= worst
        before = rung
    trained += alive.sum(axis=1) * (epochs - before)
    ends = searches[:, :, -1]
    lost = ends.max(axis=1) - np.where(alive, ends, -np.inf).max(axis=1)
    return Outcome(
        rule,
        kept=float((lost <= margin + 1e-12).mean()),
        loss=float(lost.mean()),
        epochs=float(trained.mean() / (trials * epochs)),
    )


def calibrate(
    curves: Curves, usual: Rule, draws: int = DRAWS, seed: int = 0, listed: Sequence[int] = ()
) -> Calibration:
    """What curves of full length say about stopping.

    Args:
        curves: (C, S, E), at least `FEWEST` configs and two epochs; a diverged run has the value of
            chance from there on.
        usual: The rule to compare with.
        draws: Of the bootstrap, and searches.
        seed: Of all draws.
        listed: Rungs after the drops of the learning rate (`rungs.after_drops`): one more rule, as
            they stand. Every other list would be one more ticket in a lottery (LOG.md).

    Raises:
        ValueError: Too few configs or epochs, or values that are missing.
    """
    configs, seeds, epochs = curves.shape
    if configs < FEWEST or epochs < 2 or not np.isfinite(curves).all():
        raise ValueError(f"curves of {configs} configs over {epochs} epochs cannot be calibrated")
    scatter, anywhere = spread(curves), spread(curves[:, :, -1:], shared=True)
    margin = 0.0 if scatter is None else scatter[-1].value
    searches = pools(curves, draws, seed)
    moments = tuple(
        Moment(
            epoch=epoch,
            spread=None if scatter is None else scatter[epoch - 1],
            tau=agreement(curves[:, :, epoch - 1], curves[:, :, -1], draws, seed),
            halved=outcome(searches, Rule(epoch, rungs=(epoch,)), margin),
        )
        for epoch in range(1, epochs + 1)
    )
    ordered = [moment.tau.low > 0 for moment in moments]
    halved = [moment.halved.kept >= SAFE for moment in moments]
    safe = first_safe(halved, ordered)
    full = outcome(searches, Rule(epochs), margin)
    found = [full, *_safe_rules(searches, scatter, margin, ordered, listed)]
    return Calibration(
        configs=configs,
        seeds=seeds,
        epochs=epochs,
        moments=moments,
        anywhere=None if anywhere is None else anywhere[0],
        again=repeated(curves, draws, seed),
        safe=safe if safe is not None and safe < epochs else None,
        chosen=min(found, key=lambda found: (found.epochs, -found.kept)),
        usual=outcome(searches, usual, margin),
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
    searches: Curves,
    scatter: list[Range] | None,
    margin: float,
    ordered: Sequence[bool],
    listed: Sequence[int],
) -> list[Outcome]:
    """The rules that are safe with their first rung where it is and anywhere later."""
    epochs = searches.shape[2]
    found = []
    for eta in ETAS:
        for factor in TOLERANCES if scatter is not None else TOLERANCES[:1]:

            def judged(
                grace: int,
                rungs: tuple[int, ...] | None = None,
                eta: int = eta,
                factor: float = factor,
            ) -> Outcome:
                near = 0.0 if scatter is None else rounded(factor * scatter[grace - 1].value)
                return outcome(searches, Rule(grace, eta, near, rungs), margin)

            row = [judged(grace) for grace in range(1, epochs)]
            first = first_safe([one.kept >= SAFE for one in row], ordered)
            found += row[first - 1 :] if first is not None else []
            if listed:  # as a whole later, too
                moved = [
                    tuple(rung + by for rung in listed if rung + by < epochs)
                    for by in range(epochs - listed[0])
                ]
                row = [judged(rungs[0], rungs) for rungs in moved]
                safe = first_safe([one.kept >= SAFE for one in row], ordered[listed[0] - 1 :])
                found += row[:1] if safe == 1 else []
    return found


def rounded(tolerance: float) -> float:
    """Two significant digits: more would be noise."""
    return float(f"{tolerance:.2g}")
