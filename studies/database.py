"""Optuna's database with thousands of trials: queued at once, read without their reports.

Optuna builds every trial of a study with all its attributes, and every one that has not ended anew
each time it is asked: seconds for each ask of a long study. Here

- the waiting trials of a new study are one statement, not one transaction each;
- of a trial that has been read, only what has changed since is read again;
- of its reports the last one is read, as JSON text; for the others `Database.reports` is asked, or
  `Database.reports_after` for those of one epoch, which a front's rung compares. Of a trial whose
  last report does not tell its end (it diverged, or ran on) all are there.

`studies.queries` reads the tables, of the version that Optuna has just found them to be.
"""

from __future__ import annotations

import contextlib
import copy
import gc
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import and_, func, insert, or_, select

from studies.queries import TRIALS, read_reports, read_reports_after, read_trials

MANY = 1000  # trials that make a study long


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
            return [(key, text) for _, key, text in read_reports(connection, [trial_id])]

    def reports_after(self, ids: Sequence[int], epoch: int) -> dict[int, str]:
        """Trial id -> JSON of its report of one epoch, of those that have one. The ids rise."""
        with self.engine.connect() as connection:
            return dict(read_reports_after(connection, ids, epoch))

    def trials(self, ids: Sequence[int]) -> list[FrozenTrial]:
        """Some trials, by id: see `studies.queries.read_trials`."""
        with self.engine.connect() as connection, uncollected(len(ids)):
            return list(read_trials(connection, ids))

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
        waits, began = TRIALS.state == TrialState.WAITING, TRIALS.datetime_start
        runs = TRIALS.state == TrialState.RUNNING
        some = select(TRIALS.trial_id, TRIALS.state, began).where(
            TRIALS.study_id == study_id,
            or_(runs, and_(waits, began.is_not(None)), TRIALS.trial_id > newest),
        )
        untouched = select(func.count()).where(TRIALS.study_id == study_id, waits, began.is_(None))
        there = select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
        with self.engine.connect() as connection:
            if connection.execute(there).first() is None:
                raise KeyError(study_id)
            return connection.execute(some).all(), connection.execute(untouched).scalar_one()

    def untouched(self, study_id: int) -> set[int]:
        """Ids of the trials that wait and never began."""
        query = select(TRIALS.trial_id).where(
            TRIALS.study_id == study_id,
            TRIALS.state == TrialState.WAITING,
            TRIALS.datetime_start.is_(None),
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
