import math
import random

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.rungs import keeps, places, rung_epochs

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
