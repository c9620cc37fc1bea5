"""A study under random sequences of everything that can happen to it."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from studies import states
from studies.drivers import Driver
from studies.record import StudyRecord, Ticket
from studies.rungs import keeps, keeps_front, rung_epochs, runs_on
from studies.states import TRANSITIONS, Claim, Outcome, State
from tests.studies.example import make_plan, make_report, run
from trainers.reports import EpochReport

EPOCHS, GRACE, ETA, TOLERANCE, RUN_ON = 4, 1, 2, 0.1, 0.5
LEASE = 100.0
ENDED = ("COMPLETE", "PRUNED", "FAIL")


class Watched(InMemoryStorage):
    """A storage that counts how often each trial was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Counter[int] = Counter()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        self.told[trial_id] += state.is_finished()
        return done


def mean(accuracies: Sequence[float]) -> float:
    """Rounded as the record's own: two orders of the same numbers may differ in the last bit."""
    return float(np.array(accuracies).mean())


@dataclass
class Expected:
    """What a trial should look like."""

    state: State = "WAITING"
    attempt: int = 0
    values: list[tuple[float, ...]] = field(default_factory=list)  # of each epoch, one per exit
    diverged: bool = False
    owner: StudyRecord | None = None
    passed: int = 0
    run_on: int | None = None  # the rung that stopped it, where it runs on
    ran_to: float | None = None

    @property
    def searched(self) -> list[tuple[float, ...]]:
        """What the search may see of it."""
        return self.values[: self.run_on]


@dataclass(frozen=True)
class Out:
    """A ticket and the record that handed it out."""

    record: StudyRecord
    ticket: Ticket


