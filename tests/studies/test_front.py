"""Fronts, hypervolume and objectives against naive loops."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.front import (
    FrontPoint,
    budget_of,
    checked_budgets,
    checked_objective,
    curve,
    deployable,
    envelope,
    front,
    hypervolume,
    objective,
    planned_objective,
)
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import BudgetPoint, ExitPoint

# few values, so that ties and equal points are frequent
FLOPS = st.integers(1, 6)
ACCURACY = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
POINTS = st.lists(st.builds(FrontPoint, st.integers(0, 9), st.integers(1, 4), FLOPS, ACCURACY))
BOX = (2.0, 5.0, 0.1)


def exit_points(accuracies: list[float], flops: list[int] | None = None) -> list[ExitPoint]:
    flops = flops or [10 * (i + 1) for i in range(len(accuracies))]
    return [
        ExitPoint(exit=i + 1, flops=f, flops_cascade=f, accuracy=a, top5=1.0)
        for i, (f, a) in enumerate(zip(flops, accuracies, strict=True))
    ]


def beats(one: FrontPoint, two: FrontPoint) -> bool:
    no_worse = one.flops <= two.flops and one.accuracy >= two.accuracy
    return no_worse and (one.flops < two.flops or one.accuracy > two.accuracy)


@given(POINTS)
def test_front_is_what_no_point_beats(points: list[FrontPoint]) -> None:
    expected = []
    for point in points:
        twin = any((p.flops, p.accuracy) == (point.flops, point.accuracy) for p in expected)
        if not twin and not any(beats(other, point) for other in points):
            expected.append(point)
    assert front(points) == sorted(expected, key=lambda p: p.flops)


@given(st.dictionaries(st.integers(0, 9), POINTS, max_size=5))
def test_envelope_is_the_front_of_all_points(curves: dict[int, list[FrontPoint]]) -> None:
    assert envelope(curves) == front([p for points in curves.values() for p in points])


def test_front_keeps_the_first_of_equal_points() -> None:
    points = [FrontPoint(trial, 1, 10, 0.5) for trial in (7, 3, 5)]
    assert front(points) == [points[0]]


@given(
    st.lists(st.lists(ACCURACY, min_size=3, max_size=3), max_size=7),
)
def test_deployable_on_equal_columns_is_vector_domination(table: list[list[float]]) -> None:
    curves = {10 + i: curve(10 + i, exit_points(row)) for i, row in enumerate(table)}
    expected = []
    for i, row in enumerate(table):
        dominated = any(
            all(b >= a for a, b in zip(row, other, strict=True)) and other != row for other in table
        )
        if not dominated:
            expected.append(10 + i)
    assert deployable(curves) == expected


@given(st.dictionaries(st.integers(0, 9), POINTS, max_size=6))
def test_deployable_on_other_columns(curves: dict[int, list[FrontPoint]]) -> None:
    def covers(one: list[FrontPoint], two: list[FrontPoint]) -> bool:
        return all(any(p.flops <= q.flops and p.accuracy >= q.accuracy for p in one) for q in two)

    kept = deployable(curves)
    assert kept == [trial for trial in curves if trial in kept]
    assert bool(kept) == any(curves.values())
    for trial, points in curves.items():
        columns = [p.flops for p in points]
        rivals = [
            two
            for other, two in curves.items()
            if two and other != trial and [p.flops for p in two] != columns
        ]
        if points and any(covers(two, points) and not covers(points, two) for two in rivals):
            assert trial not in kept


def test_deployable_of_many_curves_is_what_pairs_say() -> None:
    rng = np.random.default_rng(0)
    accuracy = np.round(rng.uniform(size=(700, 3)), 2)  # ties, and more than one block
    beaten = [((accuracy >= row).all(1) & (accuracy > row).any(1)).any() for row in accuracy]
    curves = {
        number: curve(number, exit_points(row)) for number, row in enumerate(accuracy.tolist())
    }
    assert deployable(curves) == [n for n, worse in enumerate(beaten) if not worse]


def test_deployable_keeps_equal_curves_and_skips_empty_ones() -> None:
    same = [0.4, 0.6]
    curves = {1: curve(1, exit_points(same)), 2: curve(2, exit_points(same)), 3: []}
    assert deployable(curves) == [1, 2]
    assert deployable({}) == []


def test_deployable_prefers_the_cheaper_network_of_equal_accuracy() -> None:
    wide = curve(0, exit_points([0.5, 0.6], [20, 40]))
    narrow = curve(1, exit_points([0.5, 0.6], [10, 20]))
    deeper = curve(2, exit_points([0.4, 0.9], [20, 50]))
    assert deployable({0: wide, 1: narrow, 2: deeper}) == [1, 2]


@given(POINTS)
def test_hypervolume_is_the_area_of_thin_columns(points: list[FrontPoint]) -> None:
    low, high, floor = BOX
    # FLOPs are whole numbers, so the best accuracy is constant between them
    area = 0.0
    for left in range(int(low), int(high)):
        best = max((p.accuracy for p in points if p.flops <= left), default=0.0)
        area += max(best - floor, 0.0) * log((left + 1) / left)
    assert hypervolume(points, BOX) == pytest.approx(area / (log(high / low) * (1 - floor)))


@given(POINTS, st.builds(FrontPoint, st.just(0), st.just(1), FLOPS, ACCURACY))
def test_hypervolume_never_falls_with_another_point(
    points: list[FrontPoint], new: FrontPoint
) -> None:
    before = hypervolume(points, BOX)
    assert 0 <= before <= hypervolume([*points, new], BOX) + 1e-12 <= 1 + 2e-12


def test_hypervolume_of_a_perfect_free_exit_is_one() -> None:
    assert hypervolume([FrontPoint(0, 1, 1, 1.0)], BOX) == pytest.approx(1)
    assert hypervolume([], BOX) == 0


@pytest.mark.parametrize("box", [(5.0, 5.0, 0.1), (0.0, 5.0, 0.1), (2.0, 5.0, 1.0)])
def test_a_box_without_area_is_refused(box: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="box needs"):
        hypervolume([], box)


ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(ACCURACIES)
def test_anytime_is_the_mean_of_the_running_maximum(accuracies: list[float]) -> None:
    total = sum(max(accuracies[: k + 1]) for k in range(len(accuracies)))
    assert objective("anytime", exit_points(accuracies)) == pytest.approx(total / len(accuracies))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 9)), min_size=1, max_size=6))
def test_anytime_with_budgets(pairs: list[tuple[float, float]]) -> None:
    accuracies, budgets = [list(column) for column in zip(*pairs, strict=True)]
    total = sum(b * max(accuracies[: k + 1]) for k, b in enumerate(budgets))
    value = objective("anytime", exit_points(accuracies), budgets)
    assert value == pytest.approx(total / sum(budgets))


@given(ACCURACIES)
def test_mean_last_and_exit(accuracies: list[float]) -> None:
    points = exit_points(accuracies)
    assert objective("mean", points) == pytest.approx(sum(accuracies) / len(accuracies))
    assert objective("last", points) == accuracies[-1]
    for k, accuracy in enumerate(accuracies):
        assert objective(f"exit:{k + 1}", points) == accuracy


def test_hypervolume_objective_is_that_of_its_points() -> None:
    points = exit_points([0.5, 0.7], [2, 4])
    assert objective("hypervolume", points, box=BOX) == hypervolume(curve(0, points), BOX)
    with pytest.raises(InputError, match="box"):
        objective("hypervolume", points)


@pytest.mark.parametrize("name", ["anytime", "mean", "last", "exit:1", "exit:4", "hypervolume"])
def test_known_objectives_pass(name: str) -> None:
    assert checked_objective(name, 4) == name


def test_exit_numbers_are_normalised() -> None:
    assert checked_objective("exit:03", 4) == "exit:3"


@pytest.mark.parametrize(
    ("name", "exits", "message"),
    [
        ("anytim", 4, "did you mean 'anytime'"),
        ("accuracy", 4, "known are anytime, budget:F, exit:K, front, hypervolume, last, mean"),
        ("exit:0", 4, "from 1 to 4 here, got '0'"),
        ("exit:5", 4, "from 1 to 4 here, got '5'"),
        ("exit:2", 1, "from 1 here"),
        ("exit:", 4, "got ''"),
        ("exit:K", 4, "got 'K'"),
        ("exit:-1", 4, "got '-1'"),
        ("exit:²", 4, "1 to 4"),
        ("exit:" + "9" * 5000, 4, "1 to 4"),
    ],
)
def test_unknown_objectives_are_refused(name: str, exits: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        checked_objective(name, exits)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("budgets", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_bad_budgets_are_refused(budgets: list[float]) -> None:
    with pytest.raises(InputError, match="budgets need"):
        checked_budgets(budgets, 2)


def test_an_objective_needs_an_exit() -> None:
    with pytest.raises(InputError, match="at least one exit"):
        objective("mean", [])


BUDGET = (BudgetPoint(10, 0.5, 0.8), BudgetPoint(20, 0.6, 0.9), BudgetPoint(40, 0.7, 0.9))


def dynamic_points() -> list[ExitPoint]:
    """Exits whose cascade costs span BUDGET."""
    return [
        point.model_copy(update={"flops_cascade": flops})
        for point, flops in zip(exit_points([0.5, 0.7]), (10, 40), strict=True)
    ]


@given(st.floats(10, 40))
def test_the_budget_objective_is_read_from_the_curve(flops: float) -> None:
    value = objective(f"budget:{flops!r}", dynamic_points(), dynamic=BUDGET)
    expected = 0.5 + (flops - 10) / 100 if flops <= 20 else 0.6 + (flops - 20) / 200
    assert value == pytest.approx(expected)


def test_a_network_cheaper_than_the_budget_spends_what_it_can_and_a_dearer_one_is_worth_nothing():
    assert objective("budget:1k", dynamic_points(), dynamic=BUDGET) == 0.7
    assert objective("budget:9", dynamic_points(), dynamic=BUDGET) == 0.0
    with pytest.raises(InputError, match="no budget curve"):
        objective("budget:20", dynamic_points())


@pytest.mark.parametrize("name", ["budget:150M", "budget:0.15G", "budget:150000k", "budget:1.5e8"])
def test_one_budget_has_one_name(name: str) -> None:
    assert checked_objective(name, 4) == "budget:150M"
    assert budget_of(checked_objective(name, 4)) == 150e6


def test_a_name_of_a_budget_keeps_its_value() -> None:
    for flops in (47_834.0, 99_999.5, 123_456_789.0, 2.5e12):
        name = checked_objective(f"budget:{flops!r}", 4)
        assert budget_of(name) == pytest.approx(flops, rel=1e-11)
        assert checked_objective(name, 4) == name


@pytest.mark.parametrize("name", ["budget:", "budget:F", "budget:-1M", "budget:nan", "budget:lots"])
def test_a_budget_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="FLOPs need a number above 0"):
        checked_objective(name, 4)


@pytest.mark.parametrize("flops", ["40k", "240k"])
def test_a_plan_refuses_a_budget_that_its_network_cannot_spend(flops: str) -> None:
    with pytest.raises(InputError, match=r"cost from 47.834k \(exit 1\) to 232.98k"):
        planned_objective(f"budget:{flops}", TrialConfig())
    assert planned_objective("budget:0.1M", TrialConfig()) == "budget:100000"
