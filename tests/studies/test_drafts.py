"""A trial's parameters drawn before they are stored, and once more where they repeat a trial."""

import pytest
from optuna import create_study
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from studies.drafts import Draft
from studies.plan import SAMPLERS
from studies.record import StudyRecord
from tests.studies.example import make_plan, run, run_all, space_file

LIST = '''"""Nine points, of which one is tried first."""

def starts(base):
    return [{"alpha": 3.0, "kd_weight": 1.0}]

def suggest(trial, base):
    alpha = trial.suggest_categorical("alpha", (1.0, 3.0, 9.0))
    return base.with_(alpha=alpha, kd_weight=trial.suggest_float("kd_weight", 1, 2, step=0.5))
'''
NINE = {(alpha, weight) for alpha in (1.0, 3.0, 9.0) for weight in (1.0, 1.5, 2.0)}


def searched(tmp_path, **fields):
    plan = make_plan(tmp_path, space=space_file(tmp_path, LIST), **{"trials": 9, **fields})
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    return plan, record


def points(record):
    return [tuple(outcome.params.values()) for outcome in record.outcomes()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_no_config_is_trained_twice_before_all_are(tmp_path, sampler, seed):
    _, record = searched(tmp_path, sampler=sampler, seed=seed)
    run_all(record)
    assert set(points(record)) == NINE


def test_where_all_were_trained_they_are_once_more(tmp_path):
    _, record = searched(tmp_path, trials=11)
    run_all(record)
    found = points(record)
    assert set(found[:9]) == NINE and set(found[9:]) < NINE
    assert all(outcome.state in ("COMPLETE", "PRUNED") for outcome in record.outcomes())


def test_who_was_killed_between_two_parameters_draws_the_same_second_one(tmp_path, monkeypatch):
    _, whole = searched(tmp_path)
    run_all(whole)
    _, record = searched(tmp_path)
    killed: set[int] = set()
    keep = Draft.keep

    def cut(self):
        if self.number in killed:
            return keep(self)
        killed.add(self.number)
        name, value, distribution = self._unwritten[0]
        self.study._storage.set_trial_param(self._trial_id, name, value, distribution)
        raise KeyboardInterrupt

    monkeypatch.setattr(Draft, "keep", cut)
    for _ in range(9):
        with pytest.raises(KeyboardInterrupt):
            record.ask()
        run(record, record.ask())
    assert killed == set(range(9)) and points(record) == points(whole)
    assert any(trial.system_attrs.get("again") for trial in record.study.trials)


def drafted(ask):
    study = create_study()
    draft = Draft(study, study.ask()._trial_id)
    ask(draft)
    return study, draft


def test_nothing_is_stored_before_it_is_kept():
    study, draft = drafted(lambda trial: trial.suggest_int("n", 1, 5))
    assert draft.params.keys() == {"n"} and study.trials[0].params == {}
    draft.keep()
    assert study.trials[0].params == draft.params


@pytest.mark.parametrize(
    ("state", "params", "repeated"),
    [
        (TrialState.COMPLETE, {"kind": "a"}, True),
        (TrialState.PRUNED, {"kind": "a"}, True),
        (TrialState.RUNNING, {"kind": "a"}, True),
        (TrialState.FAIL, {"kind": "a"}, False),
        (TrialState.COMPLETE, {"kind": "b"}, False),
        (TrialState.COMPLETE, {"kind": "a", "x": 0.5}, False),
        (TrialState.WAITING, {}, False),
    ],
)
def test_what_repeats_a_trial(state, params, repeated):
    kinds = {"kind": CategoricalDistribution(("a", "b")), "x": FloatDistribution(0, 1)}
    other = create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: kinds[name] for name in params},
    )
    _, draft = drafted(lambda trial: trial.suggest_categorical("kind", ("a",)))
    assert draft.repeats(lambda: [other]) == repeated


def test_a_point_of_a_range_is_not_even_looked_for():
    def nobody():
        raise AssertionError

    _, draft = drafted(lambda trial: trial.suggest_float("x", 0, 1))
    assert not draft.repeats(nobody)
    _, draft = drafted(lambda trial: None)  # nor is a space of one point
    assert not draft.repeats(nobody)


def test_branchynet_is_one_point_of_everything(tmp_path):
    plan = make_plan(tmp_path, space="everything", trials=60, early_stopping=False)
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(record)
    schemes = [outcome.params["scheme"] for outcome in record.outcomes()]
    assert schemes.count("branchynet") == 1 and len(set(schemes)) > 5
