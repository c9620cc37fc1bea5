import dataclasses
import subprocess
import sys
from math import log10
from statistics import mean

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from studies.drivers import Driver
from studies.plan import SAMPLERS
from studies.record import StudyRecord
from studies.seen import Behind, Glance
from tests.studies.example import SPACE, make_plan, make_report, run, run_all, space_file
from trainers.catalog import InputError

TRIALS = 15  # TPE and GP follow their models from the eleventh on


def told(record: StudyRecord) -> list[tuple[object, ...]]:
    return [(o.number, o.state, o.params, o.value, o.epochs) for o in record.outcomes()]


SLOW_GP = [pytest.param(name, marks=[pytest.mark.slow] * (name == "gp")) for name in SAMPLERS]


@pytest.mark.parametrize("objective", ["anytime", "front"])
@pytest.mark.parametrize("sampler", SLOW_GP)
def test_an_interrupted_search_suggests_what_an_uninterrupted_one_does(
    sampler, objective, tmp_path
):
    plan = make_plan(tmp_path, trials=TRIALS, sampler=sampler, seed=3, objective=objective)
    whole = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(whole)

    storage, now = InMemoryStorage(), 0.0
    for interruption in range(100):
        # Another process: another driver, long after the last one's lease.
        now += 1e6
        driver = Driver(name=f"elsewhere:1:0:{interruption}", clock=lambda now=now: now)
        record = StudyRecord.create_or_open(plan, storage=storage, runs=tmp_path, driver=driver)
        if (ticket := record.ask()) is None:
            break
        if interruption % 3 == 0:
            run(record, ticket)
            ticket = record.ask()
        if ticket is not None and run(record, ticket, until=1 + interruption % 3):
            # Killed with the ticket in hand, or in order.
            _ = interruption % 2 and record.give_back(ticket)
    assert interruption > 5
    assert told(record) == told(whole)
    assert {o.attempt for o in record.outcomes()} > {1}


@pytest.mark.parametrize(
    ("sampler", "objective"),
    [("tpe", "anytime"), ("tpe", "front"), ("random", "anytime"), ("qmc", "anytime")],
)
def test_a_search_interrupted_between_two_parameters_draws_the_same_second_one(
    sampler, objective, tmp_path
):
    plan = make_plan(tmp_path, trials=13, sampler=sampler, objective=objective)
    whole = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(whole)

    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    space = record._space
    assert space is not None

    def interrupted(trial, base):
        trial.suggest_float("alpha", 0.1, 100, log=True)
        raise KeyboardInterrupt

    for _ in range(plan.trials):
        record._space = dataclasses.replace(space, suggest=interrupted)
        with pytest.raises(KeyboardInterrupt):
            record.ask()
        assert not any(o.state == "RUNNING" for o in record.outcomes())
        record._space = space
        ticket = record.ask()
        assert ticket is not None and ticket.attempt == 2
        run(record, ticket)
    assert told(record) == told(whole)


@pytest.mark.parametrize("objective", ["anytime", "front"])
def test_a_database_and_the_memory_give_the_same_trials(tmp_path, objective):
    """In a SQLite study no other trial runs, and TPE is told so: that must change nothing."""
    plan = make_plan(tmp_path, trials=TRIALS, objective=objective)
    stored = StudyRecord.create_or_open(plan, runs=tmp_path / "runs")
    run_all(stored)
    kept = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(kept)
    assert told(stored) == told(kept)
    stored.close()


def ended(values, stopped, epoch=1):
    """A study of complete trials with these values, then of stopped ones with those."""
    study = optuna.create_study(direction="maximize")
    for value in values:
        study.add_trial(create_trial(value=value, params={}, distributions={}))
    for value in stopped:
        trial = create_trial(state=TrialState.PRUNED, value=value)
        trial.intermediate_values = {epoch: value}
        study.add_trial(trial)
    return study


def test_of_a_long_study_tpe_sees_the_best_the_newest_and_all_that_run(monkeypatch):
    monkeypatch.setattr("studies.seen.BEST", 3)
    monkeypatch.setattr("studies.seen.MOST", 8)
    study = ended([0.9, 0.1, 0.8, 0.2, 0.95, 0.3], [0.5] * 6)
    running = study.ask()
    seen = Glance(study)._get_trials(deepcopy=False)
    assert [trial.number for trial in seen] == [0, 2, 4, 7, 8, 9, 10, 11, running.number]
    stopped = Glance(study)._get_trials(states=(TrialState.PRUNED,))
    assert [trial.number for trial in stopped] == [7, 8, 9, 10, 11]
    few = ended([0.5], [0.1, 0.7, 0.3, *[0.2] * 8])
    seen = Glance(few)._get_trials()
    assert {0, 2, 3} <= {trial.number for trial in seen}, "as TPE fills up: the best of the stopped"
    assert len(seen) == 8


