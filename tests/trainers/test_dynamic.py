"""Budgeted batch classification against a loop written from its description, image by image."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import dynamic
from trainers.catalog import InputError
from trainers.reports import BudgetPoint


def naive_thresholds(confidence, p):
    """The description's steps 2 and 3, one p, one image at a time."""
    exits, n = len(confidence), len(confidence[0])
    total = sum(p**j for j in range(1, exits + 1))
    gone = [False] * n
    limits = []
    for k in range(exits - 1):
        wanted = math.floor(n * p ** (k + 1) / total + 1e-9)
        left = sorted((confidence[k][i] for i in range(n) if not gone[i]), reverse=True)
        limit = left[wanted - 1] if 0 < wanted <= len(left) else math.inf
        for i in range(n):
            if confidence[k][i] >= limit:
                gone[i] = True
        limits.append(limit)
    return [*limits, -math.inf]


def naive_score(confidence, right, flops, limits):
    """Step 4: mean FLOPs and accuracy, one image at a time."""
    n = len(confidence[0])
    spent = hits = 0
    for i in range(n):
        k = next(k for k in range(len(limits)) if confidence[k][i] >= limits[k])
        spent += flops[k]
        hits += right[k][i]
    return spent / n, hits / n


@st.composite
def networks(draw, least=1):
    """(held, scored, top1, top5, flops): few confidence values, so that many are tied."""
    exits = draw(st.integers(1, 5))
    values = draw(st.sampled_from([3, 10, 10_000]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    m, n = draw(st.integers(0, 30)), draw(st.integers(least, 30))
    held, scored = (
        (rng.integers(1, values + 1, (exits, size)) / values).astype(np.float32) for size in (m, n)
    )
    top1 = rng.random((exits, n)) < 0.6
    top5 = top1 | (rng.random((exits, n)) < 0.5)
    flops = np.cumsum(rng.integers(1, 1000, exits)).tolist()
    return held, scored, top1, top5, flops


@settings(max_examples=150, deadline=None)
@given(networks(), st.lists(st.floats(0.005, 200), min_size=1, max_size=4))
def test_it_agrees_with_the_loop_image_by_image(network, values):
    held, scored, top1, top5, flops = network
    limits = dynamic.thresholds(held, np.array(values))
    left = dynamic.leaving(scored, limits)
    for row, exits, p in zip(limits, left, values, strict=True):
        expected = naive_thresholds(held.tolist(), p)
        assert row.tolist() == expected
        alone = dynamic.measured(exits[None], top1, top5, flops)
        for right, column in ((top1, alone.top1), (top5, alone.top5)):
            cost, score = naive_score(scored.tolist(), right.tolist(), flops, expected)
            place = int(np.abs(alone.flops - cost).argmin())
            assert alone.flops[place] == pytest.approx(cost)
            if np.isclose(cost, (flops[0], flops[-1])).any():
                continue  # one point with an end of the curve: their mean
            assert column[place] == pytest.approx(score)


@settings(max_examples=100, deadline=None)
@given(networks())
def test_a_curve_spans_what_can_be_spent_and_never_falls_in_cost(network):
    held, scored, top1, top5, flops = network
    curve = dynamic.calibrated(held, scored, top1, top5, flops)
    assert (np.diff(curve.flops) > 0).all()
    assert curve.flops[[0, -1]] == pytest.approx([flops[0], flops[-1]])
    assert curve.shares.sum(axis=1) == pytest.approx(1)
    assert (curve.top1 <= curve.top5 + 1e-12).all()
    assert ((curve.top1 >= 0) & (curve.top5 <= 1)).all()
    points = dynamic.points(curve)
    assert len(points) <= dynamic.STORED + 2
    if len(flops) > 1 and len(scored[0]) > 5 and len(points) == len(curve.flops):
        middle = (flops[0] + flops[-1]) / 2
        read = dynamic.along(curve, [middle])
        assert dynamic.at(points, middle) == pytest.approx(read.top1[0], abs=0.01)
        assert read.shares.sum() == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(1, 4))
def test_cross_fitting_scores_each_half_under_the_others_thresholds(network, classes):
    _, scored, top1, top5, flops = network
    n = scored.shape[1]
    labels = np.random.default_rng(n).integers(0, classes, n)
    curve = dynamic.cross_fitted(scored, top1, top5, labels, flops, count=3)
    hit: list[tuple[float, float, int]] = []
    order = sorted(range(n), key=lambda i: (labels[i], i))
    second = {image for place, image in enumerate(order) if place % 2}
    for p in dynamic.sweep(3).tolist():
        spent = hits = 0.0
        for own in (second, set(range(n)) - second):
            others = [i for i in range(n) if i not in own]
            limits = naive_thresholds(scored[:, others].tolist(), p)
            for i in own:
                k = next(k for k in range(len(limits)) if scored[k, i] >= limits[k])
                spent += flops[k] / n
                hits += top1[k, i] / n
        place = int(np.abs(curve.flops - spent).argmin())
        assert curve.flops[place] == pytest.approx(spent)
        if not np.isclose(spent, (flops[0], flops[-1])).any():
            hit.append((spent, hits, place))
    for spent, _, place in hit:
        same = [one[1] for one in hit if np.isclose(one[0], spent)]
        assert curve.top1[place] == pytest.approx(sum(same) / len(same))


def test_a_worked_example():
    """Four held-out images, two exits, p = 1: half of them are meant to leave at exit 1."""
    held = np.array([[0.9, 0.8, 0.7, 0.6], [1.0, 1.0, 1.0, 1.0]])
    assert dynamic.thresholds(held, np.array([1.0])).tolist() == [[0.8, -math.inf]]
    scored = np.array([[0.85, 0.8, 0.1], [0.2, 0.2, 0.2]])
    left = dynamic.leaving(scored, np.array([[0.8, -math.inf]]))
    assert left.tolist() == [[0, 0, 1]]
    top1 = np.array([[True, False, False], [True, True, True]])
    curve = dynamic.measured(left, top1, top1, [10, 40])
    assert curve.flops.tolist() == [10, 20, 40]
    assert curve.top1.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert curve.shares.tolist()[1] == pytest.approx([2 / 3, 1 / 3])


def test_a_share_of_no_image_closes_the_exit_and_ties_leave_together():
    held = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    assert dynamic.thresholds(held, np.array([199.0]))[0, 0] == math.inf
    tied = np.full((3, 6), 0.5)
    limits = dynamic.thresholds(tied, np.array([1.0]))
    assert limits.tolist() == [[0.5, math.inf, -math.inf]], "all left at exit 1"


def test_nine_thirds_are_three():
    held = np.linspace(0.1, 0.9, 9)[None].repeat(3, axis=0)
    limits = dynamic.thresholds(held, np.array([1.0]))
    assert limits[0, 0] == held[0, 6], "the third most confident"


def test_confidences_that_are_no_numbers_go_to_the_last_exit():
    nothing = np.full((3, 4), np.nan)
    limits = dynamic.thresholds(nothing, dynamic.sweep(5))
    assert (dynamic.leaving(nothing, limits) == 2).all()


def test_the_sweep_begins_at_its_first_p_and_is_symmetric():
    values = dynamic.sweep(200)
    assert values[0] == pytest.approx(0.005)
    assert (np.diff(values) > 0).all()
    assert values * values[::-1] == pytest.approx(1)


CURVE = (BudgetPoint(10, 0.5, 0.8), BudgetPoint(20, 0.6, 0.9), BudgetPoint(40, 0.7, 0.9))


@pytest.mark.parametrize(
    ("flops", "score", "expected"),
    [(10, "top1", 0.5), (15, "top1", 0.55), (15, "top5", 0.85), (30, "top1", 0.65)],
)
def test_a_budget_is_read_between_points(flops, score, expected):
    assert dynamic.at(CURVE, flops, score) == pytest.approx(expected)


@pytest.mark.parametrize("flops", [9, 41, 0, float("nan"), float("inf")])
def test_a_budget_outside_is_refused_with_the_range(flops):
    with pytest.raises(InputError, match=r"cost from 10 \(exit 1\) to 40"):
        dynamic.at(CURVE, flops)


def test_without_held_out_images_there_is_nothing_to_read():
    with pytest.raises(InputError, match="thresholds need held-out images"):
        dynamic.at((), 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [("150M", 150e6), ("1.2G", 1.2e9), ("48k", 48e3), ("48000", 48e3), ("1.5e8", 1.5e8)],
)
def test_flops_are_read(text, value):
    assert dynamic.read_flops(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "M", "0", "-3M", "nan", "infG", "15 apples", "1e999", "F"])
