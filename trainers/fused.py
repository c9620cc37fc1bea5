"""Batch norm, a residual, ReLU and max pooling in one on a GPU: the same function, a third of the
traffic.

PyTorch's own batch norm of bf16 activations in channels_last takes a quarter of a step of VGG16 on
an H100, ReLU, pooling and the bias of a convolution before it (which batch norm takes out again)
more than another tenth.
"""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.kernels import THREADS, Grid, Kernels, columns_of, grid_of, kernels

RELU, RESIDUAL, BIAS = 1, 2, 4
FEW_ROWS = 4096  # images x pixels up to which one launch does sums and result
BLOCKS = 1056  # eight for each multiprocessor of an H100
SUMMING = 528  # blocks that sum: each then adds to the same few numbers as all others
# what is compared
SIZES = (
    (16, 24, 3, 3), (130, 64, 9, 9), (3, 520, 1, 1), (9, 64, 4, 6), (80, 64, 10, 8),
    (40, 520, 12, 12),
)  # fmt: skip
CLOSE = 0.02  # relative, in norm: bf16 itself rounds by 0.004


def _shape(rows: int, channels: int) -> tuple[bool, int, Grid, Grid]:
    """Whether one launch does it, columns of a block, and the grids of sums and of results."""
    few = rows <= FEW_ROWS
    wide, high = columns_of(channels, 1 if few else 32)
    if few:
        return True, wide, (1, high, 1), (1, high, 1)
    sums = grid_of(rows, wide, high, each=8, blocks=SUMMING)
    return False, wide, sums, grid_of(rows, wide, high, each=4, blocks=BLOCKS)


