"""What the commands share that run a study: how it is stored, what is left, how it goes."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automate.printing import say
from studies.plan import StudyPlan
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.limits import Limits
    from studies.record import Outcome, StudyRecord
    from studies.search import Estimate
    from studies.trial import Event


def as_stored(
    plan: StudyPlan,
    storage: str | None,
    runs: Path,
    runtime: Mapping[str, Any],
    keep_trials: bool,
) -> tuple[StudyPlan, "list[Outcome] | None"]:
    """The plan as it goes on where its study is there already, and all trials of that study.

    Looks only: nothing is made. Raises InputError if the study is another search, or a file of the
    user is another one now.
    """
    from studies import resume
    from studies.listing import is_begun
    from studies.record import StudyRecord

    if not is_begun(plan.study, runs, storage):
        return plan, None
    with closing(StudyRecord.open(plan.study, storage, runs)) as record:
        record.plan.check_files()
        record.plan.check_images()
        if keep_trials:
            plan = plan.with_(trials=record.plan.trials)
        plan = resume.going_on(record.plan, plan, runtime)
        return plan, record.outcomes()


def stored_plan(study: str, storage: str | None, runs: Path) -> StudyPlan | None:
    """A study's plan; None if there is no such study. Raises InputError of a foreign one."""
    from studies.listing import is_begun
    from studies.record import StudyRecord

    if not is_begun(study, runs, storage):
        return None
    with closing(StudyRecord.open(study, storage, runs)) as record:
        return record.plan


def stored_calibration(
    study: str, storage: str | None, runs: Path
) -> tuple[StudyPlan, dict[str, Any]] | None:
    """A calibration's plan and what was kept of it; None if there is none."""
    from studies.calibrating import KEPT
    from studies.listing import is_begun
    from studies.record import StudyRecord

    if not is_begun(study, runs, storage):
        return None
    with closing(StudyRecord.open(study, storage, runs)) as record:
        kept = record.noted(KEPT)
        return None if kept is None else (record.plan, kept)


def left(
    plan: StudyPlan, outcomes: "Sequence[Outcome]", ray_address: str | None
) -> "Estimate | None":
    """What the trials of the plan that have not ended cost at most; None if there is none."""
    from studies.search import estimate
    from studies.states import ENDED

    outcomes = [outcome for outcome in outcomes if outcome.number < plan.trials]
    ended = [outcome for outcome in outcomes if outcome.state in ENDED]
    if len(ended) >= plan.trials:
        return None
    done = sum(outcome.epochs for outcome in outcomes if outcome.state not in ENDED)
    left = (plan.trials - len(ended)) * plan.base.epochs - done
    whole = estimate(plan, ray_address)
    return replace(whole, epochs=left, seconds=whole.seconds * left / whole.epochs)


def drive_shown(
    record: "StudyRecord",
    ray_address: str | None,
    limits: "Limits | None" = None,
    *,
    quiet: bool,
    json: bool,
) -> None:
    """Runs the trials that wait, and tells how it goes."""
    from automate.main import heed_signals
    from automate.progress import Progress, watched
    from studies.search import drive

    record.plan.check_files()  # `drive` does too: before anything is called stopped
    progress = Progress(record.plan, record.outcomes)
    # Ray prints on stdout, whatever it is told.
    elsewhere = redirect_stdout(sys.stderr) if json else nullcontext()
    try:
        with elsewhere, watched(progress, quiet=quiet, stderr=json) as show:

            def on_event(event: "Event") -> None:
                show(event)
                if event.kind in ("started", "epoch"):  # not where an end is under way
                    heed_signals()

            why = drive(record, ray_address=ray_address, on_event=on_event, limits=limits)
    except BaseException:  # Ctrl-C, a signal, or a storage that failed
        with suppress(InputError):
            progress.refresh()
        say(f"Stopped: {progress.summary()}. What ran waits with its checkpoint.", stderr=True)
        raise
    if why is not None:
        say(f"Stopped: {why}. What is left waits; the same command goes on.", stderr=True)
