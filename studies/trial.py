"""One trial on one worker: what `local` and `cluster` both run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import EpochReport


@dataclass(frozen=True)
class Event:
    """What a driver tells whoever watches it.

    Attributes:
        kind: "started", "epoch", "ended" (the state says how) or "given back".
        number: Of the trial.
        config: Of the trial.
        report: The epoch's report, with "epoch" alone.
        state: COMPLETE, PRUNED or FAIL, with "ended" alone.
        reason: Why it was stopped or failed, with "ended" alone.
    """

    kind: Literal["started", "epoch", "ended", "given back"]
    number: int
    config: TrialConfig
    report: EpochReport | None = None
    state: str | None = None
    reason: str | None = None


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """For whoever does not watch."""


def run(
    config: TrialConfig,
    *,
    data_root: str | None,
    device: str,
    threads: int,
    checkpoint: Path | None,
    purpose: Literal["search", "reproduce", "final-holdout"] = "search",
    each_epoch: bool = False,
    hits: bool = False,
) -> Iterator[EpochReport]:
    """The reports of one trial.

    Args:
        config: Of the trial.
        data_root, device, threads: As in its study's plan.
        checkpoint: Where it is kept.
        purpose: Which images, see `trainers.data.load`: a search's never include the test split.
        each_epoch: Score the test split after every epoch, not only after the last.
        hits: Keep in the last report which held-out images each exit has right.
    """
    import torch  # a driver on Ray never trains, so it never pays for this import

    from trainers.data import load
    from trainers.loop import train

    torch.set_num_threads(threads)
    data = load(config, purpose, data_root)
    yield from train(
        config, data, checkpoint=checkpoint, device=device, each_epoch=each_epoch, hits=hits
    )


def reason_of(error: BaseException) -> str:
    """Why a trial failed, one line of at most 300 characters."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):  # a sentence for the user already
        return text[:300]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
