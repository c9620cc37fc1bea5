"""Several trials at a time in one process: the same study, and nothing lost."""

import itertools
import threading
from contextlib import closing

import pytest
import torch

from studies import confirm, local, machine, streams, trial
from studies.record import StudyRecord
from studies.search import estimate, make_plan
from tests.studies import made_up_confirmations
from tests.trainers import recorded
from trainers import loop, opening
from trainers.catalog import InputError
from trainers.config import TrialConfig


def plan(**changes):
    fields = {
        "dataset": "digits", "epochs": 3, "limit_train": 60, "trials": 5, "grace": 1, "workers": 3,
        "threads": 1, "device": "cpu", "study": "streams", "precision": "fp32",
    }  # fmt: skip
    return make_plan("single_alpha", **{**fields, **changes})


def test_every_trial_runs_once_and_several_at_a_time(tmp_path):
    running, most, ended, threads = set(), 0, [], set()

    def hear(event):
        nonlocal most
        threads.add(threading.get_ident())
        if event.kind == "started":
            running.add(event.number)
            most = max(most, len(running))
        elif event.kind == "ended":
            running.discard(event.number)
            ended.append(event.number)

    with closing(StudyRecord.create_or_open(plan(), runs=tmp_path)) as record:
        assert streams.search(record, hear) is None
        outcomes = record.outcomes()
    assert sorted(ended) == list(range(5)) and most > 1 and len(threads) > 1
    assert {outcome.state for outcome in outcomes} <= {"COMPLETE", "PRUNED"}
    assert [outcome.attempt for outcome in outcomes] == [1] * 5
    assert outcomes[0].state == "COMPLETE", "the starting point is never stopped"


def test_trials_made_of_graphs_are_those_of_steps(tmp_path, monkeypatch):
    """Runs are captured in one thread, loaded anew for the next trial, replayed in several."""

    def found(name: str) -> list[tuple]:
        asked = plan(study=name, early_stopping=False, sampler="random", workers=2, epochs=2)
        with closing(StudyRecord.create_or_open(asked, runs=tmp_path)) as record:
            assert streams.search(record) is None
            outcomes = record.outcomes()
        assert {outcome.state for outcome in outcomes} == {"COMPLETE"}
        return [(o.number, o.params, o.report and o.report.accuracies) for o in outcomes]

    monkeypatch.setattr(loop, "_opened", opening.opened)
    monkeypatch.setattr(opening, "_idle", [])
    steps = found("steps")
    monkeypatch.setattr(opening, "_idle", [])
    recorded.use(monkeypatch)
    assert found("graphs") == steps
    assert 1 <= len(opening._idle) <= 2, "as many as there were at a time, not one a trial"
    for run in opening._idle:
        assert run.path.startswith("CUDA graphs") and run._training.captured


def test_what_is_interrupted_is_given_back_and_goes_on(tmp_path):
    def cut(event):
        if event.kind == "epoch" and event.number == 1:
            raise KeyboardInterrupt

    with closing(StudyRecord.create_or_open(plan(), runs=tmp_path)) as record:
        with pytest.raises(KeyboardInterrupt):
            streams.search(record, cut)
        states = [outcome.state for outcome in record.outcomes()]
        assert "RUNNING" not in states and "WAITING" in states and "FAIL" not in states
    with closing(StudyRecord.create_or_open(plan(), runs=tmp_path)) as record:
        local.search(record)
        outcomes = record.outcomes()
    assert len(outcomes) == 5
    assert {outcome.state for outcome in outcomes} <= {"COMPLETE", "PRUNED"}


def test_a_trial_that_breaks_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    run = trial.run

    def breaks(config, **kwargs):
        if config.alpha != (3.0,):
            raise ValueError("broken on purpose")
        return run(config, **kwargs)

    monkeypatch.setattr(trial, "run", breaks)
    with closing(StudyRecord.create_or_open(plan(trials=3), runs=tmp_path)) as record:
        streams.search(record)
        outcomes = record.outcomes()
    assert outcomes[0].state == "COMPLETE"
    assert [outcome.state for outcome in outcomes[1:]] == ["FAIL", "FAIL"]
    assert all("broken on purpose" in str(outcome.reason) for outcome in outcomes[1:])


