"""Latency and memory of exits: what is run, how memory is counted, what ranks apart."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.trainers.networks import config
from tests.trainers.test_exits import MINE
from trainers import timing
from trainers.backbones import BACKBONES
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.exits import build_network
from trainers.timing import Alive, ExitTiming, profile, ranked_apart


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_exit_of_every_backbone_is_measured(backbone):
    c = config(backbone, width=0.125)
    rows = profile(c, repeats=2, threads=1)
    assert [row.exit for row in rows] == list(range(1, c.exits + 1))
    assert [row.flops for row in rows] == [cost.flops for cost in costs(c)]
    for row, cost in zip(rows, costs(c), strict=True):
        assert 0 < row.low <= row.seconds <= row.high
        assert (row.rounds, row.batch_size) == (2, 1)
        assert row.activations > 0
        assert row.weights >= 4 * cost.parameters


def test_weights_are_those_of_the_path_alone():
    (*_, deepest) = profile(config("vgg16", width=0.125), repeats=1, threads=1)
    network = build_network(config("vgg16", width=0.125, scheme="baseline"))
    tensors = (*network.parameters(), *network.buffers())
    assert deepest.weights == sum(t.nbytes for t in tensors)


def test_several_networks_are_measured_in_turns(monkeypatch):
    seen = []

    def timed(path):
        seen.append((path.config.backbone, path.exit))
        return 1.0

    monkeypatch.setattr(timing, "_timed", timed)
    rows = profile(config("vgg16", width=0.125), config("msdnet"), batch_size=4, repeats=3)
    expected = [("vgg16", k) for k in (1, 2, 3, 4)] + [("msdnet", k) for k in (1, 2, 3, 4, 5)]
    assert [(row.backbone, row.exit) for row in rows] == expected
    rounds = [seen[i : i + 9] for i in range(0, len(seen), 9)]
    assert len(rounds) == timing.WARM_UP + 3
    assert all(sorted(one) == sorted(expected) for one in rounds)
    assert len({one[0] for one in rounds}) == len(rounds), "each round begins at another exit"
    assert {row.seconds for row in rows} == {0.25}, "a batch of four took a second"


def test_times_are_the_median_and_quartiles_of_the_timed_rounds(monkeypatch):
    times = iter(
        [9.0] * 4 * timing.WARM_UP + [t for t in (1.0, 2.0, 3.0, 4.0, 50.0) for _ in "abcd"]
    )
    monkeypatch.setattr(timing, "_timed", lambda path: next(times))
    for row in profile(TrialConfig(), repeats=5):
        assert (row.low, row.seconds, row.high) == (2.0, 3.0, 4.0)


SLOW = """
import time
class Slow(nn.Conv2d):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)
"""


def test_a_users_own_backbone_is_measured_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("nn.Conv2d(8, 12", "Slow(8, 12") + SLOW)
    one, two = profile(TrialConfig(dataset="digits", backbone=str(path)), repeats=3)
    assert two.seconds >= 0.02 > one.seconds
    assert one.backbone == str(path)


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    profile(TrialConfig(), repeats=1, threads=before + 1)
    assert torch.get_num_threads() == before


def test_nothing_is_drawn_from_the_global_random_state():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    profile(TrialConfig(), repeats=1)
    assert torch.equal(torch.rand(1), expected)


KB = 1024


@pytest.mark.parametrize(
    ("network", "peak"),
    [  # (1, 4, 16, 16) float32 images are 4 KB, and do not count
        (nn.Sequential(nn.Conv2d(4, 8, 1)), 8 * KB),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(inplace=True)), 8 * KB),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU()), 16 * KB),
        # the widest neighbours, not the sum of all
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)), 24 * KB),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Unflatten(1, (8, 256))), 8 * KB),
    ],
)
def test_memory_is_the_largest_sum_of_tensors_alive(network, peak):
    images = torch.zeros(1, 4, 16, 16)
    with torch.no_grad(), Alive((*network.parameters(), images)) as alive:
        network(images)
    assert alive.peak == peak


def test_memory_that_a_view_holds_is_alive():
    with torch.no_grad(), Alive() as alive:
        row = torch.zeros(256, 4)[0]  # the whole of it: 4 KB
        torch.zeros(256)  # 1 KB, gone at once
        del row
        torch.zeros(1024)  # 4 KB again, with nothing beside it
    assert alive.peak == 5 * KB


def row(flops: int, seconds: float, spread: float = 0.0) -> ExitTiming:
    made = profile(TrialConfig(), repeats=1)[0]
    low, high = seconds - spread, seconds + spread
    return replace(made, flops=flops, seconds=seconds, low=low, high=high, rounds=timing.ENOUGH)


def test_pairs_that_rank_apart_are_those_beyond_the_spread():
    cheap, slow, dear = row(10, 2.0, 0.1), row(20, 5.0, 0.1), row(30, 3.0, 0.1)
    assert ranked_apart([cheap, dear]) == []
    assert ranked_apart([dear, cheap, slow]) == [(slow, dear)]
    slower = row(15, 9.0, 0.1)
    assert ranked_apart([slow, slower, dear]) == [(slower, dear), (slower, slow), (slow, dear)]
    unsure = row(20, 3.15, 0.1)
    assert ranked_apart([unsure, dear]) == []
    same = row(30, 9.0)
    assert ranked_apart([same, dear]) == []
    assert ranked_apart([replace(slow, rounds=4), dear]) == [], "too few rounds have no spread"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size needs to be at least 1, got 0"),
        ({"repeats": 0}, "repeats needs"),
        ({"threads": -1}, "threads needs"),
        ({"device": "tpu"}, "unknown device 'tpu' .*: known are cpu, cuda"),
    ],
)
def test_wrong_numbers_are_one_line(options, says):
    with pytest.raises(InputError, match=says):
        profile(TrialConfig(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match="no CUDA device is visible"):
        profile(TrialConfig(), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_allocator_is_asked():
    begin = time.perf_counter()
    rows = profile(config("vgg16"), batch_size=8, repeats=3, device="cuda")
    assert all(0 < r.seconds < time.perf_counter() - begin for r in rows)
    assert rows[0].activations >= 8 * 64 * 32 * 32 * 4
