import math
import random

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.plan import default_grace, settled_grace
from studies.rungs import after_drops, keeps, keeps_front, places, rung_epochs, runs_on
from trainers.catalog import InputError
from trainers.config import TrialConfig

DISTINCT = st.lists(
    st.floats(0, 1, allow_nan=False).map(lambda v: round(v, 6)),
    min_size=1,
    max_size=30,
    unique=True,
)


@pytest.mark.parametrize(
    ("grace", "eta", "epochs", "expected"),
    [
        (10, 2, 30, [10, 20]),
        (10, 2, 40, [10, 20]),  # the last epoch is no rung
        (1, 3, 28, [1, 3, 9, 27]),
        (100, 3, 300, [100]),
        (30, 2, 30, []),
        (1, 2, 1, []),
    ],
)
def test_rungs_are_grace_times_powers_of_eta_before_the_end(grace, eta, epochs, expected):
    assert rung_epochs(grace, eta, epochs) == expected


@given(
    st.lists(st.integers(-1, 31), max_size=5),
    st.none() | st.integers(1, 31),
    st.integers(2, 4),
    st.integers(1, 30),
)
def test_given_rungs_are_those_that_are_judged_or_are_refused(listed, grace, eta, epochs):
    rising = sorted(set(listed)) == listed and bool(listed)
    if rising and listed[0] >= 1 and listed[-1] < epochs and grace in (None, listed[0]):
        assert settled_grace(grace, listed, epochs) == listed[0]
        assert rung_epochs(listed[0], eta, epochs, listed) == listed
    else:
        with pytest.raises(InputError) as caught:
            settled_grace(grace, listed, epochs)
        assert "\n" not in str(caught.value)
    if grace is None or grace <= epochs:
        first = settled_grace(grace, None, epochs)
        assert first == (grace or default_grace(epochs))
        made = rung_epochs(first, eta, epochs)
        # what grace and eta come to can be given, and is the same then
        assert not made or settled_grace(first, made, epochs) == first
        assert rung_epochs(first, eta, epochs, made) == made


@given(st.integers(1, 300))
def test_rungs_after_the_drops_can_be_given_and_follow_each_drop_within_the_run(epochs):
    milestones = TrialConfig(epochs=epochs).milestones
    found = after_drops(milestones, epochs)
    assert set(found) == {drop + 1 for drop in milestones if drop + 1 < epochs}
    if found:
        assert settled_grace(None, found, epochs) == found[0]
    assert after_drops((), epochs) == ()
    assert after_drops((15, 22), 30) == (16, 23)


@pytest.mark.parametrize(
    ("value", "values", "eta", "kept"),
    [
        (0.5, [0.5], 2, True),  # the first is always among the best 1
        (0.5, [0.6, 0.5], 2, False),
        (0.6, [0.6, 0.5], 2, True),
        (0.5, [0.7, 0.6, 0.5, 0.4], 2, False),
        (0.6, [0.7, 0.6, 0.5, 0.4], 2, True),
        (0.6, [0.7, 0.6, 0.5], 2, False),  # floor(3 / 2) = 1
        (0.5, [0.5, 0.5, 0.5], 2, True),  # ties are kept
        (0.6, [0.7, 0.6, 0.6, 0.5], 2, True),
        (0.6, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 3, True),
        (0.5, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 3, False),
    ],
)
def test_the_best_one_in_eta_pass(value, values, eta, kept):
    assert keeps(value, values, eta) is kept


def test_a_diverged_trial_never_passes_and_is_no_rival():
    nan = math.nan
    assert not keeps(nan, [nan], 2)
    assert not keeps(nan, [0.1, nan], 2)
    # Of two finite values the second best does not pass, however many NaN lie below it.
    assert not keeps(0.5, [0.6, 0.5, nan, nan, nan], 2)
    assert keeps(0.6, [0.6, 0.5, nan, nan, nan], 2)


@given(DISTINCT, st.integers(2, 5))
def test_as_many_pass_as_there_are_places(values, eta):
    assert sum(keeps(value, values, eta) for value in values) == places(len(values), eta)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=20), st.integers(2, 4))
def test_the_order_of_the_history_does_not_matter(values, eta):
    shuffled = random.Random(0).sample(values, len(values))
    assert keeps(values[-1], values, eta) == keeps(values[-1], shuffled, eta)


