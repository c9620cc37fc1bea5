"""What a space searches and the scheme does not read."""

from types import SimpleNamespace

import pytest

from search_spaces import load_space, names
from studies.calibration_space import spread_out
from studies.search import make_plan
from studies.unread import unread, unread_text
from trainers.catalog import InputError
from trainers.config import TrialConfig

SOME = {"dataset": "digits", "workers": 1, "threads": 1, "device": "cpu", "precision": "fp32"}


@pytest.mark.parametrize("name", names())
def test_mate_reads_what_every_space_searches(name):
    assert unread(load_space(name), TrialConfig()) == []


@pytest.mark.parametrize(
    ("space", "scheme"),
    [("single_alpha", "branchynet"), ("diverse_alpha", "byot"), ("temperature", "dbt")],
)
def test_a_search_that_changes_nothing_is_refused(space, scheme):
    with pytest.raises(InputError, match=f"which {scheme} does not read: all trials would be"):
        make_plan(space, scheme=scheme, **SOME)
    made = make_plan(space, **SOME)
    again = make_plan(space, scheme=scheme, stored=lambda name: made, **SOME)
    assert again.base.scheme == scheme, "what is there already goes on"


def test_what_is_no_use_is_said():
    space, base = load_space("temperature"), TrialConfig(scheme="byot")
    assert unread(space, base) == ["alpha"]
    assert unread_text(space, base) == "alpha: byot does not read it, so it changes no run"
    assert unread_text(space, TrialConfig()) == ""


def test_a_scheme_of_ones_own_says_what_it_reads(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from trainers.schemes import Scheme\n"
        "SCHEME = Scheme('mine', lambda a: [[1 / len(a)] * len(a)], lambda a: [[1]] * len(a))\n"
    )
    with pytest.raises(InputError, match=r"which mine\.py does not read: all trials would be"):
        make_plan("single_alpha", scheme=str(path), **SOME)
    plan = make_plan("strength", scheme=str(path), **SOME)
    assert plan.base.scheme == str(path)
    only = "--scheme mine.py: the space tries others alone"
    assert unread_text(load_space("weight_network"), plan.base) == only
    for name in ("teacher_scheme", "everything", "temperature"):
        assert only not in unread_text(load_space(name), plan.base)
    assert unread_text(load_space("weight_network"), TrialConfig(scheme="mate_gate")) == ""
    assert unread_text(load_space("weight_network"), TrialConfig(scheme="dks")).startswith(
        "--scheme dks: "
    )
    assert unread_text(load_space("teacher_scheme"), TrialConfig(scheme="dks")) == ""


def test_a_space_that_varies_nothing_is_left_to_the_search():
    same = SimpleNamespace(name="same", suggest=lambda trial, base: base)
    assert unread(same, TrialConfig()) == []


BRANCHED = """
def starts(base):
    return [{"way": "0"}]


def suggest(trial, base):
    way = trial.suggest_categorical("way", list("0123456789"))
    if way == "7":
        return base.with_(kd_wieght=2.0)
    return base.with_(kd_weight=1.0 + int(way))
"""


def test_a_branch_of_a_space_that_fails_is_found_before_a_search_or_a_calibration(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(BRANCHED)
    wanted = r"mine.py fails at way=7: line 9: .*'kd_wieght' \(did you mean 'kd_weight'\?\)"
    for ask in (
        lambda: make_plan(str(path), **SOME),
        lambda: spread_out(load_space(str(path)), TrialConfig(), 60),
    ):
        with pytest.raises(InputError, match=wanted) as caught:
            ask()
        assert "\n" not in str(caught.value)
    path.write_text(BRANCHED.replace("wieght", "weight"))
    assert make_plan(str(path), **SOME).space == str(path)
