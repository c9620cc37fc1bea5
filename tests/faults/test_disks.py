"""Disks that are really full, or that nothing can be written to: one line, and then it goes on."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.drivers import Search, described

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WORDS = ("--trials", "3", "--epochs", "3")


def mounted(folder: Path, *options: str) -> bool:
    """A file system in memory; only root may make one."""
    mount = shutil.which("mount")
    words = [mount or "", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return mount is not None and not subprocess.run(words, capture_output=True).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "size=1m"):
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def again(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("size", ["240k", "700k"], ids=["for the study", "for a checkpoint"])
def test_a_full_disk_is_one_line_and_with_space_the_same_command_goes_on(disk, tmp_path, size):
    again(disk, f"size={size}")
    code, _, err = Search(disk, *WORDS, forked=True).ended()
    assert code == 1, err
    said = err.strip().splitlines()
    assert said[-1].startswith("automate: ") and "Traceback" not in err
    assert "full" in said[-1] or "No space left" in said[-1]
    again(disk, "size=50m")
    code, _, err = Search(disk, *WORDS, forked=True).ended()
    assert code == 0, err
    other = tmp_path / "other"
    other.mkdir()
    code, _, err = Search(other, *WORDS, forked=True).ended()
    assert code == 0, err
    assert described(disk) == described(other), "as if nothing had been in the way"


def test_a_folder_that_cannot_be_written_to_is_one_line(disk):
    again(disk, "ro")
    code, _, err = Search(disk, *WORDS, forked=True).ended()
    assert code == 2
    assert "Read-only file system" in err.splitlines()[-1] and "Traceback" not in err
