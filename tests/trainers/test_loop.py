"""Training as a generator: it learns, goes on bit for bit, and says when it diverges."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch

from trainers import checkpoints, dynamic
from trainers.config import TrialConfig
from trainers.data import batches, load
from trainers.loop import train
from trainers.reports import EpochReport
from trainers.run import Run, learning_rate
from trainers.schemes import SCHEMES

DIGITS = TrialConfig(dataset="digits", epochs=3)


NETWORK = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


def build(width, image_size, image_channels):
    return Backbone((nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)), (8, 8), nn.Linear)
"""


def same(a, b) -> bool:
    """Reports equal but for the clock."""
    machine = {"seconds": 0.0, "memory": None}
    return a.model_copy(update=machine) == b.model_copy(update=machine)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_trains_and_reports(scheme):
    config = DIGITS.with_(scheme=scheme, epochs=2)
    first, last = train(config)
    assert (first.epoch, last.epoch) == (1, 2)
    assert last.split == "validation"
    assert len(last.exits) == config.exits
    assert last.loss is not None and last.loss < first.loss
    assert all(0 <= point.accuracy <= point.top5 <= 1 for point in last.exits)
    number = len(SCHEMES[scheme].weights(config.alpha_per_exit())[0])
    assert len(last.teachers) == len(last.mix) == len(last.mix_entropy) == number
    for row, entropy in zip(last.mix, last.mix_entropy, strict=True):
        assert sum(row) == pytest.approx(1, abs=1e-4)
        assert -1e-6 <= entropy <= math.log(config.exits) + 1e-6


def test_it_learns_the_digits():
    *_, last = train(DIGITS.with_(epochs=12))
    assert min(last.accuracies) > 0.8


def test_the_same_config_gives_the_same_run_and_another_seed_another():
    once, again = list(train(DIGITS)), list(train(DIGITS))
    assert all(same(a, b) for a, b in zip(once, again, strict=True))
    assert not same(once[-1], list(train(DIGITS.with_(seed=1)))[-1])


def test_a_run_leaves_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(train(DIGITS.with_(epochs=1)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("scheme", ["mate", "mate_gate", "dbt", "okddip"])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, scheme, stop):
    config = DIGITS.with_(scheme=scheme)
    whole = list(train(config, checkpoint=tmp_path / "whole.pt"))
    path = tmp_path / "cut.pt"
    cut = train(config, checkpoint=path)
    for _ in range(stop):
        next(cut)
    cut.close()
    gone_on = list(train(config, checkpoint=path))
    assert all(same(a, b) for a, b in zip(whole, gone_on, strict=True))
    weights = [checkpoints.read(tmp_path / name) for name in ("whole.pt", "cut.pt")]
    for part in ("network", "teachers"):
        for name, value in weights[0][part].items():
            assert torch.equal(value, weights[1][part][name]), name


def damaged(whole: bytes) -> list[bytes]:
    rng = random.Random(0)
    cuts = [whole[: rng.randrange(len(whole))] for _ in range(3)]
    return [b"", *cuts, bytes(len(whole)), b"PK" + whole[2:-1], b"no checkpoint"]


def test_a_damaged_checkpoint_is_left_for_the_one_before_it(tmp_path):
    config = DIGITS.with_(epochs=3, limit_train=60)
    whole = list(train(config, checkpoint=tmp_path / "whole.pt"))
    path = tmp_path / "run.pt"
    cut = train(config, checkpoint=path)
    next(cut), next(cut)
    cut.close()
    newest, older = path.read_bytes(), checkpoints.before(path).read_bytes()
    for content in damaged(newest):
        path.write_bytes(content)
        checkpoints.before(path).write_bytes(older)
        with pytest.warns(UserWarning, match="going on from epoch 1") as said:
            gone_on = list(train(config, checkpoint=path))
        assert all("\n" not in str(warning.message) for warning in said)
        assert all(same(a, b) for a, b in zip(gone_on, whole, strict=True))
    path.unlink()  # killed between the two renames
    checkpoints.before(path).write_bytes(older)
    with pytest.warns(UserWarning, match="is gone: going on from epoch 1"):
        assert all(map(same, train(config, checkpoint=path), whole))


def test_with_no_readable_checkpoint_a_run_starts_over(tmp_path):
    config = DIGITS.with_(epochs=2, limit_train=60)
    path = tmp_path / "run.pt"
    whole = list(train(config, checkpoint=path))
    for file in (path, checkpoints.before(path)):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="starting over"):
        assert all(map(same, train(config, checkpoint=path), whole))


