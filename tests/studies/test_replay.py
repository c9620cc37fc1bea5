"""Replayed searches: the real record in virtual time, and what policies come to."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from studies import policies
from studies.policies import Comparison, Middle, Row, difference, middle
from studies.record import StudyRecord
from studies.replay import Policy, Replays, Searcher, default_trials, true_values
from studies.rungs import keeps, rung_epochs
from studies.snapping import Snapping, place_of
from tests.studies import made_up_curves
from trainers.catalog import InputError

TABLE = made_up_curves.table(configs=24, seeds=4)
PLAN = Policy("random", grace=3).plan(TABLE, 12, 5)


def searched(monkeypatch, tmp_path, plan, workers=1, table=TABLE, column=1):
    """A replayed search with everything that was reported, in order, and the study's outcomes."""
    said: list[tuple[int, int]] = []
    records: list[StudyRecord] = []
    report, release = StudyRecord.report, StudyRecord.release

    def reported(self: StudyRecord, ticket: Any, given: Any) -> bool:
        said.append((ticket.number, given.epoch))
        return report(self, ticket, given)

    def released(self: StudyRecord) -> None:
        records.append(self)
        release(self)

    monkeypatch.setattr(StudyRecord, "report", reported)
    monkeypatch.setattr(StudyRecord, "release", released)
    run = Searcher(table).search(plan, column, workers, tmp_path)
    return run, said, records[0].outcomes()


def test_one_worker_is_a_plain_search(monkeypatch, tmp_path):
    """What the rungs decide is worked out here once more, from the table alone."""
    run, said, outcomes = searched(monkeypatch, tmp_path, PLAN)
    values = np.stack(
        [
            replace(TABLE, accuracy=TABLE.accuracy[:, :, : e + 1]).values("anytime")[:, 1]
            for e in range(TABLE.epochs)
        ],
        axis=1,
    )
    places = {tuple(sorted(p.items())): i for i, p in enumerate(TABLE.params)}
    rows = [places[tuple(sorted(o.params.items()))] for o in outcomes]
    assert len(set(rows)) == 12, "each config once"
    assert rows[0] == 0, "the paper's default first"
    seen: dict[int, list[float]] = {rung: [] for rung in rung_epochs(3, 2, 12)}
    expected = []
    for number, row in enumerate(rows):
        for epoch in range(1, 13):
            expected.append((number, epoch))
            if epoch in seen:
                seen[epoch].append(values[row, epoch - 1])
                if number and not keeps(values[row, epoch - 1], seen[epoch], 2):
                    break
    assert said == expected
    assert run.epochs == len(said)
    assert run.seconds == pytest.approx(sum(TABLE.seconds[rows[number], 1] for number, _ in said))
    best = max((o for o in outcomes if o.state == "COMPLETE"), key=lambda o: o.value)
    assert (run.chosen, run.said) == (rows[best.number], best.value)
    assert 0 < run.stopped < 12


def test_a_search_for_the_front_is_replayed_and_judged_by_what_orders_it(monkeypatch, tmp_path):
    plan = Policy("random", grace=3, objective="front").plan(TABLE, 12, 5)
    run, _, outcomes = searched(monkeypatch, tmp_path, plan)
    best = max((o for o in outcomes if o.state == "COMPLETE"), key=lambda o: o.value)
    assert run.said == best.value == pytest.approx(TABLE.values("anytime")[run.chosen, 1])
    assert (TABLE.values("front") == TABLE.values("anytime")).all()


def test_workers_share_virtual_time(monkeypatch, tmp_path):
    run, said, _ = searched(monkeypatch, tmp_path, PLAN, workers=4)
    assert [number for number, _ in said[:4]] != [0] * 4
    assert {number for number, epoch in said[:8] if epoch == 1} >= {0, 1, 2, 3}
    alone = Searcher(TABLE).search(PLAN, 1, 1, tmp_path)
    assert run.seconds < alone.seconds / 2
    assert run.trained <= 4 * run.seconds
    counts = Counter(number for number, _ in said)
    assert set(counts) == set(range(12))


def test_more_workers_than_trials(tmp_path):
    run = Searcher(TABLE).search(PLAN, 0, 1000, tmp_path)
    assert run.seconds == pytest.approx(12 * TABLE.seconds[:, 0].max(), rel=0.3)


