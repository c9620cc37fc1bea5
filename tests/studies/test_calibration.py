"""When stopping is right: against loops by hand, and curves of which the answer is known."""

import numpy as np
import pytest
from scipy import stats

from studies.calibration import agreement, calibrate, first_safe, kendall, repeated, spread
from studies.halving import Rule

rng = np.random.default_rng(0)


def curves(
    crossing: int, noise: float = 0.001, configs: int = 16, seeds: int = 3, epochs: int = 20
):
    """Configs whose order is reversed until an epoch, and is the last one's from then on."""
    draws = np.random.default_rng(crossing)
    worth = np.linspace(0, 0.1, configs)[:, None, None]
    epoch = np.arange(1, epochs + 1)
    sign = np.where(epoch < crossing, -1, 1)
    return (0.5 + sign * worth + draws.normal(0, noise, (configs, seeds, epochs)))[..., None]


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys_with_and_without_multiplicities(ties):
    for _ in range(20):
        a, b = rng.normal(size=(2, 9))
        if ties:
            a, b = np.round(a), np.round(b)
        counts = rng.multinomial(9, np.full(9, 1 / 9), size=3)
        found = kendall(a, b, counts.astype(float))
        for tau, count in zip(found, counts, strict=True):
            expected = stats.kendalltau(np.repeat(a, count), np.repeat(b, count)).statistic
            assert tau == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert kendall(a, a)[0] == pytest.approx(1) and kendall(a, -a)[0] == pytest.approx(-1)
    assert np.isnan(kendall(a, np.zeros(9))[0])


def test_the_spread_leaves_out_what_a_seed_does_to_all_and_its_interval_holds_it():
    assert spread(rng.normal(size=(5, 1, 3))) is None
    hits, anywhere = 0, []
    for _ in range(300):
        of_config, of_seed = np.arange(6)[:, None, None], rng.normal(0, 5.0, size=(1, 3, 1))
        table = rng.normal(0, 2.0, size=(6, 3, 1)) + of_config + of_seed
        found, both = spread(table), spread(table, shared=True)
        assert found is not None and both is not None
        hits += found[0].low <= 2.0 <= found[0].high
        anywhere.append(both[0].value ** 2)
    assert 0.91 < hits / 300 < 0.985
    assert np.mean(anywhere) == pytest.approx(2.0**2 + 5.0**2, rel=0.2)


def test_agreement_is_the_mean_over_seeds_with_an_interval_around_it():
    early, late = rng.normal(size=(2, 12, 3))
    found = agreement(early, late)
    by_hand = np.mean([stats.kendalltau(early[:, s], late[:, s]).statistic for s in range(3)])
    assert found.value == pytest.approx(by_hand)
    assert found.low < found.value < found.high
    assert agreement(late, late).value == pytest.approx(1)
    tied = agreement(np.zeros((6, 2)), late[:6, :2])
    assert tied == (0, 0, 0), "where all is tied nothing is known"
    assert repeated(late[:, :1, None]) is None
    noise = repeated(rng.normal(size=(40, 4, 2)))
    assert noise is not None and noise.low < 0 < noise.high


@pytest.mark.parametrize("crossing", [1, 7, 15])
def test_it_finds_where_the_curves_cross(crossing):
    found = calibrate(curves(crossing), Rule(6), draws=300)
    assert found.safe == crossing
    assert found.stops and found.chosen.rule.grace >= crossing
    assert found.chosen.kept >= 0.9 and found.chosen.epochs < 1
    assert (found.usual.kept > 0.9) is (crossing <= 6)
    assert found.moments[-1].tau.value == pytest.approx(1)
    assert found.moments[-1].spread.value == pytest.approx(0.001, rel=0.3)
    if crossing > 1:
        assert found.moments[crossing - 2].tau.high < 0


def test_rungs_after_the_drops_are_one_more_rule_and_have_to_be_safe_as_well():
    found = calibrate(curves(11), Rule(6), draws=300, listed=(11, 16))
    assert found.chosen.rule.rungs == (11, 16) and found.chosen.rule.grace == 11
    without = calibrate(curves(11), Rule(6), draws=300)
    assert without.chosen.rule.rungs is None and found.chosen.epochs < without.chosen.epochs
    early = calibrate(curves(13), Rule(6), draws=300, listed=(11, 16))
    assert early.chosen.rule.rungs is None and early.chosen.rule.grace >= 13


