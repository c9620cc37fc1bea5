"""Runs of a race drawn anew: intervals that hold, and probabilities of the front."""

import numpy as np
import pytest
from scipy import stats

from studies.front import FrontPoint, front
from studies.resampling import intervals, on_front, points, resampled, together
from tests.benchmarks.fronts import Case, figures, study
from trainers.hits import Hits

FLOPS = np.array([[1.0, 2.0]] * 3)


def runs(truth, seeds=5, spread=0.3, rng=0):
    """(C, S, M): accuracies in % about (C, M)."""
    truth = np.array(truth)
    shape = (len(truth), seeds, truth.shape[1])
    return truth[:, None] + np.random.default_rng(rng).normal(0, spread, shape)


def test_a_better_and_equally_cheap_point_hides_another():
    found = points(runs([[60.0, 70.0], [65.0, 70.0], [50.0, 80.0]]), FLOPS).on_front
    assert found[1, 0] > 0.99 and found[2, 1] > 0.99
    assert found[0].max() < 0.01 and found[2, 0] < 0.01 and found[1, 1] < 0.01
    even = points(runs([[60.0], [60.0]]), np.ones((2, 1))).on_front
    assert even.sum() == pytest.approx(1.0) and even.min() > 0.01


def test_equal_points_share_the_front_and_a_cheaper_one_beats_a_dearer():
    alike = np.full((3, 5, 2), 70.0)
    assert points(alike, FLOPS).on_front.tolist() == [[1, 0]] * 3, "as studies.front has it"
    noisy = np.repeat(runs([[60.0, 70.0]]), 3, axis=0)  # three configs with the same runs
    assert points(noisy, FLOPS).on_front.tolist() == [[1, 1]] * 3
    noisy[2] -= 5.0
    assert points(noisy, FLOPS).on_front[:, 0].tolist() == [1, 1, 0]


def test_the_front_of_a_draw_is_that_of_the_searchs_points():
    rng = np.random.default_rng(1)
    for _ in range(50):  # few values, so that many points are equal in one or both
        flops, drawn = rng.integers(1, 4, (4, 2)) * 1.0, rng.integers(60, 64, (1, 4, 2)) * 1.0
        there = on_front(drawn, flops) > 0
        every = [FrontPoint(0, 1, f, a) for f, a in zip(flops.flat, drawn.flat, strict=True)]
        kept = {(point.flops, point.accuracy) for point in front(every)}
        assert [(p.flops, p.accuracy) in kept for p in every] == there.reshape(-1).tolist()


def test_one_seed_promises_nothing():
    found = points(runs([[60.0, 70.0]] * 3, seeds=1), FLOPS)
    assert np.isnan(found.on_front).all() and not found.images
    assert found.means[0][0].low == -np.inf and found.means[2][1].n == 1


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_of_one_config_alone_the_seeds_give_students_interval(seeds):
    exits = runs([[60.0]], seeds)
    drawn = resampled(exits, draws=40_000)
    ((found,),) = intervals(drawn, exits)
    low, high = stats.t.interval(0.95, seeds - 1, exits.mean(), stats.sem(exits[0, :, 0]))
    # of three values the resampled mean has no more than ten different ones
    assert found.half == pytest.approx((high - low) / 2, rel=0.12 if seeds == 3 else 0.06)


def test_images_that_all_rounds_share_are_as_uncertain_as_one_round_of_them():
    rng = np.random.default_rng(0)
    rows, right = np.arange(400), rng.random(400) < 0.8
    hits = {(c, s): Hits(rows, right[None]) for c in range(3) for s in range(5)}
    exits = np.full((3, 5, 1), 100 * right.mean())
    alone, both = resampled(exits), resampled(exits, hits)
    assert np.ptp(alone) < 1e-9
    assert both[:, 0, 0].std() == pytest.approx(100 * right.std() / 20, rel=0.06)
    assert both[:, 0] == pytest.approx(both[:, 1]), "all configs are right on the same ones"


def test_what_differs_from_round_to_round_is_not_counted_twice():
    """Rounds without a common image: the images add nothing to what the seeds show."""
    rng = np.random.default_rng(0)
    alone, both = [], []
    for _ in range(20):
        right = {(c, s): rng.random((1, 200)) < 0.7 for c in range(4) for s in range(10)}
        hits = {key: Hits(200 * key[1] + np.arange(200), x) for key, x in right.items()}
        exits = np.array([[[100 * right[c, s].mean()] for s in range(10)] for c in range(4)])
        alone.append(resampled(exits)[:, 0].std())
        both.append(resampled(exits, hits)[:, 0].std())
    assert np.mean(both) == pytest.approx(100 * np.sqrt(0.21 / 2000), rel=0.15)
    assert np.mean(both) == pytest.approx(np.mean(alone), rel=0.15)


def test_who_left_the_race_is_known_less_and_a_round_that_broke_is_left_out():
    exits = runs([[60.0, 70.0]] * 4, seeds=6)
    exits[3, 1:] = np.nan
    drawn = resampled(exits)
    assert (drawn[:, 3].std(axis=0) > 1.5 * drawn[:, 0].std(axis=0)).all()
    exits[:, 2] = np.nan
    rng = np.random.default_rng(0)
    ran = [(int(c), int(s)) for c, s in zip(*np.nonzero(~np.isnan(exits[:, :, 0])), strict=True)]
    hits = {key: Hits(np.arange(90) + 9 * key[1], rng.random((2, 90)) < 0.6) for key in ran}
    assert np.isfinite(resampled(exits, hits)).all()
    del hits[ran[0]]  # it diverged: at chance, whatever the images
    assert np.isfinite(resampled(exits, hits)).all()


def test_what_leads_by_luck_is_not_called_sure():
    """Nine configs that are alike: which has the best mean says little of which is best."""
    given = []
    for rng in range(30):
        drawn = resampled(runs([[60.0]] * 9, rng=rng), draws=400)
        given.append([on_front(x, np.ones((9, 1))).max() for x in (drawn, together(drawn))])
    plain, drawn_together = np.mean(given, axis=0)
    assert drawn_together < 0.35 < plain
    apart = resampled(runs([[60.0 + 3 * k] for k in range(9)]))
    assert on_front(together(apart), np.ones((9, 1)))[8, 0] > 0.99


def test_the_same_runs_give_the_same_figures():
    _, exits, hits = study(np.random.default_rng(3), Case("", configs=4, pool=600, held=60))
    flops = np.tile(np.arange(4.0), (4, 1))
    one, two = (points(exits, flops, hits) for _ in range(2))
    assert one.means == two.means and (one.on_front == two.on_front).all() and one.images


def test_intervals_hold_and_probabilities_are_frequencies():
    """Where hold-outs share four fifths of the images, the seeds alone promise too much."""
    case = Case("digits", configs=6, pool=450, held=360, accuracy=0.9, between=1.0)
    found = {row.what: row for row in figures(80, case)}
    alone, both = (
        found[f"{name}: share of intervals that hold"].value
        for name in ("seeds", "seeds and images")
    )
    assert alone < 0.89 and 0.93 <= both <= 0.98
    for what, row in found.items():
        if what.startswith("seeds and images: on the front, given "):
            said = float(what.rsplit(" ", 1)[1])
            assert row.low - 0.1 <= said <= row.high + 0.1, (what, row)