@functools.cache
def checked(device: torch.device) -> Kernels | None:
    """The kernels, after a look at what they compute on a device; tried once a process.

    None where they do not compile, or do not compute what PyTorch does: a warning says why.

    Raises:
        OutOfMemoryError: Another time there may be enough.
    """
    try:
        made = kernels(device)
        with torch.cuda.device(device):
            check(made, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what compiles them is private to PyTorch, and may change
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        warnings.warn(f"PyTorch's own batch norm is used: {reason}", stacklevel=2)
        return None
    return made


class _Norm(torch.autograd.Function):
    """max_pool(relu(batch_norm(x) + residual)), with running statistics as of x + bias."""

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
        pool: bool,
        eps: float,
        momentum: float,
        made: Kernels,
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
        y = torch.empty_like(x[:, :, ::2, ::2] if pool else x)
        ctx.width = x.shape[3] if pool else 0
        saved = torch.empty(2 * channels, device=x.device)
        few, wide, sum_grid, grid = _shape(rows, channels)
        rest = (weight, bias, x if before is None else before, saved, running_mean, running_var)
        last = (rows, channels, wide, ctx.width, flags, eps, momentum)
        other = x if residual is None else residual
        block = (THREADS, 1, 1)
        if few:
            made["norm_small"](grid, block, [x, other, y, *rest, *last])
        else:
            sums = torch.zeros(2 * channels, device=x.device)
            made["norm_sums"](sum_grid, block, [x, sums, rows, channels, wide])
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
        few, wide, sum_grid, grid = _shape(rows, channels)
        out = (dx, dx if dresidual is None else dresidual, saved, weight, bias)
        last, block = (rows, channels, wide, ctx.width, ctx.flags), (THREADS, 1, 1)
        if few:
            sums = torch.empty(2 * channels, device=x.device)
            ctx.made["norm_grad_small"](grid, block, [dy, x, y, *out, sums, *last])
        else:
            sums = torch.zeros(2 * channels, device=x.device)
            given = [dy, x, y, saved, weight, bias, sums, *last]
            ctx.made["norm_grad_sums"](sum_grid, block, given)
            ctx.made["norm_grad"](grid, block, [dy, x, y, *out, sums, *last])
        return (dx, dresidual, sums[channels:], sums[:channels], *(None,) * 8)


class FusedNorm(nn.BatchNorm2d):
    """A `nn.BatchNorm2d`, with ReLU after it if `relu`, and a residual added in between if given;
    then 2x2 max pooling if `pool`.

    In training on bf16 images on a GPU it takes the fused kernels, anywhere else PyTorch's. What it
    counts, `num_batches_tracked`, stays as it was: nothing reads it where momentum is a number.
    """

    relu: bool
    pool: bool
    before: tuple[nn.Conv2d, ...]  # whose bias is left out in training, since it has no effect
    made: Kernels | None

    def fast(self, images: Tensor) -> bool:
        """Whether the kernels can be taken."""
        return self.made is not None and images.is_cuda and images.dtype == torch.bfloat16

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and the same."""
        biases = [conv.bias for conv in self.before if conv.bias is not None]
        if not self.training:
            normed = super().forward(input)
        elif self.fast(input):
            even = input.shape[2] % 2 == input.shape[3] % 2 == 0
            result: Tensor = _Norm.apply(
                input, residual, self.weight, self.bias, biases[0].detach() if biases else None,
                self.running_mean, self.running_var, self.relu, self.pool and even, self.eps,
                self.momentum, self.made,
            )  # fmt: skip
            return functional.max_pool2d(result, 2) if self.pool and not even else result
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
        normed = normed.relu() if self.relu else normed
        return functional.max_pool2d(normed, 2) if self.pool else normed


class Unbiased(nn.Conv2d):
    """A convolution before batch norm: in training without its bias."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        made: Tensor = self._conv_forward(input, self.weight, None if self.training else self.bias)
        return made


def fuse(network: nn.Module, made: Kernels | None) -> None:
    """Makes every batch norm of a network a `FusedNorm`, in place; the state dict stays.

    In a sequence, the ReLU and the 2x2 max pooling after it and the bias of the convolution before
    it go into it; in torchvision's residual blocks, ReLU and the residual.

    Args:
        network: One of ours. Norms that have not 8 n channels stay. A ReLU of a sequence may not be
            used elsewhere too: it becomes nothing.
        made: Of `trainers.kernels`; None for PyTorch's.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fuse_sequence(module, made)
    for module in list(network.modules()):
        kind = type(module)
        theirs = kind.__module__ == "torchvision.models.resnet"  # others have blocks of these names
        if theirs and kind.__name__ in ("BasicBlock", "Bottleneck"):
            _fuse_block(module, made)


def _fused(norm: nn.Module, made: Kernels | None) -> FusedNorm | None:
    usual = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats
    if not usual or norm.num_features % 8 or norm.momentum is None:  # type: ignore[operator]
        return None
    norm.__class__ = FusedNorm
    assert isinstance(norm, FusedNorm)
    norm.relu, norm.pool, norm.before, norm.made = False, False, (), made
    return norm


def _fuse_sequence(sequence: nn.Sequential, made: Kernels | None) -> None:
    layers = list(sequence)
    for place, layer in enumerate(layers):
        norm = _fused(layer, made)
        if norm is None:
            continue
        after: list[nn.Module] = layers[place + 1 : place + 3]
        if after and type(after[0]) is nn.ReLU:
            after.pop(0).__class__ = nn.Identity
            norm.relu = True
        if after and _halves(after[0]):
            after[0].__class__ = nn.Identity
            norm.pool = True
        before = layers[place - 1] if place else None
        if type(before) is nn.Conv2d and before.bias is not None:
            before.__class__ = Unbiased
            norm.before = (before,)


def _halves(pool: nn.Module) -> bool:
    """Whether it is 2x2 max pooling as `functional.max_pool2d(images, 2)`."""
    if type(pool) is not nn.MaxPool2d:
        return False
    window = ((pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0), (pool.dilation, 1))
    plain = all(value in (usual, (usual, usual)) for value, usual in window)
    return plain and not pool.ceil_mode and not pool.return_indices


def _fuse_block(block: nn.Module, made: Kernels | None) -> None:
    norms = [module for name, module in block.named_children() if name.startswith("bn")]
    done = [norm for norm in (_fused(norm, made) for norm in norms) if norm is not None]
    if len(done) == len(norms):
        for norm in done:
            norm.relu = True
        block.__class__ = _fused_block(type(block))  # type: ignore[arg-type]


@functools.cache
def _fused_block(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Fused{kind.__name__}", (kind,), {"forward": _block})


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


def check(made: Kernels, device: torch.device) -> None:
    """Values and gradients beside PyTorch's in fp32, for few rows and many, with a residual, with
    max pooling and with neither. Raises RuntimeError where they differ."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*size: int) -> Tensor:
        values = torch.randn(size, generator=generator, device=device).bfloat16()
        return values.contiguous(memory_format=torch.channels_last) if len(size) == 4 else values

    for size in SIZES:
        for kind in ("plain", "residual", "pooled"):
            if kind == "pooled" and size[3] % 2:
                continue
            x, residual = drawn(*size), drawn(*size)
            grad = drawn(*size)[..., ::2, ::2] if kind == "pooled" else drawn(*size)
            results = []
            for fast in (True, False):
                plain = nn.BatchNorm2d(size[1]).to(device)
                nn.init.uniform_(plain.weight, generator=torch.Generator(device).manual_seed(1))
                norm = _fused(plain, made if fast else None)
                assert norm is not None
                norm.relu, norm.pool = True, fast and kind == "pooled"
                dtype = torch.bfloat16 if fast else torch.float32
                leaves = [given.to(dtype, copy=True).requires_grad_() for given in (x, residual)]
                y = norm(leaves[0], leaves[1] if kind == "residual" else None)
                if kind == "pooled" and not fast:  # of equals, once rounded, the first is taken
                    y = functional.max_pool2d(y.bfloat16(), 2)
                y.backward(grad.to(y.dtype))
                found = [y.detach(), leaves[0].grad, norm.weight.grad, norm.bias.grad]
                found += [norm.running_mean, norm.running_var]
                results.append(found + ([leaves[1].grad] if kind == "residual" else []))
            for one, two in zip(*results, strict=True):
                apart, size_of = float((one.float() - two).norm()), float(two.float().norm())
                if not apart <= CLOSE * size_of + 1e-6:
                    raise RuntimeError(f"the fused batch norm of {size} is wrong on this device")
