"""Every space, by the table: its starts are points of it, and what it suggests is a config."""

import json
import subprocess
import sys

import optuna
import pytest

from search_spaces import load_space, names
from studies.resume import config_at
from studies.verdict import is_paper_default
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.schemes import SCHEMES

BASES = [TrialConfig(), TrialConfig(dataset="cifar100", epochs=3)]
FIVE = "EXITS = 5  # parsed, not run"


def ask(space, base, point=None, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if point is not None:
        study.enqueue_trial(point)
    trial = study.ask()
    return trial, space.suggest(trial, base)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.dataset)
@pytest.mark.parametrize("name", names())
def test_the_paper_default_is_the_first_start(name, base):
    space = load_space(name)
    trial, config = ask(space, base, space.starts(base)[0])
    assert trial.params == space.starts(base)[0], "a start names each parameter, and no other"
    assert is_paper_default(config)
    assert (config.lr, config.weight_decay) == (base.lr, base.weight_decay)
    assert (config.backbone, config.width) == (base.backbone, base.width)
    same = {"alpha": base.alpha, "alpha_teacher": None, "temperatures": None, "exit_weights": None}
    assert config.with_(**same) == base, "nothing differs from the paper's default"


@pytest.mark.parametrize("name", names())
def test_starts_and_grid_points_are_points_of_the_space(name):
    space, base = load_space(name), BASES[0]
    grid = space.grid(base) if space.grid else []
    for point in space.starts(base) + grid:
        trial, _ = ask(space, base, point)
        assert trial.params == point
    if space.grid:
        assert space.starts(base)[0] == grid[0]
        assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)


@pytest.mark.parametrize("exits", [4, 5])
@pytest.mark.parametrize("name", names())
def test_every_suggestion_is_a_valid_multi_exit_config(name, exits, tmp_path):
    space, base = load_space(name), BASES[0]
    if exits == 5:
        path = tmp_path / "five.py"
        path.write_text(FIVE)
        base = base.with_(backbone=str(path))
        ask(space, base, space.starts(base)[0])
    for seed in range(20):
        trial, config = ask(space, base, seed=seed)
        assert config.exits == exits or space.corners, "only where networks differ may exits"
        assert SCHEMES[config.scheme].multi_exit
        assert trial.params, "a space asks for something"


def test_ramp_up_is_a_share_of_the_run():
    space = load_space("ramp_up")
    for epochs, expected in ((300, 80), (30, 8), (1, 0)):
        base = TrialConfig(epochs=epochs)
        assert ask(space, base, space.starts(base)[1])[1].ramp_up == expected


def test_spaces_set_what_they_are_named_for():
    def config(name, **point):
        space = load_space(name)
        return ask(space, BASES[0], space.starts(BASES[0])[0] | point)[1]

    assert config("alpha_teacher", alpha_teacher=9.0).alpha_teacher_per_exit() == (9.0,) * 4
    assert config("alpha_teacher", alpha_teacher=9.0).alpha_per_exit() == (3.0,) * 4
    assert config("temperature_phases", temperature_2=9.0).temperatures == (3.0, 9.0, 3.0)
    assert config("exit_weights", exit_weight_4=0.5).exit_weights == (1.0, 1.0, 1.0, 0.5)
    assert config("optimizer", lr=0.5, weight_decay=1e-3).lr == 0.5
    assert config("everything", scheme="dbt").temperature == 3.0, "dbt has its own"


def test_teacher_scheme_covers_every_multi_exit_scheme():
    starts = load_space("teacher_scheme").starts(BASES[0])
    assert {point["scheme"] for point in starts} == {
        name for name, scheme in SCHEMES.items() if scheme.multi_exit
    }


def test_teacher_scheme_gives_each_scheme_a_strength_of_its_own():
    space, seen = load_space("teacher_scheme"), {}
    for point in space.starts(BASES[0]):
        name = point["scheme"]
        strength = [key for key in point if key.startswith("kd_weight")]
        assert strength == ([f"kd_weight_{name}"] if SCHEMES[name].teaches else [])
        seen[name] = strength
        if strength:
            _, config = ask(space, BASES[0], {**point, strength[0]: 0.25})
            assert (config.scheme, config.kd_weight) == (name, 0.25)
    assert len(seen) == len(SCHEMES) - 1


