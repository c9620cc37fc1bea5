"""A study of several objectives: what it stores, whom it stops, and what Optuna sees of it."""

import io
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from studies import verdict as v
from studies.drivers import Driver
from studies.front import deployable, objective
from studies.record import StudyRecord, list_studies
from tests.studies.example import accuracies_of, make_plan, make_report, run, run_all, space_file
from trainers.catalog import InputError

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
# Networks of 4 and of 5 exits, by their FLOPs.
NETWORKS = '''"""Two networks."""

def starts(base):
    return [{"alpha": 3.0, "backbone": "vgg16"}]

def corners(base):
    return [{"alpha": 3.0, "backbone": name} for name in ("vgg16", "msdnet")]

def suggest(trial, base):
    backbone = trial.suggest_categorical("backbone", ["vgg16", "msdnet"])
    return base.with_(alpha=trial.suggest_float("alpha", 0.1, 100, log=True), backbone=backbone)
'''


def front_plan(folder: Path, **fields):
    return make_plan(folder, **{"objective": "front", **fields})


@pytest.fixture
def opening(tmp_path):
    storage = InMemoryStorage()

    def opens(fresh=False, **fields):
        plan = front_plan(tmp_path, **fields)
        return StudyRecord.create_or_open(plan, storage, tmp_path, fresh, driver=Driver())

    return opens


def searched(record: StudyRecord) -> StudyRecord:
    """To its end; some networks diverge."""
    while (ticket := record.ask()) is not None:
        if ticket.number % 7 == 5:
            record.report(ticket, make_report(1, accuracies_of(ticket.config, 1)))
            record.report(ticket, make_report(2, None))
        else:
            run(record, ticket)
    return record


def test_optunas_best_trials_are_the_networks_that_no_other_beats(tmp_path):
    plan = front_plan(tmp_path, trials=30)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path / "runs")) as record:
        outcomes = searched(record).outcomes()
        states = [outcome.state for outcome in outcomes]
        assert states.count("PRUNED") > sum(o.diverged for o in outcomes) > 0
        url = f"sqlite:///{tmp_path}/runs/tried/study.db"
        study = optuna.load_study(study_name="tried", storage=url)
        assert study.directions == [UP] * 4
        assert study.metric_names == [f"accuracy of exit {number}" for number in (1, 2, 3, 4)]
        best = [trial.number for trial in study.best_trials]
        assert best == deployable(v.curves(outcomes))
        assert 1 < len(best) < states.count("COMPLETE")
        for trial, outcome in zip(study.trials, outcomes, strict=True):
            assert not trial.intermediate_values
            assert (trial.values is None) is (outcome.state != "COMPLETE")
            if trial.values is not None:
                assert trial.values == list(outcome.report.accuracies)
                assert trial.user_attrs["anytime"] == outcome.value
                assert outcome.value == objective("anytime", outcome.report.exits)


def test_the_weights_of_the_exits_order_a_fronts_trials(opening):
    record = opening(budgets=(1.0, 0.0, 0.0, 3.0))
    run(record, record.ask())
    report = record.outcome(0).report
    assert record.outcome(0).value == objective("anytime", report.exits, (1.0, 0.0, 0.0, 3.0))


def test_a_rung_keeps_what_no_other_beats_and_the_best_of_any_exit(opening):
    record = opening(trials=9)
    run(record, record.ask())
    tickets = [record.ask() for _ in range(5)]

    def at_rung(ticket, *accuracies: float) -> bool:
        record.report(ticket, make_report(1, 0.1))
        return record.report(ticket, make_report(2, accuracies))

    assert at_rung(tickets[0], 0.9, 0.6, 0.6, 0.6), "the best at exit 1"
    assert at_rung(tickets[1], 0.2, 0.2, 0.2, 0.95), "the best at exit 4, the worst elsewhere"
    assert at_rung(tickets[2], 0.8, 0.61, 0.2, 0.2), "at no exit among the best 1, and not beaten"
    assert at_rung(tickets[3], 0.9, 0.7, 0.7, 0.96), "beats all others"
    assert not at_rung(tickets[4], 0.1, 0.1, 0.1, 0.1)
    outcome = record.outcome(tickets[4].number)
    assert outcome.state == "PRUNED" and outcome.value == pytest.approx(0.1)
    assert outcome.reason == (
        "stopped after epoch 2: another trial beats it as a whole there, and at no exit is it "
        "among the best 3 of 6"
    )


def test_what_is_maximised_may_not_change(opening):
    opening()
    with pytest.raises(InputError, match="objective is front, now anytime") as caught:
        opening(objective="anytime")
    assert "--fresh" in str(caught.value)
    record = opening(fresh=True, objective="anytime")
    assert record.study.directions == [UP]
    with pytest.raises(InputError, match="objective is anytime, now front"):
        opening()
    assert opening(fresh=True).study.directions == [UP] * 4


