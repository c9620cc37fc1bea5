"""What a search may spend: hours and epochs. An epoch is granted before it begins.

And how a search shares its epochs with the confirmation of what it finds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from studies import racing
from studies.plan import StudyPlan
from studies.reading import StudyReader
from trainers.catalog import InputError


@dataclass(frozen=True)
class Limits:
    """Of one call of a search; the trials that it cuts wait with their checkpoints.

    Attributes:
        seconds: After which no epoch begins, counted from the call's beginning. Those that run come
            to their end.
        epochs: Of all trials of the study together, by any number of drivers, those of earlier
            calls included.

    Raises:
        InputError: Not above zero.
    """

    seconds: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"timeout needs to be above 0 seconds, got {self.seconds:g}")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"max-epochs-total needs to be at least 1, got {self.epochs}")

    def after(self, seconds: float) -> "Limits":
        """What is left of them once so much time has gone; a moment at least."""
        return (
            self
            if self.seconds is None
            else replace(self, seconds=max(1e-3, self.seconds - seconds))
        )


class Grants:
    """Grants epochs as long as the limits allow them.

    Args:
        record: The study.
        limits: Counted from now.
        clock: Seconds.
    """

    def __init__(
        self, record: StudyReader, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.record, self.limits, self.clock = record, limits, clock
        self.begin = clock()

    def out_of_time(self) -> str | None:
        """Why no epoch may begin any more; None while there is time."""
        seconds = self.limits.seconds
        if seconds is None or self.clock() - self.begin < seconds:
            return None
        return "the time that --timeout gave is over"

    def refusal(self) -> str | None:
        """Why a trial that is RUNNING may not begin its next epoch; None if it may.

        Each trial that runs, this one too, counts as an epoch that may come yet. A driver that asks
        at the same time sees that too, so together they never exceed the limit.
        """
        if (late := self.out_of_time()) is not None:
            return late
        most = self.limits.epochs
        if most is None or self.record.spent() <= most:
            return None
        return f"the {most:,} epochs of --max-epochs-total are spent or under way"


@dataclass(frozen=True)
class Shared:
    """A search's budget of epochs, shared with its confirmation.

    Attributes:
        share: Of the confirmation, as asked for.
        total: Epochs of both, at most.
        trials: Left for the search.
        most: Epochs that the search may spend, if they are limited.
        top, seeds: Of the confirmation.
        epochs: That it spends, at most.
    """

    share: float
    total: int
    trials: int
    most: int | None
    top: int
    seeds: int
    epochs: int


def shared(plan: StudyPlan, share: float, most: int | None = None) -> Shared:
    """How a search shares its epochs with its confirmation.

    Args:
        plan: Of the search, with the trials of both.
        share: Of the confirmation, above 0 and below 1.
        most: Epochs of all trials together, if limited.

    Raises:
        InputError: A share that is none, or so small that no candidate has two seeds.
    """
    if not 0 < share < 1:
        raise InputError(f"confirm needs a share above 0 and below 1, got {share:g}")
    epochs, limited = plan.base.epochs, most is not None and most < plan.trials * plan.base.epochs
    total = most if most is not None and limited else plan.trials * epochs
    runs = int(share * total / epochs + 1e-9)
    made = racing.fitting(runs)
    if made is None:
        raise InputError(
            f"confirm {share:g} of {total:,} epochs pays for {runs} full-length runs, at least 4 "
            "are needed (one candidate and the default on two seeds): take more --trials or a "
            "larger share"
        )
    spent = racing.cost(racing.schedule(*made))
    return Shared(
        share=share,
        total=total,
        trials=plan.trials if limited else plan.trials - spent,
        most=total - spent * epochs if limited else None,
        top=made[0],
        seeds=made[1],
        epochs=spent * epochs,
    )