def test_of_a_long_front_tpe_sees_what_no_other_beats_and_the_newest(monkeypatch):
    monkeypatch.setattr("studies.seen.BEST", 3)
    monkeypatch.setattr("studies.seen.MOST", 8)
    study = optuna.create_study(directions=["maximize", "minimize"])

    def add(*ends: tuple[float, float] | None) -> None:
        for values in ends:
            state = TrialState.COMPLETE if values else TrialState.PRUNED
            study.add_trial(create_trial(state=state, values=values))

    # cheap and good are 1 and 3, which no other beats; only they beat 4
    add((0.5, 9), (0.9, 5), (0.1, 8), (0.5, 1), (0.8, 6), (0.2, 7), *[None] * 6)
    early = {number: (2, (0.1, 5.0)) for number in range(6, 12)}
    found = Glance(study, lambda: early)._get_trials()
    assert [trial.number for trial in found] == [1, 3, 4, 7, 8, 9, 10, 11]

    study = optuna.create_study(directions=["maximize", "minimize"])
    add((0.5, 9), *[None] * 10)  # as TPE fills up: what came furthest, and of that the best
    early = {number: (2, (0.1, 5.0)) for number in range(1, 11)}
    early |= {2: (4, (0.3, 5.0)), 1: (4, (0.2, 1.0))}
    found = Glance(study, lambda: early)._get_trials()
    assert [trial.number for trial in found] == [0, 1, 2, 6, 7, 8, 9, 10]

    study = optuna.create_study(directions=["maximize", "minimize"])
    add(*[(0.1 * n, float(n)) for n in range(9)])  # all on the front: every third, the newest four
    found = Glance(study)._get_trials()
    assert len(found) == 8 and {0, 3, 6} <= {trial.number for trial in found}


def test_of_a_short_study_tpe_sees_everything(monkeypatch):
    study = ended([0.9] * 30, [0.1] * 30)
    glance = Glance(study)
    assert glance._get_trials() == study.get_trials()
    assert glance._get_trials(states=(TrialState.PRUNED,)) == study.get_trials()[30:]
    assert glance.direction == study.direction


@pytest.mark.parametrize("objective", ["anytime", "front"])
def test_a_long_search_goes_on_with_what_it_sees(tmp_path, monkeypatch, objective):
    """Proposals are TPE's own as long as all is seen; then others, and still good ones."""
    plan = make_plan(tmp_path, trials=40, objective=objective)
    whole = StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path)
    run_all(whole)
    monkeypatch.setattr("studies.seen.MOST", 25)
    monkeypatch.setattr("studies.seen.BEST", 5)
    short = StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path)
    run_all(short)
    assert told(short)[:25] == told(whole)[:25]
    assert told(short)[30:] != told(whole)[30:]


@pytest.mark.slow  # two interpreters
def test_the_order_of_python_sets_changes_nothing(tmp_path):
    """TPE in groups takes sets of names apart, in the space with the most conditions."""
    script = (
        "import sys; from pathlib import Path; from optuna.storages import InMemoryStorage\n"
        "from studies.record import StudyRecord; from tests.studies.example import *\n"
        "plan = make_plan(Path(sys.argv[1]), space='everything', trials=25)\n"
        "record = StudyRecord.create_or_open(plan, InMemoryStorage(), Path(sys.argv[1]))\n"
        "run_all(record)\n"
        "print([sorted(o.params.items()) for o in record.outcomes()])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and "scheme" in outputs.pop()


def test_seeds_differ_and_so_do_trials(tmp_path):
    found = []
    for seed in (0, 1):
        plan = make_plan(tmp_path, trials=5, seed=seed)
        record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
        run_all(record)
        assert record.outcomes()[0].params == {"alpha": 3.0, "kd_weight": 1.0}
        found += [o.params["alpha"] for o in record.outcomes()[1:]]
    assert len(set(found)) == 8


@pytest.mark.parametrize("objective", ["anytime", "front"])
def test_trials_at_the_same_time_get_points_apart(tmp_path, objective):
    plan = make_plan(tmp_path, trials=20, workers=4, objective=objective)
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    for _ in range(5):
        tickets = [ticket for ticket in (record.ask() for _ in range(4)) if ticket]
        assert len({ticket.config.alpha for ticket in tickets}) == 4
        for ticket in tickets:
            run(record, ticket)
    assert record.ask() is None


def test_the_grids_points_are_the_trials(tmp_path):
    plan = make_plan(tmp_path, trials=100, sampler="grid")
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    assert record.plan.trials == 6  # the start is one of the grid's points
    run_all(record)
    points = [(o.params["alpha"], o.params["kd_weight"]) for o in record.outcomes()]
    assert points[0] == (3.0, 1.0)
    assert sorted(points) == [(a, k) for a in (1.0, 3.0, 9.0) for k in (1.0, 2.0)]
    again = StudyRecord.create_or_open(plan, storage=record._direct, runs=tmp_path)
    assert again.plan.trials == 6 and again.ask() is None
    assert [o.start for o in again.outcomes()] == [True] + 5 * [False]


def test_a_smaller_number_of_trials_takes_the_first_of_the_grid(tmp_path):
    plan = make_plan(tmp_path, trials=2, sampler="grid")
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(record)
    assert len(record.outcomes()) == 2


def test_a_space_without_a_grid_is_refused(tmp_path):
    space = space_file(tmp_path, SPACE.replace("def grid", "def nothing"))
    plan = make_plan(tmp_path, space=space, sampler="grid")
    with pytest.raises(InputError, match="gives no grid: take another --sampler"):
        StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)


