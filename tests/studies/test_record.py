import csv
import dataclasses
import io
import threading

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from studies.drivers import Driver
from studies.front import objective
from studies.record import StudyRecord, Ticket
from studies.storage import StorageError
from tests.studies.example import (
    SPACE,
    make_plan,
    make_report,
    run,
    run_all,
    space_file,
)
from trainers.catalog import InputError


@pytest.fixture(params=["anytime", "front"])
def create(tmp_path, request):
    """A record of a study in memory; the same storage again is another driver of the same study.

    Of one objective and of several, which behave alike where nothing else is said.
    """
    drivers = iter(range(100))

    def creates(storage=None, clock=lambda: 1000.0, **fields):
        driver = Driver(name=f"elsewhere:1:0:{next(drivers)}", clock=clock, lease=100.0)
        fields = {"objective": request.param, **fields}
        return StudyRecord.create_or_open(
            make_plan(tmp_path, **fields), storage or InMemoryStorage(), tmp_path, driver=driver
        )

    return creates


def asked(record: StudyRecord) -> Ticket:
    ticket = record.ask()
    assert ticket is not None
    return ticket


def states(record: StudyRecord) -> list[str]:
    return [outcome.state for outcome in record.outcomes()]


def test_all_trials_wait_from_the_beginning_the_starts_first(create):
    record = create(trials=4)
    assert states(record) == ["WAITING"] * 4
    assert [outcome.start for outcome in record.outcomes()] == [True, False, False, False]
    assert [outcome.config for outcome in record.outcomes()] == [None] * 4
    ticket = asked(record)
    assert (ticket.number, ticket.attempt, ticket.epochs_done, ticket.start) == (0, 1, 0, True)
    assert ticket.config == record.plan.base.with_(alpha=3.0, kd_weight=1.0)
    assert states(record) == ["RUNNING", "WAITING", "WAITING", "WAITING"]
    assert not asked(record).start


def test_a_trial_of_full_length_is_complete_with_its_last_objective(create):
    record = create(objective="last")
    ticket = asked(record)
    reports = [make_report(epoch, accuracy=epoch / 10) for epoch in (1, 2, 3, 4)]
    assert [record.report(ticket, report) for report in reports] == [True, True, True, False]
    outcome = record.outcome(0)
    assert outcome.state == "COMPLETE" and outcome.value == 0.4 and outcome.epochs == 4
    assert outcome.report == reports[-1] and outcome.config == ticket.config
    assert outcome.reason is None and not outcome.diverged
    assert record.reports(0) == reports
    frozen = record.study.trials[0]
    assert frozen.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert frozen.values == [0.4]
    assert set(frozen.user_attrs) == {"config", "claim", "start"}


def test_values_are_the_plans_objective(create):
    record = create(objective="anytime", budgets=(1.0, 0.0, 0.0, 3.0))
    ticket = asked(record)
    report = make_report(1, 0.25)
    record.report(ticket, report)
    assert record.outcome(0).value == objective("anytime", report.exits, (1.0, 0.0, 0.0, 3.0))


def test_reports_given_again_change_nothing(create):
    record = create()
    ticket = asked(record)
    for epoch in (1, 2, 3):
        record.report(ticket, make_report(epoch, 0.5))
    before = record.study.trials[0]
    for epoch in (1, 2, 3):
        assert record.report(ticket, make_report(epoch, 0.9))
    assert record.study.trials[0] == before


def test_a_left_out_epoch_and_a_report_without_exits_are_refused(create):
    record = create()
    ticket = asked(record)
    with pytest.raises(ValueError, match="trial 0 reported epoch 2 after 0"):
        record.report(ticket, make_report(2, 0.5))
    with pytest.raises(ValueError, match="no exits"):
        record.report(ticket, make_report(1, 0.5).model_copy(update={"exits": ()}))
    assert record.reports(0) == [] and record.outcome(0).value is None


