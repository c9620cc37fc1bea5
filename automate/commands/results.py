"""`automate report`, `dashboard`, `export`, `studies`: what a search has left."""

import sys
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import command, say, say_json, say_table
from trainers.catalog import InputError


def report(
    *studies: Annotated[str, Parameter(help="Names of studies; none: the latest.")],
    out: Annotated[
        Path | None,
        Parameter(
            help="The HTML file [default: runs/<study>/report.html, of several runs/report.html]."
        ),
    ] = None,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
) -> None:
    """Write a study's report, one HTML file that works offline.

    Several studies share one file.
    """
    from automate.calibrate_text import calibration_view_json, say_calibration
    from automate.confirm_text import say_confirmation
    from automate.experiment_text import experiment_json, say_experiment
    from automate.front_text import front_json, say_front
    from studies.confirm import confirmation_of
    from studies.measured import measure
    from studies.record import StudyRecord
    from studies.report import write_report
    from studies.verdict import recommendation
    from studies.view import look

    with ExitStack() as stack:
        records = [
            stack.enter_context(closing(StudyRecord.open(name, storage, runs)))
            for name in (dict.fromkeys(studies) or [None])
        ]
        home = runs / records[0].name if len(records) == 1 else runs
        path = write_report(records, out or home / "report.html")
        found = [(record.plan, record.outcomes(), confirmation_of(record)) for record in records]
        experiments = [measure(look(r)) for r in records if r.plan.experiment]
        calibrations = {r.name: look(r) for r in records if r.plan.calibrates}
    if experiments:
        if json:
            say_json({"report": path, "studies": [experiment_json(one) for one in experiments]})
        else:
            say_experiment(experiments)
            say(f"Report: {path}")
        return
    if json:
        listed = [
            {
                "study": plan.study,
                **(
                    calibration_view_json(calibrations[plan.study])
                    if plan.calibrates
                    else front_json(seen, plan, made)
                ),
            }
            for plan, seen, made in found
        ]
        say_json({"report": path, "studies": listed})
        return
    for plan, outcomes, made in found:
        say(plan.study, style="bold")
        if plan.calibrates:  # of runs of different seeds none is the one to take
            say_calibration(calibrations[plan.study])
            continue
        judged = made is not None and made.judged is not None
        say_front(outcomes, plan, confirmed=judged)
        say(f"{'Before it was confirmed: ' if judged else ''}{recommendation(outcomes, plan)}")
        say_confirmation(made)
    say(f"Report: {path}")


def dashboard(
    study: flags.StudyName = None,
    *,
    host: Annotated[
        str, Parameter(help="Where to listen; it asks for no password, so keep it on loopback.")
    ] = "127.0.0.1",
    let_anyone_in: Annotated[
        flags.Switch,
        Parameter(help="Listen beyond loopback: whoever reaches it can change and delete studies."),
    ] = False,
    read_only: Annotated[
        bool | None,
        Parameter(help="Serve a copy, on which nothing is kept [default: while a search runs]."),
    ] = None,
    port: Annotated[flags.Whole, Parameter(help="Where to listen.")] = 8080,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
) -> None:
    """Open a study in optuna-dashboard.

    Our front is a figure of the study; the study <study>-front fills the dashboard's own Pareto
    page.
    """
    from studies.dashboard import checked_host, copied, front_study_name, is_searched, serve
    from studies.record import StudyRecord

    if not 1 <= port <= 65_535:
        raise InputError(f"port needs to be from 1 to 65535, got {port}")
    host = checked_host(host, let_anyone_in)
    with ExitStack() as stack:
        record = stack.enter_context(closing(StudyRecord.open(study, storage, runs)))
        searched = is_searched(record)
        if searched if read_only is None else read_only:
            why = "a search is running: " if searched else ""
            say(f"{why}this is a copy, as the study is now; nothing that is done to it is kept")
            record = stack.enter_context(copied(record))
        say(
            f"{record.name} and {front_study_name(record.name)}: http://{host}:{port} (Ctrl-C ends)"
        )
        try:
            serve(record, host, port)
        except KeyboardInterrupt:
            say("The dashboard is closed; the study is unchanged.")