@pytest.mark.parametrize("name", ["teacher_scheme", "everything"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_users_scheme_is_one_more(tmp_path, name, alpha):
    path = tmp_path / "mine.py"
    path.write_text(
        "from trainers.schemes import Scheme\n"
        f"SCHEME = Scheme('mine', lambda a: [[1 / len(a)] * len(a)], lambda a: [[x] for x in a] "
        f"if {alpha} else [[1]] * len(a), alpha={alpha})\n"
    )
    space, base = load_space(name), BASES[0].with_(scheme=str(path))
    own = [point for point in space.starts(base) if point["scheme"] == "own"]
    assert len(own) == 1 and len(space.starts(base)) == len(space.starts(BASES[0])) + 1
    trial, config = ask(space, base, own[0])
    assert config.scheme == str(path) and config.kd_weight == 1.0
    assert set(trial.params) == set(own[0]), "it asks for what a starting point gives"
    assert any("alpha" in key for key in own[0]) == alpha
    drawn = {ask(space, base, seed=seed)[1].scheme for seed in range(60)}
    assert str(path) in drawn and "mate" in drawn


def test_a_users_own_space_is_a_file_of_the_same_form(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "'''Just T.'''\n"
        "def starts(base): return [{'t': 3.0}]\n"
        "def suggest(trial, base): return base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )
    space = load_space(str(path))
    assert space.title == "Just T."
    assert space.grid is None
    assert ask(space, BASES[0], {"t": 5.0})[1].temperature == 5.0


def test_a_users_file_may_hold_dataclasses_and_say_nothing_of_itself(tmp_path):
    before = set(sys.modules)
    path = tmp_path / "json.py"  # as a module of Python's is called
    path.write_text(
        "' '\n"
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Bounds:\n"
        "    low: float = 1.0\n"
        "def starts(base): return [{'t': 3.0}]\n"
        "def suggest(trial, base): return base.with_(temperature=trial.suggest_float("
        "'t', Bounds().low, 9))\n"
    )
    space = load_space(str(path))
    assert space.title == "no description (the docstring of its file)"
    assert ask(space, BASES[0], {"t": 5.0})[1].temperature == 5.0
    (other := tmp_path / "other").mkdir()
    (other / "json.py").write_text(path.read_text() + "raise RuntimeError('boom')\n")
    with pytest.raises(InputError, match="boom"):
        load_space(str(other / "json.py"))
    (added,) = {name for name in set(sys.modules) - before if name.startswith("space_")}
    assert sys.modules[added].__file__ == str(path), "the one that failed is gone"
    assert sys.modules["json"] is json


def test_an_error_in_a_users_suggest_is_told_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    start = "def starts(base): return [{'t': 3.0}]\n\n\ndef suggest(trial, base):\n"
    path.write_text(f"{start}    t = trial.suggest_float('t', 1, 9)\n    return {{}}[t]\n")
    with pytest.raises(InputError, match=r"mine.py cannot take its .*: line 6: KeyError: 3.0"):
        config_at(load_space(str(path)), TrialConfig(), {"t": 3.0})
    path.write_text(f"{start}    return base.with_(temprature=3.0)\n")
    with pytest.raises(InputError, match=r"field 'temprature' \(did you mean 'temperature'\?\)"):
        config_at(load_space(str(path)), TrialConfig(), {"t": 3.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "def starts(base): return []",
            r"needs a function suggest: def suggest\(trial, base\): re",
        ),
        ("def suggest(trial, base): pass", r"starts: def starts\(base\): .*\(README, \"Your own"),
        ("raise RuntimeError('boom')", "boom"),
        ("def starts(", r"is not valid Python: line 1: '\(' was never closed$"),
    ],
)
def test_a_broken_space_file_gets_one_line(tmp_path, text, says):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_spaces_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'diverse_alpha'"):
        load_space("diverse_alfa")
    with pytest.raises(InputError, match="does not exist"):
        load_space("./nowhere.py")


def test_listing_the_spaces_loads_no_torch_and_no_optuna():
    code = "import sys, search_spaces; search_spaces.names(); print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "'torch'" not in loaded and "'optuna'" not in loaded
