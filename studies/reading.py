"""What a study holds, for anyone to read while it is searched or after: no lock, no writing."""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO, TypeVar

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from studies import table
from studies.database import Database, remembering, uncollected
from studies.front import Box, metrics, objective, vector
from studies.listing import PLAN, stored_names
from studies.making import MADE, columns_in, foreign, plan_in
from studies.plan import FRONT_FLOPS, is_front, ranked_by
from studies.samplers import quietly
from studies.states import (
    Outcome,
    epochs_of,
    exits_at,
    exits_of,
    outcome_of,
    reports_in,
    reports_of,
    run_on_of,
)
from studies.storage import Place, StorageError, one_line_errors, patiently
from trainers.catalog import InputError
from trainers.checkpoints import put
from trainers.reports import EpochReport, ExitPoint

FINISHED_FOR_IMPORTANCE, MOST_FOR_IMPORTANCE = 8, 120

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="StudyReader")


def one_line(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """One thread at a time; a server that went away is waited for; errors are one line."""

    @functools.wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._turn:
            try:
                with one_line_errors(self.place):
                    call = functools.partial(method, self, *args, **kwargs)
                    result = patiently(self.place, call, self._patience)
            except StorageError:
                self._patience = 0.0  # a server that was waited for in vain is not waited for again
                raise
            self._patience = None
            return result

    return wrapped


class StudyReader:
    """A study in its storage.

    Attributes:
        plan: What is searched.
        name: Of the study.
        folder: `runs/<study>`, absolute.
        place: The storage; its `label` can be printed.
    """

    def __init__(self, where: Place, storage: BaseStorage, name: str, folder: Path) -> None:
        self.place, self.name, self.folder = where, name, folder
        self._patience: float | None = None  # seconds; None: as `storage.PATIENCE` has it
        self._turn = threading.RLock()  # leases are renewed from a thread of their own
        self._direct = storage
        self._storage = remembering(storage)
        self._study_id = storage.get_study_id_from_name(name)
        self._finished: dict[int, Outcome] = {}
        self._vectors: dict[tuple[int, int], tuple[float, ...]] = {}  # by trial and epoch
        self._stopped_at: dict[int, tuple[int, tuple[float, ...]]] = {}  # of `early`
        plan = plan_in(storage, self._study_id, name, folder)
        made = storage.get_study_system_attrs(self._study_id).get(MADE)
        if plan is None:
            raise InputError(
                f"study {name!r} is not begun, its search was ended while it was made: "
                "the same `automate search` begins it"
            )
        if not isinstance(made, dict):
            raise foreign(name)
        self.plan = plan
        stored = storage.get_study_user_attrs(self._study_id).get(PLAN)
        self._names = stored_names(stored, folder)  # of paths, as trials name them -> as they are
        self._points: list[dict[str, Any]] = list(made.get("points") or [])
        self._starts = int(made.get("starts") or 0)
        box = made.get("box")
        self._box: Box | None = (float(box[0]), float(box[1]), float(box[2])) if box else None
        self._columns = columns_in(plan, len(storage.get_study_directions(self._study_id)))

    @functools.cached_property
    def study(self) -> optuna.Study:
        """The Optuna study, for the dashboard and for importances."""
        return optuna.load_study(study_name=self.name, storage=self._storage)

    @property
    def storage(self) -> BaseStorage:
        """Where it lies, for another study of the same storage."""
        return self._direct

    @property
    def box(self) -> Box | None:
        """The hypervolume's box; None with another objective."""
        return self._box

    @property
    def metric_names(self) -> list[str]:
        """What each value of a trial is, in the order in which Optuna has them."""
        return list(metrics(self.plan.objective, self._columns))

    def _trial_id(self, number: int) -> int:
        try:
            return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        except KeyError:
            raise InputError(f"study {self.name!r} has no trial {number}") from None

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials by number; finished ones are read from the storage only once."""
        try:
            trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        except KeyError:
            raise StorageError(f"study {self.name!r} has been deleted") from None
        # Not by its own `states`: Optuna's storage in memory then misses what waits once more.
        return [trial for trial in trials if not states or trial.state in states]

    @one_line
    def noted(self, name: str) -> dict[str, Any] | None:
        """What was kept beside the plan under a name; None if nothing was."""
        found = self._storage.get_study_user_attrs(self._study_id).get(name)
        return found if isinstance(found, dict) else None

    @one_line
    def outcomes(self) -> list[Outcome]:
        """Every trial of the plan as it is now, by number."""
        trials = self._all()
        with uncollected(len(trials) - len(self._finished)):
            return [
                self._outcome(trial)
                for trial in trials
                if trial.state != TrialState.WAITING or trial.number < self.plan.trials
            ]

    @one_line
    def spent(self) -> int:
        """Epochs that are stored, and one for each trial that runs: that epoch may come yet."""
        trials = self._all()
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        return running + sum(epochs_of(trial) for trial in trials)

    @one_line
    def outcome(self, number: int) -> Outcome:
        """One trial as it is now. Raises InputError if there is none of that number."""
        return self._outcome(self._storage.get_trial(self._trial_id(number)))

    def _outcome(self, trial: FrozenTrial) -> Outcome:
        if trial.number in self._finished:
            return self._finished[trial.number]
        worth = self._worth if is_front(self.plan.objective) else None
        outcome = outcome_of(trial, trial.number < self._starts, worth, self._names)
        if trial.state.is_finished():
            self._finished[trial.number] = outcome
        return outcome

    def _worth(self, report: EpochReport) -> float:
        """The objective as one number (`ranked_by`); of a diverged network what guessing reaches.

        Raises:
            ValueError: The report has no exits to judge.
        """
        plan = self.plan
        name = ranked_by(plan.objective)
        if report.diverged:
            return 0.0 if name == "hypervolume" else 1.0 / plan.base.classes
        if not report.exits:
            raise ValueError(f"the report of epoch {report.epoch} has no exits to judge")
        return objective(name, report.exits, plan.budgets, self._box, report.budget)

    @one_line
    def reports(self, number: int) -> list[EpochReport]:
        """Every stored epoch of a trial. Raises InputError if there is none of that number."""
        trial_id = self._trial_id(number)
        if isinstance(self._direct, Database):
            return reports_in(number, self._direct.reports(trial_id))
        return reports_of(self._storage.get_trial(trial_id))

    def values_at(self, epoch: int) -> list[float]:
        """The objective that each trial reported after an epoch; NaN of those that diverged."""
        return [
            math.nan if trial.user_attrs.get("diverged") else trial.intermediate_values[epoch]
            for trial in self._all()
            if epoch in trial.intermediate_values
        ]

    def vectors_at(self, epoch: int) -> list[tuple[float, ...]]:
        """What each trial of a front had after an epoch, higher is better in each column.

        A trial whose network diverged is none of them.
        """
        sound = [t for t in self._all() if not t.user_attrs.get("diverged")]
        if isinstance(self._direct, Database):
            # Reports are read without those before the last.
            went_on = {
                t._trial_id: t.number
                for t in sound
                if (t.number, epoch) not in self._vectors
                and epochs_of(t) > epoch
                and run_on_of(t) is None
            }
            for trial_id, text in self._direct.reports_after(sorted(went_on), epoch).items():
                self._remember(went_on[trial_id], epoch, exits_of(text))
        return [self._raised(values) for t in sound if (values := self._vector(t, epoch))]

    def _vector(self, trial: FrozenTrial, epoch: int) -> tuple[float, ...]:
        """What a front compares of a trial at an epoch that the search may see; empty if there is
        none. Read once: a stored report never changes."""
        if (trial.number, epoch) not in self._vectors:
            self._remember(trial.number, epoch, exits_at(trial, epoch))
        return self._vectors.get((trial.number, epoch), ())

    def _remember(self, number: int, epoch: int, exits: tuple[ExitPoint, ...]) -> None:
        if exits:
            self._vectors[number, epoch] = vector(self.plan.objective, exits, self._columns)

    def early(self) -> dict[int, tuple[int, tuple[float, ...]]]:
        """What a front's stopped trials had when they were stopped: Optuna keeps no values of them.

        Number -> epochs, and values in the order of `metric_names`. Of a diverged one 0 epochs, and
        chance at every exit at the highest cost of any.
        """
        if not is_front(self.plan.objective):
            return {}
        every = self._all()
        for trial in every:
            if trial.state == TrialState.PRUNED and trial.number not in self._stopped_at:
                outcome = self._outcome(trial)
                epochs = 0 if outcome.diverged else outcome.run_on or outcome.epochs
                reached = self._vector(trial, epochs) if epochs else ()
                self._stopped_at[trial.number] = epochs, reached
        chance: tuple[float, ...] = (1.0 / self.plan.base.classes,) * self._columns
        if self.plan.objective == FRONT_FLOPS:
            told = [t.values for t in every if t.state == TrialState.COMPLETE and t.values]
            early = [values for _, values in self._stopped_at.values() if values]
            chance += (max((values[-1] for values in (*told, *early)), default=0.0),)
        return {n: (epochs, values or chance) for n, (epochs, values) in self._stopped_at.items()}

    def _raised(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """A front's values with the sign of what is minimised turned."""
        more = metrics(self.plan.objective, self._columns).values()
        return tuple(x if up else -x for x, up in zip(values, more, strict=True))

    def checkpoint(self, number: int) -> Path:
        """Where a trial keeps its checkpoint, whether there is one or not."""
        return self.folder / "trials" / str(number) / "checkpoint.pt"

    @one_line
    def importances(self) -> dict[str, float]:
        """Share of each parameter in the variance of the objective, the largest first (fANOVA).

        Of a front, in the variance of the number that orders its trials (`ranked_by`). Over
        complete trials and the parameters that all of them have; {} with fewer than 8 trials,
        fewer than 2 parameters, or values that are all the same. Of more than
        `MOST_FOR_IMPORTANCE` trials an even choice is taken: its time grows faster than they do.
        """
        done = self._all(TrialState.COMPLETE)
        done = done[:: -(-len(done) // MOST_FOR_IMPORTANCE) or 1]
        names = set.intersection(*(set(trial.params) for trial in done)) if done else set()
        if len(done) < FINISHED_FOR_IMPORTANCE or len(names) < 2:
            return {}
        values = [self._outcome(trial).value for trial in done]
        worth = dict(enumerate(value for value in values if value is not None))
        if len(set(worth.values())) < 2 or len(worth) < len(done):
            return {}
        with quietly():
            study = optuna.create_study(directions=self.study.directions)
            study.add_trials(done)
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.plan.seed)
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial: worth[trial.number]
            )
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def to_csv(self, target: str | Path | TextIO) -> None:
        """The trials as CSV, a row each, into a path or an open text file. Raises InputError."""
        outcomes = self.outcomes()
        if not isinstance(target, str | Path):
            table.write_csv(outcomes, target)
            return
        text = io.StringIO(newline="")
        table.write_csv(outcomes, text)
        path, content = Path(target), text.getvalue().encode()
        try:
            if path.is_file() or (path.parent.is_dir() and not path.exists()):
                put(path, content)
            else:  # a pipe, /dev/stdout; or nothing that can be written
                path.write_bytes(content)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Closes the connections to the storage."""
        if isinstance(self._direct, RDBStorage) and self.place.url is not None:
            self._direct.remove_session()
            self._direct.engine.dispose()
