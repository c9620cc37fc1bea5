"""Batch norm, a residual and ReLU in one on a GPU: the same function with a third of the traffic.

PyTorch's own batch norm of bf16 activations in channels_last takes a quarter of a step of VGG16 on
an H100, ReLU and the bias of a convolution before it (which batch norm takes out again) another
tenth. The kernels here are compiled when they are first needed by NVRTC, which comes with PyTorch:
no compiler has to be there. Before they are used their values and gradients are compared with
PyTorch's on the device.
"""

import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELU, RESIDUAL, BIAS = 1, 2, 4
THREADS = 256
FEW_ROWS = 4096  # images x pixels up to which one launch does sums and result
BLOCKS = 1056  # eight for each multiprocessor of an H100
NAMES = ("norm_sums", "norm_apply", "norm_small", "norm_grad_sums", "norm_grad", "norm_grad_small")
SIZES = ((16, 24, 3, 3), (130, 64, 9, 9), (3, 520, 1, 1))  # what is compared
CLOSE = 0.02  # relative, in norm: bf16 itself rounds by 0.004


@functools.cache
def kernels(device: torch.device) -> dict[str, Any]:
    """The compiled kernels, by name.

    Raises:
        RuntimeError: They do not compile here, or do not compute what PyTorch does.
    """
    source = Path(__file__).with_name("fused.cu").read_text()
    with torch.cuda.device(device):
        # A kernel that PyTorch does not launch finds no context in a thread that has launched none
        # of PyTorch's: this thread, and the one that goes backward.
        torch.ones(1, device=device, requires_grad=True).mul(2).sum().backward()  # type: ignore[no-untyped-call]
        made = {name: _compiled(source, name) for name in NAMES}
        _check(made, device)
    return made


def _compiled(source: str, name: str) -> Any:
    from torch.utils import cpp_extension

    # The source includes nothing, but PyTorch looks for the CUDA toolkit's headers all the same.
    home = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = home or os.path.dirname(__file__)
    try:
        return torch.cuda._compile_kernel(source, name)
    finally:
        cpp_extension.CUDA_HOME = home


