"""What graphs of several runs in a process share: streams and memory."""

import weakref
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
        """One of a pool of four, in turns. No weak reference to it can be made: one to PyTorch's
        ends the process once the stream is gone (pytorch#183403)."""

        __slots__ = ("cuda_stream",)
        drawn = 0

        def __init__(self, device: torch.device) -> None:
            self.cuda_stream = 1000 + Stream.drawn % 4
            Stream.drawn += 1

    class Owner:
        def __init__(self) -> None:
            self.number = own_stream(CUDA, self).cuda_stream

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    before = list(graphs._taken)
    living = Owner()
    for _ in range(9):
        assert Owner().number != living.number
    others = [Owner() for _ in range(3)]
    numbers = {owner.number for owner in (living, *others)}
    assert len(numbers) == 4
    last = Owner()
    assert last.number in numbers, "none is free: one of theirs"
    del living, others  # the stream that `last` shared with one of them stays taken
    assert last.number not in {Owner().number for _ in range(8)}
    del last
    assert graphs._taken == before


@pytest.mark.parametrize("others", [0, 1])
def test_a_run_beside_others_launches_few_replays_ahead(others, monkeypatch):
    launched, done, most = 0, 0, 0

    class Graph:
        def replay(self) -> None:
            nonlocal launched, most
            launched += 1
            most = max(most, launched - done)

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking, "a wait that takes a core would be taken from the other runs"

        def record(self) -> None:
            self.number = launched

        def synchronize(self) -> None:
            nonlocal done
            done = self.number

    class Living:
        pass

    runs = [Living() for _ in range(1 + others)]
    monkeypatch.setattr(graphs, "living", weakref.WeakSet(runs))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    made = Pass(100, 4, torch.device("cpu"))
    made._graphs = {4: Graph()}  # type: ignore[dict-item]
    made.run(lambda places: None)
    assert launched == 25
    assert most == (graphs.AHEAD + 1 if others else 25)
    del runs[1:]
    done = launched
    made.run(lambda places: None)
    assert most == 25, "alone again"


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
