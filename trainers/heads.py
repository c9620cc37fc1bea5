"""All heads of a network level by level, for tiny maps: what they share is computed once.

A tiny network spends its time in calling operations, not in them. The SepConvs of the heads stand
on levels: that which halves the map after stage k is the same in shape for every head that has one
there. So on each level the heads lie side by side as channels: one depthwise convolution and one
batch norm serve all of them, the 1x1 convolutions are a matrix product each, and the whole is one
autograd function with its backward pass written out. Values, gradients and running statistics are
those of the modules, and the parameters stay where they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.exits import MultiExitNet, SepConv

SIDE = 8  # pixels of the largest map that a head may begin with: below it calls cost more than sums
HALF = 4  # parameters of half a SepConv: depthwise, 1x1, batch norm's weight and bias


class FastHeadsNet(MultiExitNet):
    """`MultiExitNet` that trains all heads at once where their maps are tiny, in fp32 on a CPU."""

    _halves: "list[Half] | None" = None  # found once: the modules and parameters stay the same
    _parameters_of_halves: list[Tensor]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `MultiExitNet`."""
        if not (self.training and torch.is_grad_enabled()) or torch.is_autocast_enabled("cpu"):
            return super().forward(images)
        made: list[Tensor] = []
        x: Any = images
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        if max(made[0].shape[-2:]) > SIDE or not _on_one_level(made):
            return self._read([head(x) for head, x in zip(self.heads, made, strict=True)])
        if self._halves is None:
            self._halves = [half for level in levels(self) for half in _halves(level)]
            self._parameters_of_halves = [
                p
                for half in self._halves
                for dw, pw, norm in half
                for p in (dw.weight, pw.weight, norm.weight, norm.bias)
            ]
        return self._read(_Heads.apply(self._halves, len(made), *made, *self._parameters_of_halves))


Half = list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]]  # of each head on a level, shallow first


def levels(network: MultiExitNet) -> list[list[SepConv]]:
    """The SepConvs after each stage but the last: those of the heads that began before it, and its
    own head's. Empty where the heads are others."""
    last = len(network.stages) - 1
    found: list[list[SepConv]] = [[] for _ in range(last)]
    if len(network.heads) != last + 1:
        return []
    for k, head in enumerate(network.heads):
        if not isinstance(head, nn.Sequential) or len(head) != last - k + 2:
            return []
        for level, module in enumerate(head[:-2], start=k):
            if type(module) is not SepConv:
                return []
            found[level].append(module)
    return found