def test_tolerance_reaches_the_rungs(tmp_path):
    strict = Searcher(TABLE).search(PLAN, 0, 1, tmp_path)
    lax = Searcher(TABLE).search(PLAN.with_(tolerance=0.01), 0, 1, tmp_path)
    assert lax.stopped < strict.stopped
    assert Policy(tolerance=0.01).plan(TABLE, 5, 0).tolerance == 0.01


def test_trials_are_judged_after_the_given_rungs_and_nowhere_else(monkeypatch, tmp_path):
    same = Searcher(TABLE).search(PLAN.with_(rungs=(3, 6)), 0, 1, tmp_path)
    assert same == Searcher(TABLE).search(PLAN, 0, 1, tmp_path), "as grace 3 and eta 2 have it"
    plan = Policy("random", rungs=(5, 9)).plan(TABLE, 12, 5)
    assert (plan.grace, plan.judged_after) == (5, [5, 9])
    _, _, outcomes = searched(monkeypatch, tmp_path, plan)
    assert {o.epochs for o in outcomes if o.state == "PRUNED"} == {5, 9}
    assert {o.epochs for o in outcomes if o.state == "COMPLETE"} == {12}


def test_without_stopping_all_run_in_full(tmp_path):
    run = Searcher(TABLE).search(PLAN.with_(early_stopping=False), 0, 3, tmp_path)
    assert (run.epochs, run.stopped) == (12 * 12, 0)


def test_as_many_trials_as_configs_find_the_best_that_can_be_seen(tmp_path):
    plan = PLAN.with_(early_stopping=False, trials=24)
    for sampler in ("random", "qmc"):
        run = Searcher(TABLE).search(plan.with_(sampler=sampler), 2, 1, tmp_path)
        assert run.chosen == TABLE.values("anytime")[:, 2].argmax()


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_proposal_becomes_the_nearest_free_config(monkeypatch, tmp_path, sampler):
    """The study holds the config's own parameters, and the sampler's wish is nowhere stored."""
    wishes = []
    nearest = Snapping.nearest

    def spied(self: Snapping, wish: Any, used: Any) -> int:
        found = nearest(self, wish, used)
        wishes.append((dict(wish.params), set(used), found))
        return found

    monkeypatch.setattr(Snapping, "nearest", spied)
    _, _, outcomes = searched(monkeypatch, tmp_path, PLAN.with_(sampler=sampler))
    assert len(wishes) == 12
    logs = np.array([[np.log(v) for v in p.values()] for p in TABLE.params])
    for (wished, used, found), outcome in zip(wishes, outcomes, strict=True):
        far = ((logs - np.log(list(wished.values()))) ** 2).sum(axis=1)
        far[list(used)] = np.inf
        assert found == far.argmin()
        assert outcome.params == TABLE.params[found]
        assert outcome.config.alpha == tuple(TABLE.params[found].values())


def test_the_sampler_learns_from_what_was_trained():
    """TPE, told the truth, proposes better configs than chance; told lies it could not."""
    table = made_up_curves.table(configs=120, seeds=4, epochs=4, noise=0.0005)
    with Replays(table) as replays:
        found = {
            sampler: replays.run(Policy(sampler, early_stopping=False), trials=40, repetitions=12)
            for sampler in ("tpe", "random")
        }
    regrets = {name: np.mean([run.regret for run in runs]) for name, runs in found.items()}
    assert regrets["tpe"] < 0.6 * regrets["random"]


def test_processes_give_the_same(tmp_path):
    with Replays(TABLE) as one, Replays(TABLE, processes=2) as two:
        fields = {"trials": 6, "repetitions": 4, "workers": 2}
        assert one.run(Policy(), **fields) == two.run(Policy(), **fields)


def test_what_is_true_was_not_seen():
    values = np.array([[0.9, 0.5, 0.7], [0.6, 0.8, 0.8]])
    assert true_values(values, [0]).tolist() == pytest.approx([0.6, 0.8])
    assert true_values(values[:, :1], [0]).tolist() == [0.9, 0.6]


def test_optimism_and_regret():
    with Replays(TABLE) as replays:
        runs = replays.run(Policy("random", early_stopping=False), trials=12, repetitions=8)
    for number, run in enumerate(runs):
        values = TABLE.values("anytime")
        true = np.delete(values, number % 4, axis=1).mean(axis=1)
        assert run.said == values[run.chosen, number % 4]
        assert run.true == pytest.approx(true[run.chosen])
        assert run.regret == pytest.approx(true.max() - true[run.chosen])
        assert run.optimism == pytest.approx(run.said - run.true)