def test_what_is_no_number_of_flops_is_refused(text):
    with pytest.raises(InputError, match="FLOPs need a number above 0"):
        dynamic.read_flops(text)


def test_a_fine_sweep_of_10000_images_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    confidence = rng.random((5, 10_000)).astype(np.float32)
    right = rng.random((5, 10_000)) < 0.7
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        dynamic.calibrated(confidence, confidence, right, right, [1, 2, 3, 4, 5], dynamic.FINE)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.7


def test_the_stored_sweep_reads_like_the_fine_one():
    """Over budgets 38 values of p are off by less than 0.1 points in the mean, and not biased."""
    rng = np.random.default_rng(1)
    n, exits = 5_000, 5
    hard = rng.random(n)
    skill = np.linspace(0.5, 0.8, exits)[:, None]
    right = hard < skill
    confidence = np.clip(1 - hard + rng.normal(0, 0.2, (exits, n)), 0.01, 1)
    flops = [7e6, 14e6, 27e6, 42e6, 58e6]
    coarse, fine = (
        dynamic.calibrated(confidence, confidence, right, right, flops, count)
        for count in (dynamic.STORED, 2_000)
    )
    costs = np.linspace(7e6, 58e6, 300)
    apart = dynamic.along(coarse, costs).top1 - dynamic.along(fine, costs).top1
    assert np.abs(apart).max() < 0.004
    assert np.abs(apart).mean() < 0.001
    assert abs(apart.mean()) < 0.0003