def test_a_rung_stops_the_worse_and_says_why(create):
    record = create(objective="mean", trials=3)
    good, bad = asked(record), None
    run(record, good)
    bad = asked(record)
    assert record.report(bad, make_report(1, 0.01))
    assert not record.report(bad, make_report(2, 0.01))
    outcome = record.outcome(bad.number)
    assert outcome.state == "PRUNED" and outcome.value == pytest.approx(0.01)
    assert outcome.epochs == 2 and outcome.reason is not None
    assert "stopped after epoch 2: mean 0.0100 is not among the best 1 of 2" in outcome.reason


def test_a_start_is_never_stopped_by_a_rung(create):
    record = create(trials=2)
    start, other = asked(record), asked(record)
    for epoch in (1, 2):
        assert record.report(other, make_report(epoch, 0.9))
    assert [record.report(start, make_report(e, 0.1)) for e in (1, 2, 3, 4)] == [True] * 3 + [False]
    assert record.outcome(0).state == "COMPLETE"


def test_without_early_stopping_every_trial_goes_to_its_end(create):
    record = create(early_stopping=False)
    run_all(record)
    assert states(record) == ["COMPLETE"] * 6


@pytest.mark.parametrize("start", [True, False])
def test_a_diverged_trial_is_pruned_with_chance_accuracy(create, start):
    record = create(trials=3)
    ticket = asked(record)
    if not start:
        run(record, ticket)
        ticket = asked(record)
    assert record.report(ticket, make_report(1, 0.8))
    assert not record.report(ticket, make_report(2, None))
    outcome = record.outcome(ticket.number)
    assert outcome.state == "PRUNED" and outcome.diverged and outcome.value == 0.1
    assert outcome.reason == "diverged: the loss of epoch 2 is not finite"
    assert outcome.epochs == 2 and outcome.report == make_report(1, 0.8)
    # Neither it nor its good first epoch is a rival of others.
    values = [value for value in record.values_at(1) if value == value]
    if record.plan.objective == "front":
        values = [row[0] for row in record.vectors_at(1)]
    assert len(values) == (0 if start else 1)
    assert 0.8 not in values


def test_an_ended_trial_is_not_told_again(create):
    record = create()
    ticket = asked(record)
    run(record, ticket)
    before = record.outcome(0)
    assert not record.report(ticket, make_report(4, 0.9))
    assert not record.report(ticket, make_report(5, 0.9))
    assert not record.fail(ticket, "late")
    assert not record.give_back(ticket)
    assert record.outcome(0) == before
    assert record.study.trials[0].user_attrs.get("reason") is None


def test_a_broken_trial_fails_with_a_reason_in_one_line(create):
    record = create()
    ticket = asked(record)
    record.report(ticket, make_report(1, 0.5))
    assert record.fail(ticket, "RuntimeError: out of\n   memory " + 500 * "x")
    outcome = record.outcome(0)
    assert outcome.state == "FAIL" and outcome.epochs == 1
    assert outcome.reason is not None
    assert outcome.reason.startswith("RuntimeError: out of memory xxx")
    assert len(outcome.reason) == 300
    assert asked(record).number == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise RuntimeError('no such\\nluck')", "RuntimeError: no such luck"),
        ("return base.with_(temperature=-1.0)", "temperature: input should be greater than 0"),
        ("return None", "suggest needs to return a TrialConfig, got NoneType"),
        ("return base.with_(epochs=base.epochs + 1)", "suggest changes epochs from"),
        ("trial.suggest_float('x', 1, 0)", "ValueError: "),
    ],
)
def test_a_point_that_the_space_fails_at_is_fail_and_the_next_one_is_taken(
    create, tmp_path, line, reason
):
    text = SPACE.replace("    return base", f"    if trial.number == 1: {line}\n    return base")
    record = create(trials=3, space=space_file(tmp_path, text))
    assert [asked(record).number, asked(record).number] == [0, 2]
    outcome = record.outcome(1)
    assert outcome.state == "FAIL" and outcome.reason is not None and reason in outcome.reason
    assert states(record) == ["RUNNING", "FAIL", "RUNNING"]
    assert record.ask() is None