def test_where_they_cross_at_the_very_end_nothing_is_stopped():
    found = calibrate(curves(20), Rule(6), draws=300)
    assert found.safe is None and not found.stops
    assert found.chosen.epochs == 1 and found.chosen.kept == 1


def test_where_all_is_noise_lots_are_not_drawn():
    found = calibrate(rng.normal(0.5, 0.01, size=(12, 3, 10, 1)), Rule(3), draws=300)
    assert found.safe is None and not found.stops
    assert found.again is not None and found.again.low < 0 < found.again.high


def test_one_seed_says_when_but_not_what_is_noise():
    found = calibrate(curves(7, seeds=1), Rule(6), draws=300)
    assert found.again is None and found.moments[0].spread is None and found.anywhere == ()
    assert found.safe == 7 and found.chosen.rule.tolerance == 0


def fronts(crossing: list[int], configs: int = 14, seeds: int = 3, epochs: int = 20):
    """Each exit best at another config, its own order reversed until an epoch of its own."""
    draws = np.random.default_rng(1)
    place = np.linspace(0, 1, configs)[:, None, None]
    epoch = np.arange(1, epochs + 1)
    columns = []
    for exit_, crosses in enumerate(crossing):
        worth = -0.1 * (place - exit_ / max(1, len(crossing) - 1)) ** 2
        sign = np.where(epoch < crosses, -1, 1)
        columns.append(0.5 + sign * worth + draws.normal(0, 0.001, (configs, seeds, epochs)))
    return np.stack(columns, axis=-1)


def test_of_a_front_the_exit_that_crosses_last_says_when():
    found = calibrate(fronts([1, 9]), Rule(6), draws=200)
    assert found.safe == 9 and found.chosen.rule.grace >= 9
    moment = found.moments[4]
    assert moment.taus[0].low > 0 > moment.taus[1].high and moment.tau == moment.taus[1]
    assert len(found.anywhere) == 2 and moment.spread == max(moment.spreads)
    assert found.chosen.kept >= 0.95
    # where every config is the best at some trade no rung beats much, so less is saved
    first = calibrate(fronts([1, 9])[..., :1], Rule(6), draws=200)
    assert found.chosen.epochs > first.chosen.epochs


def test_a_front_of_equal_exits_is_calibrated_as_one_number_is():
    one = curves(7)
    found, alone = (calibrate(made, Rule(6), draws=200) for made in (np.repeat(one, 3, 3), one))
    assert found.safe == alone.safe and found.moments[3].taus == alone.moments[3].taus * 3
    assert found.chosen == alone.chosen and found.usual == alone.usual


def test_what_networks_cost_says_who_is_beaten_and_is_no_noise():
    cost = np.broadcast_to(-np.arange(16.0)[:, None, None, None], (16, 3, 20, 1))
    priced = np.concatenate([curves(1), cost], axis=3)  # the better, the dearer: all on the front
    found = calibrate(priced, Rule(6), draws=200, exits=1)
    assert len(found.anywhere) == 1 and len(found.moments[0].taus) == 1
    assert found.usual.kept == found.usual.epochs == 1
    priced = np.concatenate([curves(1), -cost], axis=3)  # the better, the cheaper: one beats all
    found = calibrate(priced, Rule(6), draws=200, exits=1)
    assert found.usual == calibrate(curves(1), Rule(6), draws=200).usual


def test_too_little_is_refused():
    for shape in ((4, 3, 9, 1), (9, 3, 1, 1)):
        with pytest.raises(ValueError, match="cannot be calibrated"):
            calibrate(np.zeros(shape), Rule(1))


def test_safe_is_what_is_so_ever_after():
    assert first_safe([True, False, True, True], [True] * 4) == 3
    assert first_safe([True] * 4, [False, True, True, True]) == 2
    assert first_safe([True, False], [True, True]) is None
