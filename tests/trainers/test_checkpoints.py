"""Checkpoints: atomic, and nothing foreign is read."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from trainers import checkpoints
from trainers.catalog import InputError


class Planted:
    """A pickle that would run a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("packed", [False, True])
def test_content_comes_back(tmp_path, packed):
    path = tmp_path / "deep" / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(3), "reports": ["a"]}, packed)
    content = checkpoints.read(path)
    assert content["weights"].tolist() == [0, 1, 2] and content["reports"] == ["a"]
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"n": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(checkpoints.UnwritableError, match="No space") as caught:
        checkpoints.write(path, {"n": 2})
    assert "\n" not in str(caught.value)
    assert checkpoints.read(path)["n"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_refused_in_one_line(tmp_path, packed):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(1000)}, packed)
    whole = path.read_bytes()
    for length in [0, 1, 10, *range(100, len(whole) - 1, len(whole) // 20)]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            checkpoints.read(path)
        assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_one_line(tmp_path):
    """Without what torch tells of its own versions."""
    (tmp_path / "1.yaml").write_text("alpha: 3\n")
    with pytest.raises(checkpoints.DamagedError) as caught:
        checkpoints.read(tmp_path / "1.yaml")
    assert str(caught.value).endswith("is damaged: it holds something else than weights")


def test_a_pickle_is_not_run(tmp_path):
    mark = tmp_path / "planted"
    for name, save in (("a.pt", torch.save), ("b.pt", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        save({"format": checkpoints.FORMAT, "x": Planted(mark)}, tmp_path / name)
        with pytest.raises(InputError, match="no checkpoint of ours"):
            checkpoints.read(tmp_path / name)
    assert not mark.exists()


def test_foreign_files_and_missing_files(tmp_path):
    torch.save({"format": "other"}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="no checkpoint of ours"):
        checkpoints.read(tmp_path / "a.pt")
    with pytest.raises(InputError, match="does not exist"):
        checkpoints.read(tmp_path / "b.pt")


@pytest.mark.parametrize("packed", [False, True])
def test_what_fails_beside_the_content_is_not_called_damage(tmp_path, monkeypatch, packed):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(3)}, packed)
    with pytest.raises(checkpoints.UnreadableError, match="cannot be read: Is a directory"):
        checkpoints.read(tmp_path)
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "load", raising(error))
            with pytest.raises(type(error)):
                checkpoints.read(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(checkpoints.DamagedError):
        checkpoints.read(path)


def raising(error):
    def fails(*args, **kwargs):
        raise error

    return fails


def test_the_one_before_is_kept_and_both_are_removed(tmp_path):
    path = tmp_path / "run.pt"
    for n in (1, 2, 3):
        checkpoints.write(path, {"n": n})
    assert checkpoints.read(path)["n"] == 3
    assert checkpoints.read(checkpoints.before(path))["n"] == 2
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".run.pt.k1lled").write_bytes(b"half")  # of a process that was killed meanwhile
    checkpoints.remove(path)
    checkpoints.remove(path)
    assert not list(tmp_path.iterdir())


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
import torch
from trainers import checkpoints
path = Path(sys.argv[1])
checkpoints.write(path, {"x": torch.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.write(path, {"x": torch.zeros(100_000)})
except checkpoints.UnwritableError as error:
    print(error)
"""


def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.pt"
    done = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "cannot be written: File too large" in done.stdout, done.stderr
    assert len(checkpoints.read(path)["x"]) == 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_folder_is_one_line(tmp_path, monkeypatch):
    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", read_only)
    with pytest.raises(checkpoints.UnwritableError, match="Read-only file system"):
        checkpoints.write(tmp_path / "run.pt", {"n": 1})
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_as_they_lay_in_memory(tmp_path):
    path = tmp_path / "run.pt"
    images = torch.randn(2, 3, 4, 5)
    given = {
        "weights": {"last": images.contiguous(memory_format=torch.channels_last), "plain": images},
        "state": {0: {"momentum_buffer": torch.zeros(0)}, 1: {"momentum_buffer": None}},
        "mixed": [torch.tensor(3), 1.5, "text", torch.tensor(True), torch.ones(2).bfloat16()],
    }
    checkpoints.write(path, given, packed=True)
    found = checkpoints.read(path)
    assert found["weights"]["last"].stride() == given["weights"]["last"].stride()
    for name in ("last", "plain"):
        assert torch.equal(found["weights"][name], images)
    assert found["state"][0]["momentum_buffer"].shape == (0,)
    assert found["state"][1] == {"momentum_buffer": None}
    number, *others, flag, half = found["mixed"]
    assert (number.shape, int(number), number.dtype) == ((), 3, torch.int64)
    assert others == [1.5, "text"] and bool(flag) and half.dtype == torch.bfloat16


def test_a_file_whose_parts_do_not_fit_is_damaged(tmp_path):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(3)}, packed=True)
    whole = torch.load(path)
    for name, value in (
        ("text", "{"),
        ("text", whole["text"].replace("int64", "int8")),
        ("flat", {}),
    ):
        torch.save({**whole, name: value}, path)
        with pytest.raises(InputError, match=r"is damaged"):
            checkpoints.read(path)
