"""`automate search`: the plan, the search, its front."""

import time
from collections.abc import Sequence
from contextlib import closing
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from automate import flags
from automate.config_flags import Config
from automate.driving import as_stored, drive_shown, left, stored_calibration, stored_plan
from automate.printing import command, patience, say, say_json, say_pairs
from studies.plan import OBJECTIVES, SAMPLERS

if TYPE_CHECKING:
    from studies.plan import StudyPlan
    from studies.record import StudyRecord
    from studies.states import Outcome

MEASURING = "Measuring how fast {} trains this network; it is remembered with the study."
NO_CANDIDATE = "fewer than two trials have run their full length"


def search(
    *,
    space: str,
    study: str | None = None,
    trials: flags.WholeOrNone = None,
    confirm: Annotated[
        float | None,
        Parameter(
            help="Share of the epochs, e.g. 0.3, that is spent on confirming the best on fresh "
            "seeds and hold-outs, as `automate confirm` does [default: none]."
        ),
    ] = None,
    sampler: Annotated[str, Parameter(help=f"One of {', '.join(SAMPLERS)}.")] = "tpe",
    objective: Annotated[
        str | None,
        Parameter(
            help=f"What is maximised: {', '.join(OBJECTIVES)} (each exit by itself) [default: the "
            "space's own, else anytime]."
        ),
    ] = None,
    budgets: flags.Numbers = None,
    search_seed: flags.Whole = 0,
    early_stopping: bool = True,
    eta: flags.WholeOrNone = None,
    grace: flags.WholeOrNone = None,
    rungs: flags.WholesOrNone = None,
    tolerance: float | None = None,
    run_on: float | None = None,
    running: flags.Running = flags.USUAL,
    config: Config = None,
) -> int:
    """Search a space; the same command again goes on.

    Once all trials have ended, it says so. Options that take several numbers, such as --alpha,
    accept spaces or commas: --alpha 3, --alpha 30 5 10 10, --alpha 30,5,10,10.

    Args:
        space: A name from `automate spaces`, or a Python file of the same form.
        study: Name of the study [default: <dataset>-<backbone>-<space>].
        trials: Total number of trials [default: the study's own where it goes on, else the
            data set's].
        budgets: Weight of each exit in the anytime accuracy [default: equal].
        search_seed: Seed of the sampler.
        early_stopping: Stop trials at rungs.
        eta: A rung keeps 1 in eta [default: by `automate calibrate`, else 2].
        grace: Epochs before the first rung [default: by `automate calibrate`, else a third of the
            epochs].
        rungs: The epochs after which trials are judged, e.g. 16,23, one after each drop of the
            learning rate [default: by `automate calibrate`, else grace, grace times eta, ...].
        tolerance: A trial that is less than this below a rung's threshold is not stopped: what is
            noise, in the unit of the objective, e.g. 0.005 for half a point [default: by `automate
            calibrate`, else 0].
        run_on: Share of the stopped trials, e.g. 0.05, that run on to the end outside the search,
            so that the report can say how often stopping cost the winner [default: 0].
    """
    from automate.commands.confirming import confirm_found
    from automate.plan_text import plan_json, plan_pairs
    from search_spaces import load_space
    from studies import resume
    from studies.limits import Limits, shared
    from studies.record import StudyRecord
    from studies.search import make_config, make_plan
    from studies.states import ENDED
    from studies.storage import place
    from studies.verdict import ranked, states_text
    from trainers.data import check

    storage, runs, json, quiet = running.storage, running.runs, running.json, running.quiet
    settings: dict[str, Any] = dict(config or {})
    # Before the machine is measured; only a confirmation will read the test images.
    check(make_config(**settings), running.data_root, test=confirm is not None)
    machine = "a node of the cluster" if running.ray_address else "this machine"
    with patience(MEASURING.format(machine), quiet=quiet):
        plan = make_plan(
            space,
            study=study,
            data_root=running.data_root,
            trials=trials,
            sampler=sampler,
            objective=objective,
            budgets=budgets,
            search_seed=search_seed,
            early_stopping=early_stopping,
            eta=eta,
            grace=grace,
            rungs=rungs,
            tolerance=tolerance,
            run_on=run_on,
            stored=lambda name: None if running.fresh else stored_plan(name, storage, runs),
            calibration=lambda name: stored_calibration(name, storage, runs),
            **running.machine,
            **settings,
        )
    explicit = running.explicit(settings)
    parts = None if confirm is None else shared(plan, confirm, running.max_epochs_total)
    plan = plan if parts is None else plan.with_(trials=parts.trials)
    limits = Limits(running.timeout, running.max_epochs_total if parts is None else parts.most)
    began = time.monotonic()
    outcomes = None
    points, _ = resume.first_points(load_space(plan.space), plan)
    if not running.fresh:
        plan, outcomes = as_stored(plan, storage, runs, explicit, keep_trials=trials is None)
    plan = plan.with_(trials=resume.total(plan, len(points)))
    label = place(storage, runs, plan.study).label
    so_far = None if outcomes is None else states_text(outcomes)
    cost = left(plan, outcomes or [], running.ray_address)
    if not quiet:
        pairs = plan_pairs(plan, load_space(space).title, label, cost, so_far, limits, parts)
        say_pairs(pairs, stderr=json)
        say(stderr=json)
    if running.dry_run:
        if json:
            say_json(plan_json(plan, label, cost, so_far, parts))
        return 0
    if cost is None:
        say(_all_ended(plan, outcomes or [], len(points), confirm or 0.0), stderr=json)
        record = StudyRecord.open(plan.study, storage, runs)
    else:
        record = StudyRecord.create_or_open(plan, storage, runs, running.fresh, explicit)
    with closing(record):
        if cost is not None:
            drive_shown(record, running.ray_address, limits, quiet=quiet, json=json)
        if parts is not None and all(outcome.state in ENDED for outcome in record.outcomes()):
            record.release()
            if len(ranked(record.outcomes())) > 1:
                confirm_found(record, parts, running, began)
            else:
                say(f"Nothing to confirm: {NO_CANDIDATE}.", stderr=True)
        return _ending(record, running)


