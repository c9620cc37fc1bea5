"""Time and memory of training: counted where they can be, plausible where they are measured."""

import sys

import pytest
import torch
from torch import nn

from trainers import footprint, memory
from trainers.config import TrialConfig
from trainers.footprint import footprints

BASE = TrialConfig(dataset="digits", batch_size=32)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_what_is_kept_for_backward_is_counted_once():
    x = torch.randn(100, 10)
    layer, seen = nn.Linear(10, 20), nn.Tanh()
    with footprint._saved() as kept:
        seen(layer(x))
    place = x.untyped_storage().data_ptr()
    assert kept[place] == 100 * 10 * 4  # for the weights' gradient
    outputs = [size for where, size in kept.items() if where != place]
    assert outputs.count(100 * 20 * 4) == 1  # tanh's own output
    with footprint._saved() as twice:
        seen(layer(x)), layer(x)
    assert sum(twice.values()) - sum(kept.values()) == 0


def test_rounds_interleave_and_what_is_counted_has_no_noise():
    configs = {name: BASE.with_(scheme=name) for name in ("baseline", "branchynet", "mate")}
    rounds: list[int] = []
    found = footprints(configs, rounds=2, steps=1, on_round=rounds.append)
    assert rounds == [1, 2] and list(found) == list(configs)
    for each in found.values():
        assert len(each) == 2 and len({one.saved for one in each}) == 1
        assert all(one.seconds > 0 for one in each)
    saved = {name: each[0].saved for name, each in found.items()}
    assert saved["baseline"] < saved["branchynet"] < saved["mate"]
    batch = 32
    double = footprints({"mate": BASE.with_(batch_size=2 * batch)}, rounds=1, steps=1)["mate"][0]
    assert 1.8 < double.saved / saved["mate"] < 2.1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_peak_of_resident_memory_is_seen():
    before = footprint._start("cpu")
    assert before is not None
    torch.ones(20_000_000).sum()  # 80 MB
    assert 70e6 < footprint._peak("cpu", before) < 200e6
    again = footprint._start("cpu")
    assert footprint._peak("cpu", again) < 40e6  # begun anew


def test_without_proc_the_peak_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "clear_refs")
    assert footprint._start("cpu") is None and footprint._peak("cpu", None) is None
