"""The verdict's numbers, on tables whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from studies import racing
from studies.comparison import fit, seeds_needed
from studies.confirmed import detectable, estimate, estimates, expected, judge


def grid(truth, seeds=5, spread=0.3, rng=0, seed_spread=0.3):
    generator = np.random.default_rng(rng)
    noise = generator.normal(0, spread, (len(truth), seeds))
    return np.array(truth)[:, None] + noise + generator.normal(0, seed_spread, (1, seeds))


def judged(values, **more):
    return judge(values, **more)


def test_one_row_alone_has_students_interval():
    values = grid([90.0], seeds=6)
    found = estimates(values)[0]
    low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values[0]))
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 6)
    assert found.half == pytest.approx((high - low) / 2)


@pytest.mark.parametrize("race", [False, True])
def test_intervals_hold_in_nineteen_of_twenty_studies(race):
    held = 0
    for rng in range(300):
        values = grid([0.0] * 9, rng=rng)
        seen = racing.run(values, racing.schedule(8, 5)) if race else values
        found = estimate(seen, np.eye(9)[0])
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_one_seed_promises_nothing():
    found = judged(grid([1.0, 2.0, 3.0], seeds=1))
    assert found.means[1].low == -math.inf and math.isnan(found.sigma)
    assert not found.separated and found.detectable is None
    assert found.chosen == 0  # the simplest: nothing says that another is better


def test_the_simplest_within_one_standard_error_is_chosen():
    values = np.array([[1.0, 3.0], [2.0, 4.02], [2.01, 4.0]])  # standard error of a difference 0.01
    found = judged(values, simplicity=[0, 2, 1])
    assert found.finalists == (0, 1, 2)
    assert found.best == 1 and found.chosen == 2 and found.within == (2, 1)
    assert judged(values, simplicity=[0, 1, 2]).chosen == 1


def test_who_left_the_race_is_neither_chosen_nor_called_worse():
    values = grid([0.0, 0.2, 0.1, -5.0], seeds=4)
    values[3] += 0.0
    values[3, 1:] = np.nan
    found = judged(values)
    assert found.finalists == (0, 1, 2)
    assert [one.config for one in found.differences] == [1, 2]
    assert found.difference(3) is None and found.difference(0) is None
    assert found.means[3].n == 1


def test_optimism_is_what_the_search_said_too_much():
    values = grid([90.0, 90.0, 91.0], seeds=40, spread=0.1)
    found = judged(values, said=[90.1, 92.0, 91.0])
    assert found.naive is not None and found.average is not None
    assert found.naive.row == 1
    assert found.naive.gap == pytest.approx(2.0, abs=0.2)
    assert found.naive.low < 2.0 < found.naive.high
    assert found.average.said == pytest.approx(91.5)
    assert found.average.gap == pytest.approx(1.0, abs=0.2)
    nothing = judged(values, said=[math.nan] * 3)
    assert nothing.naive is None and nothing.average is None


def test_expected_values_draw_together_what_is_only_noise():
    same = expected(fit(grid([0.0] * 9, rng=3)))
    apart = grid([float(k) for k in range(9)], rng=3)
    assert np.ptp(same) < 0.3 * np.ptp(fit(grid([0.0] * 9, rng=3)).means)
    assert expected(fit(apart)) == pytest.approx(fit(apart).means, abs=0.1)


def test_what_can_be_found_and_what_is_needed_agree():
    for seeds in (3, 5, 12):
        found = detectable(0.3, seeds, 8)
        assert found is not None
        assert seeds_needed(found * 1.001, 0.3, 8) == seeds
    assert detectable(0.3, 1, 8) is None
