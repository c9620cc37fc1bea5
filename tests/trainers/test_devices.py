"""The device that is asked for, and those that are there."""

import pytest
import torch

from trainers.catalog import InputError
from trainers.devices import check_threads, settled_device, usable_device


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
        ("cud", "unknown device 'cud' (did you mean 'cuda'?): known are cpu, cuda"),
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


def test_a_cluster_has_the_devices_of_its_nodes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert settled_device(None, 2) == settled_device("cuda", 2) == "cuda"
    assert settled_device(None, 0) == settled_device("cpu", 2) == "cpu"
    with pytest.raises(InputError, match="no CUDA device is in the Ray cluster"):
        settled_device("cuda", 0)


@pytest.mark.parametrize(("visible", "found"), [(0, "cpu"), (1, "cuda")])
def test_what_was_trained_on_another_machines_gpu_is_scored_where_there_is_none(
    visible, found, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert usable_device("cuda") == found and usable_device("cpu") == "cpu"
