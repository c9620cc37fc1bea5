"""CUDA kernels of our own, compiled where they are first needed.

NVRTC does it, which comes with PyTorch: no compiler has to be there.
"""

import os
from pathlib import Path
from typing import Any

import torch

THREADS = 256  # of a block
NAMES = ("norm_sums", "norm_apply", "norm_small", "norm_grad_sums", "norm_grad", "norm_grad_small")

Grid = tuple[int, int, int]
Kernels = dict[str, Any]  # name -> called with grid, block and arguments


def source() -> str:
    """All kernels."""
    return Path(__file__).with_name("fused.cu").read_text()


def compiled(capability: str | None = None) -> bytes:
    """The kernels as a binary for a device.

    Args:
        capability: Of the device, e.g. "90"; of the current one if None.

    Raises:
        RuntimeError: They do not compile.
    """
    from torch.cuda import _utils
    from torch.utils import cpp_extension

    # `torch.cuda._compile_kernel` compiles the whole source anew for each kernel in it. The source
    # includes nothing, but PyTorch looks for the CUDA toolkit's headers all the same.
    home = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = home or os.path.dirname(__file__)
    try:
        return _utils._nvrtc_compile(source(), NAMES[0], capability)[0]
    finally:
        cpp_extension.CUDA_HOME = home


def kernels(device: torch.device) -> Kernels:
    """The kernels, by name, not yet compared with anything.

    Raises:
        RuntimeError: They do not compile here.
    """
    from torch.cuda import _utils

    with torch.cuda.device(device):
        # A kernel that PyTorch does not launch finds no context in a thread that has launched none
        # of PyTorch's: this thread, and the one that goes backward.
        torch.ones(1, device=device, requires_grad=True).mul(2).sum().backward()  # type: ignore[no-untyped-call]
        return dict(_utils._cuda_load_module(compiled(), list(NAMES)))  # type: ignore[arg-type]


def columns_of(channels: int, most: int) -> tuple[int, int]:
    """Columns of eight channels that a block covers, a power of two up to `most`, and how many
    blocks it takes to cover all."""
    columns, wide = channels // 8, 1
    while wide < min(columns, most):
        wide *= 2
    return wide, -(-columns // wide)


def grid_of(rows: int, wide: int, high: int, *, each: int, blocks: int) -> Grid:
    """A grid over rows and columns.

    Args:
        rows: Of all. wide: Columns of a block. high: Blocks that cover all columns.
        each: Rows that a thread should have at least.
        blocks: Of all, at most.
    """
    return min(blocks // high or 1, -(-rows // (each * (THREADS // wide)))), high, 1