@pytest.mark.parametrize("where", ["read", "memory", "weights"])
def test_a_disk_or_memory_that_fails_removes_no_checkpoint(tmp_path, monkeypatch, where):
    config = DIGITS.with_(epochs=3, limit_train=60)
    path = tmp_path / "run.pt"
    begun = train(config, checkpoint=path)
    next(begun), next(begun)
    begun.close()
    kept = {file: file.read_bytes() for file in (path, checkpoints.before(path))}
    error = OSError(5, "Input/output error")
    if where != "read":
        error = MemoryError() if where == "memory" else torch.OutOfMemoryError("no memory")
    place = {
        "read": (Path, "read_bytes"),
        "memory": (torch, "load"),
        "weights": (torch.nn.Module, "load_state_dict"),
    }

    def fails(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(*place[where], fails)
        expected = checkpoints.UnreadableError if where == "read" else type(error)
        with pytest.raises(expected):
            next(train(config, checkpoint=path))
    assert {file: file.read_bytes() for file in kept} == kept
    assert [report.epoch for report in train(config, checkpoint=path)] == [1, 2, 3]


def test_a_finished_run_gives_its_reports_again(tmp_path):
    path = tmp_path / "run.pt"
    once = list(train(DIGITS, checkpoint=path))
    assert list(train(DIGITS, checkpoint=path)) == once


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    list(train(DIGITS.with_(epochs=1), checkpoint=path))
    with pytest.raises(
        checkpoints.OtherRunError, match="belongs to another run: alpha, epochs differ"
    ):
        next(train(DIGITS.with_(alpha=5), checkpoint=path))


@pytest.mark.parametrize("edited", [False, True])
def test_a_checkpoint_goes_on_with_the_network_that_it_is_of_wherever_that_lies(tmp_path, edited):
    net, path = tmp_path / "net.py", tmp_path / "run.pt"
    net.write_text(NETWORK)
    config = DIGITS.with_(backbone=str(net))
    next(train(config, checkpoint=path))
    moved = tmp_path / "moved" / "net.py"
    moved.parent.mkdir()
    net.rename(moved)
    if edited:
        moved.write_text(f"{NETWORK}# edited\n")
    runs = train(config.with_(backbone=str(moved)), checkpoint=path)
    if edited:
        with pytest.raises(checkpoints.OtherRunError, match="another run: backbone differ"):
            next(runs)
        return
    kept = path.read_bytes()
    assert next(runs).epoch == 1 and path.read_bytes() == kept, "told again, not trained again"
    assert [report.epoch for report in runs] == [2, 3]


def test_a_network_that_is_edited_while_it_trains_is_kept_as_what_it_was(tmp_path):
    net, path = tmp_path / "net.py", tmp_path / "run.pt"
    net.write_text(NETWORK)
    config = DIGITS.with_(backbone=str(net))
    runs = train(config, checkpoint=path)
    next(runs)
    net.write_text(f"{NETWORK}# edited\n")
    next(runs)
    with pytest.raises(checkpoints.OtherRunError, match="another run: backbone differ"):
        next(train(config, checkpoint=path))
    net.write_text(NETWORK)
    assert [report.epoch for report in train(config, checkpoint=path)][-1] == 3


def test_the_checkpoint_is_written_before_the_report_is_given(tmp_path):
    path = tmp_path / "run.pt"
    for report in train(DIGITS, checkpoint=path):
        stored = checkpoints.read(path)
        assert len(stored["reports"]) == report.epoch


def test_reports_tell_the_temperature():
    phases = [r.temperature for r in train(DIGITS.with_(temperatures=(1.0, 2.0, 4.0)))]
    assert phases == [1.0, 2.0, 4.0]
    annealed = [r.temperature for r in train(DIGITS.with_(scheme="dbt", epochs=8))]
    assert annealed[0] >= 1 and annealed == sorted(annealed)
    steps = [math.log(t) / math.log(1.05) for t in annealed]
    assert steps == pytest.approx([round(step) for step in steps], abs=1e-3)
    assert 0 < steps[-1] <= 8 * 6, "once a batch at most"
    (plain,) = train(DIGITS.with_(scheme="branchynet", epochs=1))
    assert plain.temperature is None


def test_attached_changes_the_run_and_it_still_learns():
    for scheme in ("one", "okddip"):
        config = DIGITS.with_(scheme=scheme, ramp_up=1, epochs=2)
        runs = [list(train(config.with_(attached=attached))) for attached in (False, True)]
        assert runs[0][-1].loss != runs[1][-1].loss
        assert all(run[-1].loss < run[0].loss for run in runs)


def test_a_diverged_epoch_is_not_trained_to_its_end(monkeypatch):
    run, steps = Run(DIGITS), []

    def step(images, labels, epoch=0):
        steps.append(len(steps))
        return torch.tensor(math.nan if len(steps) == 3 else 1.0)

    monkeypatch.setattr(run, "step", step)
    assert math.isnan(run.train_epoch(load(DIGITS).fit, 0))
    assert steps == [0, 1, 2]


def test_a_diverged_run_ends_within_the_epoch():
    reports = list(train(DIGITS.with_(lr=1e8, epochs=20)))
    assert reports[-1].diverged and reports[-1].exits == ()
    assert len(reports) < 20
    assert not any(report.diverged for report in reports[:-1])


def test_a_test_split_is_scored_once_at_the_end():
    data = load(DIGITS, "final")
    *early, last = train(DIGITS, data)
    assert all(report.exits == () for report in early)
    assert last.split == "test" and len(last.exits) == 4


def test_a_test_split_is_scored_after_each_epoch_where_it_is_asked():
    data = load(DIGITS, "final")
    each, once = (list(train(DIGITS, data, each_epoch=asked)) for asked in (True, False))
    assert all(report.split == "test" and len(report.exits) == 4 for report in each)
    assert same(each[-1], once[-1]), "looking changes nothing"


@pytest.mark.parametrize("scheme", ["byot", "dks", "eed", "mate"])
def test_lessons_are_the_weighted_mean_of_the_teachers_softmaxes(scheme):
    config = DIGITS.with_(scheme=scheme, temperature=2.0)
    run, data = Run(config), load(config)
    n, right = 60, [0] * 4
    pixels, labels = next(batches(data.score, n))
    run.network.eval()
    run.teachers.eval()
    features, logits = run.forward(pixels)
    teachers, _ = run.teachers(features, logits)
    w = SCHEMES[scheme].weights(config.alpha_per_exit())
    for k in range(n):
        for i in range(4):
            pull = sum(
                w[i][j] * torch.softmax(teachers[j, k] / 2.0, dim=-1) for j in range(len(teachers))
            )
            right[i] += int(pull.argmax()) == int(labels[k])
    few = type(data.score)(
        data.score.pixels[:n], labels, data.score.classes, data.score.mean, data.score.std
    )
    got = run.score(few)["lessons"]
    taught = [i for i in range(4) if sum(w[i])]
    assert [round(got[i] * n) for i in taught] == [right[i] for i in taught]
    if scheme == "dks":  # the others' ensemble, not one of them
        mean = (logits / 2.0).softmax(dim=-1)
        others = (mean.sum(dim=0) - mean[0]).argmax(dim=-1)
        assert round(got[0] * n) == int((others == labels).sum())


def test_no_lessons_without_teachers():
    *_, last = train(DIGITS.with_(scheme="branchynet", epochs=1))
    assert last.lessons == ()


def test_scores_equal_a_loop_over_images():
    run = Run(DIGITS)
    data = load(DIGITS)
    scored = run.score(data.score)
    run.network.eval()
    mean = torch.tensor(data.score.mean).view(1, -1, 1, 1)
    std = torch.tensor(data.score.std).view(1, -1, 1, 1)
    n, top1, top5 = 100, [0] * 4, [0] * 4
    few = type(data.score)(
        data.score.pixels[:n], data.score.labels[:n], data.score.classes,
        data.score.mean, data.score.std,
    )  # fmt: skip
    for k in range(n):
        image = (few.pixels[k : k + 1].float() / 255 - mean) / std
        _, logits = run.network(image)
        for i in range(4):
            order = logits[i, 0].argsort(descending=True).tolist()
            top1[i] += order[0] == int(few.labels[k])
            top5[i] += int(few.labels[k]) in order[:5]
    got = run.score(few)["exits"]
    assert [round(point.accuracy * n) for point in got] == top1
    assert [round(point.top5 * n) for point in got] == top5
    assert len(scored["exits"]) == 4


def test_a_hold_out_gives_each_epoch_a_budget_curve():
    reports = list(train(DIGITS))
    for report in reports:
        ends = report.budget[0], report.budget[-1]
        assert [point.flops for point in ends] == [
            report.exits[0].flops_cascade,
            report.exits[-1].flops_cascade,
        ]
        for point, exit_ in zip(ends, (report.exits[0], report.exits[-1]), strict=True):
            assert (point.top1, point.top5) == pytest.approx((exit_.accuracy, exit_.top5), abs=1e-6)
        assert EpochReport.model_validate_json(report.model_dump_json()) == report
        assert len(report.budget) <= 40


def test_on_the_test_split_thresholds_come_from_the_hold_out_or_there_are_none():
    data = load(DIGITS, "final")
    assert data.calibrate is not None, "the hold-out of the digits is never trained on"
    assert torch.equal(data.calibrate.pixels, load(DIGITS).score.pixels)
    *_, last = train(DIGITS, data)
    assert last.split == "test" and len(last.budget) > 10
    *_, last = train(DIGITS, dataclasses.replace(data, calibrate=None))
    assert last.exits and last.budget == ()
    run = Run(DIGITS)
    # the same through the plain functions, of a network that has not been trained
    held = run.confidence(data.calibrate).numpy()
    sure = run.confidence(data.score).numpy()
    scored = run.score(data.score, calibrate=data.calibrate)
    limits = dynamic.thresholds(held, dynamic.sweep(dynamic.STORED))
    left = dynamic.leaving(sure, limits)
    costs = [point.flops_cascade for point in scored["exits"]]
    spent = [sum(costs[k] for k in row) / len(row) for row in left.tolist()]
    stored = {point.flops for point in scored["budget"]}
    assert {round(cost) for cost in spent} <= stored


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [1]),
        (2, [1, 0.01]),
        (4, [1, 1, 0.1, 0.01]),
        (8, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_the_step_schedule_divides_at_half_and_three_quarters(epochs, expected):
    config = TrialConfig(epochs=epochs, lr=1.0)
    assert [learning_rate(config, e) for e in range(epochs)] == pytest.approx(expected)


def test_the_papers_milestones():
    config = TrialConfig(dataset="cifar100")
    lrs = [learning_rate(config, e) for e in range(300)]
    assert lrs[149] == 0.1 and lrs[150] == pytest.approx(0.01)
    assert lrs[224] == pytest.approx(0.01) and lrs[225] == pytest.approx(0.001)


def test_other_schedules():
    cosine = TrialConfig(epochs=10, lr=1.0, schedule="cosine")
    lrs = [learning_rate(cosine, e) for e in range(10)]
    assert lrs[0] == 1.0 and lrs == sorted(lrs, reverse=True)
    assert learning_rate(cosine.with_(schedule="constant"), 9) == 1.0


def test_a_lr_of_zero_for_the_weight_network_leaves_it_as_it_was():
    config = DIGITS.with_(mix_lr=0.0, weight_decay=0.0)
    run = Run(config)
    before = [p.clone() for p in run.teachers.parameters()]
    run.train_epoch(load(config).fit, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, run.teachers.parameters(), strict=True))


def test_a_last_batch_of_one_image_is_left_out():
    config = DIGITS.with_(limit_train=33, epochs=1)
    (report,) = train(config)
    assert report.loss is not None and len(report.exits) == 4


def test_bf16_is_close_to_fp32_on_the_first_step():
    data = load(DIGITS)
    losses = [
        Run(DIGITS.with_(precision=precision)).train_epoch(data.fit, 0)
        for precision in ("fp32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