@given(DISTINCT, st.sets(st.integers(0, 29)), st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_decisions_are_those_of_optunas_successive_halving(values, diverged, eta, grace):
    values = [math.nan if i in diverged else value for i, value in enumerate(values)]
    epochs = grace * eta**3
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=eta)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    seen: dict[int, list[float]] = {epoch: [] for epoch in rung_epochs(grace, eta, epochs)}
    for value in values:
        trial = study.ask()
        # Optuna compares at its rung 0 what we compare after `grace` epochs, and so on.
        for epoch, at_rung in seen.items():
            trial.report(value, epoch)
            at_rung.append(value)
            ours = not keeps(value, at_rung, eta)
            assert trial.should_prune() == ours
            if ours:
                break


def test_what_is_within_the_tolerance_of_the_last_place_passes():
    values = [0.70, 0.60, 0.59, 0.50]
    assert not keeps(0.59, values, 2)
    assert keeps(0.59, values, 2, tolerance=0.02)
    assert not keeps(0.50, values, 2, tolerance=0.02)


# Few values, so that ties and dominance are common.
ACCURACY = st.integers(0, 6).map(lambda tenths: tenths / 10)
ETA, NOISE = st.integers(2, 4), st.sampled_from([0.0, 0.05, 0.1, 0.25])


@st.composite
def fields(draw, least=1, most=4, broken=False):
    """The trials of a rung, a row each: `least` to `most` exits; the last row is the one judged."""
    width = draw(st.integers(least, most))
    row = st.tuples(*[ACCURACY] * width)
    if broken:
        row |= st.just((math.nan,) * width)
    return draw(st.lists(row, min_size=1, max_size=12))


@given(fields(), ETA, NOISE)
def test_a_trial_that_beats_all_others_is_never_stopped(rows, eta, noise):
    best = tuple(max(column) for column in zip(*rows, strict=True))
    for own in (best, (best[0] + 0.1, *best[1:])):
        assert keeps_front(own, [*rows, own], eta, noise)
        assert keeps_front((*own, -5.0), [*((*row, -9.0) for row in rows), (*own, -5.0)], eta)


@given(fields(broken=True), ETA, NOISE, st.randoms(use_true_random=False))
def test_the_order_of_trials_and_of_exits_does_not_matter(rows, eta, noise, random):
    kept = keeps_front(rows[-1], rows, eta, noise)
    assert keeps_front(rows[-1], random.sample(rows, len(rows)), eta, noise) is kept
    order = random.sample(range(len(rows[0])), len(rows[0]))
    turned = [tuple(row[i] for i in order) for row in rows]
    assert keeps_front(turned[-1], turned, eta, noise) is kept


@given(fields(most=1, broken=True), ETA, NOISE)
def test_with_one_exit_it_is_the_rule_of_one_value(rows, eta, noise):
    values = [row[0] for row in rows]
    assert keeps_front(rows[-1], rows, eta, noise) is keeps(values[-1], values, eta, noise)


def test_the_edge_of_the_tolerance_is_the_same_with_one_value_and_with_one_exit():
    assert keeps(0.3, [0.4, 0.3], 2, 0.1) and keeps_front([0.3], [[0.4], [0.3]], 2, 0.1)


@given(fields(broken=True), ETA, NOISE)
def test_who_is_stopped_is_beaten_as_a_whole_and_among_the_best_of_no_exit(rows, eta, noise):
    own = rows[-1]
    sound = [row for row in rows if not math.isnan(row[0])]
    if math.isnan(own[0]):
        assert not keeps_front(own, rows, eta, noise)
        return
    beaten = any(
        all(theirs >= mine + noise for theirs, mine in zip(row, own, strict=True))
        and any(theirs > mine + noise for theirs, mine in zip(row, own, strict=True))
        for row in sound
    )
    columns = list(zip(*sound, strict=True))
    best = any(keeps(own[i], column, eta, noise) for i, column in enumerate(columns))
    assert keeps_front(own, rows, eta, noise) is (not beaten or best)


@given(fields(least=2), ETA)
def test_a_larger_tolerance_never_stops_more(rows, eta):
    kept = [keeps_front(rows[-1], rows, eta, noise) for noise in (0.0, 0.05, 0.1, 0.3)]
    assert kept == sorted(kept)


