"""The device that is asked for, and those that are there."""

import pytest
import torch

from trainers.catalog import InputError
from trainers.devices import check_threads, settled_device


@pytest.mark.parametrize(
    ("asked", "visible", "found"),
    [(None, 0, "cpu"), (None, 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda")],
)
def test_what_is_asked_for_else_cuda_where_there_is_one(asked, visible, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert settled_device(asked) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("cuda", "device cuda: no CUDA device is visible; take --device cpu"),
        ("cud", "unknown device 'cud': known are cpu, cuda; did you mean 'cuda'?"),
        ("", "unknown device ''"),
    ],
)
def test_any_other_is_one_line(asked, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError) as caught:
        settled_device(asked)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_threads_are_one_or_more():
    check_threads(None), check_threads(1)
    with pytest.raises(InputError, match="threads needs to be at least 1, got 0"):
        check_threads(0)
