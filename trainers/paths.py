"""The fast way through a convolution on a CPU: the same weights and results, other kernels.

oneDNN, which PyTorch uses, is slow where an exit's head spends its time: on maps of 4 pixels and
less, and in the backward pass of depthwise convolutions in bf16. Each rule here was kept because it
gains 10 % or more of a step on a named network (see LOG.md):

- a 1x1 convolution is a matrix product over the channels;
- a depthwise 3x3 convolution of a 1x1 map is a multiplication by its centre tap;
- depthwise convolutions stay in fp32 under autocast;
- in bf16 a 3x3 convolution of a map up to 4x4 is im2col and a matrix product.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL = 4  # pixels a side up to which a matrix product beats oneDNN's bf16 convolution
POINTWISE = 8  # and a 1x1 convolution as one, in any precision


class FastConv2d(nn.Conv2d):
    """`nn.Conv2d`, by whichever of the rules above fits. (B, C, H, W) -> (B, C', H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        side = input.shape[-1]
        if self.groups > 1 and self.groups == self.in_channels:
            with torch.autocast("cpu", enabled=False):
                input = input.to(self.weight.dtype)
                if side == 1 and self.kernel_size == (3, 3) and self.padding == (1, 1):
                    tapped = input * self.weight[:, 0, 1, 1].view(1, -1, 1, 1)
                    return tapped if self.bias is None else tapped + self.bias.view(1, -1, 1, 1)
                return super().forward(input)
        if self.groups == 1 and self.stride == (1, 1):
            if self.kernel_size == (1, 1) and side <= POINTWISE:
                weight = self.weight.flatten(1)
                return functional.linear(input.permute(0, 2, 3, 1), weight, self.bias).permute(
                    0, 3, 1, 2
                )
            if (
                self.kernel_size == (3, 3)
                and self.padding == (1, 1)
                and side <= SMALL
                and torch.is_autocast_enabled("cpu")
            ):
                with torch.autocast("cpu", enabled=False):
                    return _SmallConvolution.apply(input, self.weight, self.bias)  # type: ignore[no-any-return]
        return super().forward(input)


class _SmallConvolution(torch.autograd.Function):
    """A 3x3 convolution, stride 1, padding 1, as im2col and bf16 matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        b, _, height, width = x.shape
        columns = _im2col(x.bfloat16())
        kernel = weight.permute(0, 2, 3, 1).reshape(len(weight), -1).bfloat16()
        made = columns @ kernel.t()
        if bias is not None:
            made += bias
        ctx.save_for_backward(columns, kernel)
        ctx.shape, ctx.dtype, ctx.bias = x.shape, x.dtype, bias is not None
        return made.view(b, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, kernel = ctx.saved_tensors
        channels = ctx.shape[1]
        grad = grads[0].permute(0, 2, 3, 1).reshape(len(columns), -1).bfloat16()
        of_weight = (grad.t() @ columns).float().view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        of_bias = grad.sum(0, dtype=torch.float32) if ctx.bias else None
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _col2im(grad @ kernel, ctx.shape).to(ctx.dtype)
        return of_input, of_weight, of_bias


def _im2col(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, 9 C), the 3x3 surroundings of every pixel, channels last."""
    b, channels, height, width = x.shape
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    image, row, column, channel = padded.stride()
    around = padded.as_strided(
        (b, height, width, 3, 3, channels), (image, row, column, row, column, channel)
    )
    return around.reshape(b * height * width, 9 * channels)


def _col2im(columns: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of `_im2col`."""
    b, channels, height, width = shape
    parts = columns.view(b, height, width, 3, 3, channels)
    padded = parts.new_zeros(b, height + 2, width + 2, channels)
    for i in range(3):
        for j in range(3):
            padded[:, i : i + height, j : j + width] += parts[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def use_fast_paths(network: nn.Module) -> None:
    """Makes every convolution of a network a `FastConv2d`, in place; its state dict stays as it is."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d
