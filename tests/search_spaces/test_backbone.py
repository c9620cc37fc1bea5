"""The space of networks: what it offers, the box that holds them all, a search through it."""

from math import isclose
from pathlib import Path

import pytest

from search_spaces import load_space
from studies.plan import Finalist, StudyPlan
from studies.record import StudyRecord
from studies.report import write_report
from studies.resume import box_of, config_at, corner_configs, first_points
from studies.search import EPOCH, TRIAL, estimate, make_plan, search
from tests.search_spaces.test_spaces import ask
from tests.studies import made_up
from trainers.catalog import BACKBONES, InputError
from trainers.config import TrialConfig
from trainers.costs import costs

SPACE = load_space("backbone")
CIFAR = TrialConfig(dataset="cifar100", epochs=3)
BIRDS = TrialConfig(dataset="./birds", classes=200, image_size=224, backbone="resnet18")
RUNTIME = {"workers": 1, "threads": 1, "device": "cpu", "precision": "fp32"}


def offered(base: TrialConfig) -> set[str]:
    return {config_at(SPACE, base, point).backbone for point in SPACE.starts(base)}


def test_networks_are_those_that_take_the_images():
    for base in (CIFAR, BIRDS):
        takes = {name for name, e in BACKBONES.items() if base.image_size in e.image_sizes}
        assert offered(base) == takes
        assert len(takes) > 3


def test_digits_have_one_network_and_search_its_width_alone():
    trial, config = ask(SPACE, TrialConfig())
    assert set(trial.params) == {"width", "alpha"}
    assert config.backbone == "cnn4"


@pytest.mark.parametrize("seed", range(12))
def test_one_alpha_fits_networks_of_any_number_of_exits(seed):
    trial, config = ask(SPACE, CIFAR.with_(alpha=(30, 5, 10, 10)), seed=seed)
    assert config.alpha_per_exit() == (trial.params["alpha"],) * config.exits
    assert 0.25 <= config.width <= 1
    assert config.with_(backbone="vgg16", width=1, alpha=3.0) == CIFAR


def test_schemes_without_alpha_search_none():
    base = CIFAR.with_(scheme="eed", alpha=(30, 5, 10, 10))
    trial, config = ask(SPACE, base, {"backbone": "msdnet", "width": 0.5})
    assert set(trial.params) == {"backbone", "width"}
    assert (config.exits, config.scheme) == (5, "eed")


@pytest.mark.parametrize("name", ["exit_weights", "alpha_teacher"])
def test_a_value_per_exit_keeps_to_networks_of_as_many(name):
    networks = offered(CIFAR.with_(**{name: (1, 2, 3, 4)}))
    assert "msdnet" not in networks and "vgg16" in networks
    assert offered(CIFAR.with_(backbone="msdnet", **{name: (1, 2, 3, 4, 5)})) == {"msdnet"}


