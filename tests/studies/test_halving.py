"""What rules keep and cost: against loops by hand over the rungs' own rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.halving import Rule, outcome, passing, pools
from studies.rungs import keeps, keeps_front, rung_epochs

rng = np.random.default_rng(0)


@pytest.mark.parametrize("rule", [Rule(2), Rule(1, 3), Rule(3, 2, 0.4), Rule(8), Rule(2, 4, 0.1)])
def test_a_rule_does_what_a_loop_over_its_rungs_does(rule):
    searches = rng.normal(size=(30, 7, 8))
    kept, lost, trained = [], [], []
    for search in searches:
        alive, spent = list(range(7)), 0
        before = 0
        for rung in rung_epochs(rule.grace, rule.eta, 8):
            spent += len(alive) * (rung - before)
            seen = [search[n, rung - 1] for n in alive]
            alive = [n for n in alive if keeps(search[n, rung - 1], seen, rule.eta, rule.tolerance)]
            before = rung
        spent += len(alive) * (8 - before)
        gap = search[:, -1].max() - max(search[n, -1] for n in alive)
        kept.append(gap <= 0.5)
        lost.append(gap)
        trained.append(spent / 56)
    found = outcome(searches[..., None], rule, 0.5)
    assert found.kept == pytest.approx(np.mean(kept))
    assert found.loss == pytest.approx(np.mean(lost))
    assert found.epochs == pytest.approx(np.mean(trained))


# Few values, so that ties and dominance are common.
@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(0, 1),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.1, 0.25]),
)
@settings(max_examples=60, deadline=None)
def test_a_rung_passes_what_the_rungs_own_rule_passes(seed, exits, costs, eta, tolerance):
    draws = np.random.default_rng(seed)
    seen = draws.integers(0, 6, size=(3, 8, exits + costs)) / 10
    alive = draws.random((3, 8)) < 0.7
    found = passing(seen, alive, Rule(1, eta, tolerance), exits)
    for search in range(3):
        rows = [tuple(row) for row in seen[search, alive[search]].tolist()]
        expected = [keeps_front(row, rows, eta, tolerance, exits) for row in rows]
        assert found[search, alive[search]].tolist() == expected
    assert not found[~alive].any()


def test_of_a_front_what_nothing_kept_is_as_good_as_is_lost():
    # one search of four trials, two exits, two epochs; the last two are stopped after the first
    early = [(0.9, 0.1), (0.1, 0.9), (0.05, 0.05), (0.0, 0.0)]
    ends = [(0.5, 0.5), (0.2, 0.8), (0.56, 0.52), (0.1, 0.1)]
    search = np.array([early, ends]).transpose(1, 0, 2)[None]
    rule = Rule(1, rungs=(1,))
    # on the front at the end: the second and the third, which the first misses by 0.06 at an exit
    strict = outcome(search, rule)
    assert (strict.kept, strict.epochs) == (0.5, 0.75)
    assert strict.loss == pytest.approx(0.06 / 2)
    assert outcome(search, rule, 0.05).kept == 0.5
    assert outcome(search, rule, 0.06).kept == 1
    assert outcome(search, rule, [0.06, 0.0]).kept == 0.5, "by 0.02 at the other exit"
    assert outcome(search, rule, [0.06, 0.02]).kept == 1

    def priced(*costs):
        column = np.broadcast_to(-np.array(costs, float)[:, None], (4, 2))[None, ..., None]
        return outcome(np.concatenate([search, column], axis=3), rule, 0.06, exits=2)

    # what stands in for a network costs no more
    assert priced(2, 2, 2, 9).kept == 1
    assert priced(3, 2, 2, 9).kept < 1


def test_searches_are_drawn_from_the_curves_and_always_the_same():
    table = rng.normal(size=(4, 2, 3, 1))
    drawn = pools(table, draws=50)
    assert drawn.shape == (50, 4, 3, 1) and np.array_equal(drawn, pools(table, draws=50))
    for search in drawn:  # all of one seed
        rows = {tuple(row) for row in search[..., 0]}
        assert any(rows <= {tuple(row) for row in table[:, s, :, 0]} for s in range(2))
    assert pools(table, draws=2, trials=9).shape == (2, 9, 3, 1)
