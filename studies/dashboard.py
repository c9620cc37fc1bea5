"""A study for optuna-dashboard: our front as a figure, notes to the best, a front study.

The front study `<study>-front` has a trial for each exit of each full-length trial and minimises
FLOPs while it maximises accuracy, so that the dashboard's own Pareto page works. It is derived:
made again from the study whenever it is published, and marked by the user attribute
`automate_derived`, so that nothing takes it for a search.

A search may be running on the study meanwhile. Everything here is many short writes, none of them
to a trial.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import shlex
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import IntDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies import verdict as v
from studies.figures import front_figure
from studies.front import deployable
from studies.storage import BUSY, DATABASE
from trainers.catalog import InputError

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.states import Outcome

DERIVED = "automate_derived"
FIGURE = "front"
METRICS = ["FLOPs", "accuracy"]
SIGNED = "*Written by automate, and written again; without this line it is yours to keep.*"
MOST_NOTES = 10


def front_study_name(study: str) -> str:
    """Name of the derived study."""
    return f"{study}-front"


def publish(record: StudyRecord) -> str:
    """Writes figure, notes and front study into the study's storage; all is refreshed, not doubled.

    Notes that a person has changed are left alone.

    Returns:
        The name of the front study.

    Raises:
        InputError: A study of the front study's name that automate did not derive.
    """
    outcomes, study = record.outcomes(), record.study
    with _quietly():
        if not study.metric_names:
            study.set_metric_names(record.metric_names)
        from optuna_dashboard import save_plotly_graph_object

        figure = front_figure(outcomes, f"Front of {record.plan.study}")
        save_plotly_graph_object(study, figure, graph_object_id=FIGURE)
        _note(study, study_note(record, outcomes))
        identities = {trial.number: trial._trial_id for trial in study.get_trials(deepcopy=False)}
        for rank, outcome in enumerate(v.recommended_first(outcomes)[:MOST_NOTES], start=1):
            trial = optuna.Trial(study, identities[outcome.number])
            _note(trial, trial_note(record, outcomes, outcome, rank))
        _refresh_front(record, outcomes)
    return front_study_name(record.name)


def is_searched(record: StudyRecord) -> bool:
    """Whether a search runs on the study now."""
    running = [outcome.number for outcome in record.outcomes() if outcome.state == "RUNNING"]
    return not all(record.is_ghost(number) for number in running)


@contextmanager
def copied(record: StudyRecord) -> Iterator[StudyRecord]:
    """The study in a file of its own, which is removed at the end: what is done there is undone.

    Args:
        record: May be searched meanwhile; the copy is as it was at the beginning.
    """
    from studies.record import StudyRecord

    with tempfile.TemporaryDirectory(prefix="automate-copy-") as folder:
        home = Path(folder) / record.name
        home.mkdir()
        database = home / DATABASE
        if record.place.database is not None:
            with (
                closing(sqlite3.connect(record.place.database, timeout=BUSY)) as source,
                closing(sqlite3.connect(database)) as made,
            ):
                source.backup(made)
        else:
            optuna.copy_study(
                from_study_name=record.name,
                from_storage=record.study._storage,
                to_storage=f"sqlite:///{database}",
            )
        # The folder stays the study's own, around which the files lie that its plan names.
        runs, url = record.folder.parent, f"sqlite:///{database}"
        with closing(StudyRecord.open(record.name, runs=runs, storage=url)) as copy:
            yield copy


def checked_host(host: str, anyone: bool) -> str:
    """The address, if it is this machine's own or anyone may come in. Raises InputError."""
    try:
        own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = False
    if own or anyone:
        return host
    raise InputError(
        f"the dashboard asks for no password, and whoever reaches {host[:60]!r} could change and "
        "delete studies: add --let-anyone-in if that is meant, or tunnel to 127.0.0.1"
    )


