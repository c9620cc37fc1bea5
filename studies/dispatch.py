"""Which of the record's trials is which of Ray Tune's: asked for, reported, cut, broken, silent.

Nothing of Ray is needed here. Tune makes a trial of its own for each attempt, so the same trial of
the record may come under several of its ids, one after another.
"""

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Literal

from studies import faults
from studies.limits import Grants
from studies.record import StudyRecord, Ticket
from studies.storage import StorageError
from studies.trial import Event, OnEvent
from trainers.catalog import InputError
from trainers.reports import EpochReport

PAUSED = 10.0  # seconds between two looks, which otherwise come every second at least
ASK_AGAIN = 5.0  # seconds, where none waits but some run: one of these may come back


class Dispatch:
    """Tune's trials and the record's tickets, held together for one call of a search.

    A failure of the storage ends the search. It is kept, as Tune would take it for the trial's, and
    from then on nothing is asked for or told.

    Attributes:
        tickets: The trials that are out, by Tune's id.
        over: Why no more trials are begun, if so.
        failure: Of the storage or of a user's file, if there was one.
    """

    def __init__(self, record: StudyRecord, on_event: OnEvent, grants: Grants) -> None:
        self.record = record
        self.on_event = on_event
        self.grants = grants
        self.tickets: dict[str, Ticket] = {}
        self.over: str | None = None
        self.failure: InputError | None = None
        self.clock = time.monotonic
        self._ask_at = 0.0
        self._pace = faults.Pace()
        self._looked = self.clock()  # when it was last asked who hangs
        self._heard: dict[str, float] = {}  # when a trial that runs was heard of
        self._silent: set[str] = set()  # of these the ones that have not reported yet
        self._starts: list[float] = []  # seconds from a trial's beginning to its first report

    def asks_no_more(self) -> bool:
        """Whether no trial will be begun any more."""
        self.over = self.over or self.grants.out_of_time()
        return self.over is not None or self.failure is not None

    def ask(self, ray_id: str) -> Ticket | Literal["later", "never"]:
        """The record's next trial, from now on under this id; or when to ask once more."""
        if self.asks_no_more():
            return "never"
        if self.clock() < self._ask_at:
            return "later"
        try:
            held_back = self.record.held_back()  # before: others may end the round meanwhile
            ticket = self.record.ask()
            if ticket is None:
                self._ask_at = self.clock() + ASK_AGAIN
                # One of those that run may come back, or let the next ones begin.
                return "later" if self.tickets or held_back else "never"
            self.tickets[ray_id] = ticket
            self.on_event(Event("started", ticket.number, ticket.config))
            if (refused := self.grants.refusal()) is not None:
                self.cut(ray_id, refused)
                return "never"
        except InputError as error:  # the storage's, or a file that was edited meanwhile
            self.failure = error
            return "never"
        return ticket

    def cut(self, ray_id: str, reason: str) -> None:
        """A limit was reached: the trial waits."""
        self.over = self.over or reason
        ticket = self.tickets.pop(ray_id)
        self.record.give_back(ticket)
        self.on_event(Event("given back", ticket.number, ticket.config))

    def cut_unbegun(self, ray_id: str) -> bool:
        """Cuts a trial that no worker has begun, if none is to begin any more. Returns whether."""
        if not self.asks_no_more() or self.failure is not None:
            return False
        self.cut(ray_id, str(self.over))
        return True

    def take(self, ray_id: str, result: Mapping[str, Any]) -> bool:
        """One result of a worker.

        Args:
            ray_id: Of the trial.
            result: Of the keys `report`, an `EpochReport` as JSON, `error`, why the trial raised,
                and `unwritable`, why its checkpoint could not be kept, one; beside `error` also
                `input`, whether it is the user's.

        Returns:
            Whether the trial goes on.
        """
        ticket = self.tickets.get(ray_id)
        if ticket is None or self.failure is not None:  # given back, or told: a late worker's
            return False
        try:
            return self._told(ray_id, ticket, result)
        except StorageError as error:
            self.failure = error
            return False

    def _told(self, ray_id: str, ticket: Ticket, result: Mapping[str, Any]) -> bool:
        if ray_id in self._silent:
            self._starts.append(self.clock() - self._heard[ray_id])
            self._silent.remove(ray_id)
        self._heard[ray_id] = self.clock()
        if "unwritable" in result:
            raise StorageError(str(result["unwritable"]))
        if "error" in result:
            if result.get("input") and faults.untouched(self.record.outcomes()):
                self.cut(ray_id, str(result["error"]))
            else:
                self.broke(ray_id, str(result["error"]))
            return False
        report = EpochReport.model_validate_json(result["report"])
        if report.epoch > ticket.epochs_done:
            self._pace.trained(ticket.config, report.seconds)
        going_on = self.record.report(ticket, report)
        self.on_event(Event("epoch", ticket.number, ticket.config, report))
        if not going_on:
            self._ended(ray_id)
        # What lies in the checkpoint comes again, and was granted when it was trained.
        elif report.epoch >= ticket.epochs_done and (refused := self.grants.refusal()) is not None:
            self.cut(ray_id, refused)
            return False
        return going_on

    def broke(self, ray_id: str, reason: str, died: bool = False) -> None:
        """A trial raised, or its worker died or hung: it is tried again, or told FAIL."""
        ticket = self.tickets.get(ray_id)
        if ticket is None or self.failure is not None:  # it has ended, or been given back
            return
        try:
            if self.record.broke(ticket, reason, died):
                del self.tickets[ray_id]
                self._ask_at = 0.0
                self.on_event(Event("given back", ticket.number, ticket.config))
            else:
                self._ended(ray_id)
        except StorageError as error:
            self.failure = error

    def hangs(self, ray_id: str, runs: bool) -> bool:
        """Whether a trial has been silent for too long; if so it has broken.

        Args:
            ray_id: Of the trial.
            runs: Whether it is with a worker.
        """
        paused, self._looked = self.clock() - self._looked, self.clock()
        if paused > PAUSED:  # this process stood still (Ctrl-Z, a waiting storage) and heard nobody
            self._heard = {name: heard + paused for name, heard in self._heard.items()}
        if not runs:
            self._heard.pop(ray_id, None)
            self._silent.discard(ray_id)
            return False
        if ray_id not in self._heard:
            self._heard[ray_id] = self.clock()
            self._silent.add(ray_id)
        ticket = self.tickets.get(ray_id)
        starts = self._starts if ray_id in self._silent else ()
        limit = None if ticket is None else self._pace.hung_after(ticket.config, starts)
        if limit is None or self.clock() - self._heard[ray_id] <= limit:
            return False
        self.broke(ray_id, f"no report for {limit:.0f} s: its worker hung", died=True)
        return True

    def _ended(self, ray_id: str) -> None:
        ticket = self.tickets.pop(ray_id)
        self._ask_at = 0.0
        outcome = self.record.outcome(ticket.number)
        self.on_event(
            Event("ended", ticket.number, ticket.config, state=outcome.state, reason=outcome.reason)
        )
        if outcome.state == "FAIL":
            self.over = self.over or faults.hopeless(self.record.outcomes())

    def give_back(self) -> None:
        """Every trial that is still out becomes WAITING again, with its checkpoint.

        Where the storage fails it stays RUNNING, and the next driver takes it over.
        """
        for ray_id in list(self.tickets):
            ticket = self.tickets.pop(ray_id)
            with contextlib.suppress(StorageError):
                self.record.give_back(ticket)
            self.on_event(Event("given back", ticket.number, ticket.config))
