"""The table of experiments: every row makes valid configs, and its columns are the paper's."""

import pytest

from search_spaces import load_space
from studies import resume
from studies.experiment_figures import LOOKS, look
from studies.experiment_sections import SHOWS
from studies.experiments import EXPERIMENTS, arms_of, settled, space_of, trains
from studies.paper import paper
from studies.plan import StudyPlan
from tests.studies import made_up_experiments as made
from trainers.catalog import BACKBONES, DATASETS, InputError
from trainers.config import TrialConfig
from trainers.schemes import matched_kd_weight

TRAINED = [name for name in EXPERIMENTS if trains(name)]
DIGITS = TrialConfig(dataset="digits", epochs=2)


def schemes_of(name: str, base: TrialConfig) -> list[str]:
    return [str(arm.point["scheme"]) for arm in arms_of(name, base)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_arm_is_a_config(name):
    arms = arms_of(name, DIGITS)
    assert len({arm.key for arm in arms}) == len({arm.label for arm in arms}) == len(arms)
    assert len({DIGITS.with_(**arm.point).model_dump_json() for arm in arms}) == len(arms)


@pytest.mark.parametrize("name", TRAINED)
def test_arms_that_are_drawn_beside_each_other_look_different(name):
    lines = {arm.line: look(arm) for arm in arms_of(name, TrialConfig(dataset="cifar100"))}
    assert lines.keys() <= LOOKS.keys()
    drawn = [(s["line"]["color"], s["line"]["dash"], s["marker"]["symbol"]) for s in lines.values()]
    assert len(set(drawn)) == len(drawn)
    swept = {"alpha", "temperature"} & set(EXPERIMENTS[name].shows)
    if not swept:  # else the arms of a line are its points
        assert len(lines) == len(arms_of(name, TrialConfig(dataset="cifar100")))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_names_what_there_is(name):
    row = EXPERIMENTS[name]
    assert trains(name) <= (set(row.shows) <= set(SHOWS))
    assert row.arms is None or row.title and row.place
    for dataset in row.datasets:
        for backbone in row.backbones:
            if dataset in DATASETS and backbone in BACKBONES:
                size = DATASETS[dataset].image_size
                if size in BACKBONES[backbone].image_sizes:
                    TrialConfig(dataset=dataset, backbone=backbone)


@pytest.mark.parametrize("name", [n for n in TRAINED if EXPERIMENTS[n].table])
def test_the_papers_columns_are_arms(name):
    row = EXPERIMENTS[name]
    columns = {arm.column for arm in arms_of(name, DIGITS)} - {""}
    printed = {key for cells in paper().tables[row.table or ""].values() for key in cells}
    if name != "fig5":  # of which the paper prints the baseline alone
        assert columns <= printed
    if name in ("table2", "table3", "table4", "table6", "table7", "fig5"):
        assert printed <= columns
    if name == "table5":
        assert printed == {"optimal", "alpha_3", "diverse"}
    for arm in arms_of(name, DIGITS):
        assert not (arm.ours and arm.column)


@pytest.mark.parametrize("name", TRAINED)
def test_its_grid_is_every_arm_seed_by_seed_and_only_grows(name):
    short, long = made.plan(name, seeds=1, base=DIGITS), made.plan(name, seeds=3, base=DIGITS)
    first, starts = resume.first_points(space_of(short), short)
    every, _ = resume.first_points(space_of(long), long)
    assert starts == 0 and every[: len(first)] == first and len(every) == 3 * len(first)
    assert {point["seed"] for point in first} == {0}
    arms = {arm.key: arm for arm in arms_of(settled(name), DIGITS)}
    for point in every[:: max(1, len(every) // 5)]:
        config = resume.config_at(space_of(long), DIGITS, point)
        assert config == DIGITS.with_(**arms[point["arm"]].point, seed=point["seed"])


def test_only_some_arms():
    plan = made.plan("table2", seeds=2, base=DIGITS, only=("mate", "byot"))
    points, _ = resume.first_points(space_of(plan), plan)
    assert [(p["arm"], p["seed"]) for p in points] == [
        ("byot", 0), ("mate", 0), ("byot", 1), ("mate", 1),
    ]  # fmt: skip
    with pytest.raises(InputError, match="unknown arm of table2 'matte'.*did you mean 'mate'"):
        arms_of("table2", DIGITS, ("matte",))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="unknown experiment 'tabel2'.*did you mean 'table2'"):
        arms_of("tabel2", DIGITS)
    with pytest.raises(InputError, match="unknown space 'reproduce:table2'"):
        load_space("reproduce:table2")  # no way in for a search


def test_our_controls_stand_beside_the_papers_methods():
    base = TrialConfig(dataset="cifar100", kd_weight=2.0)
    arms = {arm.key: base.with_(**arm.point) for arm in arms_of("table2", base)}
    assert arms["eed_matched"].kd_weight == pytest.approx(2 * 4 * (1 + 3 / 7))
    assert arms["mate_fixed"].scheme == "mate_fixed" and arms["baseline"].exits == 1
    assert matched_kd_weight(0.0, 4) == 4 and matched_kd_weight(1e9, 4) == pytest.approx(8)


def test_the_open_settings_are_named_whatever_the_flags_say():
    base = TrialConfig(dataset="cifar100", augmentation="autoaugment", t_squared=True)
    arms = {arm.key: base.with_(**arm.point) for arm in arms_of("recipe", base)}
    assert {key: (c.scheme, c.augmentation, c.t_squared) for key, c in arms.items()} == {
        "branchynet": ("branchynet", "crop_flip", False),
        "branchynet_autoaugment": ("branchynet", "autoaugment", False),
        "mate": ("mate", "crop_flip", False),
        "mate_autoaugment": ("mate", "autoaugment", False),
        "mate_t_squared": ("mate", "crop_flip", True),
    }


def test_exit_weights_do_not_hinder_the_baseline():
    base = TrialConfig(dataset="cifar100", exit_weights=(1, 2, 3, 4), alpha=(1, 2, 3, 4))
    for arm in arms_of("table2", base):
        base.with_(**arm.point)


@pytest.mark.parametrize(
    "wrong",
    [
        {"space": "single_alpha", "purpose": "reproduce"},
        {"space": "single_alpha", "purpose": "final-holdout"},
        {"space": "single_alpha", "each_epoch": True},
        {"space": "single_alpha", "rule": "paper"},
        {"space": "reproduce:table2", "purpose": "search"},
        {"space": "reproduce:table2", "purpose": "reproduce", "early_stopping": True},
    ],
)
def test_a_search_can_never_be_told_to_open_the_test_split(wrong):
    fields = {"study": "s", "base": DIGITS, "trials": 1, "grace": 1, "early_stopping": False}
    with pytest.raises(InputError):
        StudyPlan(**{**fields, **wrong})


def test_a_plan_that_an_older_version_stored_is_a_search():
    plan = StudyPlan(study="s", space="single_alpha", base=DIGITS, trials=1, grace=1)
    assert plan.purpose == "search" and plan.experiment is None
