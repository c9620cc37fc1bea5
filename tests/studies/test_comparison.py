"""Paired comparisons over seeds: against textbook cases and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from studies.comparison import against, crossed, fit, seeds_needed


def table(configs=4, seeds=5, spread=0.3, rng=0, effect=0.0):
    generator = np.random.default_rng(rng)
    values = generator.normal(0, spread, (configs, seeds)) + generator.normal(0, 1, (1, seeds))
    values[1] += effect
    return values


def test_of_missing_runs_the_config_or_the_seed_is_left_out_that_lacks_more():
    there = np.ones((6, 3), bool)
    assert crossed(there) == ([0, 1, 2, 3, 4, 5], [0, 1, 2])
    there[2, 0] = False
    assert crossed(there) == ([0, 1, 3, 4, 5], [0, 1, 2])
    assert crossed(there, least=6) == ([0, 1, 2, 3, 4, 5], [1, 2])
    there[:4, 0] = False
    assert crossed(there) == ([0, 1, 2, 3, 4, 5], [1, 2])
    assert crossed(np.eye(3, dtype=bool)) == ([0], [0])
    assert crossed(np.eye(3, dtype=bool), least=2)[1] == []


def test_the_whole_table_is_a_two_way_anova():
    values = table()
    fitted = fit(values)
    means = values.mean(axis=1, keepdims=True)
    residuals = values - means - values.mean(axis=0) + values.mean()
    assert fitted.means == pytest.approx(means[:, 0])
    assert fitted.freedom == 3 * 4
    assert fitted.sigma == pytest.approx(math.sqrt((residuals**2).sum() / 12))


def test_a_missing_run_is_made_up_for_by_what_its_seed_did_to_the_others():
    exact = np.array([[1.0], [2.0], [5.0]]) + np.array([[0.0, 10.0, 20.0]])
    exact[2, 2] = np.nan
    fitted = fit(exact)
    assert fitted.means == pytest.approx([11, 12, 15])
    assert fitted.sigma == pytest.approx(0, abs=1e-9)


def test_one_comparison_is_the_paired_t_test():
    values = table(configs=2, seeds=8, effect=0.2)
    (found,) = against(values, 0)
    wanted = stats.ttest_rel(values[1], values[0])
    assert found.difference == pytest.approx((values[1] - values[0]).mean())
    assert found.p == pytest.approx(wanted.pvalue, abs=0.02)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_many_comparisons_are_corrected_together():
    """Of Dunnett's table, two-sided 5 %: 3 comparisons, equal n, 12 degrees of freedom: 2.68."""
    values = table(configs=4, seeds=5)
    fitted = fit(values)
    for item in against(values, 0):
        error = fitted.sigma * math.sqrt(2 / 5)
        assert (item.high - item.difference) / error == pytest.approx(2.68, abs=0.04)


def test_without_a_difference_five_studies_in_a_hundred_claim_one():
    claims = sum(
        any(item.separated for item in against(table(configs=6, seeds=3, rng=k), 0))
        for k in range(400)
    )
    # 5 % of 400 is 20; the 99.9 % range of a fair test is 8 to 36.
    assert 8 <= claims <= 36


def test_a_large_difference_is_found_and_says_how_many_seeds_it_needed():
    values = table(seeds=5, effect=3.0)
    one, *others = against(values, 0)
    assert one.separated and one.low > 0 and one.p < 0.001
    assert not any(item.separated for item in others)
    assert one.seeds_needed is not None and one.seeds_needed <= 3


def test_seeds_needed_reach_the_power_that_they_promise():
    seeds = seeds_needed(0.5, 0.3, comparisons=1)
    assert seeds is not None
    found = sum(
        against(table(configs=2, seeds=seeds, effect=0.5, rng=k), 0)[0].separated
        for k in range(200)
    )
    assert 0.7 <= found / 200 <= 0.95
    assert seeds_needed(0.0, 0.3, 1) is None
    assert seeds_needed(0.5, math.nan, 1) is None


def test_one_seed_separates_nothing():
    for item in against(table(seeds=1), 0):
        assert (item.low, item.high, item.p) == (-math.inf, math.inf, 1.0)
    assert against(table()[:1], 0) == ()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        fit(np.array([[1.0, 2.0], [np.nan, np.nan]]))
    with pytest.raises(ValueError, match="share no seeds"):
        fit(np.array([[1.0, np.nan], [np.nan, 2.0]]))