def _all_ended(
    plan: "StudyPlan", outcomes: "Sequence[Outcome]", points: int, confirm: float
) -> str:
    """That nothing is left of a plan, and which total of trials would leave something.

    Args:
        plan: Of the search, with the trials that were asked for: the study may have more.
        outcomes: All trials of the study.
        points: Of the grid.
        confirm: Share of the total that a confirmation takes, at most.
    """
    from studies.states import ENDED

    there = len(outcomes)
    waiting = sum(outcome.state not in ENDED for outcome in outcomes)
    if waiting:
        return (
            f"The first {plan.trials} of the {there} trials of study {plan.study} have ended, "
            f"{waiting} of the others {'has' if waiting == 1 else 'have'} not: go on with "
            f"--trials {ceil(there / (1 - confirm))}."
        )
    text = f"All {there} trials of study {plan.study} have ended: nothing is left to search."
    if plan.sampler == "grid" and there >= points:
        return f"{text} The grid has no more points: take another --sampler and --study."
    more = ceil(2 * there / (1 - confirm))  # the search has at least twice what it had
    return f"{text} For more, give a larger total, e.g. --trials {more}."


def _ending(record: "StudyRecord", running: flags.Running) -> int:
    """The front, the verdict, the report, and what to do next. 1 if no trial came to its end, or
    most failed."""
    from automate.confirm_text import say_confirmation
    from automate.front_text import front_json, say_front
    from studies.confirm import confirmation_of
    from studies.export import CONFIRMED
    from studies.report import write_report
    from studies.verdict import failures_text, finished, ranked

    runs, json, quiet = running.runs, running.json, running.quiet
    plan, outcomes, confirmed = record.plan, record.outcomes(), confirmation_of(record)
    failed = [outcome for outcome in outcomes if outcome.state == "FAIL"]
    if failed:
        said = f"{len(failed)} of {len(outcomes)} trials failed: {failures_text(failed)}"
        say(said, stderr=True)
    chosen = confirmed is not None and confirmed.judged is not None
    if not json:
        say_front(outcomes, plan, confirmed=chosen)
        say_confirmation(confirmed)
    write_report([record], record.folder / "report.html")
    page = runs / plan.study / "report.html"
    # A search that mostly failed is none, whatever its first trial says.
    good = bool(finished(outcomes)) and 2 * len(failed) <= len(outcomes)
    if json:
        found = front_json(outcomes, plan, confirmed)
        say_json({"study": plan.study, "folder": page.parent, "report": page, **found})
        return 0 if good else 1
    say(f"Report: {page}")
    if good and not quiet:
        tail = running.tail(plan.study)
        say("Next:")
        for words in (
            *([("confirm", *tail)] if confirmed is None and len(ranked(outcomes)) > 1 else []),
            ("report", *tail),
            ("dashboard", *tail),
            ("export", *tail, *(("--confirmed",) if chosen else ("--top", "3"))),
            ("train", page.parent / "best" / (CONFIRMED if chosen else "1.yaml"), "--seeds", "3"),
        ):
            say(f"  {command(*words)}")
    return 0 if good else 1
