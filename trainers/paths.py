"""The fast way through a convolution on a CPU: the same weights and results, other kernels.

oneDNN, which PyTorch uses, is slow where an exit's head spends its time: on maps of a few pixels
and in the backward pass of depthwise convolutions in bf16. Each rule here was kept because it gains
10 % or more of a step on a named network, alone or with the others of its kind (see LOG.md):

- a 1x1 convolution of a small map is a matrix product over the channels;
- a depthwise 3x3 convolution that leaves one pixel is a weighted sum of what it covers;
- depthwise convolutions stay in fp32 under autocast;
- in bf16 a 3x3 convolution onto a map up to 2x2, with many channels up to 4x4, is im2col and a
  matrix product;
- pooling to one pixel gives back a gradient that lies in memory as its images do.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.heads import use_fast_heads
from trainers.stages import every_other

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
                input = every_other(input, stride, stride)
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
    # channels last, so that what the sum gives back to the images lies as they do
    taps = weight[:, 0, 1 : 1 + height, 1 : 1 + width].permute(1, 2, 0).contiguous()
    made = (images.permute(0, 2, 3, 1) * taps).sum((1, 2))
    return (made if bias is None else made + bias)[:, :, None, None]


class _SmallConvolution(torch.autograd.Function):
    """A 3x3 convolution with padding 1 as im2col and matrix products in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        height, width = ((side + stride - 1) // stride for side in x.shape[2:])
        columns = _im2col(x.permute(0, 2, 3, 1).bfloat16(), height, width, stride)
        kernel = weight.permute(0, 2, 3, 1).reshape(len(weight), -1).bfloat16()
        if bias is None:
            made = columns @ kernel.t()
        else:
            made = torch.addmm(bias.bfloat16(), columns, kernel.t())
        ctx.save_for_backward(columns, kernel)
        ctx.shape, ctx.dtype, ctx.bias, ctx.stride = x.shape, x.dtype, bias is not None, stride
        return made.view(len(x), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, kernel = ctx.saved_tensors
        _, channels, *_ = ctx.shape
        grad = grads[0].permute(0, 2, 3, 1).bfloat16().contiguous()
        images, height, width, made = grad.shape
        rows = grad.view(-1, made)
        # Transposed in memory: as the left factor, read by columns, it costs AMX half its speed.
        of_weight = (rows.t().contiguous() @ columns).float()
        of_weight = of_weight.view(made, 3, 3, channels).permute(0, 3, 1, 2)
        of_bias = rows.sum(0).float() if ctx.bias else None
        of_input = None
        if ctx.needs_input_grad[0]:
            if ctx.stride == 1:  # a convolution with the same kernel, turned round
                turned = kernel.view(made, 9, channels).flip(1).transpose(0, 1).flatten(0, 1)
                of_input = _im2col(grad, height, width, 1) @ turned
                of_input = of_input.view(images, height, width, channels)
            else:
                around = (rows @ kernel).view(images, height, width, 3, 3, channels)
                of_input = _col2im(around, ctx.shape[2], ctx.shape[3], ctx.stride)
            of_input = of_input.permute(0, 3, 1, 2).to(ctx.dtype)
        return of_input, of_weight, of_bias, None


def _im2col(x: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(B, H, W, C) -> (B H' W', 9 C), the 3x3 surroundings of each pixel made."""
    images, _, _, channels = x.shape
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1)).contiguous()
    image, row, column, channel = padded.stride()
    around = padded.as_strided(
        (images, height, width, 3, 3, channels),
        (image, stride * row, stride * column, row, column, channel),
    )
    return around.reshape(images * height * width, 9 * channels)


def _col2im(columns: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The adjoint of `_im2col`: (B, H', W', 3, 3, C) -> (B, H, W, C)."""
    padded = columns.new_zeros(len(columns), height + 2, width + 2, columns.shape[-1])
    down, right = stride * columns.shape[1], stride * columns.shape[2]
    for i in range(3):
        for j in range(3):
            padded[:, i : i + down : stride, j : j + right : stride] += columns[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1].contiguous()


class FastPool(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d(1)` whose gradient lies in memory as its images do, channels last.

    PyTorch's lies otherwise, and so does all that a residual stream hands on from it: sums and
    ReLU's gradients of two layouts take three times as long. (B, C, H, W) -> (B, C, 1, 1).
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.AdaptiveAvgPool2d`."""
        if input.dim() != 4 or self.output_size not in (1, (1, 1)):
            return super().forward(input)
        return input.permute(0, 2, 3, 1).mean((1, 2))[:, :, None, None]


def use_fast_paths(network: nn.Module) -> None:
    """These paths, and that of `trainers.heads`, for a network, in place; the state dict stays."""
    use_fast_heads(network)
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d
        elif type(module) is nn.AdaptiveAvgPool2d:
            module.__class__ = FastPool
