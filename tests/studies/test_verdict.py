"""What is said of a study: honest, and the same numbers as in its trials."""

import re

import pytest

from studies import verdict as v
from studies.plan import StudyPlan
from studies.states import Outcome
from tests.studies import made_up
from trainers.config import TrialConfig

PLAN = made_up.plan(trials=4)


def outcome(
    number: int, accuracies: list[float], alpha: float = 3.0, value: float | None = None, **more
) -> Outcome:
    """A full-length trial of one α, unless `more` says otherwise."""
    config = PLAN.base.with_(alpha=alpha)
    fields = {
        "config": config,
        "params": {"alpha": alpha},
        "value": sum(accuracies) / len(accuracies) if value is None else value,
        "epochs": config.epochs,
        "report": made_up.report(config, config.epochs, accuracies),
        "start": alpha == 3.0,
    }
    return made_up.outcome(number, more.pop("state", "COMPLETE"), **{**fields, **more})


DEFAULT = outcome(0, [0.60, 0.70, 0.72, 0.74])
BETTER = outcome(1, [0.62, 0.71, 0.73, 0.75], alpha=10.0)
DEEP = outcome(2, [0.50, 0.60, 0.70, 0.80], alpha=0.5)
WORSE = outcome(3, [0.50, 0.60, 0.62, 0.70], alpha=100.0)


def test_the_best_is_compared_with_the_papers_default() -> None:
    text = v.verdict([DEFAULT, BETTER, DEEP, WORSE], PLAN)
    assert text.startswith("Trial 1 (alpha = 10) has the best anytime accuracy of 4 full-length")
    assert "70.25 % on the validation split, 1.25 points over the paper's default (69.00 %)" in text
    assert "n = 1, unconfirmed" in text
    assert "proves nothing" in text


def test_a_default_that_nothing_beats_is_said_so() -> None:
    text = v.verdict([DEFAULT, DEEP, WORSE, WORSE.model_copy(update={"number": 9})], PLAN)
    assert text.startswith("None of the 3 other trials that ran their full length beats the paper")
    assert "n = 1, unconfirmed" in text


def test_the_default_alone_compares_with_nothing() -> None:
    text = v.verdict([DEFAULT], PLAN.with_(trials=1))
    assert text.startswith("Only the paper's default has run its full length")
    assert "n = 1, unconfirmed" in text


def test_a_lone_other_trial_compares_with_nothing() -> None:
    text = v.verdict([DEEP], PLAN.with_(trials=1))
    assert "Trial 2 (alpha = 0.5) alone has run its full length" in text


def test_equal_values_are_level_and_the_earlier_is_named() -> None:
    twin = outcome(1, [0.61, 0.70, 0.72, 0.73], alpha=9.0, value=DEFAULT.value)
    text = v.verdict([DEFAULT, twin], PLAN.with_(trials=2))
    assert text.startswith("The other full-length trial does not beat the paper's default")
    missing = v.verdict([twin, DEEP], PLAN.with_(trials=2))
    assert "no full-length run of the paper's default" in missing


@pytest.mark.parametrize("state", ["WAITING", "RUNNING"])
def test_a_search_that_goes_on_is_said_so(state: str) -> None:
    text = v.verdict([DEFAULT, BETTER, made_up.outcome(2, state)], PLAN.with_(trials=3))
    assert text.startswith("So far (2 of 3 trials done), trial 1 ")


def test_nothing_finished() -> None:
    stopped = outcome(1, [0.9] * 4, alpha=9.0, state="PRUNED")
    text = v.verdict([stopped, made_up.outcome(2, "WAITING")], PLAN.with_(trials=2))
    assert text == (
        "No trial has run its full length (1 stopped early, 1 waiting): nothing can be said yet."
    )
    assert v.recommendation([stopped], PLAN).startswith("There is no network to take")
    assert v.verdict([], PLAN).startswith("No trial has run its full length (no trial)")


def test_diverged_trials_are_not_called_stopped_early() -> None:
    lost = [outcome(n, [0.1] * 4, alpha=9.0, state="PRUNED", diverged=True) for n in (1, 2)]
    stopped = outcome(3, [0.9] * 4, alpha=9.0, state="PRUNED")
    waiting = made_up.outcome(4, "WAITING")
    assert v.states_text([stopped, *lost, waiting, DEFAULT]) == (
        "1 complete, 1 stopped early, 2 diverged, 1 waiting"
    )
    assert v.verdict([*lost, stopped], PLAN) == (
        "No trial has run its full length (1 stopped early, 2 diverged): nothing can be said yet."
    )
    assert v.verdict([*lost, waiting], PLAN).endswith(
        "(2 diverged, 1 waiting): nothing can be said yet."
    )
    assert v.verdict(lost, PLAN) == (
        "Every one of 2 trials diverged (its loss was not finite): nothing can be said. "
        "Lower lr, or the strength of the distillation."
    )
    assert v.verdict(lost[:1], PLAN).startswith("The only trial diverged (its loss was not finite)")


def test_stopped_failed_and_diverged_trials_count_nowhere() -> None:
    others = [
        outcome(5, [0.99] * 4, alpha=9.0, state="PRUNED"),
        outcome(6, [0.99] * 4, alpha=9.0, state="FAIL"),
        outcome(7, [0.99] * 4, alpha=9.0, diverged=True),
        outcome(8, [0.99] * 4, alpha=9.0, report=None),
    ]
    everything = [DEFAULT, BETTER, *others]
    assert [o.number for o in v.finished(everything)] == [0, 1]
    assert set(v.curves(everything)) == {0, 1}
    taken = v.recommended(everything)
    assert taken is not None
    assert taken.number == 1