def serve(record: StudyRecord, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Publishes the study and serves the dashboard until interrupted.

    Args:
        record: The study; all studies of its storage are shown.
        host: Loopback, unless another is given: the dashboard asks for no password.
        port: Where it listens.

    Raises:
        InputError: The port is taken or not allowed, or as `publish`.
    """
    publish(record)
    from optuna_dashboard import run_server

    try:
        run_server(record.study._storage, host=host, port=port)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "it is in use" if taken else error
        raise InputError(
            f"the dashboard cannot listen on {host}:{port} ({reason}): choose another --port"
        ) from None


def markdown(text: object) -> str:
    """Text of a user's inside Markdown: no tag, link, table or emphasis of its own."""
    line = " ".join(escape(str(text), quote=False).split())
    return re.sub(r"([\\`*_{}\[\]()|#!~])", r"\\\1", line)


def study_note(record: StudyRecord, outcomes: Sequence[Outcome]) -> str:
    """The verdict, which network to take, and where the Pareto page is."""
    name = shlex.quote(record.name)
    return "\n\n".join(
        [
            f"**{markdown(v.verdict(outcomes, record.plan))}**",
            markdown(v.recommendation(outcomes, record.plan)),
            f"FLOPs against accuracy of every exit: study `{front_study_name(record.name)}`. "
            "Its Pareto front is an envelope, which may need a different network for each point.",
            f"    automate report {name}\n    automate export {name} --top 3",
            SIGNED,
        ]
    )


def trial_note(
    record: StudyRecord, outcomes: Sequence[Outcome], outcome: Outcome, rank: int
) -> str:
    """What a trial reached, exit by exit, beside the default, and how to export it."""
    default = v.reference(outcomes)
    whole = outcome.number in deployable(v.curves(outcomes))
    place = "no other network beats it as a whole" if whole else "another network beats it"
    what = v.objective_name(record.plan.objective)
    value = v.value_text(record.plan.objective, outcome.value or 0.0)
    lines = [f"**Rank {rank}**: {what} {value}, {v.UNCONFIRMED}; {place}.", ""]
    if outcome.params:
        lines += [markdown(v.setting(outcome.params)), ""]
    lines += ["| exit | FLOPs | accuracy | over the default |", "|---|---|---|---|"]
    beside = default.report.accuracies if default is not None and default.report else ()
    for point in outcome.report.exits if outcome.report is not None else ():
        over = ""
        if default is not None and default.number == outcome.number:
            over = "default"
        elif len(beside) >= point.exit:
            over = f"{100 * (point.accuracy - beside[point.exit - 1]):+.2f}"
        flops = v.flops_text(point.flops)
        lines.append(f"| {point.exit} | {flops} | {v.percent(point.accuracy)} | {over} |")
    export = f"automate export {shlex.quote(record.name)} --top {max(rank, 3)}"
    return "\n".join([*lines, "", f"`{export}` writes it to `best/{rank}.yaml`.", "", SIGNED])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's warnings that something is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _note(of: optuna.Study | optuna.Trial, text: str) -> None:
    """Saves a note where there is none, or an older one of ours that says something else."""
    from optuna_dashboard import get_note, save_note

    there = get_note(of)
    if there != text and (not there.strip() or SIGNED in there):
        save_note(of, text)


def front_trials(
    outcomes: Sequence[Outcome], trials: Sequence[FrozenTrial]
) -> dict[tuple[int, int], FrozenTrial]:
    """(trial, exit) -> a trial of the front study; of the full-length trials.

    Args:
        outcomes: Of the study.
        trials: The same as Optuna has them, for their distributions.
    """
    distributions = {trial.number: trial.distributions for trial in trials}
    made = {}
    most = max((len(o.report.exits) for o in v.finished(outcomes) if o.report), default=1)
    for outcome in v.finished(outcomes):
        assert outcome.report is not None
        own = distributions[outcome.number]
        exit_name = "exit" if "exit" not in own else "exit (of automate)"
        for point in outcome.report.exits:
            made[outcome.number, point.exit] = create_trial(
                state=TrialState.COMPLETE,
                values=[float(point.flops), point.accuracy],
                params={**outcome.params, exit_name: point.exit},
                distributions={**own, exit_name: IntDistribution(1, most)},
                user_attrs={"trial": outcome.number, "exit": point.exit},
            )
    return made


def _refresh_front(record: StudyRecord, outcomes: Sequence[Outcome]) -> None:
    """Brings the front study up to date; of another history it is made anew."""
    storage, name = record.study._storage, front_study_name(record.name)
    wanted = front_trials(outcomes, record.study.get_trials(deepcopy=False))
    try:
        identity = storage.create_new_study(
            [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE], study_name=name
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        if study.user_attrs.get(DERIVED) is not True:
            raise InputError(
                f"study {name!r} exists and is none that automate derived: "
                "its name is needed for the dashboard, rename it"
            ) from None
        there = {_key(trial): trial for trial in study.get_trials(deepcopy=False)}
        if all(key in wanted and _same(trial, wanted[key]) for key, trial in there.items()):
            study.add_trials(trial for key, trial in wanted.items() if key not in there)
            return
        storage.delete_study(study._study_id)  # the study was started over
        _refresh_front(record, outcomes)
        return
    storage.set_study_user_attr(identity, DERIVED, True)
    storage.set_study_user_attr(identity, "of", record.name)
    study = optuna.load_study(study_name=name, storage=storage)
    study.set_metric_names(METRICS)
    study.add_trials(wanted.values())


def _key(trial: FrozenTrial) -> tuple[int, int] | None:
    number, place = trial.user_attrs.get("trial"), trial.user_attrs.get("exit")
    return (number, place) if isinstance(number, int) and isinstance(place, int) else None


def _same(one: FrozenTrial, two: FrozenTrial) -> bool:
    return (
        one.state == two.state
        and one.values == two.values
        and one.params == two.params
        and one.distributions == two.distributions
    )