def test_a_users_own_network_and_width_are_in_the_space(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("EXITS = 3")
    base = CIFAR.with_(backbone=str(path), width=2.0)
    assert str(path) in offered(base)
    first = config_at(SPACE, base, SPACE.starts(base)[0])
    assert (first.backbone, first.width) == (str(path), 2.0)


def test_starts_beside_the_default_are_narrow():
    default, *others = (config_at(SPACE, CIFAR, point) for point in SPACE.starts(CIFAR))
    assert (default.backbone, default.width) == ("vgg16", 1.0)
    assert {config.width for config in others} == {0.25}


@pytest.mark.parametrize("base", [TrialConfig(), CIFAR], ids=lambda base: base.dataset)
def test_the_box_holds_the_smallest_and_the_largest_network(base):
    plan = made_up.plan("backbone", objective="hypervolume").with_(base=base)
    low, high, accuracy = box_of(SPACE, plan, first_points(SPACE, plan)[0])
    assert isclose(accuracy, 1 / base.classes)
    corners = corner_configs(SPACE, base)
    assert {(config.backbone, config.width) for config in corners} == {
        (name, width) for name in offered(base) for width in (0.25, 1.0)
    }
    between = [ask(SPACE, base, seed=seed)[1] for seed in range(3)]
    flops = [cost.flops for config in (*corners, *between) for cost in costs(config)]
    assert low < min(flops) and max(flops) < high


def test_the_objective_is_the_spaces_own_unless_another_is_asked_for():
    assert make_plan("backbone", **RUNTIME).objective == "hypervolume"
    assert make_plan("backbone", objective="hypervolume", **RUNTIME).objective == "hypervolume"
    assert make_plan("single_alpha", **RUNTIME).objective == "anytime"
    assert make_plan("single_alpha", objective="last", **RUNTIME).objective == "last"
    assert make_plan("single_alpha", objective="front", **RUNTIME).objective == "front"
    assert make_plan("backbone", objective="front", **RUNTIME).objective == "front+flops"


@pytest.mark.parametrize("objective", ["anytime", "mean", "last", "exit:2"])
def test_objectives_that_see_no_cost_are_refused(objective):
    with pytest.raises(InputError, match=f"objective {objective} does not see") as caught:
        make_plan("backbone", objective=objective, **RUNTIME)
    assert "\n" not in str(caught.value)


def test_a_users_space_may_bring_an_objective(tmp_path):
    path = tmp_path / "mine.py"
    text = (
        "def starts(base): return [{'t': 3.0}]\n"
        "def suggest(trial, base): return base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )
    path.write_text(f"OBJECTIVE = 'last'\n{text}")
    assert make_plan(str(path), **RUNTIME).objective == "last"
    assert make_plan(str(path), objective="mean", **RUNTIME).objective == "mean"
    path.write_text(f"OBJECTIVE = 'lost'\n{text}")
    with pytest.raises(InputError, match="unknown objective 'lost'"):
        make_plan(str(path), **RUNTIME)


def test_the_estimate_is_of_the_dearest_network(monkeypatch):
    from studies import machine as module

    monkeypatch.setattr(module, "measure", lambda *given: module.Speed(1000.0, 1))
    one = estimate(make_plan("single_alpha", width=0.25, trials=5, **RUNTIME))
    all_ = estimate(make_plan("backbone", width=0.25, trials=5, **RUNTIME))
    flops = [costs(TrialConfig(width=w))[-1].flops_cascade for w in (0.25, 1.0)]

    def grown(seconds: float, trials: int, epochs: int) -> float:
        beyond = trials * (epochs * EPOCH + TRIAL)  # that does not grow with the network
        return pytest.approx((seconds - beyond) * flops[1] / flops[0] + beyond)

    assert all_.seconds == grown(one.seconds, 5, 30)
    assert all_.disk > one.disk
    base, trials = TrialConfig(width=0.25, epochs=5, limit_train=60), 6
    rows = [Finalist(name="default", trial=0, config=base, said=None)]
    rows.append(Finalist(name="wide", trial=1, config=base.with_(width=1.0), said=0.5))
    race = StudyPlan(
        base=base, study="x-confirm", space="confirm:x", trials=trials, grace=5, sampler="grid",
        early_stopping=False, finalists=tuple(rows), race=(1, 1, 1),
    )  # fmt: skip
    narrow = race.with_(finalists=(rows[0], rows[1].model_copy(update={"config": base})))
    one, all_ = estimate(narrow), estimate(race)
    assert all_.seconds == grown(one.seconds, trials, 5)
    assert all_.disk > one.disk


def test_a_search_through_widths_of_digits(tmp_path: Path):
    plan = make_plan("backbone", epochs=2, trials=3, **RUNTIME)
    record = search(plan, runs=tmp_path)
    outcomes = record.outcomes()
    widths = {outcome.config.width for outcome in outcomes}
    assert len(widths) == 3 and 1.0 in widths
    done = [outcome for outcome in outcomes if outcome.state == "COMPLETE"]
    assert done and all(0 < outcome.value < 1 for outcome in done)
    assert {o.report.exits[-1].flops for o in done} == {costs(o.config)[-1].flops for o in done}
    box = record._box
    record.close()
    again = StudyRecord.create_or_open(plan, runs=tmp_path)
    assert again._box == box
    again.close()


@pytest.mark.parametrize("objective", ["hypervolume", "front+flops"])
def test_a_study_of_four_and_five_exits_is_reported(tmp_path: Path, objective: str):
    plan = made_up.plan("backbone", 12, objective=objective, base={"epochs": 3}, grace=1)
    record = made_up.search(StudyRecord.create_or_open(plan, runs=tmp_path))
    exits = {len(o.report.exits) for o in record.outcomes() if o.state == "COMPLETE"}
    assert exits == {4, 5}
    text = write_report([record], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "hypervolume" in text and "msdnet" in text
    record.close()