@given(networks(), st.floats(0, 1))
def test_thresholds_for_a_budget_keep_within_it_and_come_near(network, share):
    """Of the sweep and its two ends the dearest that costs no more, by a loop over images."""
    held, *_, flops = network
    if not held.shape[1]:
        return
    most = flops[0] + share * (flops[-1] - flops[0])
    limits = dynamic.limits_within(held, flops, most)

    def cost(limits):
        return naive_score(held.tolist(), held > 0, flops, limits)[0]

    rows = [naive_thresholds(held.tolist(), p) for p in dynamic.sweep(dynamic.FINE)[::20].tolist()]
    assert cost(limits) <= most * (1 + 1e-6)
    within = [spent for spent in map(cost, rows) if spent <= most]
    assert cost(limits) >= max([flops[0], *within]) * (1 - 1e-6)


def test_the_ends_of_a_budget():
    held = np.random.default_rng(0).random((3, 50))
    flops = [1_783_449, 2_000_000, 5_248_349]
    for end, exit_index in ((flops[0], 0), (flops[2], 2)):
        written = dynamic.read_flops(dynamic.flops_text(end))
        assert written < end, "rounded, and yet no refusal"
        limits = dynamic.limits_within(held, flops, written)
        left = dynamic.leaving(held, limits[None])[0]
        assert np.array(flops)[left].mean() == pytest.approx(end, rel=0.02)
        limits = dynamic.limits_within(held, flops, end)
        assert (dynamic.leaving(held, limits[None]) == exit_index).all()
    for beyond in (1.7e6, 5.3e6):
        with pytest.raises(InputError, match="cannot be spent: .* from 1.7834M .* to 5.2483M"):
            dynamic.limits_within(held, flops, beyond)