@given(fields(), ETA, st.lists(st.integers(1, 3), min_size=12, max_size=12))
def test_a_cost_says_who_is_beaten_and_not_who_is_best(rows, eta, costs):
    exits, same = len(rows[0]), [(*row, -1.0) for row in rows]
    kept = keeps_front(rows[-1], rows, eta)
    assert keeps_front(same[-1], same, eta, exits=exits) is kept, "equal costs change nothing"
    priced = [(*row, -float(cost)) for row, cost in zip(rows, costs, strict=False)]
    cheapest = (*rows[-1], -0.5)
    assert keeps_front(cheapest, [*priced, cheapest], eta, exits=exits)
    dearest = (*rows[-1], -9.0)
    if not kept:
        assert not keeps_front(dearest, [*priced[:-1], dearest], eta, exits=exits)


def test_the_trial_that_a_sorted_list_read_as_ranks_would_stop_is_kept():
    """Syne Tune's MOASHA takes the trials' numbers, sorted by front, for their priorities."""
    rows = [(0.3, 0.3), (0.2, 0.2), (0.1, 0.1), (0.9, 0.9)]
    by_front = sorted(range(4), key=lambda number: rows[number], reverse=True)
    assert by_front == [3, 0, 1, 2]
    taken_for_the_rank_of_the_last = by_front[-1]
    assert taken_for_the_rank_of_the_last / len(rows) > 1 / 3, "it stops the best of all"
    assert keeps_front(rows[-1], rows, 3)


def ray_decisions(values: list[float], eta: int, grace: int, epochs: int) -> list[bool]:
    """Whether Ray's ASHA stops each of these trials, run one after the other, at its first rung."""
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="value",
        mode="max",
        grace_period=grace,
        reduction_factor=eta,
        max_t=epochs,
    )
    stopped = []
    for number, value in enumerate(values):
        trial = Trial("none", trial_id=str(number), stub=True)
        scheduler.on_trial_add(None, trial)
        decision = scheduler.on_trial_result(None, trial, {"epoch": grace, "value": value})
        stopped.append(decision == TrialScheduler.STOP)
    return stopped


@pytest.mark.slow  # imports ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_decisions_are_those_of_ray_where_the_rules_coincide():
    generator = np.random.default_rng(0)
    compared = 0
    for _ in range(50):
        values = generator.random(20).round(6).tolist()
        theirs = ray_decisions(values, eta=2, grace=3, epochs=100)
        for i, value in enumerate(values):
            if i % 2:  # an odd number of earlier values: Ray's cutoff is their median
                assert theirs[i] == (not keeps(value, values[: i + 1], 2))
                compared += 1
    assert compared == 500
    for eta in (2, 3, 4):
        rising = [i / 100 for i in range(1, 40)]
        assert not any(ray_decisions(rising, eta, 3, 100))
        assert all(keeps(v, rising[: i + 1], eta) for i, v in enumerate(rising))
        falling = rising[::-1]
        assert all(ray_decisions(falling, eta, 3, 100)[1:])
        assert not any(keeps(v, falling[: i + 1], eta) for i, v in enumerate(falling) if i)


@pytest.mark.slow  # imports ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_differs_where_the_docstring_says_so():
    assert ray_decisions([1.0, 2.0, 1.6], eta=2, grace=1, epochs=100) == [False, False, False]
    assert not keeps(1.6, [1.0, 2.0, 1.6], 2)
    assert ray_decisions([1.0, math.nan], eta=2, grace=1, epochs=100) == [False, False]
    assert not keeps(math.nan, [1.0, math.nan], 2)


def test_what_is_within_the_tolerance_of_the_threshold_passes():
    values = [0.5, 0.6, 0.7, 0.8]
    assert keeps(0.7, values, 2) and not keeps(0.69, values, 2)
    assert keeps(0.69, values, 2, tolerance=0.02) and not keeps(0.6, values, 2, tolerance=0.02)
    assert not keeps(float("nan"), values, 2, tolerance=1.0)


def test_who_runs_on_is_drawn_with_the_share_and_is_always_the_same():
    assert not any(runs_on(3, number, 0.0) for number in range(100))
    assert all(runs_on(3, number, 1.0) for number in range(100))
    drawn = [runs_on(seed, number, 0.05) for seed in range(20) for number in range(500)]
    assert drawn == [runs_on(seed, number, 0.05) for seed in range(20) for number in range(500)]
    assert 400 < sum(drawn) < 600, "5 % of 10,000, by more than 4 standard deviations"
    # of the same trial a larger share is drawn beside the smaller one's
    assert all(runs_on(1, n, 0.5) for n in range(500) if runs_on(1, n, 0.05))
