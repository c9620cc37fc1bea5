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
        low, high: 95 % interval of the share of winners among all that were stopped (Clopper and
            Pearson 1934).
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
    return StoppingCost(len(stopped), len(ends), won, *interval(won, len(ends)))


def interval(hits: int, of: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934).

    Args:
        hits: Of `of` draws, at least one.
        of: Draws.
        level: Its probability of holding the true share, at least.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def stopping_text(outcomes: Sequence[Outcome]) -> str:
    """The estimate in words; empty where there is none."""
    cost = stopping_cost(outcomes)
    if cost is None:
        return ""
    ran = (
        f"{cost.followed} of the {cost.stopped} stopped trials, drawn at random, ran on to the end"
    )
    won = "none of them" if not cost.winners else f"{cost.winners} of them"
    return (
        f"What stopping cost: {ran}, outside the search; {won} ended above the best full-length "
        f"trial and so would have won. Of all stopped trials that is an estimated "
        f"{100 * cost.share:.0f} % (95 % interval: {100 * cost.low:.0f} to {100 * cost.high:.0f} "
        f"%), or {cost.stopped * cost.share:.1f} trials (at most "
        f"{cost.stopped * cost.high:.1f}), by one run each."
    )
