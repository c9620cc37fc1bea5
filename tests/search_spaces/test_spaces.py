"""Every space, by the table: its starts are points of it, and what it suggests is a config."""

import subprocess
import sys

import optuna
import pytest

from search_spaces import load_space, names
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.schemes import SCHEMES

BASES = [TrialConfig(), TrialConfig(dataset="cifar100", epochs=3)]
PAPER = {"alpha": (3.0,), "temperature": 3.0, "kd_weight": 1.0, "scheme": "mate"}


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
    assert config.alpha_per_exit() == (3.0,) * config.exits
    assert config == base.with_(alpha=config.alpha), "nothing differs from the paper's default"


@pytest.mark.parametrize("name", names())
def test_starts_and_grid_points_are_points_of_the_space(name):
    space, base = load_space(name), BASES[0]
    points = space.starts(base) + (space.grid(base) if space.grid else [])
    for point in points:
        trial, _ = ask(space, base, point)
        assert trial.params == point
    if space.grid:
        assert space.starts(base)[0] in space.grid(base)


@pytest.mark.parametrize("name", names())
def test_every_suggestion_is_a_valid_multi_exit_config(name):
    space = load_space(name)
    for seed in range(20):
        trial, config = ask(space, BASES[0], seed=seed)
        assert SCHEMES[config.scheme].multi_exit
        assert trial.params, "a space asks for something"


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def starts(base): return []", "needs a function suggest"),
        ("raise RuntimeError('boom')", "boom"),
        ("def starts(", "fails"),
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
