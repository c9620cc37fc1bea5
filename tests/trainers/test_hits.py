"""Which held-out images a network has right: there and back, small, kept with the last epoch."""

import numpy as np
import pytest
import torch

from trainers.captured import CapturedRun
from trainers.config import TrialConfig
from trainers.data import load
from trainers.hits import Hits, packed, unpacked
from trainers.loop import train
from trainers.run import Run

TINY = TrialConfig(epochs=2, limit_train=60, split_seed=1)


def drawn(stored: int, held: int, exits: int, rng: int = 0) -> Hits:
    """A network whose exits agree with each other on most images, as real ones do."""
    generator = np.random.default_rng(rng)
    rows = np.sort(generator.choice(stored, held, replace=False))
    sure = generator.normal(0.8, 1.4, held) + generator.normal(0, 0.3, (exits, held))
    return Hits(rows, sure > 0)


@pytest.mark.parametrize(
    ("stored", "held", "exits", "most"),
    [(897, 717, 4, 600), (50_000, 5_000, 4, 8_000), (5, 5, 1, 60), (9, 1, 10, 60)],
)
def test_there_and_back_in_a_few_kilobytes(stored, held, exits, most):
    hits = drawn(stored, held, exits)
    text = packed(hits)
    back = unpacked(text)
    assert back is not None and len(text) < most and text.isascii()
    assert (back.rows == hits.rows).all() and (back.right == hits.right).all()


def test_what_is_damaged_is_none():
    text = packed(drawn(50, 20, 3))
    for wrong in ("", "4", "a b c d", text[:-8], f"3 21 {text.split(' ', 2)[2]}", "1 1 1 !!!!"):
        assert unpacked(wrong) is None


def test_the_last_epoch_keeps_them_where_they_are_asked_for(tmp_path):
    path = tmp_path / "run.pt"
    first, last = train(TINY, checkpoint=path, hits=True)
    hits = unpacked(last.hits)
    data = load(TINY).score
    assert first.hits == "" and hits is not None
    assert (hits.rows == data.rows.numpy()).all() and len(hits.rows) == 717
    shares = hits.right.mean(axis=1)
    assert shares.tolist() == pytest.approx(last.accuracies)
    run = Run(TINY)
    assert run.restore(path)[-1].hits == last.hits, "a kill between epoch and report loses none"
    image = data.read(torch.arange(50)).float()
    scale, offset = 1 / (255 * data.std[0]), -data.mean[0] / data.std[0]
    _, logits = run.forward(image * scale + offset, run.network.eval())
    assert (logits.argmax(-1) == data.labels[:50]).numpy().tolist() == hits.right[:, :50].tolist()
    assert [report.hits for report in train(TINY)] == ["", ""]


def test_captured_passes_keep_the_same():
    data = load(TINY)
    rows = np.arange(len(data.score))
    ours, plain = CapturedRun(TINY, data, "cpu"), Run(TINY)
    assert ours.score(data.score)["hits"] == ""
    assert ours.score(data.score, rows=rows)["hits"] == plain.score(data.score, rows=rows)["hits"]
    again = ours.score(data.calibrate or data.fit, rows=np.arange(len(data.fit)))
    assert len(unpacked(again["hits"]).rows) == len(data.fit)
