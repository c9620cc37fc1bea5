"""Optuna's database with thousands of trials: queued at once, read without their reports.

Optuna builds every trial of a study with all its attributes, and every one that has not ended anew
each time it is asked: seconds for each ask of a long study. Here

- the waiting trials of a new study are one statement, not one transaction each;
- of a trial that has been read, only what has changed since is read again;
- of its reports the last one is read, as JSON text; for the others `Database.reports` is asked. Of
  a trial whose last report does not tell its end (it diverged, or ran on), and of a study of
  several objectives, all are there.

The tables are those of Optuna's own models, of the version that it has just found them to be.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    func,
    insert,
    or_,
    select,
    true,
)
from sqlalchemy import cast as cast_to

from studies.states import REPORT

CHUNK = 2000  # ids in one query
NO_EXITS = re.compile(r'"exits":\s*\[\s*\]')
SPECIAL = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_TRIALS, _PARAMS = models.TrialModel.__table__.c, models.TrialParamModel.__table__.c
_VALUES, _STEPS = models.TrialValueModel.__table__.c, models.TrialIntermediateValueModel.__table__.c
_NOTES, _FACTS = (
    models.TrialUserAttributeModel.__table__.c,
    models.TrialSystemAttributeModel.__table__.c,
)
IS_REPORT = func.substr(_FACTS.key, 1, len(REPORT)) == REPORT


class Database(RDBStorage):
    """Optuna's storage, made for long studies."""

    def enqueue(self, study_id: int, total: int) -> None:
        """Waiting trials with nothing fixed, until there are so many trials."""
        with _create_scoped_session(self.scoped_session) as session:
            # On a server this locks the study, so that two drivers make no trial twice.
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            there = session.query(models.TrialModel).filter_by(study_id=study_id).count()
            rows = [
                {"study_id": study_id, "number": number, "state": TrialState.WAITING}
                for number in range(there, total)
            ]
            if rows:
                session.execute(insert(models.TrialModel), rows)

    def reports(self, trial_id: int) -> list[tuple[str, str]]:
        """(key, JSON) of each report of a trial, in no order."""
        query = select(_FACTS.key, _FACTS.value_json)
        with self.engine.connect() as connection:
            rows = _rows(connection, query.where(_FACTS.trial_id == trial_id, IS_REPORT))
            return [(key, text) for key, text in rows]

    def trials(self, ids: Sequence[int], whole: bool = False) -> list[FrozenTrial]:
        """Some trials, by id.

        Args:
            ids: They rise.
            whole: With all their reports, as Optuna gives them; see the module.
        """
        with self.engine.connect() as connection, uncollected():
            return [
                trial
                for first in range(0, len(ids), CHUNK)
                for trial in _trials(connection, ids[first : first + CHUNK], whole)
            ]

    def moving(self, study_id: int, newest: int) -> tuple[Sequence[Any], int]:
        """What of a study may be other than it was read.

        Args:
            study_id: Of the study.
            newest: The greatest trial id that is known.

        Returns:
            (trial id, state, when it began) of each trial that runs, waits once more, or is newer;
            and how many wait that never began.

        Raises:
            KeyError: The study is gone.
        """
        waits, began = _TRIALS.state == TrialState.WAITING, _TRIALS.datetime_start
        runs = _TRIALS.state == TrialState.RUNNING
        some = select(_TRIALS.trial_id, _TRIALS.state, began).where(
            _TRIALS.study_id == study_id,
            or_(runs, and_(waits, began.is_not(None)), _TRIALS.trial_id > newest),
        )
        untouched = select(func.count()).where(_TRIALS.study_id == study_id, waits, began.is_(None))
        there = select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
        with self.engine.connect() as connection:
            if connection.execute(there).first() is None:
                raise KeyError(study_id)
            return connection.execute(some).all(), connection.execute(untouched).scalar_one()

    def untouched(self, study_id: int) -> set[int]:
        """Ids of the trials that wait and never began."""
        query = select(_TRIALS.trial_id).where(
            _TRIALS.study_id == study_id,
            _TRIALS.state == TrialState.WAITING,
            _TRIALS.datetime_start.is_(None),
        )
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())


@dataclass
class _Known:
    """Which trials of a study may still change: ids.

    Attributes:
        newest: The greatest of all.
        moving: Those that run, or wait once more.
        untouched: Those that wait and never began.
    """

    newest: int = -1
    moving: set[int] = field(default_factory=set)
    untouched: set[int] = field(default_factory=set)


class Memory(_CachedStorage):
    """What was read of a `Database`, so that only what changes is read again."""

    def __init__(self, backend: Database) -> None:
        super().__init__(backend)
        self._database = backend
        self._known: dict[int, _Known] = defaultdict(_Known)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Reads what may be new.

        Nothing that a trial has changes without it running meanwhile, and a trial that ran began at
        another time than before. One that never began stays so as long as their number does.
        """
        with self._lock:
            study, known = self._studies.setdefault(study_id, _StudyInfo()), self._known[study_id]
            marks, untouched = self._database.moving(study_id, known.newest)
            moving = {trial_id for trial_id, _, _ in marks}
            changed = known.moving - moving
            for trial_id, state, began in marks:
                seen = self._trial_id_to_study_id_and_number.get(trial_id)
                trial = None if seen is None else study.trials.get(seen[1])
                same = trial is not None and (trial.state, trial.datetime_start) == (state, began)
                if trial_id > known.newest or state == TrialState.RUNNING or not same:
                    changed.add(trial_id)
            if untouched != len(known.untouched - changed):
                changed |= known.untouched - self._database.untouched(study_id)
            # A front's rungs and samplers look at reports: nothing else is stored of its epochs.
            whole = len(self._database.get_study_directions(study_id)) > 1
            trials = self._database.trials(sorted(changed), whole)
            self._add_trials_to_cache(study_id, trials)
            known.newest = max(known.newest, max(changed, default=-1))
            known.moving -= changed
            known.untouched -= changed
            for trial in trials:
                if not trial.state.is_finished():
                    never = trial.state == TrialState.WAITING and trial.datetime_start is None
                    (known.untouched if never else known.moving).add(trial._trial_id)


def remembering(storage: BaseStorage) -> BaseStorage:
    """The storage with what was read of it remembered, as Optuna does for its own database."""
    if isinstance(storage, Database):
        return Memory(storage)
    return optuna.storages.get_storage(storage)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: on many new objects that all stay it takes longer than they do
    to make."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@functools.lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _rows(connection: Connection, query: Select[Any]) -> Sequence[Any]:
    """Rows as the driver gives them: to make them Optuna's types takes longer than to read them."""
    made = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return connection.exec_driver_sql(str(made)).all()


