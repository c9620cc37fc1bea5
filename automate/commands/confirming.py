"""`automate confirm`: what a search found, on fresh seeds and hold-outs."""

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from automate import flags
from automate.driving import drive_shown
from automate.printing import command, duration, say, say_error, say_json, say_pairs, size
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.limits import Limits, Shared
    from studies.plan import StudyPlan
    from studies.record import Outcome, StudyRecord


def confirm(
    study: flags.StudyName = None,
    *,
    top: Annotated[
        flags.WholeOrNone,
        Parameter(help="How many of the best are confirmed, beside the default [default: 8]."),
    ] = None,
    seeds: Annotated[
        flags.WholeOrNone,
        Parameter(help="Fresh seeds, each with a hold-out of its own [default: 5]."),
    ] = None,
    running: flags.Running = flags.USUAL,
) -> int:
    """Confirm a search's best on fresh seeds and hold-outs.

    The best of the study and the paper's default are trained at full length, all on the same fresh
    seeds and hold-outs; after each seed the worst leave. What wins is compared with the default,
    and only then the test images are read. The same command again goes on.
    """
    from automate.confirm_text import race_pairs
    from studies.confirm import is_over, left, make_plan
    from studies.limits import Limits
    from studies.record import StudyRecord
    from studies.storage import place
    from studies.verdict import count_text
    from trainers.data import check

    limits = Limits(running.timeout, running.max_epochs_total)
    storage, runs, json = running.storage, running.runs, running.json
    with closing(StudyRecord.open(study, storage, runs)) as found:
        plan = make_plan(
            found,
            top=top,
            seeds=seeds,
            fresh=running.fresh,
            data_root=running.data_root,
            **running.machine,
        )
        outcomes, read = ([], ()) if running.fresh else _so_far(found)
        # Of a race that is over the verdict is given whatever has become of the test images.
        check(plan.base, plan.data_root, test=not is_over(outcomes, plan))
        cost = left(plan, outcomes, running.ray_address)
        if not running.quiet:
            pairs = race_pairs(plan, place(storage, runs, plan.study).label, read)
            if outcomes:
                pairs["goes on"] = (
                    f"with {count_text(sum(o.epochs for o in outcomes), 'epoch')} stored"
                )
            if cost is not None:
                pairs["left"] = (
                    f"at most {count_text(cost.epochs, 'epoch')}, {duration(cost.seconds)}, "
                    f"{size(cost.disk)} of weights until the test images are read"
                )
            say_pairs(pairs, stderr=json)
            say(stderr=json)
        if running.dry_run:
            if json:
                say_json({"plan": plan, "left": cost and cost.epochs})
            return 0
        whole = _race(plan, running, limits)
        return _ending(found, running) if whole else max(1, _ending(found, running))


def confirm_found(
    found: "StudyRecord", parts: "Shared", running: flags.Running, began: float
) -> None:
    """The confirmation that a search was asked for, with its share of the epochs.

    Args:
        found: The search, whose trials have all ended.
        parts: What it may spend.
        running: Of the search.
        began: When, by the monotonic clock: the time limit is one for both.
    """
    from studies.confirm import beside, confirmation_of, make_plan, write_verdict
    from studies.limits import Limits

    stored = None if running.fresh else beside(found)
    top, seeds = (parts.top, parts.seeds) if stored is None else (None, None)
    if stored is not None:
        stored.close()
    plan = make_plan(found, top=top, seeds=seeds, fresh=running.fresh, **running.machine)
    if not running.quiet:
        say(f"Confirming the best of {found.name}: study {plan.study}", stderr=running.json)
    _race(plan, running, Limits(running.timeout).after(time.monotonic() - began))
    if (made := confirmation_of(found)) is not None:
        write_verdict(made, found.folder)


def _race(plan: "StudyPlan", running: flags.Running, limits: "Limits") -> bool:
    """Runs what is left of a race, and scores its finalists on the test images.

    False if these cannot be read, which is said: the verdict does not need them.
    """
    from studies.confirm import is_over, read_test
    from studies.record import StudyRecord
    from studies.verdict import count_text

    json, quiet = running.json, running.quiet
    record = StudyRecord.create_or_open(
        plan, running.storage, running.runs, running.fresh, running.explicit({})
    )
    with closing(record):
        if not is_over(record.outcomes(), plan):
            drive_shown(record, running.ray_address, limits, quiet=quiet, json=json)
        if is_over(record.outcomes(), plan):
            try:
                scored = read_test(record)
            except InputError as error:
                say_error(f"the test images could not be read: {error}")
                return False
            if scored and not quiet:
                say(
                    f"Test images: read for {count_text(scored, 'run')} of the finalists.",
                    stderr=json,
                )
    return True


def _so_far(found: "StudyRecord") -> "tuple[list[Outcome], tuple[int, ...]]":
    """The trials of the confirmation that is there, and when it read the test images."""
    from studies.confirm import beside, readings, tests

    record = beside(found)
    if record is None:
        return [], ()
    with closing(record):
        return record.outcomes(), readings(record, tests(record))


def _ending(found: "StudyRecord", running: flags.Running) -> int:
    """The verdict, the search's report with it, and what to do next. 1 if nothing can be said."""
    from automate.confirm_text import say_confirmation
    from studies.confirm import confirmation_of, write_verdict
    from studies.confirm_json import as_json
    from studies.report import write_report

    made = confirmation_of(found)
    assert made is not None
    path = running.runs / found.name / write_verdict(made, found.folder).name
    write_report([found], found.folder / "report.html")
    page = running.runs / found.name / "report.html"
    if running.json:
        say_json({**as_json(made), "report": page, "file": path})
    else:
        say_confirmation(made)
        say(f"Verdict: {path}")
        say(f"Report: {page}")
        if made.judged is not None and not running.quiet:
            say("Next:")
            say(f"  {command('export', *running.tail(found.name), '--confirmed')}")
    return 0 if made.judged is not None or not made.over else 1