def test_qmc_is_one_sequence_that_fills_the_space_evenly(tmp_path):
    plan = make_plan(tmp_path, trials=9, sampler="qmc")
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(record)
    # Eight points of Sobol's sequence have one in each eighth of every axis.
    eighths = [int(8 * (log10(o.params["alpha"]) + 1) / 3) for o in record.outcomes()[1:]]
    assert sorted(eighths) == list(range(8))


@pytest.mark.slow
def test_gp_learns_from_stopped_trials(tmp_path):
    """Optuna's own proposes the same point for ever once a rung has stopped it."""
    plan = make_plan(tmp_path, trials=20, sampler="gp")
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=tmp_path)
    run_all(record)
    early, late = record.outcomes()[:10], record.outcomes()[10:]
    assert any(o.state == "PRUNED" for o in late)
    assert len({(o.params["alpha"], o.params["kd_weight"]) for o in late}) == len(late)
    assert mean(o.value for o in late) > mean(o.value for o in early)


def stopped_first(folder, complete: int, stopped: list[tuple[int, float]]) -> StudyRecord:
    """A front's study: some trials of full length, then stopped ones at (epoch, accuracy)."""
    plan = make_plan(
        folder, trials=200, objective="front", sampler="random", base={"epochs": 8}, grace=1
    )
    record = StudyRecord.create_or_open(plan, storage=InMemoryStorage(), runs=folder)
    for number in range(complete + len(stopped)):
        ticket = record.ask()
        assert ticket is not None
        last, accuracy = (8, 0.9) if number < complete else stopped[number - complete]
        held = record._held[ticket.number]
        held.passed = 8 if number < complete else last - 1  # no rung before
        for epoch in range(1, last + 1):
            record.report(ticket, make_report(epoch, accuracy if epoch == last else 0.95))
    return record


def below(record: StudyRecord, n_below: int) -> list[int]:
    """The trials that TPE takes for good ones."""
    from optuna.samplers._tpe.sampler import _split_trials

    seen = Behind(record.study, record.early())
    trials = seen._get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial.number for trial in _split_trials(seen, trials, n_below)[0]]


def test_stopped_trials_of_a_front_count_as_good_by_how_far_and_how_well_they_came(tmp_path):
    stopped = [(1, 0.1), (1, 0.3), (2, 0.1), (4, 0.2), (4, 0.3), (1, 0.2)]
    record = stopped_first(tmp_path, complete=2, stopped=stopped)
    assert [o.state for o in record.outcomes()[:8]] == ["COMPLETE"] * 2 + ["PRUNED"] * 6
    order = [6, 5, 4, 3, 7, 2]  # at epoch 4 the better first, then epoch 2, then epoch 1
    for n_below in range(3, 8):
        assert below(record, n_below) == sorted([0, 1, *order[: n_below - 2]])
    assert set(below(record, 1)) < {0, 1}
    told = record.study.get_trials(deepcopy=False)
    assert [trial.values for trial in told[2:8]] == [None] * 6, "a view, and nothing is written"


def test_a_diverged_network_of_a_front_is_the_last_to_count_as_good(tmp_path):
    record = stopped_first(tmp_path, complete=1, stopped=[(1, 0.1)])
    ticket = record.ask()
    for epoch in range(1, 7):
        record._held[ticket.number].passed = epoch
        record.report(ticket, make_report(epoch, 0.9))
    record.report(ticket, make_report(7, None))
    assert record.outcome(2).diverged
    assert below(record, 2) == [0, 1]
