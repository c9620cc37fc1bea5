"""Which studies there are, without reading their reports."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import text

from studies.plan import CALIBRATION, StudyPlan, is_front, ranked_by
from studies.states import State, state_of
from studies.storage import (
    DATABASE,
    Place,
    connect,
    holds_studies,
    one_line_errors,
    patiently,
    place,
)
from trainers import places
from trainers.catalog import InputError
from trainers.own import FILES

PLAN, DRIVEN = "plan", "driven"
STATES: tuple[State, ...] = ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class Summary:
    """One line of `automate studies`.

    Attributes:
        name: Of the study.
        path: Its run folder.
        plan: What it was asked to do; None where `note` says why it cannot be read.
        states: Number of trials in each state.
        best: The best objective of a complete trial; None of a confirmation or a calibration, whose
            best run of several seeds is luck by design.
        driven: When a search last began or went on, seconds since 1970.
        note: What is wrong with it.
    """

    name: str
    path: Path
    plan: StudyPlan | None
    states: dict[State, int]
    best: float | None
    driven: float
    note: str | None = None


def stored_names(fields: Any, folder: Path) -> dict[str, str]:
    """The paths of a stored plan that are other ones now, as `trainers.places.found` gives them.

    Raises:
        InputError: A file of the user is gone.
    """
    if not isinstance(fields, dict) or not fields.get("places"):
        return {}
    space, base, digests = fields.get("space"), fields.get("base"), fields.get("digests") or {}
    known = {str(space).removeprefix(CALIBRATION): digests.get("space")}
    if isinstance(base, dict):
        known |= {str(base.get(name)): digests.get(name) for name in FILES}
    return places.found(fields["places"], folder, known)


def stored_plan(name: str, attributes: dict[str, Any], folder: Path) -> StudyPlan | None:
    """The plan in a study's attributes; None if automate did not make it.

    Fields that an older version did not know take their defaults.

    Args:
        name: Of the study.
        attributes: Its own.
        folder: `runs/<study>`, around which the files lie that the plan names.

    Raises:
        InputError: It is there and cannot be read.
    """
    fields = attributes.get(PLAN)
    if fields is None:
        return None
    try:
        now = places.renamed(fields, stored_names(fields, folder))
        return StudyPlan(**{**now, "study": name})
    except (InputError, TypeError) as error:
        raise InputError(f"the plan of study {name!r} cannot be read: {error}") from None


def is_begun(name: str, runs: Path, storage: str | BaseStorage | None = None) -> bool:
    """Whether a study of that name is there, whoever made it; looks without making anything.

    One whose maker was killed before its plan was written is not: the next search makes it.

    Raises:
        InputError: The storage cannot be opened.
    """
    where = place(storage, runs, name)
    if where.database is not None and not holds_studies(where):
        return False
    with opened(where, storage) as source, one_line_errors(where):

        def begun() -> bool:
            try:
                study_id = source.get_study_id_from_name(name)
            except KeyError:
                return False
            return bool(source.get_study_user_attrs(study_id) or source.get_n_trials(study_id))

        return patiently(where, begun)


def list_studies(
    runs: Path = Path("runs"), storage: str | BaseStorage | None = None
) -> list[Summary]:
    """Every study of a storage, or of the runs folder, the latest first.

    What cannot be read is listed with a note, never raised, and studies of others are left out.

    Raises:
        InputError: The storage itself cannot be opened, or `runs` is no folder.
    """
    where = place(storage, runs, None)
    if not where.own:
        if where.database is not None and not holds_studies(where):
            return []
        found = list(_studies_in(where, storage, runs))
    else:
        found = []
        for folder in folders(runs):
            own = place(None, runs, folder.name)
            try:
                inside = list(_studies_in(own, None, runs)) if holds_studies(own) else []
            except InputError as error:
                inside = [Summary(folder.name, folder, None, {}, None, 0.0, str(error))]
            found += [summary for summary in inside if summary.name == folder.name]
    return sorted(found, key=lambda summary: -summary.driven)


def folders(runs: Path) -> list[Path]:
    """The run folders with a database of their own. Raises InputError."""
    try:
        return sorted(path for path in runs.iterdir() if (path / DATABASE).exists())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"runs folder {runs} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def opened(where: Place, storage: str | BaseStorage | None) -> Iterator[BaseStorage]:
    """A storage for a short look."""
    if isinstance(storage, BaseStorage):
        yield storage
        return
    connected = connect(where)
    try:
        yield connected
    finally:
        connected.remove_session()
        connected.engine.dispose()


def _studies_in(where: Place, storage: str | BaseStorage | None, runs: Path) -> Iterator[Summary]:
    with opened(where, storage) as source, one_line_errors(where):
        for study in source.get_all_studies():
            name, plan, note = study.study_name, None, None
            try:
                plan = stored_plan(name, study.user_attrs, (runs / name).absolute())
            except InputError as error:
                note = str(error)
            if plan is None and note is None:
                continue
            study_id = source.get_study_id_from_name(name)
            states, best = _counts(source, study_id, plan.trials if plan else 0)
            if plan is not None and is_front(plan.objective):
                best = _best_of_front(source, study_id, ranked_by(plan.objective))
            if plan is not None and (plan.confirms or plan.calibrates):
                best = None
            driven = study.user_attrs.get(DRIVEN)
            since = float(driven) if isinstance(driven, int | float) else 0.0
            yield Summary(name, (runs / name).absolute(), plan, states, best, since, note)


def _counts(
    source: BaseStorage, study_id: int, trials: int
) -> tuple[dict[State, int], float | None]:
    """Trials by state and the best value.

    From a database by two small queries: building a hundred long trials, reports and all, takes
    Optuna seconds. Their tables are those that Optuna has just found to be of its own version.
    """
    states = dict.fromkeys(STATES, 0)
    if not isinstance(source, RDBStorage):
        all_trials = source.get_all_trials(study_id, deepcopy=False)
        for trial in all_trials:
            name = state_of(trial.state)
            states[name] += not (name == "WAITING" and trial.number >= trials)
        complete = optuna.trial.TrialState.COMPLETE
        values = [t.values[0] for t in all_trials if t.state == complete and t.values]
        return states, max(values, default=None)
    with source.engine.connect() as connection:
        counts = connection.execute(
            text(
                "SELECT state, COUNT(*) FROM trials WHERE study_id = :study "
                "AND NOT (state = 'WAITING' AND number >= :trials) GROUP BY state"
            ),
            {"study": study_id, "trials": trials},
        )
        for name, count in counts:
            states[name] = count
        best = connection.execute(
            text(
                "SELECT MAX(trial_values.value) FROM trial_values JOIN trials "
                "ON trials.trial_id = trial_values.trial_id "
                "WHERE trials.study_id = :study AND trials.state = 'COMPLETE'"
            ),
            {"study": study_id},
        ).scalar()
    return states, best


def _best_of_front(source: BaseStorage, study_id: int, name: str) -> float | None:
    """The highest of the numbers that order a front's trials of full length."""
    if not isinstance(source, RDBStorage):
        complete = (optuna.trial.TrialState.COMPLETE,)
        trials = source.get_all_trials(study_id, deepcopy=False, states=complete)
        written = [trial.user_attrs.get(name) for trial in trials]
    else:
        with source.engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT trial_user_attributes.value_json FROM trial_user_attributes JOIN "
                    "trials ON trials.trial_id = trial_user_attributes.trial_id "
                    "WHERE trials.study_id = :study AND trials.state = 'COMPLETE' "
                    "AND trial_user_attributes.key = :name"
                ),
                {"study": study_id, "name": name},
            )
            written = [json.loads(row[0]) for row in rows]
    return max((float(value) for value in written if isinstance(value, int | float)), default=None)