def test_a_table_with_runs_that_diverge(tmp_path):
    table = made_up_curves.table(configs=10, seeds=2, diverging=4)
    run = Searcher(table).search(Policy().plan(table, 10, 0), 0, 2, tmp_path)
    assert run.chosen < 6


def test_places_in_a_range():
    floats, ints = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    assert place_of(1.0, floats(0.1, 10, log=True)) == pytest.approx(0.5)
    assert place_of(3, ints(1, 5)) == 0.5
    assert place_of(2.0, floats(2.0, 2.0)) == 0.0


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        (Policy(), {"trials": 25}, "trials needs to be from 1 to the 24 configs"),
        (Policy(), {"trials": 0}, "trials needs to be from 1"),
        (Policy(grace=13), {"trials": 5}, "grace needs to be from 1 to the 12 epochs, got 13"),
        (Policy(rungs=(4, 12)), {"trials": 5}, "less than the 12 epochs, as in 16,23, got 4 12"),
        (Policy(rungs=(4,), grace=3), {"trials": 5}, "grace 3 contradicts rungs 4"),
        (Policy(rungs=(4,), early_stopping=False), {"trials": 5}, "there are no rungs"),
        (Policy(eta=1), {"trials": 5}, "eta"),
        (Policy("tpee"), {"trials": 5}, "did you mean 'tpe'"),
        (Policy(objective="budget:1M"), {"trials": 5}, "cannot be replayed"),
        (Policy(), {"trials": 5, "workers": 0}, "workers needs to be at least 1"),
        (Policy(), {"trials": 5, "repetitions": 0}, "repetitions needs to be at least 1"),
    ],
)
def test_what_does_not_fit(policy, fields, message):
    with pytest.raises(InputError, match=message):
        Replays(TABLE).run(policy, **fields)


def test_default_number_of_trials():
    assert default_trials(TABLE) == 12
    assert default_trials(made_up_curves.table(configs=100)) == 20


def test_intervals_of_medians():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        found = middle(rng.normal(0, 1, 40).tolist())
        assert found.low <= found.median <= found.high
        hits += found.low <= 0 <= found.high
    assert hits >= 88
    assert middle([2.0] * 5) == Middle(2.0, 2.0, 2.0)
    assert difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).median == 1.0


def made(regrets, epochs, policy=None):
    runs = [
        policies.Replayed(0, 0.9, 0.89, regret, count, 60.0, 1.0, 3)
        for regret, count in zip(regrets, epochs, strict=True)
    ]
    return Row(policy or Policy(grace=4), 1, tuple(runs))


@pytest.mark.parametrize(
    ("shift", "words"),
    [(-0.01, "picks better than"), (0.01, "picks worse than"), (0.0, "cannot tell whether")],
)
def test_the_sentence(shift, words):
    noise = np.random.default_rng(0).normal(0.02, 0.001, 50)
    found = Comparison(
        TABLE,
        12,
        (made(noise + shift, [72] * 50),),
        None,
        made(noise, [144] * 50, policies.RANDOM),
    )
    text = policies.sentences(found)
    assert words in text
    assert "0.50 of its epochs" in text
    assert "trains 72 epochs of the 144" in text
    assert "+1.00 points" in text  # optimism


def test_compared():
    found = policies.compare(TABLE, Policy(), trials=8, workers=(1, 3), repetitions=6)
    assert [row.workers for row in found.all_rows] == [1, 3, 1, 1]
    assert found.unstopped.middle("epochs").median == found.full == 96
    content = policies.as_json(found)
    assert content["rows"][0]["share_of_full_epochs"] < 1
    assert content["verdict"] == policies.sentences(found)
    plain = policies.compare(TABLE, policies.RANDOM, trials=8, repetitions=2)
    assert plain.unstopped is plain.random is None
    assert "Random search at full length" not in policies.sentences(plain)
    alone = made_up_curves.table(configs=8, seeds=1)
    assert "luck is not counted" in policies.sentences(
        policies.compare(alone, Policy(), trials=4, repetitions=2)
    )
