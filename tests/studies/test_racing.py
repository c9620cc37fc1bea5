"""The race: its schedule, its decisions, and what it is worth on drawn studies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.racing import cost, field, fitting, order, run, schedule
from tests.benchmarks import racing as worth


def test_the_usual_race_spends_three_fifths_of_the_grid():
    assert schedule(8, 5) == (8, 6, 4, 2, 2)
    assert cost(schedule(8, 5)) == 27  # of 45


@pytest.mark.parametrize("top", [5, 6, 8, 12, 20])
@pytest.mark.parametrize("seeds", [4, 5, 7, 10])
def test_a_race_never_spends_more_and_never_grows(top, seeds):
    rounds = schedule(top, seeds)
    assert len(rounds) == seeds and rounds[0] == top and rounds[-1] == 2
    assert list(rounds) == sorted(rounds, reverse=True)
    assert 5 * cost(rounds) <= 3 * (top + 1) * seeds or rounds == (top, *(2,) * (seeds - 1))


def test_few_candidates_or_seeds_are_not_raced():
    assert schedule(1, 3) == (1, 1, 1)
    assert schedule(2, 3) == (2, 2, 2)
    assert schedule(8, 1) == (8,)


@given(st.integers(0, 200))
def test_what_a_budget_pays_for_fits_in_it(runs):
    found = fitting(runs)
    if found is None:
        assert runs < 4
        return
    top, seeds = found
    assert 1 <= top <= 8 and 2 <= seeds <= 5
    assert cost(schedule(top, seeds)) <= runs


def test_the_best_by_their_means_stay_and_a_broken_run_leaves_first():
    values = np.array([[5.0, np.nan], [3.0, 9.0], [3.0, 9.0], [9.0, 4.0]])
    assert order(values) == [3, 1, 2, 0]


def test_a_round_begins_once_all_runs_before_it_have_ended():
    values = np.full((4, 3), np.nan)
    ended = np.zeros((4, 3), dtype=bool)
    rounds = (3, 2, 1)
    assert field(values, ended, rounds) == [[0, 1, 2, 3]]
    values[:, 0], ended[:, 0] = [1, 5, 4, 6], [True, True, True, False]
    assert field(values, ended, rounds) == [[0, 1, 2, 3]]
    ended[3, 0] = True
    assert field(values, ended, rounds)[1:] == [[0, 1, 3]]
    # row 2 has left: what it would do is not waited for
    values[:, 1], ended[[0, 1, 3], 1] = [1, 9, np.nan, 6], True
    assert field(values, ended, rounds)[2] == [0, 1]


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 10**6))
def test_the_reference_runs_every_round_and_the_rest_as_scheduled(top, seeds, rng):
    grid = np.random.default_rng(rng).normal(size=(top + 1, seeds))
    rounds = schedule(top, seeds)
    seen = run(grid, rounds)
    assert not np.isnan(seen[0]).any()
    assert (~np.isnan(seen)).sum(axis=0).tolist() == [number + 1 for number in rounds]
    gone = np.isnan(seen)
    assert (gone[:, :-1] <= gone[:, 1:]).all()  # whoever left does not come back


def test_of_equal_configs_few_studies_call_one_better_or_worse():
    """The whole measurement is `python -m tests.benchmarks.racing`; 500 of each kind here."""
    for name, noise in worth.NOISES.items():
        (found,) = worth.false_claims(500, 5, noise(0.3), name)
        assert found.low <= 0.05, found
        assert found.value <= 0.08, found


def test_a_clear_winner_of_the_grid_wins_the_race():
    picked, spent = worth.winners(150, 5, 0.3)
    assert picked.value >= 0.95, picked
    assert spent.value <= 0.6


def test_more_seeds_find_more():
    (five,), (ten,) = (worth.power(150, seeds, 0.3, 0.5) for seeds in (5, 10))
    assert five.value + 0.2 < ten.value
    assert ten.value >= 0.7


def test_confirmation_is_less_of_an_optimist_than_the_search():
    naive, plain, expected, holds = worth.optimism(100, 5, 0.3, 0.2)
    assert naive.value > 0.4
    assert plain.value < 0.2
    assert abs(expected.value) < 0.1
    assert holds.value >= 0.8


def test_a_round_before_which_nobody_leaves_waits_for_none():
    values, ended = np.full((4, 5), np.nan), np.zeros((4, 5), dtype=bool)
    rounds = (3, 3, 2, 2, 2)
    everyone = [0, 1, 2, 3]
    assert field(values, ended, rounds) == [everyone] * 2
    values[:, 1], ended[:, 1] = 0.5, True
    assert field(values, ended, rounds) == [everyone] * 2  # the first one's runs are not all in
    values[:, 0], ended[:, 0] = (0.5, 0.4, 0.6, 0.7), True
    assert field(values, ended, rounds) == [everyone] * 2 + [[0, 2, 3]] * 3


def test_who_leaves_depends_on_no_order_of_runs():
    """Whenever a round is settled, it is as in the end."""
    random = np.random.default_rng(0)
    for _ in range(200):
        top, seeds = random.integers(1, 7), random.integers(1, 7)
        rounds = schedule(int(top), int(seeds))
        grid = random.normal(size=(top + 1, seeds)).round(1)
        grid[random.random(grid.shape) < 0.1] = np.nan  # broke
        whole = field(grid, np.ones(grid.shape, dtype=bool), rounds)
        values, ended = np.full(grid.shape, np.nan), np.zeros(grid.shape, dtype=bool)
        while not all(ended[rows, number].all() for number, rows in enumerate(whole)):
            known = field(values, ended, rounds)
            assert known == whole[: len(known)]
            open_ = [(row, k) for k, rows in enumerate(known) for row in rows if not ended[row, k]]
            assert open_  # somebody can always go on
            place = open_[random.integers(len(open_))]
            values[place], ended[place] = grid[place], True
