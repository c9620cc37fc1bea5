"""Epochs on one device in the ways that there are, here on a CPU."""

import threading

import pytest

from trainers import epochs
from trainers.captured import CapturedRun

DIGITS = {"dataset": "digits", "backbone": "cnn4", "width": 0.25, "batch_size": 8}


def table() -> list[epochs.Row]:
    return epochs.epoch_table("digits", device="cpu", images=16, together=(2,), rounds=1)


def test_every_way_has_a_row(monkeypatch):
    monkeypatch.setitem(epochs.NETS, "digits", DIGITS)
    sides = [row.side for row in table()]
    path = "uncaptured, fused batch norm, bf16"
    assert sides == ["step by step, fp32", "step by step, bf16", path, "2 together"]


def test_a_run_that_breaks_beside_others_is_no_fast_one(monkeypatch):
    monkeypatch.setitem(epochs.NETS, "digits", DIGITS)
    train = CapturedRun.train_epoch

    def breaks(run: CapturedRun, *given: object) -> float:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("broken beside others")
        return train(run, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(CapturedRun, "train_epoch", breaks)
    with pytest.raises(ValueError, match="broken beside others"):
        table()
    with pytest.raises(ValueError, match="broken beside others"):
        epochs.begin_table("digits", device="cpu", images=16)


def test_one_more_run_begins_while_others_train(monkeypatch):
    monkeypatch.setitem(epochs.NETS, "digits", DIGITS)
    training: list[int] = []

    class Made(CapturedRun):
        def __init__(self, *given: object) -> None:
            training.append(threading.active_count() - before)
            super().__init__(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(epochs, "CapturedRun", Made)
    before = threading.active_count()
    alone, beside = epochs.begin_table("digits", device="cpu", images=16, beside=2)
    assert training == [0, 0, 0, 2]
    assert (alone.side, beside.side) == ("one more begins, alone", "beside 2 that train")
    assert alone.unit == "s" and alone.value > 0 and beside.value > 0
    assert beside.ratio == pytest.approx(alone.value / beside.value)
    assert threading.active_count() == before
