"""Timing a config on this machine: which precision, and whether it computes the same."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from trainers import opening, speed
from trainers.config import TrialConfig
from trainers.run import Run
from trainers.speed import layers_agree, precisions, throughput

DIGITS = TrialConfig(width=0.5, batch_size=8)


def test_throughput_is_measured_for_each_number_of_threads_and_leaves_the_setting():
    before = torch.get_num_threads()
    state = torch.get_rng_state()
    speeds = throughput(DIGITS, threads=(1, 2), seconds=0.02)
    assert len(speeds) == 2
    assert all(value > 0 for value in speeds)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_left_of_a_measurement_on_a_gpu(monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(len(opening._idle)))
    monkeypatch.setattr(opening, "_idle", [])
    assert speed._on_gpu(DIGITS, "cpu") > 0
    assert freed == [0]


def test_both_precisions_are_measured():
    found = precisions(DIGITS, seconds=0.02)
    assert list(found) == ["fp32", "bf16"]
    assert all(math.isfinite(value) and value > 0 for value in found.values())


def wrong(monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    """Makes every bf16 convolution compute something else."""
    forward = nn.Conv2d._conv_forward

    def other(self: nn.Conv2d, given: Tensor, *rest: Tensor) -> Tensor:
        made = forward(self, given, *rest)
        return change(made) if torch.is_autocast_enabled("cpu") else made  # type: ignore[operator]

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", other)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made * 0,
        lambda made: made * float("nan"),
        lambda made: made * 1.1,
        lambda made: torch.cat((made[:, :-1], made[:, -1:] * 0), dim=1),
        lambda made: made.detach() + 0.9 * (made - made.detach()),  # the gradient alone
    ],
    ids=["zero", "nan", "scaled", "a channel", "gradient"],
)
def test_a_wrong_bf16_convolution_never_wins(monkeypatch, change):
    assert layers_agree(Run(DIGITS).network, torch.rand(4, 1, 8, 8))
    wrong(monkeypatch, change)
    monkeypatch.setattr(speed, "HOPELESS", math.inf)  # whatever else this machine does
    assert not layers_agree(Run(DIGITS).network, torch.rand(4, 1, 8, 8))
    assert precisions(DIGITS, seconds=0.01)["bf16"] == 0


def test_a_hopelessly_slow_bf16_is_not_timed_any_further(monkeypatch):
    steps = []
    step = speed._Candidate.step

    def slow(self: speed._Candidate, batch: tuple[Tensor, Tensor]) -> float:
        value = step(self, batch)
        if self.config.precision == "bf16":
            steps.append(len(batch[1]))
            self.times[-1] = 1e3 * self.times[-1]
        return value

    monkeypatch.setattr(speed._Candidate, "step", slow)
    found = precisions(DIGITS.with_(batch_size=32), seconds=0.01)
    assert 0 < found["bf16"] < found["fp32"] / speed.HOPELESS
    assert steps == [speed.FEW] * 3


@pytest.mark.parametrize(
    ("bf16", "taken"), [(0.0, "fp32"), (0.7, "fp32"), (1.1, "fp32"), (1.3, "bf16"), (3.0, "bf16")]
)
def test_bf16_is_taken_where_it_is_faster_by_more_than_timings_scatter(bf16, taken):
    assert speed.preferred({"fp32": 1000.0, "bf16": 1000.0 * bf16}) == taken


OWN = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


class Odd(nn.Module):
    def forward(self, images):
        {line}
        return images


def build(width, image_size, image_channels):
    first = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.5))
    return Backbone((first, nn.Sequential(nn.Conv2d(8, 8, 3), Odd())), (8, 8), nn.Linear)
"""


def test_precisions_are_compared_by_what_they_work_not_by_what_else_ran(monkeypatch):
    def in_turns(candidates, seconds):
        for candidate, worked in zip(candidates, (0.003, 0.001), strict=True):
            candidate.worked[:] = [worked, worked, 9.0]
        return [100.0, 10.0]  # images/s by the clock: others had the core

    monkeypatch.setattr(speed, "_in_turns", in_turns)
    monkeypatch.setattr(speed, "HOPELESS", float("inf"))
    monkeypatch.setattr(speed, "layers_agree", lambda *_: True)
    monkeypatch.setattr(speed, "SAME_LOSS", 1.0)
    assert precisions(TrialConfig()) == {"fp32": 100.0, "bf16": pytest.approx(300.0)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(given, expected):
    ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    said = subprocess.run(
        [sys.executable, "-c", "import os, trainers; print(os.environ.get('GOMP_SPINCOUNT'))"],
        env={**kept, **given}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == expected


def test_dropout_is_no_difference_between_precisions(tmp_path):
    (tmp_path / "own.py").write_text(OWN.format(line=""))
    config = TrialConfig(backbone=str(tmp_path / "own.py"))
    for seed in range(5):
        torch.manual_seed(seed)
        assert precisions(config, seconds=0.01)["bf16"] > 0


def test_a_network_that_cannot_run_in_bf16_is_trained_in_fp32(tmp_path):
    (tmp_path / "own.py").write_text(OWN.format(line="images.detach().numpy()"))
    found = precisions(TrialConfig(backbone=str(tmp_path / "own.py")), seconds=0.01)
    assert found["bf16"] == 0 < found["fp32"]
