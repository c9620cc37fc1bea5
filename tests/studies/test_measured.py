"""Cells, gaps, mixes and budgets as numbers, beside naive ways to the same."""

import numpy as np
import pytest
from scipy.signal import savgol_filter

from studies.measured import (
    Run,
    Stat,
    at_budget,
    budgets_of,
    chosen,
    gap_over_epochs,
    gaps,
    mean_mixes,
    measure,
    shrunk,
    smoothed,
)
from studies.statements import ON_RUNS, shown_by, statements_of
from tests.studies import made_up_experiments as made
from trainers.config import TrialConfig

VGG = TrialConfig(dataset="cifar100", backbone="vgg16")
SMALL = VGG.with_(epochs=6)


def test_a_figure_carries_its_n():
    assert Stat((70.0, 71.0, 72.0)).text() == "71.00 ± 1.00 (n = 3)"
    assert Stat((70.0,)).text() == "70.00 (n = 1, unconfirmed)"
    assert Stat((70.0,)).std is None


def test_accuracy_is_over_seeds_and_the_baselines_exit_is_the_last():
    view = made.view("table2")
    one = measure(view)
    mine = [o for o in view.outcomes if o.params["arm"] == "mate"]
    expected = [100 * o.report.accuracies[1] for o in mine]
    assert one.accuracy("mate", 1) == Stat(tuple(expected))
    assert one.accuracy("baseline", 0) is None
    alone = [o.report for o in view.outcomes if o.params["arm"] == "baseline"]
    assert one.accuracy("baseline", 3) == Stat(tuple(100 * r.accuracies[0] for r in alone))
    assert one.means()["baseline"][:3] == [None] * 3


def test_the_papers_cell_is_there_only_for_the_papers_network():
    one = measure(made.view("table2"))
    mate = next(arm for arm in one.arms if arm.key == "mate")
    fixed = next(arm for arm in one.arms if arm.key == "mate_fixed")
    assert one.cell(mate, 0).mean == 70.79 and one.cell(fixed, 0) is None
    digits = measure(made.view("table2", base=TrialConfig(dataset="digits", epochs=2)))
    assert digits.cell(mate, 0) is None and not digits.known and not digits.comparable


def test_the_papers_rule_takes_the_first_best_epoch_of_the_last_exit():
    reports = made.view("fig3", base=SMALL, seeds=1).reports[0]
    best = max(range(6), key=lambda i: reports[i].accuracies[-1])
    assert chosen(reports, "paper") is reports[best] and chosen(reports, "last") is reports[-1]
    twice = [reports[best], reports[best].model_copy(update={"epoch": 99})]
    assert chosen(twice, "paper").epoch == reports[best].epoch


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 2}, "2 of 300 epochs"),
        ({"limit_train": 500}, "500 of 50,000 training images"),
        ({"width": 0.25}, "width 0.25 of 1"),
        ({"batch_size": 64}, "batch_size 64, not 128"),
        ({"temperature": 2.0}, "temperature 2, not 3"),
        ({"t_squared": True}, "t_squared true, not false"),
        ({"alpha": (5.0,)}, "alpha 5, not 3"),
        ({"ramp_up": 80}, "ramp_up 80, not 0"),
        ({"schedule": "cosine"}, "schedule cosine, not step"),
        ({"exit_weights": (1, 1, 1, 2)}, "exit_weights 1 1 1 2, not none"),
    ],
)
def test_whatever_is_not_as_in_the_paper_is_said(changes, named):
    plan = made.plan("table2", base=VGG.with_(**changes))
    assert shrunk(plan) == [named]


def test_the_papers_own_setting_is_not_shrunk_whatever_it_leaves_open():
    open_ones = VGG.with_(augmentation="none", mix_width=0.5, mix_scale=1.0, seed=7, kl="reverse")
    assert (
        shrunk(made.plan("table2", base=VGG)) == shrunk(made.plan("table2", base=open_ones)) == []
    )


def test_a_folder_that_is_resized_is_told_by_its_name_alone():
    tree = VGG.with_(dataset="./tree", resize=32)
    plain = VGG.with_(dataset="./tree")
    assert shrunk(made.plan("table2", base=tree)) == shrunk(made.plan("table2", base=plain)) != []


def test_gaps_are_the_teachers_lead():
    one = measure(made.view("table4", base=SMALL, seeds=2))
    for key in ("byot", "dks", "eed", "mate"):
        run: Run = one.runs[key][0]
        found = gaps(run)
        assert found.shape == (6, 4)
        for e, report in enumerate(run.reports):
            for i in range(4):
                teacher = report.teachers[i] if key == "mate" else report.lessons[i]
                if key == "byot" and i == 3:
                    assert np.isnan(found[e, i])  # nobody teaches the deepest
                else:
                    assert found[e, i] == pytest.approx(100 * (teacher - report.accuracies[i]))
    assert gap_over_epochs(one.runs["byot"], 3) is None
    mean, std = gap_over_epochs(one.runs["mate"], 0)
    lines = [gaps(run)[:, 0] for run in one.runs["mate"]]
    assert mean.values == pytest.approx([line.mean() for line in lines])
    assert std.values == pytest.approx([line.std() for line in lines])


@pytest.mark.parametrize(("length", "window"), [(300, 31), (100, 11), (30, 5), (6, 5), (5, 5)])
def test_curves_are_smoothed_by_savitzky_golay(length, window):
    line = np.random.default_rng(0).normal(size=length)
    assert np.allclose(smoothed(line), savgol_filter(line, window, 3))


@pytest.mark.parametrize("length", [1, 2, 4])
def test_short_curves_stay_as_they_are(length):
    line = np.arange(length, dtype=float)
    assert smoothed(line) is line


def test_mixes_are_averaged_over_seeds():
    one = measure(made.view("fig7", base=SMALL, seeds=3))
    found = mean_mixes(one.runs["mate"])
    assert [report.epoch for report in found] == list(range(1, 7))
    by_hand = sum(np.array(run.reports[2].mix) for run in one.runs["mate"]) / 3
    assert np.allclose(found[2].mix, by_hand)


def test_budget_mode_is_read_between_points_and_not_beyond_them():
    one = measure(made.view("table7", base=SMALL, seeds=2))
    curve = one.runs["mate"][0].report.budget
    middle = (curve[2].flops + curve[3].flops) / 2
    expected = 50 * (curve[2].top5 + curve[3].top5)
    assert at_budget(one, "mate", middle).values == pytest.approx([expected] * 2, abs=1e-4)
    assert at_budget(one, "mate", curve[0].flops - 1) is None
    assert at_budget(one, "mate", curve[-1].flops + 1) is None
    assert len(budgets_of(one)) == 6


def test_unfinished_and_lost_trials_are_counted():
    one = measure(made.view("table2", finish=5))
    assert one.left == 19 and sum(map(len, one.runs.values())) == 5


@pytest.mark.parametrize("check", ON_RUNS)
def test_every_check_says_something_of_runs_and_nothing_of_none(check):
    name = next(s.experiment for s in statements_of_all() if s.check == check)
    finished, none = (made.view(name, base=SMALL, finish=n) for n in (None, 0))
    assert shown_by(check, [measure(finished)]).endswith(".")
    assert shown_by(check, [measure(none)]) == ""
    both = shown_by(check, [measure(finished), measure(finished)])
    assert both.count("vgg16 on cifar100: ") == 2


def statements_of_all():
    from studies.experiments import EXPERIMENTS

    return [statement for name in EXPERIMENTS for statement in statements_of(name)]
