"""An exponential moving average of a run's weights, kept beside the run and scored in its place.

Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM 1992, in the
exponential form that is usual: after step t (counted from 0)

    average <- average + w_t (weights - average),    w_t = max(1 - decay, 9 / (10 + t))

so the decay grows as (1 + t) / (10 + t) until it is the one asked for, and what the first weights
left behind is soon gone. At a high learning rate the weights circle around what they find; their
average lies nearer to it, as it would after the rate has dropped.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

WARM_UP = 9.0, 10.0


class Average:
    """The average of a network and its teachers, as modules of their own.

    Parameters are averaged, and so are batch norm's running means and variances: these belong to
    the weights of their time, so that their average, over the same steps, is to first order what
    the averaged weights would measure; the newest ones belong to other weights. Whatever else the
    modules hold (counters, DBT's T) is copied when the average is looked at.

    A step never waits for the device and reads no number of the host's but the decay, so that it
    can be part of a CUDA graph: the count of steps lies on the device.

    Args:
        live: The modules that are trained. They have to stay the same objects.
        decay: Per step, 0 < decay < 1.
    """

    def __init__(self, live: nn.ModuleDict, decay: float) -> None:
        self.live, self.decay = live, decay
        self.modules = copy.deepcopy(live).requires_grad_(False)
        device = next(live.parameters()).device
        self.steps = torch.zeros((), device=device)
        averaged, copied = _tensors(self.modules), _tensors(live)
        self._averages, self._values = averaged[0], copied[0]
        self._copies, self._others = averaged[1], copied[1]

    @torch.no_grad()
    def update(self) -> None:
        """One step, after the optimizer's."""
        first, second = WARM_UP
        weight = (first / (second + self.steps)).clamp(min=1 - self.decay)
        if self.steps.is_cuda:  # a lerp by a weight on the device would be a kernel a tensor
            change = torch._foreach_sub(self._values, self._averages)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(self._averages, change)
        else:
            weights = [weight] * len(self._values)
            torch._foreach_lerp_(self._averages, self._values, weights)
        self.steps += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Begins anew, from the weights as they are."""
        self.steps.zero_()
        torch._foreach_copy_(self._averages, self._values)

    @torch.no_grad()
    def look(self) -> nn.ModuleDict:
        """The averaged modules, with what is not averaged as it stands in the trained ones."""
        for mine, live in zip(self._copies, self._others, strict=True):
            mine.copy_(live)
        return self.modules

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, **{k: m.state_dict() for k, m in self.look().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to a saved state, bit for bit."""
        self.steps.copy_(state["steps"])
        for name, module in self.modules.items():
            module.load_state_dict(state[name])


def _tensors(modules: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What is averaged, and what is copied; the same order for modules of the same kind."""
    averaged: list[Tensor] = list(modules.parameters())
    others: list[Tensor] = []
    for module in modules.modules():
        for name, buffer in module.named_buffers(recurse=False):
            statistic = isinstance(module, _BatchNorm) and name.startswith("running_")
            (averaged if statistic else others).append(buffer)
    return averaged, others
