"""Checkpoints: atomic, and nothing foreign is read."""

import os
import pickle

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


def test_content_comes_back(tmp_path):
    path = tmp_path / "deep" / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(3), "reports": ["a"]})
    content = checkpoints.read(path)
    assert content["weights"].tolist() == [0, 1, 2] and content["reports"] == ["a"]
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"n": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.write(path, {"n": 2})
    assert checkpoints.read(path)["n"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_every_truncation_is_refused_in_one_line(tmp_path):
    path = tmp_path / "run.pt"
    checkpoints.write(path, {"weights": torch.arange(1000)})
    whole = path.read_bytes()
    for length in [0, 1, 10, *range(100, len(whole) - 1, len(whole) // 20)]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            checkpoints.read(path)
        assert "\n" not in str(caught.value)


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