class Search(RuleBasedStateMachine):
    """Drivers come, work, freeze and die; the table of states is kept by hand beside the study."""

    objective = "mean"
    tickets = Bundle("tickets")
    home: Path
    examples = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = self.home / str(next(self.examples))
        self.folder.mkdir()
        self.storage = Watched()
        self.now = 0.0
        self.names = 0
        self.total = 3
        self.trials = {number: Expected() for number in range(self.total)}
        self.records: list[StudyRecord] = []
        self.seen: dict[int, State] = {}

    @initialize()
    def two_drivers_begin(self) -> None:
        self.records = [self.driver(), self.driver()]

    def driver(self) -> StudyRecord:
        """A new process that begins to drive, and takes over what has no owner any more."""
        self.names += 1
        driver = Driver(f"elsewhere:1:0:{self.names}", clock=lambda: self.now, lease=LEASE)
        plan = make_plan(
            self.folder,
            base={"epochs": EPOCHS},
            trials=self.total,
            grace=GRACE,
            eta=ETA,
            tolerance=TOLERANCE,
            run_on=RUN_ON,
            sampler="random",
            objective=self.objective,
        )
        record = StudyRecord.create_or_open(plan, self.storage, self.folder, driver=driver)
        self.expect_reclaimed(record)
        return record

    def expect_reclaimed(self, by: StudyRecord) -> None:
        for number, trial in self.trials.items():
            if (
                trial.owner is not None
                and trial.owner is not by
                and self.lease_of(number) < self.now
            ):
                trial.state, trial.owner = "WAITING", None

    def lease_of(self, number: int) -> float:
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(0, number)
        return Claim.read(self.storage.get_trial_user_attrs(trial_id).get("claim")).until

    def owned(self, out: Out) -> Expected | None:
        """The trial, if the ticket is still good."""
        trial = self.trials[out.ticket.number]
        good = trial.owner is out.record and trial.attempt == out.ticket.attempt
        return trial if good else None

    def untouched(self, out: Out, before: Outcome) -> None:
        assert self.records[0].outcome(out.ticket.number) == before

    @rule(target=tickets, which=st.integers(0, 1))
    def ask(self, which: int) -> object:
        record = self.records[which]
        waiting = [n for n, trial in self.trials.items() if trial.state == "WAITING"]
        if not waiting:
            self.expect_reclaimed(record)
            waiting = [n for n, trial in self.trials.items() if trial.state == "WAITING"]
        ticket = record.ask()
        if ticket is None:
            assert not waiting
            return multiple()
        assert ticket.number == min(waiting)
        trial = self.trials[ticket.number]
        trial.state, trial.owner, trial.attempt = "RUNNING", record, trial.attempt + 1
        assert ticket.attempt == trial.attempt
        assert ticket.epochs_done == len(trial.values)
        assert ticket.start is (ticket.number == 0)
        assert ticket.config.alpha[0] == pytest.approx(
            record.outcome(ticket.number).params["alpha"]
        )
        return Out(record, ticket)

    @rule(out=tickets, accuracy=st.none() | st.tuples(*[st.sampled_from([0.1, 0.3, 0.5])] * 4))
    def report(self, out: Out, accuracy: tuple[float, ...] | None) -> None:
        trial = self.owned(out)
        before = self.records[0].outcome(out.ticket.number)
        epoch = len(self.trials[out.ticket.number].values) + 1
        going_on = out.record.report(out.ticket, make_report(min(epoch, EPOCHS), accuracy))
        if trial is None:
            assert not going_on
            self.untouched(out, before)
            return
        trial.values.append((0.1,) * 4 if accuracy is None else accuracy)
        late = trial.run_on is not None
        trial.diverged = accuracy is None and not late
        if late:
            state: State = "PRUNED" if accuracy is None or epoch == EPOCHS else "RUNNING"
            trial.ran_to = self.worth(trial.values[-1]) if state == "PRUNED" else None
        elif trial.diverged:
            state = "PRUNED"
        elif epoch == EPOCHS:
            state = "COMPLETE"
        elif (
            epoch in rung_epochs(GRACE, ETA, EPOCHS)
            and not out.ticket.start
            and not self.passes(trial, epoch)
        ):
            goes_on = runs_on(out.record.plan.seed, out.ticket.number, RUN_ON)
            trial.run_on = epoch if goes_on else None
            state = "RUNNING" if goes_on else "PRUNED"
        else:
            state = "RUNNING"
        assert going_on is (state == "RUNNING")
        trial.state = state
        if not going_on:
            trial.owner = None

    def passes(self, trial: Expected, epoch: int) -> bool:
        """Whether a trial passes a rung, by the rule itself."""
        reached = [other for other in self.trials.values() if len(other.searched) >= epoch]
        if self.objective == "mean":
            values = [math.nan if o.diverged else mean(o.values[epoch - 1]) for o in reached]
            return keeps(mean(trial.values[-1]), values, ETA, TOLERANCE)
        rows = [(math.nan,) * 4 if o.diverged else o.values[epoch - 1] for o in reached]
        return keeps_front(trial.values[-1], rows, ETA, TOLERANCE)

    def worth(self, accuracies: tuple[float, ...]) -> float:
        """The mean, or of a front the anytime accuracy."""
        if self.objective == "mean":
            return mean(accuracies)
        return mean(list(itertools.accumulate(accuracies, max)))

    @rule(out=tickets, data=st.data())
    def report_again(self, out: Out, data: st.DataObject) -> None:
        done = len(self.trials[out.ticket.number].values)
        if done == 0:
            return
        epoch = data.draw(st.integers(1, done))
        before = self.records[0].outcome(out.ticket.number)
        going_on = out.record.report(out.ticket, make_report(epoch, 0.9))
        assert going_on is (self.owned(out) is not None)
        self.untouched(out, before)

    @rule(out=tickets, broken=st.booleans())
    def give_back(self, out: Out, broken: bool) -> None:
        trial = self.owned(out)
        assert out.record.give_back(out.ticket, "it broke" if broken else None) is bool(trial)
        if trial is not None:
            trial.state, trial.owner = "WAITING", None

    @rule(out=tickets)
    def fail(self, out: Out) -> None:
        trial = self.owned(out)
        before = self.records[0].outcome(out.ticket.number)
        assert out.record.fail(out.ticket, "it broke") is bool(trial)
        if trial is None:
            self.untouched(out, before)
        else:
            trial.state, trial.owner = "PRUNED" if trial.run_on else "FAIL", None

    @rule(which=st.integers(0, 1))
    def reclaim(self, which: int) -> None:
        before = {n for n, trial in self.trials.items() if trial.state == "RUNNING"}
        found = self.records[which].reclaim()
        self.expect_reclaimed(self.records[which])
        after = {n for n, trial in self.trials.items() if trial.state == "RUNNING"}
        assert set(found) == before - after

    @rule(which=st.integers(0, 1))
    def driver_is_replaced(self, which: int) -> None:
        """Killed, or frozen: its tickets may still report, late."""
        self.records[which] = self.driver()

    @rule(which=st.integers(0, 1))
    def driver_ends_in_order(self, which: int) -> None:
        old = self.records[which]
        old.release()
        for trial in self.trials.values():
            if trial.owner is old:
                trial.state, trial.owner = "WAITING", None
        self.records[which] = self.driver()

    @rule()
    def leases_end_but_of_those_who_renew(self) -> None:
        self.now += 0.9 * LEASE
        for record in self.records:
            record.renew()
        self.now += 0.9 * LEASE

    @rule()
    def the_total_grows(self) -> None:
        if self.total < 6:
            self.trials[self.total] = Expected()
            self.total += 1
            self.records = [self.driver(), self.driver()]

    @invariant()
    def the_study_is_as_expected(self) -> None:
        if not self.records:
            return
        outcomes = self.records[0].outcomes()
        assert [o.number for o in outcomes] == list(range(self.total))
        for outcome in outcomes:
            trial = self.trials[outcome.number]
            assert (outcome.state, outcome.attempt) == (trial.state, trial.attempt)
            assert outcome.epochs == len(trial.values)
            steps = self.records[0].study.get_trials(deepcopy=False)[outcome.number]
            told = steps.intermediate_values.values()
            if not trial.values:
                assert outcome.value is None
            else:
                assert outcome.value == pytest.approx(self.worth(trial.searched[-1]))
            if self.objective == "mean":
                assert list(told) == [self.worth(values) for values in trial.searched]
            ran_to = None if trial.ran_to is None else pytest.approx(trial.ran_to)
            assert (outcome.run_on, outcome.ran_to) == (trial.run_on, ran_to)
            assert outcome.report is None or outcome.report.epoch <= len(trial.searched)
            assert outcome.diverged is trial.diverged
            assert (outcome.reason is None) is (outcome.state not in ("PRUNED", "FAIL"))
            reports: list[EpochReport] = self.records[0].reports(outcome.number)
            assert [report.epoch for report in reports] == list(range(1, outcome.epochs + 1))

    @invariant()
    def only_full_length_has_the_values_of_a_front(self) -> None:
        if not self.records or self.objective == "mean":
            return
        for frozen in self.records[0].study.get_trials(deepcopy=False)[: self.total]:
            trial = self.trials[frozen.number]
            whole = list(trial.values[-1]) if trial.state == "COMPLETE" else None
            assert frozen.values == whole and not frozen.intermediate_values

    @invariant()
    def states_change_as_the_table_says(self) -> None:
        for number, trial in self.trials.items():
            before = self.seen.get(number, "WAITING")
            # A step may pass through one state between: taken over and given out again, ...
            reached = {before} | TRANSITIONS[before]
            reached |= {later for state in reached for later in TRANSITIONS[state]}
            assert trial.state in reached
            self.seen[number] = trial.state

    @invariant()
    def no_trial_is_told_twice(self) -> None:
        for number, trial in self.trials.items():
            assert self.storage.told[number] == (trial.state in ENDED)

    def teardown(self) -> None:
        """Whatever has happened: one more driver brings exactly the plan's trials to an end."""
        if self.records:
            self.now += 10 * LEASE
            record = self.driver()
            assert not any(o.state == "RUNNING" for o in record.outcomes())
            while (ticket := record.ask()) is not None:
                run(record, ticket)
            states = [o.state for o in record.outcomes()]
            assert len(states) == self.total and set(states) <= set(ENDED)
            assert all(self.storage.told[number] == 1 for number in range(self.total))


