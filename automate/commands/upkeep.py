"""`automate status`, `doctor`, `clean`: how a study and its machine are."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from automate import flags
from automate.printing import command, say, say_json, say_table, size

Row = tuple[int, str, int, str, str]  # trial, state, attempt, epochs, why

LONG = 60  # characters of a reason that is not said again
MARKS = {"ok": "ok", "note": "note", "wrong": "WRONG", "mended": "mended"}


def status(
    study: flags.StudyName = None,
    *,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
) -> None:
    """Show what of a study runs, waits and failed, and why."""
    from studies.record import StudyRecord
    from studies.verdict import count_text, states_text

    with closing(StudyRecord.open(study, storage, runs)) as record:
        outcomes = record.outcomes()
        ghosts = {o.number for o in outcomes if o.state == "RUNNING" and record.is_ghost(o.number)}
        plan, label = record.plan, record.place.label
    rows: list[Row] = []
    for outcome in outcomes:
        begun = outcome.state == "WAITING" and outcome.epochs
        if outcome.state not in ("RUNNING", "FAIL") and not begun:
            continue
        length = plan.base.epochs if outcome.config is None else outcome.config.epochs
        what = "nobody runs it: the next search takes it over" if outcome.number in ghosts else ""
        what = "goes on from its checkpoint" if begun else what
        state = outcome.state.lower()
        epochs = f"{outcome.epochs}/{length}"
        rows.append((outcome.number, state, outcome.attempt, epochs, outcome.reason or what))
    if json:
        named = ("trial", "state", "attempt", "epochs", "why")
        say_json(
            {
                "study": plan.study,
                "storage": label,
                "trials": plan.trials,
                "states": {
                    state: sum(outcome.state == state for outcome in outcomes)
                    for state in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")
                },
                "epochs": sum(outcome.epochs for outcome in outcomes),
                "shown": [dict(zip(named, row, strict=True)) for row in rows],
            }
        )
        return
    say(f"{plan.study} ({label}): {states_text(outcomes)} of {count_text(plan.trials, 'trial')}")
    if rows:
        say_table(("trial", "state", "attempt", "epochs", "why"), _said_once(rows))


def _said_once(rows: Sequence[Row]) -> list[Row]:
    """A long reason in the row of the first trial that has it, `as trial 3` in the others'."""
    first: dict[str, int] = {}
    shown = []
    for number, state, attempt, epochs, why in rows:
        earlier = first.setdefault(why, number)
        again = earlier != number and len(why) > LONG
        shown.append((number, state, attempt, epochs, f"as trial {earlier}" if again else why))
    return shown


def doctor(
    *,
    study: Annotated[
        str | None, Parameter(help="The study to look over; none: this machine.")
    ] = None,
    look_only: Annotated[flags.Switch, Parameter(help="Mend nothing.")] = False,
    data_root: flags.DataRoot = None,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
) -> int:
    """Look the machine or a study over, and mend what can be.

    With --study the study. Before anything of it is changed, its database is copied. Ends with 1
    if something is wrong.
    """
    from studies import doctor as looks

    if study is None:
        found = looks.machine(runs, storage, data_root)
    else:
        found = looks.study(study, storage, runs, mend=not look_only)
    if json:
        say_json([asdict(finding) for finding in found])
    else:
        rows = [(MARKS[f.verdict], f.what, f.text, f.fix) for f in found]
        say_table(("", "what", "found", "how to fix"), rows)
    return int(any(finding.verdict == "wrong" for finding in found))


def clean(
    study: flags.StudyName = None,
    *,
    dry_run: Annotated[flags.Switch, Parameter(help="Only say what would be removed.")] = False,
    storage: flags.Storage = None,
    runs: flags.Runs = Path("runs"),
    json: flags.Json = False,
) -> None:
    """Remove checkpoints that nothing needs.

    These are of ended trials: no front or export needs them. A trial that waits keeps its own.
    """
    from studies.cleaning import needless, remove, weight
    from studies.record import StudyRecord

    with closing(StudyRecord.open(study, storage, runs)) as record:
        paths = needless(record)
        name = record.name
    freed = weight(paths)
    if not dry_run:
        remove(paths)
    if json:
        say_json({"study": name, "removed": not dry_run, "bytes": freed, "paths": paths})
        return
    done = "would be removed" if dry_run else "removed"
    say(f"{name}: {len(paths)} folders and files, {size(freed)}, {done}")
    if dry_run and paths:
        tail = flags.Running(storage=storage, runs=runs).tail(name)
        say(f"  {command('clean', *tail)}")
