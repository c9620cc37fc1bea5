"""SGD with momentum: PyTorch's fused kernel, called without what surrounds it.

`torch.optim.SGD(fused=True)` computes the same, bit for bit, but its first call imports PyTorch's
compiler, more than a second of every start, and gathers its lists anew at each step, which is a
hundredth of a tiny network's. In a CUDA graph it takes its lr from a tensor. The state is that of
`torch.optim.SGD`, so that checkpoints go on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class SGD:
    """`torch.optim.SGD(fused=True)`, without dampening and Nesterov's form.

    Args:
        groups: Each with "params", whose `lr` may be set by itself.
        lr, momentum, weight_decay: Of all groups.

    Attributes:
        param_groups: As PyTorch has them.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], lr: float, momentum: float, weight_decay: float
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self.param_groups = [{**settings, **group} for group in groups]
        self._params: list[Tensor] = [p for group in groups for p in group["params"]]
        self._buffers: dict[Tensor, Tensor] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients (always: they are never set to zero)."""
        for parameter in self._params:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            given = [(p, grad) for p in group["params"] if (grad := p.grad) is not None]
            self.update(group, [p for p, _ in given], [grad for _, grad in given], group["lr"])

    def begin(self) -> None:
        """Momentum of every parameter is 0, in a tensor that stays where it is from then on."""
        for group in self.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                self._buffer(parameter).zero_()

    def _buffer(self, parameter: Tensor) -> Tensor:
        if parameter not in self._buffers:  # 0 is where PyTorch's begins as well
            self._buffers[parameter] = torch.zeros_like(parameter)
        return self._buffers[parameter]

    def update(
        self,
        group: dict[str, Any],
        given: list[Tensor],
        grads: list[Tensor],
        lr: float | Tensor,
    ) -> None:
        """One step of some parameters of a group.

        Args:
            group: Of `param_groups`.
            given: The parameters. grads: Theirs, laid out in memory as they are.
            lr: A number, or a scalar tensor on their device.
        """
        if not given:
            return
        buffers = [self._buffer(parameter) for parameter in given] if group["momentum"] else []
        # Of what is not contiguous PyTorch copies the gradient first, on a CPU: channels_last
        # is the same memory with the channels as the last dimension.
        last = [p.dim() == 4 and not p.is_contiguous() for p in given]
        torch._fused_sgd_(
            _in_order(given, last),
            _in_order(grads, last),
            _in_order(buffers, last[: len(buffers)]),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """As `torch.optim.SGD` gives it."""
        state = {
            index: {"momentum_buffer": self._buffers[parameter]}
            for index, parameter in enumerate(self._params)
            if parameter in self._buffers
        }
        groups, first = [], 0
        for group in self.param_groups:
            number = len(group["params"])
            groups.append({**group, "params": list(range(first, first + number))})
            first += number
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to a saved state, PyTorch's own too.

        Raises:
            ValueError: Of other parameters.
        """
        groups = state["param_groups"]
        sizes = [[len(group["params"]) for group in them] for them in (groups, self.param_groups)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"the state is of {sizes[0]} parameters a group, here are {sizes[1]}")
        for mine, saved in zip(self.param_groups, groups, strict=True):
            mine.update({name: saved[name] for name in ("lr", "momentum", "weight_decay")})
        for buffer in self._buffers.values():
            buffer.zero_()
        for index, one in state["state"].items():
            if (saved := one["momentum_buffer"]) is None:
                continue
            here = self._buffer(self._params[index])
            if saved.shape != here.shape:
                raise ValueError(f"the momentum of parameter {index} has another shape")
            here.copy_(saved)


def _in_order(tensors: Sequence[Tensor], last: Sequence[bool]) -> list[Tensor]:
    return [
        one.permute(0, 2, 3, 1) if is_last else one
        for one, is_last in zip(tensors, last, strict=True)
    ]