def test_a_trial_given_back_goes_on_with_its_own_config(create):
    record = create(trials=2)
    run(record, asked(record))
    first = asked(record)
    record.report(first, make_report(1, 0.5))
    assert record.give_back(first)
    waiting = record.outcome(1)
    assert waiting.state == "WAITING" and waiting.epochs == 1 and waiting.config == first.config
    # Whatever the space says by now, its parameters and its config are settled.
    assert record._space is not None
    record._space = dataclasses.replace(record._space, suggest=lambda trial, base: base)
    second = asked(record)
    assert second == Ticket(1, first.config, attempt=2, epochs_done=1, start=False)
    assert record.outcome(1).params == waiting.params
    assert not record.report(first, make_report(2, 0.5))
    assert record.report(second, make_report(1, 0.5)), "the checkpoint gives the first one again"
    run(record, second)
    assert record.outcome(1).state in ("COMPLETE", "PRUNED")
    assert [report.epoch for report in record.reports(1)][:2] == [1, 2]


def test_a_trial_that_was_taken_when_the_storage_failed_is_taken_up_again(create, monkeypatch):
    record = create(trials=2)
    write, failures = record._storage.set_trial_user_attr, iter([True, True])

    def failing(trial_id, key, value):
        if key == "claim" and next(failures, False):
            raise StorageInternalError("the server is away")
        write(trial_id, key, value)

    monkeypatch.setattr(record._storage, "set_trial_user_attr", failing)
    for _ in range(2):
        with pytest.raises(StorageError, match="the server is away"):
            record.ask()
    ticket = asked(record)
    assert (ticket.number, ticket.attempt) == (0, 1)
    assert asked(record).number == 1 and record.ask() is None


def test_the_next_ticket_tells_why_attempts_broke(create):
    record = create()
    record.give_back(asked(record), "worker died\n(signal 9)")
    record.give_back(asked(record))
    record.give_back(asked(record), "worker died again")
    ticket = asked(record)
    assert ticket.attempt == 4
    assert ticket.failures == ("worker died (signal 9)", "worker died again")


def test_a_late_worker_writes_nothing(create):
    storage, now = InMemoryStorage(), [1000.0]
    late = create(storage, clock=lambda: now[0])
    ticket = asked(late)
    late.report(ticket, make_report(1, 0.5))
    now[0] += 1000
    other = create(storage, clock=lambda: now[0])
    assert other.outcome(0).state == "WAITING"
    before = other.study.trials[0]
    assert not late.report(ticket, make_report(2, 0.5)), "given back, and not yet taken"
    assert other.study.trials[0] == before
    taken = asked(other)
    assert (taken.number, taken.attempt, taken.epochs_done) == (0, 2, 1)
    before = other.study.trials[0]
    assert not late.report(ticket, make_report(2, 0.5))
    assert not late.fail(ticket, "late") and not late.give_back(ticket)
    assert other.study.trials[0] == before
    run(other, taken)
    assert other.outcome(0).state == "COMPLETE"


def test_only_an_ended_lease_is_taken_over_and_reports_renew_it(create):
    storage, now = InMemoryStorage(), [1000.0]
    alive = create(storage, clock=lambda: now[0])
    ticket = asked(alive)
    other = create(storage, clock=lambda: now[0])
    for epoch in (1, 2, 3):
        now[0] += 60  # the lease is 100
        assert other.reclaim() == []
        assert alive.report(ticket, make_report(epoch, 0.5))
    now[0] += 90
    alive.renew()
    now[0] += 90
    assert other.reclaim() == []
    now[0] += 11
    assert other.reclaim() == [0] and other.reclaim() == []


def test_a_driver_that_died_between_taking_and_claiming_is_found(create):
    storage = InMemoryStorage()
    record = create(storage)
    trial = record._take()
    assert trial is not None
    begun = storage.get_trial(0).datetime_start.timestamp()
    assert create(storage, clock=lambda: begun + 1).outcome(0).state == "RUNNING"
    assert create(storage, clock=lambda: begun + 61).outcome(0).state == "WAITING"


