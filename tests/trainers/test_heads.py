"""All heads at once: values, gradients and statistics of the modules that they stand for."""

import copy

import pytest
import torch

from trainers.config import TrialConfig
from trainers.exits import MultiExitNet, build_network
from trainers.heads import FastHeadsNet, levels, use_fast_heads
from trainers.paths import use_fast_paths

SMALL = {"dataset": "cifar100", "width": 0.125}
NETS = {
    "digits": {},
    "vgg16": SMALL,
    "resnet18, maps too large": {**SMALL, "backbone": "resnet18"},
}


def pair(**fields):
    torch.manual_seed(0)
    slow = build_network(TrialConfig(**fields)).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(slow)
    use_fast_heads(fast)
    return slow.train(), fast.train()


def images(fields, number=12):
    config = TrialConfig(**fields)
    generator = torch.Generator().manual_seed(1)
    size = (number, config.channels, config.image_size, config.image_size)
    return torch.randn(size, generator=generator).contiguous(memory_format=torch.channels_last)


def close(ours, theirs):
    return float((ours - theirs).norm()) <= 1e-5 * max(float(theirs.norm()), 1e-3)


@pytest.mark.parametrize("fields", [NETS["digits"], NETS["vgg16"]], ids=["digits", "vgg16"])
def test_a_step_is_the_modules(fields):
    nets = pair(**fields)
    given = images(fields).double()  # rounding would hide what a wrong term is worth
    found = []
    for net in nets:
        net.double()
        features, logits = net(given)
        weights = torch.linspace(-1, 1, features.numel(), dtype=torch.float64).view_as(features)
        (features * weights).sum().add(logits.logsumexp(-1).sum()).backward()
        found.append((features, logits))
    assert nets[0].heads[0][0][2].num_batches_tracked == 1
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(*found, strict=True))
    for (name, slow), fast in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(fast.grad, slow.grad, rtol=1e-8, atol=1e-10), name
    for (name, slow), fast in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        assert torch.allclose(fast, slow, rtol=1e-10), name


@pytest.mark.parametrize("name", NETS)
def test_in_single_precision_to_a_hundred_thousandth(name):
    fields = NETS[name]
    slow, fast = pair(**fields)
    values = []
    for net in (slow, fast):
        features, logits = net(images(fields))
        logits.square().mean().backward()
        values.append((features.detach(), logits.detach(), *(p.grad for p in net.parameters())))
    assert all(close(b, a) for a, b in zip(*values, strict=True))


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 1), (2, 1, 2), (1, 2, 4), (1, 2, 2)])
def test_stages_of_a_users_own_need_not_halve_their_maps(tmp_path, strides):
    path = tmp_path / "mine.py"
    path.write_text(f"""
from torch import nn
from trainers.backbones import Backbone
EXITS = 3
def block(cin, stride):
    return nn.Sequential(nn.Conv2d(cin, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU())
def build(width, image_size, image_channels):
    stages = tuple(block(8 if k else image_channels, s) for k, s in enumerate({strides}))
    return Backbone(stages=stages, channels=(8, 8, 8), classifier=nn.Linear)
""")
    fields = {"dataset": "digits", "backbone": str(path)}
    slow, fast = pair(**fields)
    assert type(fast) is FastHeadsNet
    for ours, theirs in zip(fast(images(fields)), slow(images(fields)), strict=True):
        assert close(ours.detach(), theirs.detach())
    assert (fast._halves is not None) == (strides[1:] == (2, 2)), "only these meet on levels"


def test_which_networks():
    digits = pair()[1]
    assert type(digits) is FastHeadsNet
    assert [len(level) for level in levels(digits)] == [1, 2, 3]
    for other in ({"scheme": "baseline"}, {**SMALL, "backbone": "msdnet", "width": 1.0}):
        assert type(pair(**other)[1]) is MultiExitNet


def test_the_same_weights_by_name_and_the_way_is_found_anew_in_a_copy():
    slow, fast = pair()
    use_fast_paths(fast)
    fast(images({}))
    assert list(slow.state_dict()) == list(fast.state_dict())
    other = copy.deepcopy(fast)
    features, _ = other(images({}))
    features.sum().backward()
    assert all(p.grad is None for p in fast.parameters())
    assert other.heads[0][0][0].weight.grad is not None


def test_elsewhere_the_modules_run(monkeypatch):
    slow, fast = pair()
    monkeypatch.setattr("trainers.heads._Heads.apply", None)
    with torch.no_grad():
        fast(images({}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast(images({}))
    assert torch.equal(fast.eval()(images({}))[1], fast(images({}))[1])
    with pytest.raises(TypeError):
        fast.train()(images({}))
