"""Trials that break, hang or all fail, and what a search may spend, in one process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from optuna.storages import InMemoryStorage

from studies import faults, local
from studies.drivers import Driver
from studies.limits import Grants, Limits
from studies.record import StudyRecord
from studies.states import Claim
from studies.storage import StorageError
from tests.studies.example import accuracy_of, make_plan, make_report
from trainers import checkpoints
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import costs


@pytest.fixture
def create(tmp_path):
    def creates(storage=None, driver=None, **fields):
        plan = make_plan(tmp_path, **{"early_stopping": False, **fields})
        return StudyRecord.create_or_open(
            plan, storage or InMemoryStorage(), tmp_path, driver=driver
        )

    return creates


class Training:
    """Stands for `trial.run`: what each attempt does, and all epochs that were really trained."""

    def __init__(self, monkeypatch, behave=lambda config, epoch, nth: None):
        self.trained, self.attempts, self.behave = [], 0, behave
        self.saved: dict[str, int] = {}
        monkeypatch.setattr("studies.trial.run", self.run)

    def run(self, config, *, checkpoint, **_):
        self.attempts += 1
        key = str(checkpoint)
        for epoch in range(1, config.epochs + 1):
            if epoch > self.saved.get(key, 0):
                self.behave(config, epoch, self.attempts)
                self.trained.append((key, epoch))
                self.saved[key] = epoch
            yield make_report(epoch, accuracy_of(config, epoch))


def raising(*messages):
    """Raises the n-th message in the n-th attempt, at epoch 2."""

    def behave(config, epoch, nth):
        if epoch == 2 and nth <= len(messages):
            raise RuntimeError(messages[nth - 1])

    return behave


@pytest.mark.parametrize(
    ("messages", "state", "attempts", "reason"),
    [
        (["a"], "COMPLETE", 2, None),
        (["a", "b"], "COMPLETE", 3, None),
        (["a", "a"], "FAIL", 2, "RuntimeError: a (attempt 2)"),
        (["a", "b", "c"], "FAIL", 3, "RuntimeError: c (attempt 3)"),
        (["a", "b", "a"], "FAIL", 3, "RuntimeError: a (attempt 3)"),
    ],
)
def test_a_trial_that_raises_is_tried_again_unless_it_says_the_same(
    create, monkeypatch, messages, state, attempts, reason
):
    training = Training(monkeypatch, raising(*messages))
    record = create(trials=1)
    assert local.search(record) is None
    (outcome,) = record.outcomes()
    assert (outcome.state, outcome.reason, training.attempts) == (state, reason, attempts)
    assert len(training.trained) == len(set(training.trained)), "it went on from its checkpoint"


def test_deaths_are_not_compared_but_counted():
    assert faults.tries_again([], "died", died=True)
    assert faults.tries_again(["died"], "died", died=True)
    assert not faults.tries_again(["died"] * faults.RETRIES, "died", died=True)


@pytest.mark.timeout(60, method="thread")  # the other method takes the alarm
def test_a_hung_trial_is_ended_and_tried_again(create, monkeypatch):
    def hang(config, epoch, nth):
        if nth == 2 and epoch == 3:
            threading.Event().wait(60)

    monkeypatch.setattr(faults, "HUNG_AT_LEAST", 0.2)
    training = Training(monkeypatch, hang)
    record = create(trials=2)
    begun = time.monotonic()
    local.search(record)
    assert time.monotonic() - begun < 30
    assert [outcome.state for outcome in record.outcomes()] == ["COMPLETE"] * 2
    assert record.outcome(1).attempt == 2 and training.attempts == 3


def test_why_a_worker_died():
    said = "1 worker(s) were killed due to the node running low on memory. Memory on the node ..."
    assert faults.why_it_died(said) == "its worker was ended: the node ran low on memory"
    assert faults.why_it_died("connection error code 2. End of file") == "its worker died"


def test_what_counts_as_hung():
    assert faults.hung_after([]) is None
    assert faults.hung_after([1.0, 2.0, 100.0]) == 60
    assert faults.hung_after([1.0, 20.0, 100.0]) == 200
    assert faults.hung_after([1.0], starts=[2.0, 30.0]) == 300, "loading the data takes longer"
    assert faults.hung_after([], starts=[2.0]) is None


def test_a_network_that_costs_more_is_given_more_time():
    pace, small = faults.Pace(), TrialConfig(dataset="cifar100", width=0.25)
    big = TrialConfig(dataset="cifar100", backbone="wrn_50_2")
    assert pace.hung_after(big) is None
    for seconds in (10.0, 12.0, 11.0):
        pace.trained(small, seconds)
    ratio = costs(big)[-1].flops_cascade / costs(small)[-1].flops_cascade
    assert ratio > 100 and pace.hung_after(big) == pytest.approx(110 * ratio)
    assert pace.hung_after(big, starts=[11 * ratio + 5]) == pytest.approx(10 * (11 * ratio + 5))
    assert pace.hung_after(small.with_(width=0.125)) == 110, "no less than what was timed"
    pace.trained(big, 40.0)
    assert pace.hung_after(big) == 400, "its own, once it is known"
    assert pace.hung_after(small) == 110


def test_a_process_that_is_stopped_and_goes_on_has_not_hung():
    """A child that is stopped for longer than it may be silent, and one that then hangs."""
    script = """
        import sys, time
        from studies import local
        with local._alarm() as expect:
            expect(1.0)
            print("ready", flush=True)
            end = time.monotonic() + float(sys.argv[1])
            while time.monotonic() < end:
                time.sleep(0.01)
            expect(None)
            print("done", flush=True)
    """
    for silent, ends in ((0.5, "done"), (60, "")):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(silent)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        time.sleep(1.5)  # more than it may be silent
        child.send_signal(signal.SIGCONT)
        out, err = child.communicate(timeout=30)
        assert out.strip() == ends, err
        assert ("it hung" in err) == (not ends)


def test_a_search_whose_trials_all_fail_stops_and_says_why(create, monkeypatch):
    def broken(config, epoch, nth):
        raise RuntimeError("no such layer")

    training = Training(monkeypatch, broken)
    record = create(trials=20)
    why = local.search(record)
    assert why is not None and "all 3 trials" in why and "no such layer" in why
    states = [outcome.state for outcome in record.outcomes()]
    assert states == ["FAIL"] * 3 + ["WAITING"] * 17 and training.attempts == 6


def test_data_that_cannot_be_read_ends_the_search_and_fails_no_trial(create, monkeypatch):
    mended = []

    def broken(config, epoch, nth):
        if not mended:
            raise InputError("image 7 is not as large as the others")

    Training(monkeypatch, broken)
    record = create(trials=3)
    assert local.search(record) == "image 7 is not as large as the others"
    assert [outcome.state for outcome in record.outcomes()] == ["WAITING"] * 3
    mended.append(True)
    assert local.search(record) is None
    assert [outcome.state for outcome in record.outcomes()] == ["COMPLETE"] * 3


def test_an_input_that_only_one_trial_cannot_take_fails_that_trial(create, monkeypatch):
    def narrow(config, epoch, nth):
        if nth > 1:
            raise InputError("too narrow")

    Training(monkeypatch, narrow)
    record = create(trials=2)
    assert local.search(record) is None
    first, second = record.outcomes()
    assert (first.state, second.state) == ("COMPLETE", "FAIL")
    assert second.reason == "too narrow (attempt 2)"


def test_failures_after_a_good_trial_do_not_stop_the_search(create, monkeypatch):
    def later(config, epoch, nth):
        if nth > 1:
            raise RuntimeError("now and then")

    Training(monkeypatch, later)
    record = create(trials=6)
    assert local.search(record) is None
    assert [o.state for o in record.outcomes()] == ["COMPLETE"] + ["FAIL"] * 5


def test_a_full_disk_fails_no_trial(create, monkeypatch):
    def full(config, epoch, nth):
        if nth == 2 and epoch == 2:
            raise checkpoints.UnwritableError("checkpoint.pt cannot be written: No space left")

    Training(monkeypatch, full)
    record = create(trials=3)
    with pytest.raises(StorageError, match="No space left"):
        local.search(record)
    assert [o.state for o in record.outcomes()] == ["COMPLETE", "WAITING", "WAITING"]
    assert local.search(record) is None
    assert [o.state for o in record.outcomes()] == ["COMPLETE"] * 3


@pytest.mark.parametrize("most", [1, 3, 4, 7, 11, 12, 100])
def test_the_epochs_of_a_study_are_never_exceeded_and_the_next_call_goes_on(
    create, monkeypatch, most
):
    training = Training(monkeypatch)
    record = create(trials=3)  # of 4 epochs
    why = local.search(record, limits=Limits(epochs=most))
    assert len(training.trained) == min(most, 12)
    assert (why is None) == (most >= 12)
    assert "RUNNING" not in [outcome.state for outcome in record.outcomes()]
    if most < 12:
        assert why is not None and "--max-epochs-total" in why
        assert local.search(record, limits=Limits(epochs=most)) is not None
        assert len(training.trained) == most, "the limit is the study's, not the call's"
    assert local.search(record) is None
    assert len(training.trained) == len(set(training.trained)) == 12


def test_two_drivers_share_the_epochs(create):
    storage, most = InMemoryStorage(), 9
    records = [create(storage, Driver(name=f"elsewhere:1:0:{n}"), trials=6) for n in range(2)]
    tickets = [record.ask() for record in records]
    grants = [Grants(record, Limits(epochs=most)) for record in records]
    done = [0, 0]
    going = [True, True]
    for turn in range(20):
        which = turn % 2
        if not going[which] or done[which] == 4:
            continue
        going[which] = grants[which].refusal() is None
        if going[which]:
            done[which] += 1
            assert tickets[which] is not None
            records[which].report(tickets[which], make_report(done[which], 0.5))
    assert most - 1 <= sum(done) <= most or done == [4, 4]
    assert records[0].spent() <= most


def test_the_time_holds_at_the_end_of_the_next_epoch(create, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(local, "Grants", lambda r, limits: Grants(r, limits, lambda: now[0]))

    def slow(config, epoch, nth):
        now[0] += 60

    training = Training(monkeypatch, slow)
    record = create(trials=3)
    why = local.search(record, limits=Limits(seconds=330))
    assert why is not None and "--timeout" in why
    assert len(training.trained) == 6, "the sixth began at 300 s"
    assert [o.state for o in record.outcomes()] == ["COMPLETE", "WAITING", "WAITING"]
    assert record.outcome(1).epochs == 2
    assert local.search(record) is None and len(training.trained) == 12


@pytest.mark.parametrize("fields", [{"seconds": 0.0}, {"seconds": float("nan")}, {"epochs": 0}])
def test_limits_that_are_none_are_refused(fields):
    with pytest.raises(InputError):
        Limits(**fields)


def test_leases_are_renewed_during_a_long_epoch(create):
    storage, now = InMemoryStorage(), [1000.0]
    record = create(storage, Driver("elsewhere:1:0:1", lambda: now[0], 100.0))
    other = create(storage, Driver("elsewhere:1:0:2", lambda: now[0], 100.0))
    ticket = record.ask()
    assert ticket is not None

    def until():
        return Claim.read(storage.get_trial(0).user_attrs["claim"]).until

    with record.renewing(every=0.01):
        for _ in range(5):  # an epoch of 450 s, where the lease is 100
            now[0] += 90
            end = time.monotonic() + 30
            while until() < now[0] + 50 and time.monotonic() < end:
                threading.Event().wait(0.01)
            assert other.reclaim() == []
    assert "leases" not in [thread.name for thread in threading.enumerate()]
    now[0] += 101
    assert other.reclaim() == [0]
    assert not record.report(ticket, make_report(1, 0.5)), "a late worker's"


def test_a_failing_storage_does_not_end_the_renewing(create, monkeypatch):
    record = create()
    calls = threading.Semaphore(0)

    def fails():
        calls.release()
        raise StorageError("away")

    monkeypatch.setattr(record, "renew", fails)
    with record.renewing(every=0.01):
        assert calls.acquire(timeout=30) and calls.acquire(timeout=30)