@pytest.mark.parametrize("last", ["rung", "end", "diverged"])
def test_a_driver_that_died_between_report_and_verdict_judges_on_its_return(
    create, monkeypatch, last
):
    storage = InMemoryStorage()
    record = create(storage)
    run(record, asked(record))
    ticket = asked(record)
    accuracies = {"rung": [0.1, 0.1], "end": [0.9, 0.9, 0.9, 0.9], "diverged": [None]}[last]

    def replay(record: StudyRecord, ticket: Ticket) -> bool:
        return [record.report(ticket, make_report(e, a)) for e, a in enumerate(accuracies, 1)][-1]

    with monkeypatch.context() as patch:
        patch.setattr(record, "_end", lambda *_: True)
        replay(record, ticket)
    assert record.outcome(1).state == "RUNNING" and record.outcome(1).epochs == len(accuracies)
    record = create(storage, clock=lambda: 1e6)
    again = asked(record)
    assert again.number == 1 and again.epochs_done == len(accuracies)
    assert not replay(record, again)
    outcome = record.outcome(1)
    assert outcome.state == ("COMPLETE" if last == "end" else "PRUNED")
    assert outcome.diverged is (last == "diverged")


def test_a_rung_once_passed_is_not_judged_again_by_more_rivals(create):
    record = create(trials=9)
    run(record, asked(record))
    kept = asked(record)
    for epoch in (1, 2):
        assert record.report(kept, make_report(epoch, 0.7))
    record.give_back(kept)
    rivals = [ticket for ticket in (record.ask() for _ in range(5)) if ticket is not None]
    kept, rivals = rivals[0], rivals[1:]
    assert kept.number == 1
    for rival in rivals:
        for epoch in (1, 2):
            record.report(rival, make_report(epoch, 0.9))
    assert record.report(kept, make_report(1, 0.7)) and record.report(kept, make_report(2, 0.7))


def test_two_drivers_together_run_exactly_the_plans_trials(create):
    storage = InMemoryStorage()
    records = [create(storage, trials=9), create(storage, trials=9)]
    numbers = []
    while tickets := [(r, t) for r in records if (t := r.ask()) is not None]:
        for record, ticket in tickets:
            numbers.append(ticket.number)
            run(record, ticket)
    assert sorted(numbers) == list(range(9))
    assert set(states(records[0])) <= {"COMPLETE", "PRUNED"}


def test_threads_together_run_exactly_the_plans_trials(create):
    storage = InMemoryStorage()
    records = [create(storage, trials=40) for _ in range(4)]
    numbers: list[int] = []

    def drive(record: StudyRecord) -> None:
        while (ticket := record.ask()) is not None:
            numbers.append(ticket.number)
            run(record, ticket)

    threads = [threading.Thread(target=drive, args=[record]) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(40))


def test_trials_that_two_makers_enqueued_too_many_are_not_run_or_shown(create):
    record = create(trials=3)
    # The other maker's: the start twice, and one too many.
    record.study.enqueue_trial({"alpha": 3.0, "kd_weight": 1.0}, user_attrs={"start": True})
    fixed = {"fixed_params": {"alpha": 3.0, "kd_weight": 1.0}}
    for key, value in fixed.items():
        record._storage.set_trial_system_attr(record._trial_id(1), key, value)
    run_all(record)
    assert [outcome.number for outcome in record.outcomes()] == [0, 1, 2]
    assert record.study.trials[3].state == TrialState.WAITING
    assert record.outcome(1).params != record.outcome(0).params
    grown = create(record._direct, trials=5)
    run_all(grown)
    assert [outcome.number for outcome in grown.outcomes()] == [0, 1, 2, 3, 4]
    assert [outcome.start for outcome in grown.outcomes()] == [True] + 4 * [False]
    assert grown.outcome(3).params != grown.outcome(0).params


