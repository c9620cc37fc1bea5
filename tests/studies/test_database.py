"""Long studies in a database: the same trials as Optuna reads, and no change that is missed."""

import gc
import json
import math
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.database import Database, Memory, uncollected
from studies.record import StudyRecord
from studies.states import REPORT
from studies.storage import connect, place
from tests.studies import made_up
from tests.studies.example import make_plan, make_report, run


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A made-up study: stopped, complete, diverged, given back, waiting."""
    plan = made_up.plan(trials=14, study="tried", base={"epochs": 6}, grace=2)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        made_up.search(record, 9)
        ticket = record.ask()
        record.report(ticket, next(made_up.trained(ticket.config, 1)))
        record.report(ticket, make_report(2, None))
        ticket = record.ask()
        record.report(ticket, next(made_up.trained(ticket.config, 2)))
        record.give_back(ticket, "the worker went away")
    return tmp_path


def both(runs: Path) -> tuple[Memory, RDBStorage, int]:
    """Ours and Optuna's reading of the same file."""
    ours = Memory(connect(place(None, runs, "tried")))
    theirs = RDBStorage(f"sqlite:///{runs / 'tried' / 'study.db'}")
    return ours, theirs, theirs.get_study_id_from_name("tried")


def told(trial: FrozenTrial) -> dict[str, object]:
    """All of a trial but its reports, NaN as text."""
    return {
        "id": trial._trial_id,
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "user": trial.user_attrs,
        "system": {k: v for k, v in trial.system_attrs.items() if not k.startswith(REPORT)},
        "steps": {k: str(v) for k, v in trial.intermediate_values.items()},
        "began": trial.datetime_start,
        "ended": trial.datetime_complete,
    }


def reports_in(trial: FrozenTrial) -> dict[str, object]:
    found = {k: v for k, v in trial.system_attrs.items() if k.startswith(REPORT)}
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in found.items()}


def test_the_trials_are_those_that_optuna_reads(searched):
    ours, theirs, study = both(searched)
    mine, other = ours.get_all_trials(study), theirs.get_all_trials(study)
    assert [told(trial) for trial in mine] == [told(trial) for trial in other]
    states = {trial.state for trial in mine}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING}
    for one, two in zip(mine, other, strict=True):
        read, stored = reports_in(one), reports_in(two)
        if two.user_attrs.get("diverged"):
            assert read == stored, "what it reached before lies in an earlier report"
        else:
            last = max(stored, key=lambda key: int(key.removeprefix(REPORT)), default=None)
            assert read == ({} if last is None else {last: stored[last]})
    given_back = [t for t in mine if t.state == TrialState.WAITING and t.datetime_start]
    assert len(given_back) == 1


def test_outcomes_and_reports_are_those_of_the_whole_trials(searched):
    with (
        closing(StudyRecord.open("tried", runs=searched)) as ours,
        closing(StudyRecord.open("tried", both(searched)[1], searched)) as theirs,
    ):
        assert isinstance(ours._direct, Database) and not isinstance(theirs._direct, Database)
        assert ours.outcomes() == theirs.outcomes()
        for outcome in ours.outcomes():
            assert ours.reports(outcome.number) == theirs.reports(outcome.number)
        assert ours.spent() == theirs.spent()


def test_a_front_compares_what_the_whole_trials_have(tmp_path):
    plan = made_up.plan(
        trials=16, study="tried", objective="front", base={"epochs": 9}, grace=2, run_on=0.3
    )
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        made_up.search(record, 13)
        ticket = record.ask()
        record.report(ticket, next(made_up.trained(ticket.config, 1)))
        record.report(ticket, make_report(2, None))
        ticket = record.ask()
        record.report(ticket, next(made_up.trained(ticket.config, 2)))
    mine = both(tmp_path)[0].get_all_trials(both(tmp_path)[2])
    assert any(t.state == TrialState.COMPLETE and len(reports_in(t)) == 1 for t in mine)
    with (
        closing(StudyRecord.open("tried", runs=tmp_path)) as ours,
        closing(StudyRecord.open("tried", both(tmp_path)[1], tmp_path)) as theirs,
    ):
        outcomes = ours.outcomes()
        assert outcomes == theirs.outcomes()
        assert any(o.state == "WAITING" and o.epochs for o in outcomes), "given back"
        assert any(o.run_on for o in outcomes) and any(o.diverged for o in outcomes)
        for epoch in (4, 1, 2, 8, 9, 2):
            found = ours.vectors_at(epoch)
            assert found == theirs.vectors_at(epoch) and found
        assert len(ours.vectors_at(2)) > len(ours.vectors_at(8))
        assert ours.early() == theirs.early() and ours.early() == ours.early()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1 + 0.2])