def test_a_study_whose_maker_died_at_once_is_made_and_a_strangers_is_not(tmp_path, opening):
    plan = front_plan(tmp_path)
    for directions, ours in (([UP] * 4, True), ([UP] * 3, False), ([UP, DOWN], False)):
        storage = InMemoryStorage()
        study_id = storage.create_new_study(directions, "tried")
        if ours:
            with closing(StudyRecord.create_or_open(plan, storage, tmp_path)) as record:
                assert len(record.outcomes()) == 6
            continue
        with pytest.raises(InputError, match="was not made by automate"):
            StudyRecord.create_or_open(plan, storage, tmp_path)
        assert storage.get_study_directions(study_id) == directions


def test_the_best_of_a_listing_is_what_orders_the_trials(tmp_path):
    plan, runs = front_plan(tmp_path, trials=8), tmp_path / "runs"
    memory = InMemoryStorage()
    for storage in (None, memory):
        with closing(StudyRecord.create_or_open(plan, storage, runs)) as record:
            assert list_studies(runs, storage)[0].best is None
            run_all(record)
            best = max(o.value for o in v.finished(record.outcomes()))
        assert list_studies(runs, storage)[0].best == best


def test_importance_is_of_what_orders_the_trials(tmp_path, opening):
    record = opening(trials=14, early_stopping=False)
    run_all(record)
    scalar = make_plan(tmp_path, study="anytime", trials=14, early_stopping=False)
    found = record.importances()
    assert set(found) == {"alpha", "kd_weight"} and sum(found.values()) == pytest.approx(1.0)
    same = StudyRecord.create_or_open(scalar, InMemoryStorage(), tmp_path)
    for outcome in record.outcomes():
        same.study.add_trial(
            optuna.trial.create_trial(
                value=outcome.value,
                params=outcome.params,
                distributions=record.study.trials[outcome.number].distributions,
            )
        )
    values = [outcome.value for outcome in record.outcomes()]
    assert len(set(values)) == len(values)
    assert found == pytest.approx(
        optuna.importance.get_param_importances(
            same.study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    )


def test_a_fronts_trials_go_to_csv_with_every_exit(opening):
    record = opening(trials=2)
    run(record, record.ask())
    text = io.StringIO()
    record.to_csv(text)
    head, first, *_ = text.getvalue().splitlines()
    row = dict(zip(head.split(","), first.split(","), strict=True))
    assert float(row["value"]) == record.outcome(0).value
    assert float(row["exit_4_accuracy"]) == record.outcome(0).report.accuracies[3]


def test_networks_of_different_cost_are_compared_by_their_flops_too(opening, tmp_path):
    fields = {"space": space_file(tmp_path, NETWORKS), "objective": "front+flops", "trials": 12}
    base = {"dataset": "cifar100", "backbone": "vgg16"}
    record = opening(**fields, base=base)
    assert record.study.directions == [UP] * 5 + [DOWN], "as many exits as the deepest has"
    assert record.metric_names[-1] == "FLOPs of the last exit"
    while (ticket := record.ask()) is not None:
        deep = ticket.config.exits == 5
        for epoch in range(1, ticket.config.epochs + 1):
            accuracies = accuracies_of(ticket.config, epoch)
            report = make_report(epoch, accuracies)
            cost = 10**8 if deep else 10**7
            exits = [point.model_copy(update={"flops": cost}) for point in report.exits]
            exits += [exits[-1].model_copy(update={"exit": 5})] * deep
            if not record.report(ticket, report.model_copy(update={"exits": tuple(exits)})):
                break
    trials, outcomes = record.study.get_trials(), record.outcomes()
    assert {len(o.report.exits) for o in outcomes} == {4, 5}
    for outcome in v.finished(outcomes):
        values = trials[outcome.number].values
        assert values[-1] == outcome.report.exits[-1].flops
        assert values[4] == outcome.report.accuracies[-1], "a network with 4 exits has no deeper"
        assert trials[outcome.number].user_attrs["hypervolume"] == outcome.value
        assert 0 < outcome.value < 1
    assert "hypervolume only puts them in order" in v.verdict(outcomes, record.plan)


def test_a_network_deeper_than_the_study_compares_fails_with_its_reason(opening, tmp_path):
    text = NETWORKS.replace("def corners", "def edges")
    base = {"dataset": "cifar100", "backbone": "vgg16"}
    record = opening(space=space_file(tmp_path, text), base=base, trials=8, sampler="random")
    run_all(record)
    failed = {o.reason for o in record.outcomes() if o.state == "FAIL"}
    assert failed == {
        "the network has 5 exits, and the study compares 4: a space of networks that differ needs "
        "`corners`"
    }


def test_a_front_says_what_orders_it(opening):
    record = opening(trials=12)
    outcomes = searched(record).outcomes()
    whole = deployable(v.curves(outcomes))
    said = v.verdict(outcomes, record.plan)
    assert f"{len(whole)} of {len(v.finished(outcomes))} full-length networks (trials" in said
    assert said.endswith("anytime accuracy only puts them in order.")
    assert "highest anytime accuracy of them" in v.recommendation(outcomes, record.plan)
    assert v.objective_name("front") == "anytime accuracy"
    assert v.value_text("front+flops", 0.5) == "0.5000"
