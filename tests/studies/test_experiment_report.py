"""The report of an experiment: its figures drawn, and no comparison that it should not make."""

import json
import re

import pytest

from studies.cost_figures import footprints_figure
from studies.experiments import EXPERIMENTS, trains
from studies.report import report_page
from tests.studies import made_up
from tests.studies import made_up_experiments as made
from tests.studies.test_report import Parts
from trainers.catalog import InputError
from trainers.config import TrialConfig

VGG = TrialConfig(dataset="cifar100", backbone="vgg16", epochs=300)
SMALL = VGG.with_(epochs=4)
OURS = ("recipe",)  # what the paper leaves open, so that it says nothing of it
DRAWN = [name for name in EXPERIMENTS if trains(name)]


def text_of(*views) -> str:
    return " ".join(Parts(report_page(views)).text.split())


@pytest.mark.parametrize("name", DRAWN)
def test_every_experiment_draws_its_figure(name):
    parts = Parts(report_page([made.view(name, base=SMALL)]))
    assert parts.figures
    points = sum(
        len(trace.get("y") or []) + len(trace.get("z") or [])
        for plot in parts.figures
        for trace in plot["data"]
    )
    assert points > 8 and ("What the paper says of it" in parts.text) == (name not in OURS)
    place = EXPERIMENTS[EXPERIMENTS[name].runs_as or name].place
    assert place in parts.text and "no run of full length" not in json.dumps(parts.figures)


@pytest.mark.parametrize("name", DRAWN)
def test_every_experiment_has_a_report_before_anything_has_run(name):
    text = text_of(made.view(name, base=SMALL, finish=0))
    assert "have not ended yet" in text and ("nothing" in text) == (name not in OURS)


def test_what_is_trained_as_the_papers_has_a_difference():
    text = text_of(made.view("table2"))
    assert "ours \u2212 paper" in text and "Not trained as" not in text
    assert "70.79 ± 0.08" in text and "favours them" in text


@pytest.mark.parametrize(
    "view",
    [
        made.view("table2", base=SMALL),
        made.view("table2", base=VGG.with_(width=0.5)),
        made.view("table2", base=VGG.with_(limit_train=500)),
        made.view("table2", base=TrialConfig(dataset="digits", epochs=300)),
        made.view("table4", base=SMALL),
        made.view("table5", base=SMALL),
    ],
)
def test_what_is_smaller_claims_no_difference(view):
    text = text_of(view)
    assert "Not trained as the paper's" in text and "ours \u2212 paper" not in text
    known = view.plan.base.dataset == "cifar100"
    assert ("for reference only: ours is not trained" in text) == known
    assert ("paper (has none of this)" in text) == (not known)


def test_one_run_is_unconfirmed():
    text = text_of(made.view("table2", seeds=1))
    assert "n = 1, unconfirmed" in text and "(n = 3)" not in text


def test_the_papers_rule_is_marked_as_selecting_on_the_test_set():
    view = made.view("table2", base=SMALL, rule="paper", each_epoch=True)
    assert "Selected on the test set" in text_of(view)
    assert "Selected on the test set" not in text_of(made.view("table2", base=SMALL))


def test_failed_and_diverged_runs_are_named():
    view = made.view("table2", base=SMALL)
    broken = [
        made_up.outcome(0, "FAIL", params={"arm": "mate", "seed": 0}, reason="out of memory"),
        made_up.outcome(
            1, "PRUNED", params={"arm": "dks", "seed": 2}, reason="diverged: loss", diverged=True
        ),
    ]
    view = type(view)(**{**view.__dict__, "outcomes": (*broken, *view.outcomes[2:])})
    text = text_of(view)
    assert "Trial 0 (mate, seed 0) is missing: out of memory" in text
    assert "Trial 1 (dks, seed 2) is missing: diverged: loss" in text


def test_studies_of_one_experiment_share_a_report():
    other = VGG.with_(backbone="resnet18")
    text = text_of(made.view("table2"), made.view("table2", base=other))
    assert "vgg16 on cifar100" in text and "resnet18 on cifar100" in text and "82.19 ± 0.40" in text


def test_an_experiment_shares_no_report_with_a_search():
    small = made_up.view(made_up.plan(trials=3, base={"epochs": 2}, grace=1))
    for others in ([small], [made.view("fig3", base=SMALL)]):
        with pytest.raises(InputError, match="shares no report"):
            report_page([made.view("table2", base=SMALL), *others])


def test_a_users_names_stay_text():
    nasty = "/tmp/</script><img src=x onerror=alert(2)>"
    base = TrialConfig(dataset=nasty, classes=3, image_size=32, backbone="vgg16", epochs=2)
    page = report_page([made.view("table2", base=base)])
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def test_the_middle_of_the_costs_is_their_median():
    (points,) = footprints_figure({"time": {"MATE": [1.0, 2.0, 4.0, 9.0]}}).data
    assert points.x == (3.0,) and points.error_x.array == (6.0,)