def test_numbers_of_every_kind(tmp_path, value):
    with closing(StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)):
        pass
    ours, theirs, study = both(tmp_path)
    trial_id = theirs.create_new_trial(study)
    theirs.set_trial_intermediate_value(trial_id, 3, value)
    theirs.set_trial_state_values(trial_id, TrialState.COMPLETE, [value if value == value else 1])
    trial = ours.get_all_trials(study)[-1]
    assert str(trial.intermediate_values[3]) == str(value)
    assert trial.values == [value if value == value else 1]


def test_what_a_foreign_hand_wrote_is_read(tmp_path):
    with closing(StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)):
        pass
    ours, theirs, study = both(tmp_path)
    trial_id = theirs.create_new_trial(study)
    for key, value in (("report:12", {"exits": [1]}), ("report:it's mine", 1), ("report:9", 2)):
        theirs.set_trial_system_attr(trial_id, key, value)
    found = reports_in(ours.get_all_trials(study)[-1])
    assert found == {"report:12": {"exits": [1]}, "report:it's mine": 1, "report:9": 2}


def test_every_change_of_another_driver_is_seen(tmp_path):
    with closing(StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)):
        pass
    ours, theirs, study = both(tmp_path)
    first = [trial._trial_id for trial in ours.get_all_trials(study)]

    def same() -> None:
        mine, other = ours.get_all_trials(study), theirs.get_all_trials(study)
        assert [told(trial) for trial in mine] == [told(trial) for trial in other]

    def begins_and_ends(trial_id: int) -> None:
        theirs.set_trial_state_values(trial_id, TrialState.RUNNING)
        theirs.set_trial_user_attr(trial_id, "note", "between two looks")
        theirs.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])

    def is_given_back(trial_id: int) -> None:
        theirs.set_trial_state_values(trial_id, TrialState.RUNNING)
        theirs.set_trial_intermediate_value(trial_id, 1, 0.5)
        theirs.set_trial_state_values(trial_id, TrialState.WAITING)

    same()
    begins_and_ends(first[0])
    same()
    is_given_back(first[1])
    same()
    is_given_back(first[1])
    theirs.set_trial_state_values(first[2], TrialState.RUNNING)
    same()
    theirs.set_trial_intermediate_value(first[2], 1, 0.25)
    same()
    theirs.set_trial_state_values(first[2], TrialState.PRUNED, [0.25])
    new = theirs.create_new_trial(study, create_trial(state=TrialState.WAITING))
    same()
    begins_and_ends(new)
    begins_and_ends(first[1])
    is_given_back(first[3])
    begins_and_ends(theirs.create_new_trial(study, create_trial(state=TrialState.WAITING)))
    same()
    theirs.delete_study(study)
    with pytest.raises(KeyError):
        ours.get_all_trials(study)


def test_what_has_not_changed_is_not_read_again(searched, monkeypatch):
    ours, theirs, study = both(searched)
    waiting = [t._trial_id for t in ours.get_all_trials(study) if not t.datetime_start]
    read: list[list[int]] = []
    trials = Database.trials

    def spied(self, ids):
        read.append(list(ids))
        return trials(self, ids)

    monkeypatch.setattr(Database, "trials", spied)
    ours.get_all_trials(study)
    theirs.set_trial_state_values(waiting[0], TrialState.RUNNING)
    ours.get_all_trials(study)
    ours.get_all_trials(study)
    assert read == [[], [waiting[0]], [waiting[0]]]


def test_a_new_study_is_queued_whole_and_once(tmp_path):
    plan = make_plan(tmp_path, trials=50)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        trials = record._all()
        assert [trial.number for trial in trials] == list(range(50))
        assert trials[0].user_attrs == {"start": True}
        assert all(trial.system_attrs == {} for trial in trials[1:])
        record._direct.enqueue(record._study_id, 50)
        assert len(record._all()) == 50
        ticket = record.ask()
        assert ticket.number == 0
        run(record, ticket)
    with closing(StudyRecord.create_or_open(plan.with_(trials=60), runs=tmp_path)) as record:
        assert [outcome.state for outcome in record.outcomes()].count("WAITING") == 59


def test_the_garbage_collector_is_as_it_was():
    assert gc.isenabled()
    with uncollected(1):
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with uncollected(1):
        pass
    assert not gc.isenabled()
    gc.enable()