def export(
    study: flags.StudyName = None,
    *,
    top: Annotated[
        flags.WholeOrNone, Parameter(help="How many of the best [default: 3, without --csv].")
    ] = None,
    confirmed: Annotated[
        flags.Switch,
        Parameter(help="Write what `automate confirm` says to take, as confirmed.yaml."),
    ] = False,
    csv: Annotated[
        str | None,
        Parameter(
            help="Write all trials into this CSV file instead; - is stdout.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
) -> None:
    """Write the best configs as YAML, or all trials as CSV.

    They go to runs/<study>/best/1.yaml, 2.yaml, ... for `automate train`. Whole networks that no
    other trial's beats come first, then by objective (of --objective front by anytime accuracy, or
    by the hypervolume where networks differ in cost).
    What was confirmed goes to runs/<study>/best/confirmed.yaml.
    """
    from studies.conclusions import outdated
    from studies.confirm import confirmation_of
    from studies.export import export as write
    from studies.export import export_confirmed
    from studies.record import StudyRecord

    if confirmed and (top is not None or csv is not None):
        raise InputError("--confirmed writes one config: leave out --top and --csv")
    if csv == "-" and json:
        raise InputError("--csv - and --json both write to stdout: leave out one, or name a file")
    with closing(StudyRecord.open(study, storage, runs)) as record:
        if csv is not None:
            record.to_csv(sys.stdout if csv == "-" else csv)
            if csv != "-" and not json:
                say(f"Trials: {csv}")
        wanted = 3 if top is None and csv is None else top
        if confirmed:
            made = confirmation_of(record)
            paths = [export_confirmed(record, made)]
            if made is not None and (text := outdated(made)):
                say(text, stderr=True)
        else:
            paths = [] if wanted is None else write(record, wanted)
        name = record.name
    paths = [runs / name / "best" / path.name for path in paths]
    if json:
        say_json({"study": name, "configs": paths, "csv": csv})
        return
    for path in paths:
        say(path)
    if paths:
        say("Next:")
        say(f"  {command('train', paths[0], '--seeds', 3)}")


def studies(
    *, storage: flags.Storage = None, runs: flags.Runs = Path("runs"), json: flags.Json = False
) -> None:
    """List the studies.

    The latest first. Commands that are given no study take the first that is no
    confirmation of another.
    """
    from studies.plan import is_front, ranked_by
    from studies.record import list_studies
    from studies.states import ENDED
    from studies.verdict import value_text

    found = list_studies(runs, storage)
    if json:
        say_json(
            [
                {
                    "study": summary.name,
                    "folder": runs / summary.name,
                    "states": summary.states,
                    "best": summary.best,
                    "last_driven": summary.driven,
                    "note": summary.note,
                    "plan": None if summary.plan is None else summary.plan.model_dump(mode="json"),
                }
                for summary in found
            ]
        )
        return
    if not found:
        say(f"No study yet: {command('search', '--space', 'diverse_alpha', '--dataset', 'digits')}")
        return
    rows = []
    for summary in found:
        plan, states = summary.plan, summary.states
        done = sum(states.get(state, 0) for state in ENDED)
        best = ""
        if plan is not None and summary.best is not None:
            name = plan.objective
            name = f"front, by {ranked_by(name)}" if is_front(name) else name
            best = f"{value_text(plan.objective, summary.best)} ({name})"
        when = datetime.fromtimestamp(summary.driven) if summary.driven else None
        rows.append(
            (
                summary.name,
                f"{done} of {plan.trials}" if plan else "",
                str(states.get("RUNNING", 0) or ""),
                str(states.get("FAIL", 0) or ""),
                best,
                f"{when:%Y-%m-%d %H:%M}" if when else "",
                summary.note or "",
            )
        )
    head = ("study", "trials done", "running", "failed", "best", "last searched", "note")
    kept = [i for i, name in enumerate(head) if name == "study" or any(row[i] for row in rows)]
    say_table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])