def _among(column: Any, ids: Sequence[int]) -> ColumnElement[bool]:
    """That a column has one of the ids, which rise; a range is read faster than a list."""
    if ids and ids[-1] - ids[0] == len(ids) - 1:
        return cast(ColumnElement[bool], column.between(ids[0], ids[-1]))
    return cast(ColumnElement[bool], column.in_(ids))


def _trials(connection: Connection, ids: Sequence[int], whole: bool) -> Iterator[FrozenTrial]:
    """Trials of a few ids, by id. The state is read first: what it speaks of was written before."""
    rows = _rows(
        connection,
        select(
            _TRIALS.trial_id,
            _TRIALS.number,
            _TRIALS.state,
            _TRIALS.datetime_start,
            _TRIALS.datetime_complete,
        )
        .where(_among(_TRIALS.trial_id, ids))
        .order_by(_TRIALS.trial_id),
    )
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    kinds: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    for trial_id, name, number, text in _rows(
        connection,
        select(_PARAMS.trial_id, _PARAMS.param_name, _PARAMS.param_value, _PARAMS.distribution_json)
        .where(_among(_PARAMS.trial_id, ids))
        .order_by(_PARAMS.param_id),
    ):
        kind = _distribution(text)
        params[trial_id][name], kinds[trial_id][name] = kind.to_external_repr(number), kind
    values: dict[int, list[float]] = defaultdict(list)
    for trial_id, number, finite in _rows(
        connection,
        select(_VALUES.trial_id, _VALUES.value, _VALUES.value_type)
        .where(_among(_VALUES.trial_id, ids))
        .order_by(_VALUES.trial_id, _VALUES.objective),
    ):
        values[trial_id].append(SPECIAL.get(finite, number))
    steps: dict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, epoch, number, finite in _rows(
        connection,
        select(
            _STEPS.trial_id,
            _STEPS.step,
            _STEPS.intermediate_value,
            _STEPS.intermediate_value_type,
        ).where(_among(_STEPS.trial_id, ids)),
    ):
        steps[trial_id][epoch] = SPECIAL.get(finite, number)
    user: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _rows(
        connection,
        select(_NOTES.trial_id, _NOTES.key, _NOTES.value_json).where(_among(_NOTES.trial_id, ids)),
    ):
        user[trial_id][key] = json.loads(text)
    system = _facts(connection, ids, whole)
    for trial_id, number, state, began, ended in rows:
        yield FrozenTrial(
            number=number,
            state=TrialState[state],
            value=None,
            values=values.get(trial_id),
            datetime_start=_moment(began),
            datetime_complete=_moment(ended),
            params=params[trial_id],
            distributions=kinds[trial_id],
            user_attrs=user[trial_id],
            system_attrs=system[trial_id],
            intermediate_values=steps[trial_id],
            trial_id=trial_id,
        )


def _moment(stored: datetime | str | None) -> datetime | None:
    """SQLite has no type of its own for it."""
    return datetime.fromisoformat(stored) if isinstance(stored, str) else stored


def _facts(connection: Connection, ids: Sequence[int], whole: bool) -> dict[int, dict[str, Any]]:
    """System attributes of some trials, with no more reports than are needed."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    mine = _among(_FACTS.trial_id, ids)
    facts = select(_FACTS.trial_id, _FACTS.key, _FACTS.value_json)
    for trial_id, key, text in _rows(
        connection, facts.where(mine, true() if whole else ~IS_REPORT)
    ):
        found[trial_id][key] = json.loads(text)
    if whole:
        return found
    # The last key: of two numbers the longer one is greater, and of the same length the later one.
    longest = func.max(cast_to(func.length(_FACTS.key) + 1000, String).concat(_FACTS.key))
    last = _rows(
        connection,
        select(_FACTS.trial_id, longest).where(mine, IS_REPORT).group_by(_FACTS.trial_id),
    )
    unclear = [trial_id for trial_id, _ in last if "run_on" in found[trial_id]]
    keys: dict[str, list[int]] = defaultdict(list)  # few: most trials end at a rung, or the end
    for trial_id, key in last:
        keys[key[4:]].append(trial_id)
    for key, trials in keys.items():
        query = facts.where(_among(_FACTS.trial_id, trials), _FACTS.key == key)
        for trial_id, _, text in _rows(connection, query):
            found[trial_id][key] = text
            if NO_EXITS.search(text):
                unclear.append(trial_id)
    if unclear:
        query = facts.where(_among(_FACTS.trial_id, sorted(set(unclear))), IS_REPORT)
        for trial_id, key, text in _rows(connection, query):
            found[trial_id][key] = text
    return found
