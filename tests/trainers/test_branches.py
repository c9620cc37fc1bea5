"""Heads and gradients of weights beside the rest: the same function, and who waits for whom."""

import copy
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.trainers.networks import config
from trainers import branches
from trainers.branches import HEADS, WEIGHTS, BranchedConv2d, BranchedNet, Branches, branch
from trainers.exits import MultiExitNet, build_network
from trainers.fused import fuse

CPU = torch.device("cpu")


def built(backbone: str) -> MultiExitNet:
    torch.manual_seed(0)
    width = 1.0 if backbone in ("densenet121", "msdnet") else 0.125
    return build_network(config(backbone, width=width))


def gradients(network: MultiExitNet, images: torch.Tensor) -> list[torch.Tensor]:
    """Of every weight that has one; biases before batch norm have rounding alone."""
    features, logits = network(images)
    (logits.square().sum() + features.sum()).backward()
    weights = [p.grad for p in network.parameters() if p.dim() > 1]
    return [grad.double() for grad in weights if grad is not None]


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18", "densenet121", "msdnet", "cnn4"])
def test_a_branched_network_computes_the_same(backbone):
    plain = built(backbone)
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    made = Branches(CPU)
    branch(ours, made)
    assert isinstance(ours, BranchedNet)
    assert any(isinstance(layer, BranchedConv2d) for layer in ours.modules())
    assert list(ours.state_dict()) == list(plain.state_dict())
    given = config(backbone)
    images = torch.randn(4, given.channels, given.image_size, given.image_size)
    found = [gradients(network, images) for network in (ours, plain)]
    truth = gradients(exact, images.double())
    made.join()
    for mine, theirs, right in zip(*found, truth, strict=True):
        error = [float((one - right).norm()) for one in (mine, theirs)]
        assert error[0] <= 2 * error[1] + 1e-6 * float(right.norm())


def test_it_goes_with_fused_batch_norm():
    plain = built("vgg16").eval()
    ours = copy.deepcopy(plain).train()
    fuse(ours, None)
    branch(ours, Branches(CPU))
    images = torch.randn(2, 3, 32, 32)
    ours(images)[1].sum().backward()
    assert all(
        norm.relu for layer in ours.heads for norm in layer.modules() if hasattr(norm, "relu")
    )
    ours.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), plain(images), rtol=1e-3, atol=1e-4)


class Stream:
    """A stream that tells what it was asked to wait for."""

    def __init__(self, *_: Any) -> None:
        self.waited: list[Any] = []
        self.cuda_stream = id(self)

    def wait_stream(self, other: Any) -> None:
        self.waited.append(other)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The stream of a run, on a GPU that is not there."""
    made = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(stream))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: made)
    monkeypatch.setattr(branches, "_branched", weakref.WeakSet())
    return made


def test_a_branch_waits_for_what_was_and_a_join_for_the_branches(main):
    made = Branches(torch.device("cuda"))
    read = torch.zeros(3)
    kept = weakref.ref(read)
    with made.beside(HEADS, read):
        pass
    heads, weights = made._streams
    assert heads.waited == [main] and weights.waited == [] and main.waited == []
    del read
    assert kept() is not None  # its memory is not free before the branch has read it
    made.join()
    assert main.waited == [heads] and kept() is None
    with made.beside(WEIGHTS):
        pass
    made.join()
    assert main.waited == [heads, weights]
    made.join()
    assert main.waited == [heads, weights]  # nothing has begun


def test_one_run_of_a_process_has_branches_and_leaves_them_to_the_next(main):
    none = Branches(torch.device("cuda"), wanted=False)
    first, second = (Branches(torch.device("cuda")) for _ in range(2))
    assert not none.apart
    assert len(first._streams) == 2 and second._streams == []
    with second.beside(HEADS):
        pass
    assert main.waited == []
    del first
    assert Branches(torch.device("cuda")).apart
    made = Branches(torch.device("cuda"))
    with made.beside(HEADS):
        pass
    made.stop()
    made.join()
    assert not made.apart
    assert not Branches(torch.device("cuda")).apart, "that would fail as well"
