"""Timing: ratios of interleaved rounds, operation counts, and the plain trainer beside ours."""

import pytest
import torch

from trainers import rounds
from trainers.bench import Operations, loss_operations, step_flops
from trainers.config import TrialConfig
from trainers.data import random_images
from trainers.losses import loss
from trainers.plain import PlainRun, plain_loader, plain_loss
from trainers.rounds import Foreign, compared, interleaved, kept
from trainers.teachers import Teachers


def test_ratios_are_taken_round_by_round_against_the_first_side():
    first, second = compared("net", {"plain": [10.0, 20.0, 40.0], "fast": [30.0, 40.0, 80.0]}, "x")
    assert (first.ratio, second.ratio, second.low, second.high) == (1.0, 2.0, 2.0, 3.0)
    assert (second.value, second.rounds) == (40.0, 3)


def test_each_side_has_its_turn_in_every_round():
    turns = []
    ticks = iter(range(1000))
    rows = interleaved(
        "x",
        {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")},
        amount=4,
        rounds=3,
        seconds=0,
        clock=lambda: float(next(ticks)),
    )
    assert "".join(turns) == "aabb" + 3 * "ab"
    assert [row.value for row in rows] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ([0.0, 0.5, 0.0, 0.05], [0, 2, 3]),
        ([0.5, 0.5, 0.0, 0.0], [0, 1, 2, 3]),  # too few are left
        ([None, None], [0, 1]),
        ([0.3], [0]),
    ],
)
def test_rounds_under_foreign_load_are_dropped_while_enough_are_left(shares, wanted):
    assert kept(shares) == wanted


def test_foreign_load_does_not_count_our_own(monkeypatch):
    busy, own, now = iter([10.0, 16.0]), iter([1.0, 3.0]), iter([0.0, 10.0])
    monkeypatch.setattr(rounds, "_busy", lambda: next(busy))
    monkeypatch.setattr(rounds, "_own", lambda: next(own))
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert Foreign().share(beside=1.0) == pytest.approx((6 - 2 - 1) / 20)


def test_views_are_not_counted_as_operations():
    x = torch.ones(4, 4)
    with Operations() as seen:
        (x.view(16).reshape(2, 8).t() + 1).sum()
    assert seen.names == ["aten::add.Tensor", "aten::sum"]


def test_the_loss_takes_no_more_operations_than_it_did():
    """Forward and backward to the features, no views; the plain one for MATE takes 800."""
    most = {"branchynet": 12, "byot": 34, "dks": 34, "eed": 34, "mate": 60, "mate_fixed": 34}
    for scheme, number in most.items():
        found = loss_operations(TrialConfig(dataset="cifar100", scheme=scheme, batch_size=4))
        assert len(found) <= number, (scheme, len(found))
    assert len(loss_operations(TrialConfig(dataset="cifar100", batch_size=4), plain=True)) > 600


@pytest.mark.parametrize("scheme", ["branchynet", "byot", "dks", "eed", "mate", "mate_fixed"])
def test_the_plain_loss_is_the_same_loss(scheme):
    config = TrialConfig(scheme=scheme, alpha=(1, 2, 3, 4), kd_weight=0.5, batch_size=6)
    torch.manual_seed(0)
    teachers = Teachers(config, 16).double()
    features, logits = torch.randn(4, 6, 16).double(), torch.randn(4, 6, 10).double()
    labels = torch.randint(10, (6,))
    ours = loss(features, logits, labels, teachers, config).total
    plain = plain_loss(features, logits, labels, teachers, config)
    assert float(plain.detach()) == pytest.approx(float(ours.detach()), rel=1e-12)


def test_the_plain_trainer_learns_from_its_loader():
    config = TrialConfig(batch_size=8, lr=0.05)
    loader = plain_loader(random_images(config, 16), config, workers=0)
    run = PlainRun(config)
    losses = [float(run.step(*batch)) for _ in range(15) for batch in loader]  # type: ignore[misc]
    assert len(losses) == 30
    assert losses[-1] < losses[0]


def test_the_steps_flops_are_the_sheets():
    assert step_flops(TrialConfig(dataset="cifar100")) == pytest.approx(1.905e9, rel=0.02)
    assert step_flops(TrialConfig(dataset="cifar100", width=0.25)) == pytest.approx(
        0.121e9, rel=0.05
    )
