"""Trials out on workers, without Ray: what comes late or never, limits, a failing storage."""

import pytest
from optuna.storages import InMemoryStorage

from studies import faults
from studies.dispatch import ASK_AGAIN, Dispatch
from studies.limits import Grants, Limits
from studies.record import StudyRecord
from studies.storage import StorageError
from tests.studies.example import make_plan, make_report


@pytest.fixture
def out(tmp_path):
    """A dispatch of four trials, with a clock that is set by hand."""
    plan = make_plan(tmp_path, trials=4, early_stopping=False)
    record = StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path)
    seen = []
    dispatch = Dispatch(record, seen.append, Grants(record, Limits(epochs=100)))
    dispatch.seen, dispatch.now = seen, 100.0
    dispatch.clock = lambda: dispatch.now
    return dispatch


def reported(epoch):
    return {"report": make_report(epoch, 0.5).model_dump_json()}


def states(dispatch):
    return [outcome.state for outcome in dispatch.record.outcomes()]


def test_a_trial_goes_from_asking_to_its_end(out):
    ticket = out.ask("a")
    assert [out.take("a", reported(epoch)) for epoch in (1, 2, 3, 4)] == [True, True, True, False]
    assert out.tickets == {} and states(out)[ticket.number] == "COMPLETE"
    assert not out.take("a", reported(4)), "a late worker's"
    assert [event.kind for event in out.seen] == ["started", *["epoch"] * 4, "ended"]


def test_a_file_that_is_edited_meanwhile_ends_the_search_in_one_line(out, tmp_path):
    out.ask("a")
    (tmp_path / "mine.py").write_text("# edited")
    out.record.plan = out.record.plan.with_(
        space=str(tmp_path / "mine.py"), digests={"space": "as it was"}
    )
    assert out.ask("b") == "never" and out.asks_no_more()
    assert "has changed since study" in str(out.failure)
    out.give_back()
    assert states(out) == ["WAITING"] * 4


def test_none_is_asked_for_while_none_waits_until_one_comes_back(out):
    for name in "abcd":
        out.ask(name)
    assert out.ask("e") == "later"
    out.record.give_back(out.tickets.pop("d"))  # as another driver's
    assert out.ask("e") == "later", "not each time that Tune asks"
    out.now += ASK_AGAIN
    assert out.ask("e").number == 3
    out.now += ASK_AGAIN
    assert out.ask("f") == "later"
    out.broke("a", "its worker died", died=True)
    assert out.ask("f").number == 0, "at once"
    out.give_back()
    assert out.tickets == {} and states(out) == ["WAITING"] * 4


def test_nothing_is_asked_for_once_all_have_ended(out):
    for name in "abcd":
        out.ask(name)
        for epoch in (1, 2, 3, 4):
            out.take(name, reported(epoch))
    assert out.ask("e") == "never" and out.over is None


def test_a_silent_worker_hangs_and_its_trial_is_tried_again(out):
    out.ask("a")
    out.ask("b")
    assert not out.hangs("a", runs=True) and not out.hangs("b", runs=True)
    out.now += 7
    assert out.take("a", reported(1))
    for _ in range(int(faults.HUNG_AT_LEAST)):
        assert not out.hangs("a", runs=True) and not out.hangs("b", runs=True)
        out.now += 1
    out.now += 1
    assert out.hangs("a", runs=True), "epochs take a moment"
    assert not out.hangs("b", runs=True), "it may load libraries still: the first took 7 s"
    assert states(out)[:2] == ["WAITING", "RUNNING"]
    assert out.ask("c").attempt == 2
    assert not out.take("a", reported(2)), "it thaws too late"


def test_data_that_cannot_be_read_ends_the_search_and_fails_no_trial(out):
    wrong = {"error": "image 7 is not as large as the others", "input": True}
    out.ask("a")
    assert not out.take("a", wrong)
    assert out.over == wrong["error"] and out.ask("b") == "never"
    assert states(out) == ["WAITING"] * 4


def test_an_input_that_only_one_trial_cannot_take_is_that_trials(out):
    out.ask("a")
    out.ask("b")
    assert out.take("a", reported(1))
    assert not out.take("b", {"error": "too narrow", "input": True})
    assert out.over is None and out.ask("c").attempt == 2


def test_a_driver_that_was_stopped_takes_no_worker_for_hung(out):
    out.ask("a")
    assert not out.hangs("a", runs=True) and out.take("a", reported(1))
    out.now += 3600  # Ctrl-Z, fg
    assert not out.hangs("a", runs=True)
    out.now += faults.HUNG_AT_LEAST - 1
    assert not out.hangs("a", runs=True), "nor does it hang while nobody looks"
    for _ in range(int(faults.HUNG_AT_LEAST) + 1):
        out.now += 1
        hung = out.hangs("a", runs=True)
    assert hung


def test_what_no_worker_has_begun_is_cut_when_the_limit_is_reached(out):
    out.grants = Grants(out.record, Limits(epochs=2))
    out.ask("a")
    out.ask("b")
    assert not out.cut_unbegun("b")
    assert not out.take("a", reported(1)), "the second epoch is the other's"
    assert out.cut_unbegun("b") and out.ask("c") == "never"
    assert "--max-epochs-total" in out.over and states(out) == ["WAITING"] * 4


def test_a_failing_storage_ends_the_search_and_tells_nothing_more(out, monkeypatch):
    out.ask("a")

    def fails(*_):
        raise StorageError("away")

    with monkeypatch.context() as context:
        context.setattr(out.record, "report", fails)
        assert not out.take("a", reported(1))
    assert str(out.failure) == "away" and out.ask("b") == "never"
    out.broke("a", "its worker died", died=True)
    assert states(out)[0] == "RUNNING", "not told of a trial that did not fail"
