"""What graphs of several runs in a process share: streams and memory."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from trainers import graphs
from trainers.config import TrialConfig
from trainers.data import load, random_images
from trainers.graphs import Pass, Shown, chunk, own_stream

CUDA = torch.device("cuda")


def test_a_new_run_has_no_living_runs_stream(monkeypatch):
    class Stream:
        """One of a pool of four, in turns; equal where it is the same one."""

        drawn = 0

        def __init__(self, device: torch.device) -> None:
            self.number = Stream.drawn % 4
            Stream.drawn += 1

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Stream) and self.number == other.number

        def __hash__(self) -> int:
            return self.number

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(graphs, "_streams", type(graphs._streams)())
    living = own_stream(CUDA)
    for _ in range(9):
        assert own_stream(CUDA) != living
    others = [own_stream(CUDA) for _ in range(3)]
    assert len({living, *others}) == 4
    assert own_stream(CUDA) in {living, *others}, "none is free: one of theirs"
    del others[0]
    assert own_stream(CUDA) not in {living, *others}


def test_large_images_are_augmented_fewer_at_a_time(monkeypatch):
    assert [chunk(side) for side in (8, 32, 64, 224)] == [131_072, 8192, 2048, 256]
    asked = []
    passes = graphs.passes

    def seen(images: Any, number: int, **how: Any) -> Any:
        asked.append(number)
        return passes(images, number, **how)

    monkeypatch.setattr(graphs, "passes", seen)
    config = TrialConfig(dataset="cub200", backbone="resnet18")
    assert config.image_size == 224
    images = random_images(config, 3)
    Shown(images).show(images, config, 0)
    assert asked == [256]


def test_an_epochs_images_do_not_depend_on_how_many_are_augmented_at_a_time(monkeypatch):
    config = TrialConfig(augmentation="crop_flip")
    images = load(config).fit
    shown = []
    for number in (1000, 7):
        monkeypatch.setattr(graphs, "chunk", lambda side, number=number: number)
        one = Shown(images)
        one.show(images, config, 1)
        shown.append((one.pixels, one.labels))
    assert torch.equal(shown[0][0], shown[1][0]) and torch.equal(shown[0][1], shown[1][1])


def test_a_pass_is_captured_whole_or_not_at_all(monkeypatch):
    @contextmanager
    def graph(*_: Any, **__: Any) -> Any:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    made, seen = Pass(10, 4, torch.device("cpu")), []

    def body(places: torch.Tensor) -> None:
        seen.append(len(places))
        if len(places) == 2:
            raise RuntimeError("too few")

    with pytest.raises(RuntimeError, match="too few"):
        made.capture(body, None, None)  # type: ignore[arg-type]
    assert 4 in seen and not made.captured
    seen.clear()
    made.run(lambda places: seen.append(len(places)))
    assert seen == [4, 4, 2]
