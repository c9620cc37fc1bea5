"""The fast way through a convolution on a CPU: the same weights and results, other kernels.

oneDNN, which PyTorch uses, is slow where an exit's head spends its time: on maps of a few pixels
and in the backward pass of depthwise convolutions in bf16. Each rule here was kept because it gains
10 % or more of a step on a named network, alone or with the others of its kind (see LOG.md):

- a 1x1 convolution of a small map is a matrix product over the channels;
- a depthwise 3x3 convolution that leaves one pixel is a weighted sum of what it covers;
- depthwise convolutions stay in fp32 under autocast;
- in bf16 a 3x3 convolution onto a map up to 2x2, with many channels up to 4x4, is im2col and a
  matrix product.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.heads import use_fast_heads

SMALL = 2  # pixels a side made, up to which a matrix product beats oneDNN's bf16 convolution
SMALL_WIDE = 4  # and up to which it does with many channels
WIDE = 256  # channels given
POINTWISE = 8  # pixels a side given, up to which it beats the 1x1 convolution, in any precision


class FastConv2d(nn.Conv2d):
    """`nn.Conv2d`, by whichever of the rules above fits. (B, C, H, W) -> (B, C', H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        plain = self.dilation == (1, 1) and self.padding_mode == "zeros"
        side, stride = max(input.shape[-2:]), self.stride[0]
        if not plain or self.stride != (stride, stride) or input.dim() != 4:
            return super().forward(input)
        three = self.kernel_size == (3, 3) and self.padding == (1, 1)
        if self.groups > 1 and self.groups == self.in_channels == self.out_channels:
            with torch.autocast("cpu", enabled=False):
                input = input.to(self.weight.dtype)
                if three and side <= min(2, stride):
                    return to_one_pixel(input, self.weight, self.bias)
                return super().forward(input)
        if self.groups > 1:
            return super().forward(input)
        if self.kernel_size == (1, 1) and self.padding == (0, 0) and side <= POINTWISE:
            if stride > 1:
                input = input[:, :, ::stride, ::stride]
            made = functional.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return made.permute(0, 3, 1, 2)
        small = SMALL if self.in_channels < WIDE else SMALL_WIDE
        if three and side <= small * stride and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                made = _SmallConvolution.apply(input, self.weight, self.bias, stride)
            return made  # type: ignore[no-any-return]
        return super().forward(input)


def to_one_pixel(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A depthwise 3x3 convolution of one pixel, or with stride 2 of up to 2x2.

    Args:
        images: (B, C, H, W), H and W 1 or 2. weight: (C, 1, 3, 3). bias: (C,), if any.

    Returns:
        (B, C, 1, 1).
    """
    height, width = images.shape[2:]
    made = images * weight[:, 0, 1 : 1 + height, 1 : 1 + width]
    if height * width > 1:
        made = made.sum((2, 3), keepdim=True)
    return made if bias is None else made + bias.view(1, -1, 1, 1)


class _SmallConvolution(torch.autograd.Function):
    """A 3x3 convolution with padding 1 as im2col and matrix products in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        height, width = ((side + stride - 1) // stride for side in x.shape[2:])
        columns = _im2col(x.bfloat16(), height, width, stride)
        kernel = weight.permute(0, 2, 3, 1).reshape(len(weight), -1).bfloat16()
        made = columns @ kernel.t()
        if bias is not None:
            made += bias
        ctx.save_for_backward(columns, kernel)
        ctx.shape, ctx.dtype, ctx.bias, ctx.stride = x.shape, x.dtype, bias is not None, stride
        return made.view(len(x), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, kernel = ctx.saved_tensors
        channels = ctx.shape[1]
        grad = grads[0].permute(0, 2, 3, 1).reshape(len(columns), -1).bfloat16()
        of_weight = (grad.t() @ columns).float().view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        of_bias = grad.sum(0, dtype=torch.float32) if ctx.bias else None
        of_input = None
        if ctx.needs_input_grad[0]:
            height, width = grads[0].shape[2:]
            of_columns = (grad @ kernel).view(-1, height, width, 3, 3, channels)
            of_input = _col2im(of_columns, ctx.shape, ctx.stride).to(ctx.dtype)
        return of_input, of_weight, of_bias, None


def _im2col(x: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(B, C, H, W) -> (B H' W', 9 C), the 3x3 surroundings of each pixel made, channels last."""
    images, channels = x.shape[:2]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    image, row, column, channel = padded.stride()
    around = padded.as_strided(
        (images, height, width, 3, 3, channels),
        (image, stride * row, stride * column, row, column, channel),
    )
    return around.reshape(images * height * width, 9 * channels)


def _col2im(columns: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """The adjoint of `_im2col`: (B, H', W', 3, 3, C) -> (B, C, H, W)."""
    images, channels, height, width = shape
    padded = columns.new_zeros(images, height + 2, width + 2, channels)
    down, right = stride * columns.shape[1], stride * columns.shape[2]
    for i in range(3):
        for j in range(3):
            padded[:, i : i + down : stride, j : j + right : stride] += columns[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def use_fast_paths(network: nn.Module) -> None:
    """These paths, and that of `trainers.heads`, for a network, in place; the state dict stays."""
    use_fast_heads(network)
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d