def test_more_trials_go_on_and_fewer_leave_the_rest(create):
    storage = InMemoryStorage()
    run_all(create(storage, trials=3))
    grown = create(storage, trials=6)
    assert states(grown)[3:] == ["WAITING"] * 3
    fewer = create(storage, trials=4)
    assert asked(fewer).number == 3 and fewer.ask() is None
    assert len(fewer.outcomes()) == 4
    assert create(storage, trials=6).plan.trials == 6
    opened = StudyRecord.open("tried", storage, fewer.folder.parent)
    assert opened.plan.trials == 6, "what waits is not forgotten"


def test_a_released_study_gives_its_trials_back(create):
    record = create()
    ticket = asked(record)
    asked(record)
    record.report(ticket, make_report(1, 0.5))
    record.release()
    assert states(record) == ["WAITING"] * 6
    assert asked(record).attempt == 2


def test_unknown_trials_are_named(create):
    with pytest.raises(InputError, match="study 'tried' has no trial 6"):
        create().reports(6)


def test_a_trial_asked_for_has_a_folder_for_its_checkpoint(create, tmp_path):
    record = create()
    path = record.checkpoint(asked(record).number)
    assert path == tmp_path / "tried" / "trials" / "0" / "checkpoint.pt"
    assert path.parent.is_dir() and not record.checkpoint(1).parent.exists()


def test_importances_need_enough_complete_trials(create):
    record = create(trials=12, early_stopping=False)
    for _ in range(7):
        run(record, asked(record))
    assert record.importances() == {}
    run_all(record)
    found = record.importances()
    assert set(found) == {"alpha", "kd_weight"}
    assert sum(found.values()) == pytest.approx(1.0)
    assert found == record.importances()


def test_importances_of_equal_values_are_none(create):
    record = create(trials=10, early_stopping=False, base={"epochs": 1}, grace=1)
    while (ticket := record.ask()) is not None:
        record.report(ticket, make_report(1, 0.5))
    assert record.importances() == {}


def test_trials_go_to_csv(create, tmp_path):
    record = create(trials=3, objective="last")
    run(record, asked(record))
    record.fail(asked(record), "=1+1")
    record.to_csv(tmp_path / "trials.csv")
    text = io.StringIO()
    record.to_csv(text)
    assert (tmp_path / "trials.csv").read_text() == text.getvalue()
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["state"] for row in rows] == ["COMPLETE", "FAIL", "WAITING"]
    assert float(rows[0]["value"]) == record.outcome(0).value
    assert rows[0]["param_alpha"] == "3.0" and rows[0]["exit_4_flops"] == "4000"
    assert rows[1]["reason"] == "'=1+1", "a spreadsheet must not take it for a formula"
    assert rows[2]["param_alpha"] == "" and rows[2]["value"] == ""
    with pytest.raises(InputError, match="cannot be written"):
        record.to_csv(tmp_path / "missing" / "trials.csv")


def test_what_a_foreign_hand_wrote_does_not_stop_the_reading(create):
    record = create(trials=3)
    run(record, asked(record))
    ticket = asked(record)
    record.report(ticket, make_report(1, 0.5))
    trial_id = record._trial_id(ticket.number)
    record._storage.set_trial_user_attr(trial_id, "config", {"nonsense": 1})
    record._storage.set_trial_user_attr(trial_id, "claim", "nobody")
    record._storage.set_trial_system_attr(trial_id, "report:1", [1, 2])
    record._storage.set_trial_system_attr(trial_id, "report:x", {})
    outcome = record.outcome(ticket.number)
    assert outcome.config is None and outcome.report is None and outcome.epochs == 1
    with pytest.raises(InputError, match="trial 1 holds a report that cannot be read"):
        record.reports(ticket.number)
    # Nobody's trial is taken over in the end, and its config refused.
    later = create(record._direct, clock=lambda: 1e12, trials=3)
    assert asked(later).number == 2
    reason = later.outcome(1).reason
    assert later.outcome(1).state == "FAIL" and reason is not None and "nonsense" in reason