def _shape(rows: int, channels: int) -> tuple[bool, int, tuple[int, int, int]]:
    """Whether one launch does it, columns of a block, and the grid."""
    columns = channels // 8
    if rows <= FEW_ROWS:
        wide = min(2, columns)
        return True, wide, (1, -(-columns // wide), 1)
    wide = min(columns, THREADS)
    high = -(-columns // wide)
    return False, wide, (min(BLOCKS // high or 1, -(-rows // (4 * (THREADS // wide)))), high, 1)


class _Norm(torch.autograd.Function):
    """relu(batch_norm(x) + residual), with running statistics as of x + bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        before: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        relu: bool,
        eps: float,
        momentum: float,
        made: dict[str, Any],
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        flags = RELU * relu
        if residual is not None:
            residual = residual.contiguous(memory_format=torch.channels_last)
            flags |= RESIDUAL
        if before is not None:
            flags |= BIAS
        channels = x.shape[1]
        rows = x.numel() // channels
        y = torch.empty_like(x)
        saved = torch.empty(2 * channels, device=x.device)
        few, wide, grid = _shape(rows, channels)
        rest = (weight, bias, x if before is None else before, saved, running_mean, running_var)
        last = (rows, channels, wide, flags, eps, momentum)
        other = x if residual is None else residual
        block = (THREADS, 1, 1)
        if few:
            made["norm_small"](grid, block, [x, other, y, *rest, *last])
        else:
            sums = torch.zeros(2 * channels, device=x.device)
            made["norm_sums"](grid, block, [x, sums, rows, channels, wide])
            made["norm_apply"](grid, block, [x, other, y, sums, *rest, *last])
        ctx.save_for_backward(x, weight, bias, saved, *((y,) if residual is not None else ()))
        ctx.flags, ctx.made = flags, made
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, saved, *outputs = ctx.saved_tensors
        dy = grads[0].contiguous(memory_format=torch.channels_last)
        channels = x.shape[1]
        rows = x.numel() // channels
        y = outputs[0] if outputs else x
        dx = torch.empty_like(x)
        dresidual = torch.empty_like(x) if outputs else None
        few, wide, grid = _shape(rows, channels)
        out = (dx, dx if dresidual is None else dresidual, saved, weight, bias)
        last, block = (rows, channels, wide, ctx.flags), (THREADS, 1, 1)
        if few:
            sums = torch.empty(2 * channels, device=x.device)
            ctx.made["norm_grad_small"](grid, block, [dy, x, y, *out, sums, *last])
        else:
            sums = torch.zeros(2 * channels, device=x.device)
            ctx.made["norm_grad_sums"](grid, block, [dy, x, y, saved, weight, bias, sums, *last])
            ctx.made["norm_grad"](grid, block, [dy, x, y, *out, sums, *last])
        return (dx, dresidual, sums[channels:], sums[:channels], *(None,) * 7)


class FusedNorm(nn.BatchNorm2d):
    """A `nn.BatchNorm2d`, with ReLU after it if `relu`, and a residual added in between if given.

    In training on bf16 images on a GPU it takes the fused kernels, anywhere else PyTorch's. What it
    counts, `num_batches_tracked`, stays as it was: nothing reads it where momentum is a number.
    """

    relu: bool
    before: tuple[nn.Conv2d, ...]  # whose bias is left out in training, since it has no effect
    made: dict[str, Any] | None

    def fast(self, images: Tensor) -> bool:
        """Whether the kernels can be taken."""
        return self.made is not None and images.is_cuda and images.dtype == torch.bfloat16

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and the same."""
        biases = [conv.bias for conv in self.before if conv.bias is not None]
        if not self.training:
            normed = super().forward(input)
        elif self.fast(input):
            result: Tensor = _Norm.apply(
                input, residual, self.weight, self.bias, biases[0].detach() if biases else None,
                self.running_mean, self.running_var, self.relu, self.eps, self.momentum, self.made,
            )  # fmt: skip
            return result
        else:
            assert self.running_mean is not None and self.running_var is not None
            normed = functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, True,
                self.momentum or 0.0, self.eps,
            )  # fmt: skip
            for bias in biases:  # .data: backward is told that the running mean is as it was
                self.running_mean.data.add_(bias.detach(), alpha=self.momentum or 0.0)
        if residual is not None:
            normed = normed + residual
        return normed.relu() if self.relu else normed


class _Unbiased(nn.Conv2d):
    """A convolution before batch norm: in training without its bias."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        made: Tensor = self._conv_forward(input, self.weight, None if self.training else self.bias)
        return made


def fuse(network: nn.Module, made: dict[str, Any] | None) -> None:
    """Makes every batch norm of a network a `FusedNorm`, in place; the state dict stays.

    In a sequence the ReLU after it and the bias of the convolution before it go into it; in
    torchvision's residual blocks ReLU and the residual.

    Args:
        network: Whose norms have 8 n channels; others stay.
        made: Of `kernels`; None for PyTorch's.
    """
    for module in list(network.modules()):
        if type(module) is nn.Sequential:
            _fuse_sequence(module, made)
    for module in list(network.modules()):
        if type(module).__name__ in ("BasicBlock", "Bottleneck"):
            _fuse_block(module, made)


def _fused(norm: nn.Module, made: dict[str, Any] | None) -> FusedNorm | None:
    usual = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats
    if not usual or norm.num_features % 8 or norm.momentum is None:  # type: ignore[operator]
        return None
    norm.__class__ = FusedNorm
    assert isinstance(norm, FusedNorm)
    norm.relu, norm.before, norm.made = False, (), made
    return norm


def _fuse_sequence(sequence: nn.Sequential, made: dict[str, Any] | None) -> None:
    layers = list(sequence)
    for place, layer in enumerate(layers):
        norm = _fused(layer, made)
        if norm is None:
            continue
        if place + 1 < len(layers) and type(layers[place + 1]) is nn.ReLU:
            layers[place + 1].__class__ = nn.Identity
            norm.relu = True
        before = layers[place - 1] if place else None
        if type(before) is nn.Conv2d and before.bias is not None:
            before.__class__ = _Unbiased
            norm.before = (before,)


def _fuse_block(block: nn.Module, made: dict[str, Any] | None) -> None:
    norms = [module for name, module in block.named_children() if name.startswith("bn")]
    done = [norm for norm in (_fused(norm, made) for norm in norms) if norm is not None]
    if len(done) == len(norms):
        for norm in done:
            norm.relu = True
        block.forward = functools.partial(_block, block)


def _block(block: Any, x: Tensor) -> Tensor:
    """torchvision's residual blocks: conv, norm, ReLU twice or three times, the last with x."""
    downsample = block.downsample
    residual = x if downsample is None else downsample(x)
    convolutions = [module for name, module in block.named_children() if name.startswith("conv")]
    norms = [module for name, module in block.named_children() if name.startswith("bn")]
    for convolution, norm in zip(convolutions[:-1], norms[:-1], strict=True):
        x = norm(convolution(x))
    result: Tensor = norms[-1](convolutions[-1](x), residual)
    return result


def _check(made: dict[str, Any], device: torch.device) -> None:
    """Values and gradients beside PyTorch's in fp32, for few rows and many, with a residual and
    without."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*size: int) -> Tensor:
        values = torch.randn(size, generator=generator, device=device).bfloat16()
        return values.contiguous(memory_format=torch.channels_last) if len(size) == 4 else values

    for size in SIZES:
        for with_residual in (False, True):
            x, residual, grad = drawn(*size), drawn(*size), drawn(*size)
            results = []
            for fast in (True, False):
                plain = nn.BatchNorm2d(size[1]).to(device)
                nn.init.uniform_(plain.weight, generator=torch.Generator(device).manual_seed(1))
                norm = _fused(plain, made if fast else None)
                assert norm is not None
                norm.relu = True
                dtype = torch.bfloat16 if fast else torch.float32
                leaves = [given.to(dtype, copy=True).requires_grad_() for given in (x, residual)]
                y = norm(leaves[0], leaves[1] if with_residual else None)
                y.backward(grad.to(dtype))
                found = [y.detach(), leaves[0].grad, norm.weight.grad, norm.bias.grad]
                found += [norm.running_mean, norm.running_var]
                results.append(found + ([leaves[1].grad] if with_residual else []))
            for one, two in zip(*results, strict=True):
                if not float((one.float() - two).norm()) <= CLOSE * float(two.norm()) + 1e-6:
                    raise RuntimeError(f"the fused batch norm of {size} is wrong on this device")