class FrontSearch(Search):
    """The same where each exit counts by itself."""

    objective = "front"


@pytest.mark.parametrize("search", [Search, FrontSearch])
def test_nothing_is_lost_or_told_twice_whatever_happens(tmp_path, search):
    search.home = tmp_path
    run_state_machine_as_test(
        search,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("search", "examples"), [(Search, 120), (FrontSearch, 60)])
def test_nothing_is_lost_or_told_twice_in_long_runs(tmp_path, search, examples):
    search.home = tmp_path
    run_state_machine_as_test(
        search,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_final_states_are_final():
    assert all(not TRANSITIONS[state] for state in ("COMPLETE", "PRUNED", "FAIL"))
    assert set(TRANSITIONS) == {*ENDED, "WAITING", "RUNNING"} and set(states.ENDED) == set(ENDED)


@pytest.mark.parametrize("stored", [None, "x", 3, {}, {"owner": 1}, {"owner": 1, "attempt": "x"}])
def test_what_is_no_claim_counts_as_none(stored):
    assert Claim.read(stored) == Claim(None, 0, 0.0)


def test_records_go_to_json_and_back():
    claim = Claim("host:1:2:3", 4, 5.5)
    assert Claim.read(claim.to_json()) == claim
    outcome = Outcome(
        number=1,
        state="PRUNED",
        config=None,
        params={"alpha": 3.0, "scheme": "mate", "on": True},
        value=0.5,
        epochs=2,
        report=make_report(2, 0.5),
        reason="stopped",
        start=False,
    )
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
