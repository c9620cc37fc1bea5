"""The peak of resident memory: it rises with what is held, and begins anew."""

import mmap
import sys

import pytest

from trainers import memory
from trainers.config import TrialConfig
from trainers.loop import train

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


@LINUX
def test_the_peak_rises_and_begins_anew():
    assert memory.begin()
    before = memory.peak()
    with mmap.mmap(-1, 200_000_000) as held:  # an allocator might keep it for the next who asks
        held[:: mmap.PAGESIZE] = bytes(len(held[:: mmap.PAGESIZE]))  # a byte of each page
    assert memory.peak() - before > 190e6
    assert memory.begin()
    assert memory.peak() - before < 100e6


def test_where_the_system_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "none")
    assert not memory.begin()
    assert 50e6 < memory.peak() < 50e9


def test_a_report_tells_it():
    report = next(train(TrialConfig(epochs=2)))
    assert report.memory is not None and 50e6 < report.memory < 50e9
