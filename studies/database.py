"""Optuna's database with thousands of trials: queued at once, read without their reports.

Optuna builds every trial of a study with all its attributes, and every one that has not ended anew
each time it is asked: seconds for each ask of a long study. Here

- the waiting trials of a new study are one statement, not one transaction each;
- of a trial that has been read, only what has changed since is read again;
- of its reports the last one is read, as JSON text; for the others `Database.reports` is asked, or
  `Database.reports_after` for those of one epoch, which a front's rung compares. Of a trial whose
  last report does not tell its end (it diverged, or ran on) all are there.

The tables are those of Optuna's own models, of the version that it has just found them to be.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import json
import math
import re
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnClause,
    Connection,
    Dialect,
    Select,
    String,
    and_,
    cast,
    func,
    insert,
    literal_column,
    or_,
    select,
)

from studies.states import REPORT

CHUNK = 2000  # ids in one query
MANY = 1000  # trials that make a study long
NO_EXITS = re.compile(r'"exits":\s*\[\s*\]')
SPECIAL = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_TRIALS, _PARAMS = models.TrialModel.__table__.c, models.TrialParamModel.__table__.c
_VALUES, _STEPS = models.TrialValueModel.__table__.c, models.TrialIntermediateValueModel.__table__.c
_NOTES, _FACTS = (
    models.TrialUserAttributeModel.__table__.c,
    models.TrialSystemAttributeModel.__table__.c,
)
AMONG: ColumnClause[bool] = literal_column("among_these_trials")
KEY = "this_key"
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
        with self.engine.connect() as connection:
            return [(key, text) for _, key, text in _rows(connection, REPORTS_OF, [trial_id])]

    def reports_after(self, ids: Sequence[int], epoch: int) -> dict[int, str]:
        """Trial id -> JSON of its report of one epoch, of those that have one. The ids rise."""
        with self.engine.connect() as connection:
            return {
                trial_id: text
                for first in range(0, len(ids), CHUNK)
                for trial_id, _, text in _rows(
                    connection, ONE_OF, ids[first : first + CHUNK], f"{REPORT}{epoch}"
                )
            }

    def trials(self, ids: Sequence[int]) -> list[FrozenTrial]:
        """Some trials, by id, without most of their reports; see the module. The ids rise."""
        with self.engine.connect() as connection, uncollected(len(ids)):
            return [
                trial
                for first in range(0, len(ids), CHUNK)
                for trial in _trials(connection, ids[first : first + CHUNK])
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

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """As Optuna's, by number; the trials lie in that order already."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            trials = self._studies[study_id].trials.values()
            found = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

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
            trials = self._database.trials(sorted(changed))
            before = len(study.trials)
            self._add_trials_to_cache(study_id, trials)
            if len(study.trials) > before:
                study.trials = dict(sorted(study.trials.items()))
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
def uncollected(count: int) -> Iterator[None]:
    """Without the garbage collector, which takes longer to look at many new objects than they took
    to make; what is there after `MANY` is kept out of its later looks too.

    Args:
        count: Of the objects that are made and stay.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if count > MANY:
            gc.freeze()
        if was:
            gc.enable()


@functools.lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _rows(
    connection: Connection, query: Select[Any], ids: Sequence[int], key: str = ""
) -> Sequence[Any]:
    """Rows of some trials, as the driver gives them: to make them Optuna's types takes longer than
    to read them.

    Args:
        connection: To the database.
        query: Of a table with trial ids, whose `AMONG` becomes the condition that it is of these.
        ids: Rising.
        key: What becomes of `KEY` in the query; letters, digits and colons alone.
    """
    if ids and ids[-1] - ids[0] == len(ids) - 1:  # a range is read faster than a list
        among = f"trial_id BETWEEN {ids[0]} AND {ids[-1]}"
    else:
        among = f"trial_id IN ({', '.join(map(str, ids)) or 'NULL'})"
    text = _compiled(query, connection.dialect)
    text = text.replace(str(AMONG), among).replace(KEY, key)
    return connection.exec_driver_sql(text).all()


@functools.lru_cache(maxsize=1000)
def _compiled(query: Select[Any], dialect: Dialect) -> str:
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


TRIALS_OF = (
    select(
        _TRIALS.trial_id,
        _TRIALS.number,
        _TRIALS.state,
        _TRIALS.datetime_start,
        _TRIALS.datetime_complete,
    )
    .where(AMONG)
    .order_by(_TRIALS.trial_id)
)
PARAMS_OF = (
    select(_PARAMS.trial_id, _PARAMS.param_name, _PARAMS.param_value, _PARAMS.distribution_json)
    .where(AMONG)
    .order_by(_PARAMS.param_id)
)
VALUES_OF = (
    select(_VALUES.trial_id, _VALUES.value, _VALUES.value_type)
    .where(AMONG)
    .order_by(_VALUES.trial_id, _VALUES.objective)
)
STEPS_OF = select(
    _STEPS.trial_id, _STEPS.step, _STEPS.intermediate_value, _STEPS.intermediate_value_type
).where(AMONG)
NOTES_OF = select(_NOTES.trial_id, _NOTES.key, _NOTES.value_json).where(AMONG)
FACTS_OF = select(_FACTS.trial_id, _FACTS.key, _FACTS.value_json).where(AMONG)
ONE_OF = FACTS_OF.where(_FACTS.key == KEY)
REPORTS_OF, OTHERS_OF = FACTS_OF.where(IS_REPORT), FACTS_OF.where(~IS_REPORT)
# The last key: of two numbers the longer one is greater, and of the same length the later one.
LAST_OF = (
    select(
        _FACTS.trial_id,
        func.max(cast(func.length(_FACTS.key) + 1000, String).concat(_FACTS.key)),
    )
    .where(AMONG, IS_REPORT)
    .group_by(_FACTS.trial_id)
)


def _trials(connection: Connection, ids: Sequence[int]) -> Iterator[FrozenTrial]:
    """Trials of a few ids, by id. The state is read first: what it speaks of was written before."""
    rows = _rows(connection, TRIALS_OF, ids)
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    kinds: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    for trial_id, name, number, text in _rows(connection, PARAMS_OF, ids):
        kind = _distribution(text)
        params[trial_id][name], kinds[trial_id][name] = kind.to_external_repr(number), kind
    values: dict[int, list[float]] = defaultdict(list)
    for trial_id, number, finite in _rows(connection, VALUES_OF, ids):
        values[trial_id].append(SPECIAL.get(finite, number))
    steps: dict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, epoch, number, finite in _rows(connection, STEPS_OF, ids):
        steps[trial_id][epoch] = SPECIAL.get(finite, number)
    user: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _rows(connection, NOTES_OF, ids):
        user[trial_id][key] = json.loads(text)
    system = _facts(connection, ids)
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


def _facts(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """System attributes of some trials, with no more reports than are needed."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _rows(connection, OTHERS_OF, ids):
        found[trial_id][key] = json.loads(text)
    keys: dict[str, list[int]] = defaultdict(list)  # few: most trials end at a rung, or the end
    for trial_id, key in _rows(connection, LAST_OF, ids):
        keys[key[4:]].append(trial_id)
    unclear = [trial_id for trial_id in found if "run_on" in found[trial_id]]
    for last, trials in keys.items():
        if not last.removeprefix(REPORT).isdecimal():  # a foreign hand's
            unclear += trials
            continue
        for trial_id, key, text in _rows(connection, ONE_OF, trials, last):
            found[trial_id][key] = text
            if NO_EXITS.search(text):
                unclear.append(trial_id)
    if unclear:
        for trial_id, key, text in _rows(connection, REPORTS_OF, sorted(set(unclear))):
            found[trial_id][key] = text
    return found
