"""The peak of resident memory: it rises with what is held, and begins anew."""

import mmap
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def test_macos_counts_in_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    of_linux = memory.peak()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert of_linux <= 1024 * memory.peak() < 2 * of_linux


def test_a_report_tells_it():
    report = next(train(TrialConfig(epochs=2)))
    assert report.memory is not None and 50e6 < report.memory < 50e9


GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")


@GLIBC
@pytest.mark.slow
def test_a_step_does_not_ask_again_for_what_it_freed():
    program = (
        "import resource, statistics, sys, torch, trainers.run\n"
        "from trainers.config import TrialConfig\n"
        "if sys.argv[1] == 'returned': trainers.run.keep_freed = lambda: None\n"
        "config = TrialConfig(dataset='cifar100', backbone='resnet18', width=0.25)\n"
        "run = trainers.run.Run(config)\n"
        "batch = torch.rand(128, 3, 32, 32), torch.arange(128) % 100\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def of_a_step():\n"
        "    before = faults()\n"
        "    run.step(*batch)\n"
        "    return faults() - before\n"
        "for _ in range(5): run.step(*batch)\n"
        "print(statistics.median(of_a_step() for _ in range(9)))"  # the heap may grow once more
    )
    root = Path(__file__).parents[2]
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", program, word], cwd=root))
        for word in ("kept", "returned")
    )
    assert returned > 1000 and kept < returned / 4


@GLIBC
def test_what_others_freed_goes_back_before_a_peak_begins():
    memory.keep_freed()
    blocks = [torch.ones(250_000) for _ in range(300)]  # 1 MB each
    last = torch.ones(10)  # after them, so that they are not the end of the heap
    blocks.clear()
    held = memory.status("VmRSS")
    assert memory.begin()
    assert held is not None and memory.peak() < held - 150e6
    assert last.sum() == 10
