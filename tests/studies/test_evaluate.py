"""A trained run evaluated: its figures against the run's own report and loops over its answers."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from studies import evaluation_sections as texts
from studies.evaluate import evaluate
from studies.evaluation_figures import (
    cost_figure,
    overthinking_figure,
    reliability_figure,
    shares_figure,
)
from studies.export import write_config
from studies.final import train_finals
from tests.trainers.test_dynamic import naive_score, naive_thresholds
from trainers import dynamic, trained
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import load
from trainers.schemes import SCHEMES

TINY = TrialConfig(dataset="digits", epochs=2, limit_train=60)


def finals(folder, config=TINY, **options):
    write_config(folder / "1.yaml", config, {"study": "tiny"})
    return train_finals(folder / "1.yaml", **options).folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finals(tmp_path_factory.mktemp("best"), seeds=2)


def test_the_accuracies_are_those_of_the_last_report(run):
    found = evaluate(run)
    assert found.images == 900 and found.held == 717 and len(found.runs) == 2
    for scores in found.runs:
        report = trained.load(scores.folder).report
        assert scores.seed == int(scores.folder.name.removeprefix("seed-"))
        assert scores.top1.tolist() == pytest.approx(report.accuracies, abs=1e-6)
        assert scores.top5.tolist() == pytest.approx([p.top5 for p in report.exits], abs=1e-6)
        assert scores.teachers.tolist() == pytest.approx(report.teachers, abs=1e-6)
        middle = (found.costs[0].flops_cascade + found.costs[-1].flops_cascade) / 2
        fine = dynamic.along(scores.budget, [middle]).top1[0]
        assert fine == pytest.approx(dynamic.at(report.budget, middle), abs=0.01)
    over = found.over_runs(lambda scores: scores.top1)
    table = np.array([scores.top1 for scores in found.runs])
    assert over.mean == pytest.approx(table.mean(axis=0)) and over.n == 2
    assert over.std == pytest.approx(table.std(axis=0, ddof=1))


def test_the_budget_curve_is_that_of_a_loop_over_images(run):
    network = trained.load(run / "seed-1")
    data = load(network.config, "final")
    held = network.predict(data.calibrate.pixels).amax(dim=-1).tolist()
    probabilities = network.predict(data.score.pixels)
    right = (probabilities.argmax(dim=-1) == data.score.labels).tolist()
    flops = [cost.flops_cascade for cost in network.exits]
    (scores,) = evaluate(run / "seed-1").runs
    for p in dynamic.sweep(dynamic.FINE)[[40, 100, 150]].tolist():
        limits = naive_thresholds(held, p)
        cost, accuracy = naive_score(probabilities.amax(dim=-1).tolist(), right, flops, limits)
        place = int(np.abs(scores.budget.flops - cost).argmin())
        # predict and answers normalise in another order: an image on a threshold may differ
        assert scores.budget.flops[place] == pytest.approx(cost, rel=0.01)
        assert scores.budget.top1[place] == pytest.approx(accuracy, abs=0.005)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_can_be_evaluated(tmp_path, scheme):
    folder = finals(tmp_path, TINY.with_(scheme=scheme, epochs=1), seeds=1)
    found = evaluate(folder)
    stored = json.loads(json.dumps(found.as_json(), allow_nan=False))
    report = trained.load(folder / "seed-1").report
    assert stored["top1"]["mean"] == pytest.approx(report.accuracies, abs=1e-6)
    assert stored["top1"]["std"] is None and stored["top1"]["n"] == 1
    taught = stored["teachers"]["mean"] if stored["teachers"] else []
    assert taught == pytest.approx(report.teachers, abs=1e-6)
    assert (stored["budget"] is None) == (scheme == "baseline")
    page = texts.write_evaluation(found).read_text(encoding="utf-8")
    assert page.count('class="plot') == (2 if scheme == "baseline" else 4)


def test_a_budget_is_read_where_it_is_asked_for_and_refused_where_it_cannot_be(run):
    found = evaluate(run, budgets=[100_000.0])
    top1, top5, shares = found.budget(found.budgets)
    assert top1.mean.shape == (1,) and shares.mean.shape == (1, 4)
    cascade = [cost.flops_cascade for cost in found.costs]
    assert shares.mean[0] @ cascade == pytest.approx(100_000)
    assert found.as_json()["budget"]["flops"] == [100_000.0]
    with pytest.raises(InputError, match="cannot be spent"):
        evaluate(run, budgets=[1e9])


def test_a_network_trained_on_its_hold_out_gets_no_thresholds(tmp_path, class_folders):
    config = TrialConfig(
        dataset=str(class_folders(train=8, side=32)), classes=3, image_size=32, epochs=1,
        backbone="vgg16", width=0.05, batch_size=8,
    )  # fmt: skip
    found = evaluate(finals(tmp_path, config, seeds=1))
    assert found.held == 0 and found.runs[0].budget is None and found.as_json()["budget"] is None
    assert "--keep-validation" in found.note() and "--keep-validation" in texts.budget_text(found)
    assert texts.budget_rows(found)[1] == [] and shares_figure(found) is None
    assert "--keep-validation" in texts.evaluation_page(found)
    kept = evaluate(finals(tmp_path, config, seeds=1, keep_validation=True))
    assert "top-5" not in texts.exit_rows(kept)[0] + texts.budget_rows(kept)[0], "of 3 classes"
    assert kept.held == 3 and kept.note() is None and len(texts.budget_rows(kept)[1]) == 7
    shutil.rmtree(config.dataset + "/test/class002")
    with pytest.raises(InputError):
        evaluate(kept.folder)


def test_figures_draw_what_was_found(run):
    found = evaluate(run)
    assert "top-5" in texts.exit_rows(found)[0] and "top-5" in texts.budget_rows(found)[0]
    assert {len(row) for row in texts.budget_rows(found)[1]} == {len(texts.budget_rows(found)[0])}
    cost = cost_figure(found)
    names = [trace.name for trace in cost.data]
    assert [name for name in names if name and name.startswith("exit ")] == [
        "exit 1", "exit 2", "exit 3", "exit 4",
    ]  # fmt: skip
    points = [trace for trace in cost.data if (trace.name or "").startswith("exit ")]
    top1 = found.over_runs(lambda scores: scores.top1)
    assert [trace.y[0] for trace in points] == pytest.approx((100 * top1.mean).tolist())
    shares = shares_figure(found)
    assert np.sum([trace.y for trace in shares.data], axis=0) == pytest.approx(100)
    bars = [trace for trace in reliability_figure(found).data if trace.type == "bar"]
    assert len(bars) == 4
    images = [sum(row[1] for row in trace.customdata) for trace in bars]
    assert images == pytest.approx([900] * 4)
    kept, lost = overthinking_figure(found).data
    assert np.add(kept.y, lost.y) == pytest.approx(100 * top1.mean[:-1])


def test_an_older_file_opens_and_says_what_it_does_not_hold(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run / "seed-1", old)
    content = torch.load(old / "weights.pt", weights_only=True)
    for name in ("teachers", "confidence", "data_root"):
        del content[name]
    torch.save(content, old / "weights.pt")
    network = trained.load(old)
    assert network.teachers is None and network.no_thresholds() is not None
    found = evaluate(old)
    assert found.teachers() is None and found.budget(found.budgets) is None
    assert "does not hold their weights" in texts.teachers_text(found)


def test_a_tree_is_found_from_home(tmp_path, class_folders, monkeypatch):
    """Where a shell does not expand it: --data-root=~/tree."""
    config = TrialConfig(
        dataset=str(class_folders("there")), classes=3, image_size=8, epochs=1, batch_size=4,
        validation=0.3,
    )  # fmt: skip
    folder = finals(tmp_path, config, seeds=1)
    (tmp_path / "there").rename(tmp_path / "tree")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert evaluate(folder, data_root="~/tree").images == 6


def test_what_is_no_run_is_refused(run, tmp_path):
    for path, said in ((tmp_path, "has no trained run"), (tmp_path / "no", "is no folder")):
        with pytest.raises(InputError, match=said):
            evaluate(path)
    both = tmp_path / "both"
    shutil.copytree(run, both)
    other = finals(tmp_path, TINY.with_(temperature=2.0), seeds=1)
    shutil.copytree(other / "seed-1", both / "seed-7")
    with pytest.raises(InputError, match="runs of different configs"):
        evaluate(both)
    for options in ({"threads": 0}, {"device": "tpu"}):
        with pytest.raises(InputError):
            evaluate(run, **options)


def test_one_run_is_unconfirmed_and_two_have_a_spread(run):
    one, two = evaluate(run / "seed-1"), evaluate(run)
    assert "±" not in "".join(texts.exit_rows(one)[1][0]) and texts.over_text(1) == (
        "n = 1, unconfirmed"
    )
    assert all("±" in cell for cell in texts.exit_rows(two)[1][0][3:])
    assert math.isnan(one.over_runs(lambda scores: scores.oracle.accuracy).std)
    assert one.folder == run / "seed-1" and evaluate(run / "seed-1/weights.pt").folder == one.folder
