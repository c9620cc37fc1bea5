"""SGD of ours against PyTorch's: bit for bit, and each opens what the other saved."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainers.sgd import SGD

SETTINGS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,), (2, 3, 3, 3))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def both(**changes):
    settings = {**SETTINGS, **changes}
    pair = []
    for make in (SGD, lambda groups, **kw: torch.optim.SGD(groups, **kw, fused=True)):
        mine = parameters()
        pair.append((mine, make([{"params": mine[:2]}, {"params": mine[2:]}], **settings)))
    return pair


def steps(pair, number, begin=0, without=()):
    for step in range(begin, begin + number):
        for params, optimizer in pair:
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            for index, parameter in enumerate(params):
                grad = torch.randn(parameter.shape, generator=generator)
                parameter.grad = None if index in without else grad
            optimizer.step()


def same(pair):
    (ours, _), (theirs, _) = pair
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}])
def test_as_pytorch_has_it(changes):
    pair = both(**changes)
    steps(pair, 3)
    for _, optimizer in pair:
        for group, factor in zip(optimizer.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = 0.01 * factor
    steps(pair, 3, begin=3)
    assert same(pair)


def test_a_parameter_without_a_gradient_stays():
    pair = both()
    steps(pair, 2, without=(1,))
    assert same(pair) and torch.equal(pair[0][0][1], parameters()[1])
    assert set(pair[0][1].state_dict()["state"]) == {0, 2}


@pytest.mark.parametrize("giver", [0, 1])
def test_either_goes_on_from_the_others_state(giver):
    pair = both()
    steps(pair, 2)
    taker = both()[1 - giver]
    state = pair[giver][1].state_dict()
    with torch.no_grad():
        for mine, given in zip(taker[0], pair[giver][0], strict=True):
            mine.copy_(given)
    if giver == 1:
        taker[1].load_state_dict(state)
    else:  # PyTorch asks for settings that it alone has
        full = taker[1].state_dict()
        for mine, given in zip(full["param_groups"], state["param_groups"], strict=True):
            mine.update(given)
        taker[1].load_state_dict({"state": state["state"], "param_groups": full["param_groups"]})
    steps([taker, pair[1 - giver]], 2, begin=2)
    for mine, given in zip(taker[0], pair[1 - giver][0], strict=True):
        assert torch.equal(mine, given)


def test_gradients_that_lie_as_their_parameters_are_not_copied():
    last = torch.channels_last
    weights = [torch.randn(4, 3, *kernel) for kernel in ((3, 3), (3, 3), (1, 1))]
    weights[0] = weights[0].to(memory_format=last)
    ours, theirs = ([w.clone().requires_grad_() for w in weights] for _ in range(2))
    mine = SGD([{"params": ours}], **SETTINGS)
    plain = torch.optim.SGD(theirs, **SETTINGS, fused=True)
    for _ in range(2):
        for parameter, other in zip(ours, theirs, strict=True):
            other.grad = torch.randn_like(other)
            parameter.grad = other.grad.clone()
        plain.step()
        with torch.profiler.profile(acc_events=True) as profiled:
            mine.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    called = {event.key for event in profiled.key_averages()}
    assert "aten::_fused_sgd_" in called and "aten::clone" not in called


def test_another_networks_state_is_refused():
    optimizer = both()[0][1]
    other = SGD([{"params": parameters()}], **SETTINGS)
    with pytest.raises(ValueError, match="parameters a group"):
        optimizer.load_state_dict(other.state_dict())


def test_training_on_a_cpu_imports_neither_compiler_nor_scikit_learn():
    program = (
        "import sys; from trainers.config import TrialConfig; from trainers.loop import train\n"
        "next(train(TrialConfig(epochs=2)))\n"
        "slow = ('torch._dynamo', 'sklearn', 'scipy', 'sympy', 'torchvision')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