def _on_one_level(made: Sequence[Tensor]) -> bool:
    """Whether the map after each stage is half of the one before, as a SepConv makes it: a user's
    stages need not do that, and then the heads do not meet."""
    sides = [x.shape[-2:] for x in made]
    return all(
        after == (-(-height // 2), -(-width // 2))
        for (height, width), after in zip(sides, sides[1:], strict=False)
    )


def _halves(level: Sequence[SepConv]) -> tuple[Half, Half]:
    first = [(m[0], m[1], m[2]) for m in level]
    second = [(m[4], m[5], m[6]) for m in level]
    return first, second  # type: ignore[return-value]


def use_fast_heads(network: nn.Module) -> None:
    """Makes a network whose heads are SepConvs a `FastHeadsNet`, in place; the state dict stays."""
    if type(network) is MultiExitNet and levels(network):
        network.__class__ = FastHeadsNet


class _Heads(torch.autograd.Function):
    """Features (M, B, C) of the outputs of M stages, (B, C_k, H_k, W_k) each, channels last."""

    @staticmethod
    def forward(ctx: Any, halves: list[Half], stages: int, *given: Tensor) -> Tensor:
        outputs, parameters = given[:stages], given[stages:]
        statistics: list[Tensor] = []
        fresh: list[Tensor] = []
        saved: list[Tensor] = []
        place = 0
        x = outputs[0]
        for number, half in enumerate(halves):
            heads = len(half)
            if number and number % 2 == 0:
                x = torch.cat((x, outputs[number // 2]), dim=1)
            x = x.contiguous(memory_format=torch.channels_last)
            own = parameters[place : place + HALF * heads]
            place += HALF * heads
            taps, weight, bias = (_side_by_side(own[i::HALF]) for i in (0, 2, 3))
            stride = 1 if number % 2 else 2
            deep = _depthwise(x, taps, stride)
            mixed = _pointwise(deep, own[1::HALF])
            norms = [norm for _, _, norm in half]
            mean = _side_by_side([norm.running_mean for norm in norms])  # type: ignore[misc]
            var = _side_by_side([norm.running_var for norm in norms])  # type: ignore[misc]
            made, at, scale = torch.native_batch_norm(
                mixed, weight, bias, mean, var, True, norms[0].momentum or 0.0, norms[0].eps
            )
            if heads > 1:  # what one head has is its own, and was updated in place
                statistics += [s for n in norms for s in (n.running_mean, n.running_var)]  # type: ignore[misc]
                for pair in zip(mean.chunk(heads), var.chunk(heads), strict=True):
                    fresh += pair
            made.relu_()
            saved += [x, taps, deep, mixed, weight, at, scale, made]
            x = made
        if statistics:
            torch._foreach_copy_(statistics, fresh)
        torch._foreach_add_([norm.num_batches_tracked for h in halves for *_, norm in h], 1)  # type: ignore[misc]
        ctx.save_for_backward(*saved, *parameters)
        ctx.halves, ctx.shape, ctx.last = halves, x.shape, outputs[-1].shape
        images, heads = len(x), stages - 1
        features = x.new_empty(stages, images, x.shape[1] // heads)
        features[:-1] = x.mean((2, 3)).view(images, heads, -1).transpose(0, 1)
        features[-1] = outputs[-1].mean((2, 3))
        return features

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        halves, shape = ctx.halves, ctx.shape
        every = ctx.saved_tensors
        saved, parameters = every[: 8 * len(halves)], every[8 * len(halves) :]
        given = grads[0]
        stages, images = given.shape[:2]
        joined = given[:-1].transpose(0, 1).reshape(images, -1)[:, :, None, None]
        grad = joined.expand(shape) / (shape[2] * shape[3])
        last = given[-1][:, :, None, None].expand(ctx.last) / (ctx.last[2] * ctx.last[3])
        of_stages: list[Tensor] = [last]
        of_parameters: list[Tensor] = []
        end = len(parameters)
        for number in reversed(range(len(halves))):
            x, taps, deep, mixed, weight, at, scale, made = saved[8 * number : 8 * number + 8]
            half = halves[number]
            heads = len(half)
            own = parameters[end - HALF * heads : end]
            end -= HALF * heads
            grad = torch.ops.aten.threshold_backward(
                grad.contiguous(memory_format=torch.channels_last), made, 0
            )
            grad, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                grad, mixed, weight, None, None, at, scale, True, half[0][2].eps, [True] * 3
            )
            grad, of_pointwise = _pointwise_backward(grad, deep, own[1::HALF])
            grad, of_taps = _depthwise_backward(grad, x, taps, 1 if number % 2 else 2)
            parts = (
                of_taps.chunk(heads),
                of_pointwise,
                of_weight.chunk(heads),
                of_bias.chunk(heads),
            )
            of_parameters = [p for four in zip(*parts, strict=True) for p in four] + of_parameters
            if number % 2 == 0:
                channels = x.shape[1] // heads
                of_stages.append(grad[:, -channels:])
                grad = grad[:, :-channels]
        return (None, None, *reversed(of_stages), *of_parameters)


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _one_pixel(x: Tensor, stride: int) -> bool:
    return max(x.shape[-2:]) <= min(2, stride)


def _depthwise(x: Tensor, taps: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) and (C, 1, 3, 3) -> (B, C, ceil(H / stride), ceil(W / stride))."""
    if not _one_pixel(x, stride):
        return torch.conv2d(x, taps, None, stride, 1, 1, len(taps))
    height, width = x.shape[2:]
    made = x * taps[:, 0, 1 : 1 + height, 1 : 1 + width]
    return made if height * width == 1 else made.sum((2, 3), keepdim=True)


def _depthwise_backward(grad: Tensor, x: Tensor, taps: Tensor, stride: int) -> tuple[Tensor, ...]:
    if not _one_pixel(x, stride):
        of_x, of_taps, _ = torch.ops.aten.convolution_backward(
            grad, x, taps, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], len(taps),
            [True, True, False],
        )  # fmt: skip
        return of_x, of_taps
    height, width = x.shape[2:]
    covered = taps[:, 0, 1 : 1 + height, 1 : 1 + width]
    of_taps = torch.zeros_like(taps)
    of_taps[:, 0, 1 : 1 + height, 1 : 1 + width] = (grad * x).sum(0)
    return grad * covered, of_taps


def _rows(x: Tensor, heads: int) -> Tensor:
    """(B, G C, H, W), channels last -> (G, B H W, C), the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, heads, x.shape[1] // heads).transpose(0, 1)


def _pointwise(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(B, G C, H, W) and G times (C', C, 1, 1) -> (B, G C', H, W), head by head."""
    heads, (images, _, height, width) = len(weights), x.shape
    made = x.new_empty(images * height * width, heads, len(weights[0]))
    for index, (rows, weight) in enumerate(zip(_rows(x, heads), weights, strict=True)):
        torch.mm(rows, weight.flatten(1).t(), out=made[:, index])
    return made.view(images, height, width, -1).permute(0, 3, 1, 2)


def _pointwise_backward(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    heads = len(weights)
    of_x = torch.empty_like(x)
    of_weights = []
    parts = zip(_rows(grad, heads), _rows(x, heads), _rows(of_x, heads), weights, strict=True)
    for mine, rows, to, weight in parts:
        torch.mm(mine, weight.flatten(1), out=to)
        of_weights.append((mine.t() @ rows).view_as(weight))
    return of_x, of_weights
