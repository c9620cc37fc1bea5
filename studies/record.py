"""The study's record: ask, report, give back, go on. The one truth about a search.

Together with the modules that it is made of (`making` a study, `reading` it, `owning` its trials,
`judging` their reports, `raced` for who may begin, `listing` all studies) it alone makes an Optuna
study and changes its trials. Beside it `view` reads them, `dashboard` adds notes and a front study
of its own, and `doctor` copies a database. What a trial may go through is the table in
`studies.states`.

Any number of drivers share a study on a server and together run exactly its trials:

- All trials are enqueued when the study is made, and a trial is taken by Optuna's own
  compare-and-set (WAITING to RUNNING, row locked). Two drivers that make a study at once may
  enqueue too many; a trial whose number is not below the plan's total is never asked for or shown.
- Optuna has no compare-and-set for ownership, so that is an attribute, the `Claim`, which is
  written after the trial is taken, cleared before it goes back, and looked at before every write.
  What is left is a gap of milliseconds between look and write, and clocks that differ by more than
  a lease. Then a trial may be run twice for some epochs, of which the first report counts, or go
  back to WAITING once more than needed. It is never lost and never told twice: Optuna refuses to
  change a finished trial.

A SQLite study has one driver at a time, by an OS lock, so nothing of this can happen there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import Space
from studies import making
from studies.database import Database
from studies.drafts import Draft, drawn
from studies.drivers import Driver
from studies.experiments import space_of
from studies.finalists import left_text
from studies.front import checked_budgets, planned_objective
from studies.listing import Summary, list_studies
from studies.owning import Held, HeldTrials, lock_of
from studies.plan import StudyPlan, checked_study_name, is_front
from studies.raced import RaceDriver
from studies.reading import one_line
from studies.resume import suggested_config
from studies.samplers import TrialSampler
from studies.states import REPORT, Claim, Outcome, State, Ticket, epochs_of, run_on_of
from studies.storage import (
    DATABASE_FAILURES,
    connect,
    holds_studies,
    make_folder,
    one_line_errors,
    patiently,
    place,
)
from trainers.catalog import InputError, unknown
from trainers.config import TrialConfig
from trainers.places import back, renamed

__all__ = ["Outcome", "State", "StudyRecord", "Summary", "Ticket", "list_studies"]


class StudyRecord(RaceDriver):
    """A study to be searched: made, or found, by `create_or_open` or `open`."""

    @classmethod
    def create_or_open(
        cls,
        plan: StudyPlan,
        storage: str | BaseStorage | None = None,
        runs: Path = Path("runs"),
        fresh: bool = False,
        runtime: Mapping[str, Any] | None = None,
        driver: Driver | None = None,
        space: Space | None = None,
    ) -> StudyRecord:
        """The plan's study to be driven by this process: made, or gone on with.

        Args:
            plan: What to search. Of a study that is there already only the number of trials and the
                place of the data may differ; a smaller number leaves what is beyond it waiting.
            storage: An Optuna URL (or storage); $AUTOMATE_STORAGE or `runs/<study>/study.db`.
            runs: Folder of the studies.
            fresh: Delete the study, its checkpoints and its exports first.
            runtime: Those of workers, threads, gpus_per_trial, device and precision that were asked
                for explicitly; of a study that goes on all others stay as they are stored.
            driver: Another name, clock or lease than this process's own.
            space: What trials are taken from; the plan's space if not given.

        Raises:
            InputError: One line: another search of that name, or one that automate did not make,
                another driver of a SQLite study, a storage or folder that cannot be used.
        """
        runtime = runtime or {}
        plan.check_files()  # before anything is erased, made or enlarged
        plan = plan.with_(objective=planned_objective(plan.objective, plan.base))
        if plan.budgets is not None:
            checked_budgets(plan.budgets, plan.base.exits)
        space = space or space_of(plan)
        where, folder = place(storage, runs, plan.study), (runs / plan.study).absolute()
        make_folder(folder)
        held = HeldTrials()
        lock = lock_of(where, folder, plan.study, held)
        try:
            if fresh:
                making.erase(where, storage, plan, folder, driver or Driver())
            source = storage if isinstance(storage, BaseStorage) else connect(where)
            with one_line_errors(where):
                plan = making.settle(source, plan, space, folder, runtime)
                record = cls(where, source, plan.study, folder, driver, lock, held)
                record.plan, record._space = plan, space
                record._enqueue()
                record._drive()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return record

    @classmethod
    def open(
        cls,
        name: str | None = None,
        storage: str | BaseStorage | None = None,
        runs: Path = Path("runs"),
    ) -> StudyRecord:
        """A study that is there, to be read; asking for a trial makes this process its driver.

        Args:
            name: None is the one that was searched last.
            storage, runs: As in `create_or_open`.

        Raises:
            InputError: No such study; the known ones and the nearest are named.
        """
        if name is None:
            # Of a confirmation its search is meant, which shows both.
            found = [summary for summary in list_studies(runs, storage) if summary.plan]
            readable = [summary for summary in found if summary.plan and not summary.plan.confirms]
            if not readable:
                for summary in list_studies(runs, storage):
                    if summary.note:
                        raise InputError(summary.note)
                where = place(storage, runs, None)
                home = f"folder {runs}" if where.own else f"storage {where.label}"
                raise InputError(f"{home} holds no study yet: start one with `automate search`")
            name = readable[0].name
        checked_study_name(name)
        where = place(storage, runs, name)
        there = where.database is None or holds_studies(where)
        source = storage if isinstance(storage, BaseStorage) else connect(where) if there else None
        with one_line_errors(where):
            if source is None or not patiently(where, lambda: making.exists(source, name)):
                known = [summary.name for summary in list_studies(runs, storage)]
                if not known:
                    raise InputError(f"unknown study {name!r}: there is none yet in {where.label}")
                raise unknown("study", name, known)
            folder = (runs / name).absolute()
            return patiently(where, lambda: cls(where, source, name, folder))

    def _enqueue(self) -> None:
        """As many waiting trials as the plan has; with n drivers at it at once n - 1 too many."""
        number = len(self._all())
        while number < self.plan.trials:
            if isinstance(self._direct, Database) and number >= len(self._points):
                self._direct.enqueue(self._study_id, self.plan.trials)
                return
            fixed = self._fixed(number)
            waiting = create_trial(
                state=TrialState.WAITING,
                # As few attributes as can be: waiting trials are read again at every ask.
                system_attrs={"fixed_params": fixed} if fixed else {},
                user_attrs={"start": True} if number < self._starts else {},
            )
            trial_id = self._storage.create_new_trial(self._study_id, waiting)
            number = self._storage.get_trial_number_from_id(trial_id) + 1

    def _fixed(self, number: int) -> dict[str, Any]:
        """The parameters that are fixed for a trial, by its number alone."""
        return self._points[number] if number < len(self._points) else {}

    @one_line
    def ask(self) -> Ticket | None:
        """The next trial to run: one that was given back, else a new one; None if none waits.

        A point that the space cannot make a config of is told FAIL with the reason, and the next
        one is taken.

        Raises:
            InputError: Another process drives this SQLite study, the storage fails, or a file of
                the user is edited: the next trials would not be of one network any more.
        """
        self._drive()
        self.plan.check_files()
        while True:
            trial = self._take()
            if trial is None:
                if not self.reclaim():
                    return None
                continue
            ticket = self._begin(trial)
            if ticket is not None:
                return ticket

    def _take(self) -> FrozenTrial | None:
        """A trial that was waiting and is RUNNING now, by compare-and-set."""
        if self._doubtful is not None:
            trial = self._direct.get_trial(self._doubtful)
            claim = Claim.read(trial.user_attrs.get("claim"))
            if trial.state == TrialState.RUNNING and claim.owner is None:
                return trial
            self._doubtful = None
        rounds = self._rounds()
        for trial in self._all(TrialState.WAITING):
            if trial.number >= self.plan.trials:
                return None
            if rounds is not None and trial.number // len(rounds[0]) >= len(rounds):
                return None  # it waits for the round before
            trial_id = self._trial_id(trial.number)
            try:
                self._doubtful = trial_id
                if self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    return self._direct.get_trial(trial_id)
            except UpdateFinishedTrialError:
                pass
            self._doubtful = None
        return None

    def _begin(self, trial: FrozenTrial) -> Ticket | None:
        """Claims a trial that was just taken, and settles its config."""
        trial_id, number = self._trial_id(trial.number), trial.number
        attempt = Claim.read(trial.user_attrs.get("claim")).attempt + 1
        claim = Claim(self.driver.name, attempt, self.driver.clock() + self.driver.lease)
        self._storage.set_trial_user_attr(trial_id, "claim", claim.to_json())
        self._doubtful = None
        self.checkpoint(number).parent.mkdir(parents=True, exist_ok=True)
        done, start = epochs_of(trial), number < self._starts
        ticket = Ticket(number, self.plan.base, attempt, done, start, _failures(trial))
        last, passed = trial.system_attrs.get(f"{REPORT}{done}"), trial.system_attrs.get("passed")
        run_on = run_on_of(trial)
        held = Held(
            ticket=ticket,
            trial_id=trial_id,
            claim=claim,
            done=done,
            values=self._stored_values(trial, run_on or done),
            diverged=isinstance(last, dict) and last.get("loss") is None,
            passed=passed if isinstance(passed, int) else 0,
            run_on=run_on,
        )
        self._held[number] = held
        if self._has_left(number):
            self._end(held, TrialState.PRUNED, None, left_text(self.plan, number))
            return None
        try:
            held.ticket = replace(ticket, config=self._config(trial, trial_id))
        except DATABASE_FAILURES:
            del self._held[number]  # RUNNING and ours, but not held: the next reclaim finds it
            raise
        except InputError as error:
            self._end(held, TrialState.FAIL, None, str(error))
            return None
        except BaseException:  # Ctrl-C
            self._put_back(number, trial_id, claim)
            raise
        return held.ticket

    def _config(self, trial: FrozenTrial, trial_id: int) -> TrialConfig:
        """The trial's config: the stored one, else what the space makes of the sampler's choice."""
        if "config" in trial.user_attrs:
            return TrialConfig.read(renamed(trial.user_attrs["config"], self._names))
        assert self._space is not None
        fixed = self._fixed(trial.number)
        if trial.system_attrs.get("fixed_params", {}) != fixed:
            self._storage.set_trial_system_attr(trial_id, "fixed_params", fixed)
        if bool(trial.user_attrs.get("start")) != (trial.number < self._starts):
            self._storage.set_trial_user_attr(trial_id, "start", trial.number < self._starts)
        alone = self._lock is not None and list(self._held) == [trial.number]
        given = self.plan, trial.number, len(self._points), alone, self.early
        base, space = self.plan.base, self._space

        def draft(again: int) -> Draft:
            sampler, pruner = TrialSampler(*given, again), optuna.pruners.NopPruner()
            study = optuna.load_study(
                study_name=self.name, storage=self._storage, sampler=sampler, pruner=pruner
            )
            return Draft(study, trial_id)

        def others() -> list[FrozenTrial]:
            return [] if fixed else [t for t in self._all() if t.number != trial.number]

        again, made, config = drawn(
            draft,
            lambda draft: suggested_config(space, draft, base),
            others,
            trial.system_attrs.get("again", 0),
        )
        if again:  # who goes on after a kill between two parameters draws the second one of this
            self._storage.set_trial_system_attr(trial_id, "again", again)
        made.keep()
        if is_front(self.plan.objective) and config.exits > self._columns:
            raise InputError(
                f"the network has {config.exits} exits, and the study compares {self._columns}: "
                "a space of networks that differ needs `corners`"
            )
        fields = renamed(config.model_dump(mode="json"), back(self._names))
        self._storage.set_trial_user_attr(trial_id, "config", fields)
        return config


def _failures(trial: FrozenTrial) -> tuple[str, ...]:
    stored = trial.system_attrs.get("failures")
    return tuple(str(text) for text in stored) if isinstance(stored, list) else ()