def test_the_recommendation_says_why_and_what_it_costs() -> None:
    text = v.recommendation([DEFAULT, BETTER, DEEP, WORSE], PLAN)
    assert text.startswith(
        "Take trial 1: 2 of the 4 full-length networks are not beaten as a whole"
    )
    assert "Exit 1 62.00 % at 99.19 MFLOPs" in text
    assert "trial 2 is 5.00 points better at exit 4" in text
    assert "exit 1." not in text.split("matters more")[1]
    assert "n = 1, unconfirmed" in text


def test_a_network_that_beats_all_others_has_no_rival() -> None:
    text = v.recommendation([DEFAULT, BETTER, WORSE], PLAN)
    assert "the only one that no other beats as a whole" in text
    assert "matters more" not in text


def test_deployable_networks_come_first() -> None:
    """A dominated network with a high value is exported after a whole one with a lower."""
    nearly = outcome(4, [0.62, 0.71, 0.73, 0.74], alpha=11.0)
    order = v.recommended_first([WORSE, DEEP, nearly, BETTER])
    assert [o.number for o in order] == [1, 2, 4, 3]
    assert [o.number for o in v.ranked([WORSE, DEEP, nearly, BETTER])] == [1, 4, 2, 3]


def test_of_equal_values_the_whole_network_is_taken() -> None:
    dominated = outcome(0, [0.5, 0.6, 0.7, 0.8], value=0.7)
    whole = outcome(1, [0.5, 0.6, 0.7, 0.9], alpha=5.0, value=0.7)
    taken = v.recommended([dominated, whole])
    assert taken is not None
    assert taken.number == 1


def test_the_papers_default_is_found_by_its_settings() -> None:
    config = TrialConfig(dataset="cifar100")
    assert v.is_paper_default(config)
    assert v.is_paper_default(config.with_(alpha=(3.0,) * 4, alpha_teacher=3.0))
    same = config.with_(temperatures=(3.0, 3.0), temperature=1.0, exit_weights=(1.0,) * 4)
    assert v.is_paper_default(same)
    for changes in (
        {"alpha": 4.0},
        {"alpha": (3.0, 3.0, 3.0, 4.0)},
        {"alpha_teacher": 1.0},
        {"scheme": "mate_gate"},
        {"temperature": 4.0},
        {"kd_weight": 0.5},
        {"t_squared": True},
        {"kl": "reverse"},
        {"ramp_up": 5},
        {"attached": True},
        {"temperatures": (3.0, 1.0)},
        {"exit_weights": (1.0, 1.0, 1.0, 0.5)},
        {"mix_width": 0.25},
        {"mix_scale": 50.0},
        {"mix_init": 0.0},
        {"mix_lr": 0.0},
    ):
        assert not v.is_paper_default(config.with_(**changes)), changes


def test_the_reference_is_the_papers_default_else_the_first_start() -> None:
    first = outcome(0, [0.5] * 4, alpha=1.0, start=True)
    papers = DEFAULT.model_copy(update={"number": 2})
    found = v.reference([first, BETTER, papers])
    assert found is not None
    assert (found.number, v.reference_name(found)) == (2, "the paper's default")
    found = v.reference([first, BETTER])
    assert found is not None
    assert (found.number, v.reference_name(found)) == (0, "the starting point")
    assert v.reference([BETTER]) is None


@pytest.mark.parametrize(
    ("objective", "name", "value"),
    [
        ("anytime", "anytime accuracy", "70.00 %"),
        ("mean", "mean accuracy", "70.00 %"),
        ("last", "accuracy of the last exit", "70.00 %"),
        ("exit:2", "accuracy of exit 2", "70.00 %"),
        ("hypervolume", "hypervolume", "0.7000"),
    ],
)
def test_objectives_in_words(objective: str, name: str, value: str) -> None:
    assert v.objective_name(objective) == name
    assert v.value_text(objective, 0.7) == value


def test_a_hypervolume_is_never_called_points() -> None:
    plan: StudyPlan = PLAN.with_(objective="hypervolume")
    text = v.verdict([DEFAULT, BETTER, DEEP, WORSE], plan)
    assert "best hypervolume of 4" in text
    assert "points" not in text
    assert "%" not in re.sub(r"\(.*?\)", "", text)


def test_failures_are_told_once_for_all_that_failed_alike() -> None:
    failed = [made_up.outcome(n, "FAIL", reason=why) for n, why in enumerate("aabacde")]
    said = "trials 0, 1 and 3: a; trial 2: b; trial 4: c; and 2 more"
    assert v.failures_text(failed) == said
    assert v.failures_text(failed[2:3]) == "trial 2: b"


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [v.signed(value) for value in (0.004, -0.004, 0.006, -0.006)] == [
        "0.00", "0.00", "+0.01", f"{v.MINUS}0.01",
    ]  # fmt: skip


def test_numbers_are_short() -> None:
    assert v.setting({"alpha": 30.2345, "scheme": "mate", "n": 7}) == (
        "alpha = 30.2, scheme = mate, n = 7"
    )
    assert len(v.number_text("x" * 500)) == 60
    assert v.flops_text(99_185_800) == "99.19 M"
    assert v.flops_text(1_087_250_000) == "1087.25 M"
    assert v.flops_text(102_400) == "102.4 k"


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "epoch", "1 epoch"), (0, "seed", "0 seeds"), (2, "study", "2 studies"),
     (1200, "epoch", "1,200 epochs")],
)  # fmt: skip
def test_one_is_not_several(number: int, noun: str, said: str) -> None:
    assert v.count_text(number, noun) == said
