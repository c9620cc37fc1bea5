"""Which trials this process runs: claims, leases, giving back and taking over."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Space
from studies import faults
from studies.drivers import Driver, DriverLock, is_dead
from studies.experiments import space_of
from studies.listing import DRIVEN
from studies.plan import is_front
from studies.reading import StudyReader, one_line
from studies.states import Claim, Ticket
from studies.storage import Place, StorageError, make_folder
from trainers import checkpoints
from trainers.catalog import shortened

# Seconds that a driver has between taking a trial and claiming it: two writes to the storage, and
# what the clocks of two machines may differ by.
UNCLAIMED = 60.0


@dataclass
class Held:
    """A trial that this driver runs.

    Attributes:
        ticket: As handed out.
        trial_id: Optuna's, unique in the storage.
        claim: As this driver wrote it last.
        done: Epochs whose reports are stored.
        values: What the last of these is worth, a front's one per exit; empty before the first.
        diverged: Whether the last of these diverged.
        passed: The last rung that let it pass, epochs.
        run_on: The rung that stopped it, epochs, where it runs on all the same; else None. Then
            `values` stay those there.
    """

    ticket: Ticket
    trial_id: int
    claim: Claim
    done: int
    values: tuple[float, ...]
    diverged: bool
    passed: int
    run_on: int | None = None


class HeldTrials(dict[int, Held]):
    """number -> trial; a class of its own, so that it can be referred to weakly."""


class StudyDriver(StudyReader):
    """A study with the right to run its trials.

    Attributes:
        driver: This driver's name, clock and lease.
    """

    def __init__(
        self,
        where: Place,
        storage: BaseStorage,
        name: str,
        folder: Path,
        driver: Driver | None = None,
        lock: DriverLock | None = None,
        held: HeldTrials | None = None,
    ) -> None:
        super().__init__(where, storage, name, folder)
        self.driver = driver or Driver()
        self._held = HeldTrials() if held is None else held
        self._lock = lock
        self._driving = False
        self._doubtful: int | None = (
            None  # being taken, and not claimed yet: its server may die meanwhile
        )
        self._space: Space | None = None

    def _drive(self) -> None:
        """Makes this process the study's driver, if it is not so yet."""
        if self._driving and (self._lock is None or self._lock.held):
            return
        if self._lock is None or not self._lock.held:
            self._lock = lock_of(self.place, self.folder, self.name, self._held)
        self._space = self._space or space_of(self.plan)
        self._direct.set_study_user_attr(self._study_id, DRIVEN, self.driver.clock())
        self._driving = True
        self.reclaim()

    @one_line
    def note(self, name: str, value: dict[str, Any]) -> None:
        """Keeps something that was found about the study beside its plan; see `noted`."""
        self._storage.set_study_user_attr(self._study_id, name, value)

    @one_line
    def give_back(self, ticket: Ticket, reason: str | None = None) -> bool:
        """Lets the trial wait, with its parameters, reports and checkpoint, to be asked for again.

        Args:
            ticket: From `ask`.
            reason: Why the attempt broke, if it did; the next ticket tells it.

        Returns:
            False if it is not this attempt's any more.
        """
        held = self._mine(ticket)
        if held is None:
            return False
        if reason is not None:
            failures = [*ticket.failures, shortened(reason)]
            self._storage.set_trial_system_attr(held.trial_id, "failures", failures)
        return self._put_back(ticket.number, held.trial_id, held.claim)

    @one_line
    def broke(self, ticket: Ticket, reason: str, died: bool = False) -> bool:
        """Ends an attempt that broke: the trial waits to be tried again, or is FAIL.

        Args:
            ticket: From `ask`.
            reason: What happened.
            died: The worker died or hung; else the trial itself raised. See `studies.faults`.

        Returns:
            Whether it waits to be tried again.
        """
        reason = shortened(reason)
        if faults.tries_again(ticket.failures, reason, died):
            return self.give_back(ticket, reason)
        self.fail(ticket, faults.last_words(ticket.failures, reason))
        return False

    @one_line
    def fail(self, ticket: Ticket, reason: str) -> bool:
        """Ends the trial as FAIL; False if it is not this attempt's any more."""
        held = self._mine(ticket)
        return held is not None and self._end(held, TrialState.FAIL, None, reason)

    @one_line
    def reclaim(self) -> list[int]:
        """Lets RUNNING trials wait again that nobody runs; their numbers.

        Those whose lease has ended, or whose driver was a process of this machine that is dead; of
        a SQLite study, which this process alone drives, all that it does not run itself.
        """
        self._drive()
        back = []
        for trial in self._all(TrialState.RUNNING):
            if trial.number in self._held:
                continue
            claim = Claim.read(trial.user_attrs.get("claim"))
            if self._is_lost(trial, claim):
                trial_id = self._trial_id(trial.number)
                now = Claim.read(self._direct.get_trial_user_attrs(trial_id).get("claim"))
                if now == claim and self._put_back(trial.number, trial_id, claim):
                    back.append(trial.number)
        return back

    def _is_lost(self, trial: FrozenTrial, claim: Claim) -> bool:
        if self._lock is not None or claim.owner == self.driver.name:
            return True
        if claim.owner is None:  # taken and not claimed yet, or its driver died just then
            begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            return self.driver.clock() > begun + UNCLAIMED
        return self.driver.clock() > claim.until or is_dead(claim.owner)

    @one_line
    def is_ghost(self, number: int) -> bool:
        """Whether a trial is RUNNING and nobody runs it."""
        trial = self._storage.get_trial(self._trial_id(number))
        claim = Claim.read(trial.user_attrs.get("claim"))
        return trial.state == TrialState.RUNNING and self._is_lost(trial, claim)

    @one_line
    def renew(self) -> None:
        """Renews the lease of every trial that this driver runs, e.g. during a long epoch."""
        for held in list(self._held.values()):
            with contextlib.suppress(UpdateFinishedTrialError):  # it ended just now
                if self._mine(held.ticket) is not None:
                    self._extend(held, 0.0)

    @contextlib.contextmanager
    def renewing(self, every: float | None = None) -> Iterator[None]:
        """Renews the leases from a thread of its own, however long an epoch takes.

        Args:
            every: Seconds; a quarter of the lease if not given. A SQLite study has its lock, and
                no thread.
        """
        if self.place.database is not None:
            yield
            return
        over = threading.Event()
        period = self.driver.lease / 4 if every is None else every

        def renew() -> None:
            while not over.wait(period):
                with contextlib.suppress(StorageError):  # the search itself will meet it
                    self.renew()
            if isinstance(self._direct, RDBStorage):
                self._direct.remove_session()  # each thread has one of its own

        thread = threading.Thread(target=renew, name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=10)

    def tidy(self) -> None:
        """Removes checkpoints of ended trials: of a driver that was killed as it told the end, of
        a worker that wrote for a trial which had gone on without it. Of a confirmation those of its
        full-length runs are needed until the test split is read.
        """
        left = {path.parent.name for path in (self.folder / "trials").glob("*/*checkpoint.pt*")}
        for number in sorted(int(name) for name in left if name.isdecimal()):
            if not self.plan.needs_checkpoint(self.outcome(number).state):
                checkpoints.remove(self.checkpoint(number))

    def release(self) -> None:
        """Ends this process's driving: trials still out go back, and another driver may come.

        Where the storage fails they stay RUNNING, and the next driver takes them over.
        """
        for held in list(self._held.values()):
            with contextlib.suppress(StorageError):
                self.give_back(held.ticket)
        self._held.clear()
        self._driving = False
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Releases the study and closes the connections to its storage."""
        self.release()
        super().close()

    def _mine(self, ticket: Ticket) -> Held | None:
        """The trial, if this driver still runs this attempt of it, by the storage's word."""
        held = self._held.get(ticket.number)
        if held is None or held.ticket.attempt != ticket.attempt:
            return None
        try:
            stored = self._direct.get_trial_user_attrs(held.trial_id).get("claim")
        except KeyError:
            raise StorageError(f"study {self.name!r} was deleted while it was searched") from None
        claim = Claim.read(stored)
        if (claim.owner, claim.attempt) != (self.driver.name, ticket.attempt):
            del self._held[ticket.number]
            return None
        return held

    def _extend(self, held: Held, at_least: float) -> None:
        """Moves the end of the lease, where half of it has gone: not at every short epoch."""
        now, lease = self.driver.clock(), max(self.driver.lease, at_least)
        if held.claim.until - now < lease / 2:
            held.claim = Claim(self.driver.name, held.ticket.attempt, now + lease)
            self._storage.set_trial_user_attr(held.trial_id, "claim", held.claim.to_json())

    def _put_back(self, number: int, trial_id: int, claim: Claim) -> bool:
        """RUNNING to WAITING, the claim cleared first, so that a late report finds none."""
        nobody = Claim(None, claim.attempt, 0.0)
        try:
            self._storage.set_trial_user_attr(trial_id, "claim", nobody.to_json())
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)
        except UpdateFinishedTrialError:
            self._held.pop(number, None)
            return False
        self._held.pop(number, None)
        return True

    def _end(
        self,
        held: Held,
        state: TrialState,
        values: Sequence[float] | None,
        reason: str | None = None,
    ) -> bool:
        """RUNNING to a final state; False if it has ended already.

        A trial that a rung has stopped and that ran on ends as what the rung made of it, whatever
        came later.
        """
        if held.run_on is not None:
            state, values, reason = TrialState.PRUNED, self._early(held), None
        try:
            if reason is not None:
                self._storage.set_trial_user_attr(held.trial_id, "reason", shortened(reason))
            # Not study.tell: it looks and then writes, and this refuses by itself.
            self._storage.set_trial_state_values(
                held.trial_id, state, None if values is None else list(values)
            )
        except UpdateFinishedTrialError:
            self._held.pop(held.ticket.number, None)
            return False
        self._held.pop(held.ticket.number, None)
        path = self.checkpoint(held.ticket.number)
        if self.plan.needs_checkpoint(state.name):  # to be scored, from the last epoch
            checkpoints.remove_older(path)
        else:
            checkpoints.remove(path)  # an ended trial goes on nowhere
        return True

    def _early(self, held: Held) -> tuple[float, ...] | None:
        """The values that a trial which is stopped is told with: of a front none.

        Optuna keeps none of a stopped trial either where the objectives are several, so nobody
        takes an early vector for one of full length. What it reached lies in its reports, where the
        sampler finds it (`seen.Behind`).
        """
        return None if is_front(self.plan.objective) else held.values


def lock_of(where: Place, folder: Path, name: str, held: HeldTrials) -> DriverLock | None:
    """The right to drive a SQLite study; a server needs none."""
    if where.database is None:
        return None
    path = folder / "driver.lock"
    if not where.own:
        make_folder(where.database.parent)
        path = where.database.with_name(f"{where.database.name}.{name}.lock")
    out = weakref.ref(held)  # a record that is gone with its trials is not busy
    return DriverLock(path, name, lambda: bool(out()))
