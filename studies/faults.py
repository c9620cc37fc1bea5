"""What becomes of trials that break or hang, and of a search whose trials all fail; no storage.

A worker that died or hung may have had bad luck: its trial goes on from its checkpoint on another,
at most `RETRIES` times. A trial that raises may have met a full node or a lost connection: it is
tried again too, but not once the same error has come back.
"""

import statistics
from collections import deque
from collections.abc import Collection, Sequence

from studies.states import Outcome
from trainers.config import TrialConfig

RETRIES = 2
HUNG_AFTER = 10.0  # median epochs without a report
HUNG_AT_LEAST = 60.0  # seconds
LATEST = 100  # epochs of a network that its pace is taken from
HOPELESS = 3  # failed trials, where none has trained an epoch


def tries_again(failures: Sequence[str], reason: str, died: bool) -> bool:
    """Whether a trial is tried again after an attempt broke.

    Args:
        failures: Why earlier attempts broke.
        reason: Why this one did.
        died: The worker died or hung; else the trial raised.
    """
    return len(failures) < RETRIES and (died or reason not in failures)


def last_words(failures: Sequence[str], reason: str) -> str:
    """Why a trial is given up, earlier attempts counted."""
    return f"{reason} (attempt {len(failures) + 1})" if failures else reason


def why_it_died(said: str) -> str:
    """Why a worker died, from what Ray says of it; the kernel kills without a word."""
    if "running low on memory" in said:
        return "its worker was ended: the node ran low on memory"
    return "its worker died"


def hung_after(seconds: Collection[float], starts: Sequence[float] = ()) -> float | None:
    """Seconds without a report after which a trial counts as hung; None if no epoch is known yet.

    Args:
        seconds: Of epochs that were trained.
        starts: Of workers from their beginning to their first report, for a trial that has not
            reported yet: its worker may load libraries and data first.
    """
    if not seconds:
        return None
    long = [statistics.median(seconds), *starts]
    return max(HUNG_AFTER * max(long), HUNG_AT_LEAST)


class Pace:
    """How long epochs take in this search, by network, and after how much silence one hangs.

    An epoch of a network that was not timed yet is given what the timed ones would take for its
    FLOPs; never less than they do, as small networks are not as fast as their FLOPs say.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, float], deque[float]] = {}  # by backbone and width
        self._configs: dict[tuple[str, float], TrialConfig] = {}

    def trained(self, config: TrialConfig, seconds: float) -> None:
        """An epoch has been trained."""
        network = config.backbone, config.width
        self._seconds.setdefault(network, deque(maxlen=LATEST)).append(seconds)
        self._configs[network] = config

    def hung_after(self, config: TrialConfig, starts: Sequence[float] = ()) -> float | None:
        """As the function, for a trial of this config."""
        own = self._seconds.get((config.backbone, config.width))
        return hung_after(own or self._expected(config), starts)

    def _expected(self, config: TrialConfig) -> list[float]:
        """Seconds of an epoch by the network that gives it the longest; [] if none is timed."""
        if not self._seconds:
            return []
        from trainers.costs import costs  # networks differ in few searches only

        flops = costs(config)[-1].flops_cascade
        return [
            max(
                statistics.median(seconds)
                * max(1.0, flops / costs(self._configs[network])[-1].flops_cascade)
                for network, seconds in self._seconds.items()
            )
        ]


def untouched(outcomes: Sequence[Outcome]) -> bool:
    """Whether no epoch has been trained in the study: an error of the user's input, such as data
    that cannot be read, is then nobody's trial's, and ends the search instead."""
    return not any(outcome.epochs for outcome in outcomes)


def hopeless(outcomes: Sequence[Outcome]) -> str | None:
    """Why a search is not worth going on with: its trials all fail. None if it is."""
    failed = [outcome for outcome in outcomes if outcome.state == "FAIL"]
    if len(failed) < HOPELESS or not untouched(outcomes):
        return None
    return (
        f"all {len(failed)} trials so far failed before the end of their first epoch, "
        f"at last: {failed[-1].reason}"
    )