def test_who_shares_a_gpu():
    on_gpu = plan().with_(device="cuda", gpus_per_trial=0.25, workers=4)
    assert on_gpu.on_one_gpu
    assert on_gpu.with_(workers=3, gpus_per_trial=1 / 3).on_one_gpu
    assert not on_gpu.with_(workers=8).on_one_gpu, "that takes two"
    assert not on_gpu.with_(workers=1).on_one_gpu
    assert not on_gpu.with_(device="cpu").on_one_gpu


def test_trials_that_share_a_gpu_may_take_as_long_as_one_after_another(monkeypatch):
    monkeypatch.setattr(machine, "measure", lambda *_: machine.Speed(1000.0, 1))
    monkeypatch.setattr(machine, "cores", lambda: 8)
    apart = plan().with_(workers=4)
    shared = apart.with_(device="cuda", gpus_per_trial=0.25)
    alone = apart.with_(workers=1)
    seconds = [estimate(one).seconds for one in (shared, alone, apart)]
    assert seconds[0] == seconds[1] == pytest.approx(4 * seconds[2])
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert estimate(apart).seconds == pytest.approx(2 * seconds[2]), "more than cores gain nothing"


@pytest.mark.parametrize(
    ("gpus", "given", "expected"),
    [
        (1, {}, (4, 0.25)),
        (1, {"trials": 2}, (2, 0.5)),
        (1, {"workers": 1}, (1, 1.0)),
        (1, {"gpus_per_trial": 0.125}, (8, 0.125)),
        (2, {}, (2, 1.0)),
        (2, {"workers": 8}, (8, 0.25)),
        (1, {"workers": 4, "threads": 1, "device": "cuda"}, (4, 0.25)),
        (1, {"workers": 4, "gpus_per_trial": 0.0}, (4, 0.0)),
    ],
)
def test_how_gpus_are_shared_where_nothing_is_said(gpus, given, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    asked = {"workers": None, "gpus_per_trial": None, "trials": 30, **given}
    made = machine.settled(
        TrialConfig(),
        asked["trials"],
        None,
        asked["workers"],
        asked.get("threads"),
        asked["gpus_per_trial"],
        asked.get("device"),
    )
    assert made["device"] == "cuda"
    assert (made["workers"], made["gpus_per_trial"]) == expected


def test_a_gpu_that_is_not_there_is_said_whatever_else_is_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="no CUDA device is visible; take --device cpu"):
        machine.settled(TrialConfig(), 10, None, 2, 1, None, "cuda")


def test_every_round_of_a_race_runs_side_by_side(tmp_path, monkeypatch):
    """A worker that finds nothing to begin waits for the next round."""
    meeting, idle, begun = threading.Barrier(2, timeout=20), threading.Event(), itertools.count(1)
    ask = StudyRecord.ask

    def asked(record):
        ticket = ask(record)
        if ticket is None:
            idle.set()
        return ticket

    def run(config, **_):
        last = next(begun) == 6  # of the first round, so that a worker has nothing to do
        for report in made_up_confirmations.reports(config):
            if report.epoch == 1:
                meeting.wait()  # breaks, and the run with it, where a run is alone
            if last and report.epoch == config.epochs:
                assert idle.wait(20)
            yield report

    with closing(made_up_confirmations.searched(tmp_path)) as searched:
        race = confirm.make_plan(searched, top=5, seeds=3, workers=2)
    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(StudyRecord, "ask", asked)
    race = race.with_(race=(5, 3, 3))  # with the default all even
    with closing(StudyRecord.create_or_open(race, runs=tmp_path)) as record:
        assert streams.search(record) is None
        outcomes = record.outcomes()
    assert not [outcome.reason for outcome in outcomes if outcome.state == "FAIL"]
    assert all(outcome.attempt <= 1 for outcome in outcomes)
    ran = [outcome.state == "COMPLETE" for outcome in outcomes]
    assert [sum(ran[k : k + 6]) for k in (0, 6, 12)] == [6, 4, 4]
