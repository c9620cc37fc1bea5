"""What early stopping cost: an estimate without bias, from the stopped trials that ran on.

Which ones run on is drawn at random when they are stopped, whatever they showed (`rungs.runs_on`),
and no later decision of the search sees them. So they are a fair sample of all that were stopped:
their share of would-be winners is, on average, the share among all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.verdict import finished

if TYPE_CHECKING:
    from studies.states import Outcome

LEVEL = 0.95


@dataclass(frozen=True)
class StoppingCost:
    """How often a rung stopped a trial that would have won the search.

    Attributes:
        stopped: Trials that rungs stopped; those that ran on are among them.
        followed: Of these, how many ran on to their full length.
        winners: Of these, how many ended above every full-length trial of the search.
        low, high: 95 % interval of the share of winners among all that were stopped.
    """

    stopped: int
    followed: int
    winners: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of the stopped trials, those that would have won: the estimate."""
        return self.winners / self.followed


def stopping_cost(outcomes: Sequence[Outcome]) -> StoppingCost | None:
    """The estimate; None where no trial ran on, or none that was not stopped ran in full."""
    best = max((o.value for o in finished(outcomes) if o.value is not None), default=None)
    stopped = [o for o in outcomes if o.state == "PRUNED" and not o.diverged]
    ends = [o.ran_to for o in stopped if o.ran_to is not None]
    if best is None or not ends:
        return None
    won = sum(end > best for end in ends)
    return StoppingCost(len(stopped), len(ends), won, *interval(won, len(ends), len(stopped)))


def interval(hits: int, of: int, among: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share of finitely many, some of which were seen.

    The shares under which neither so few hits nor so many are rarer than half of what `level`
    leaves, by the hypergeometric distribution: what was seen is known, and only the rest is not.

    Args:
        hits: Of `of` draws.
        of: Draws without replacement, at least one.
        among: How many there are, at least `of`.
        level: Its probability of holding the true share, at least.
    """
    import numpy as np
    from scipy.stats import hypergeom

    tail = (1 - level) / 2
    possible = np.arange(hits, among - of + hits + 1)  # of all, by what was seen
    many = hypergeom.sf(hits - 1, among, possible, of) > tail
    few = hypergeom.cdf(hits, among, possible, of) > tail
    held = possible[many & few]
    return float(held[0] / among), float(held[-1] / among)


def stopping_text(outcomes: Sequence[Outcome]) -> str:
    """The estimate in words; empty where there is none."""
    cost = stopping_cost(outcomes)
    if cost is None:
        return ""
    ran = (
        f"{cost.followed} of the {cost.stopped} stopped trials, drawn at random, ran on to the end"
    )
    if cost.followed == cost.stopped:
        every = f"all {cost.stopped} stopped trials" if cost.stopped > 1 else "the stopped trial"
        ran = f"{every} ran on to the end"
    won = "none of them" if not cost.winners else f"{cost.winners} of them"
    text = (
        f"What stopping cost: {ran}, outside the search; {won} ended above the best full-length "
        "trial and so would have won."
    )
    if cost.followed == cost.stopped:
        return f"{text} That is {100 * cost.share:.0f} % of all stopped trials, by one run each."
    return (
        f"{text} Of all stopped trials that is an estimated "
        f"{100 * cost.share:.0f} % (95 % interval: {100 * cost.low:.0f} to {100 * cost.high:.0f} "
        f"%), or {cost.stopped * cost.share:.1f} trials (at most "
        f"{cost.stopped * cost.high:.0f}), by one run each."
    )
