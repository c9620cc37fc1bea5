"""The folder of what Tune writes: gone with its search, and a killed one's with the next."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from studies.drivers import Driver
from studies.scratch import OWNER, PREFIX, left_behind, scratch

HOLD = (
    "import sys; from studies.scratch import scratch\n"
    "with scratch() as folder:\n"
    "    (folder / 'trials').mkdir(); print(folder, flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def made(folder, owner):
    folder.mkdir()
    (folder / OWNER).write_text(owner)
    return folder


def test_a_killed_searchs_folder_goes_with_the_next_search_and_a_living_ones_stays(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ".", "TMPDIR": str(tmp_path)},
    ) as other:  # fmt: skip
        theirs = Path(other.stdout.readline().strip())
        with scratch() as folder:
            assert set(tmp_path.iterdir()) == {folder, theirs}
        assert list(tmp_path.iterdir()) == [theirs]
        other.kill()
        other.wait()
        assert theirs.is_dir(), "nobody was left to remove it"
        with scratch() as folder:
            assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_nothing_that_may_be_of_others_or_alive_is_left_behind(tmp_path, monkeypatch):
    place = Driver().name.split(":")[0]
    dead = f"{place}:4194303:1:1"
    left = made(tmp_path / f"{PREFIX}left", dead)
    reused = made(tmp_path / f"{PREFIX}reused", f"{place}:{os.getpid()}:1:1")
    made(tmp_path / f"{PREFIX}alive", Driver().name)
    made(tmp_path / f"{PREFIX}elsewhere", "elsewhere:4194303:1:1")
    made(tmp_path / f"{PREFIX}unreadable", "").joinpath(OWNER).write_bytes(b"\xff\xfe")
    made(tmp_path / "someone-elses", dead)
    (tmp_path / f"{PREFIX}unnamed").mkdir()
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(left)
    assert sorted(left_behind()) == [left, reused]
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert left_behind() == []
