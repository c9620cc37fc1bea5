"""Parts of a step side by side on a GPU, as branches of its CUDA graph.

At batch 128 most kernels of a step fill a part of the GPU only, so what need not wait is launched
on a stream of its own: the heads beside the stages that come after them, forward and backward
(autograd goes backward on the streams of forward), and the gradient of each convolution's weight,
which nobody needs before the step's end, beside that of its input.

Several runs fill the GPU by themselves, so one run of a process has branches, the first.

Memory is PyTorch's matter: what one stream has freed is written again on the same stream without
asking the others. So whatever a branch reads is kept until the branches are joined.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainers.exits import MultiExitNet
from trainers.fused import Unbiased
from trainers.graphs import has_graphs, own_stream
from trainers.paths import to_one_pixel

HEADS, WEIGHTS = range(2)  # the streams of a run beside its own
_branched: "weakref.WeakSet[Branches]" = weakref.WeakSet()


class Branches:
    """The streams beside that of a run, and what is read on them.

    On a CPU, and while another run of the process has them, everything runs where it stands, in the
    same order.

    Args:
        device: Of the run.
        wanted: Whether the run would use them.
    """

    def __init__(self, device: torch.device, wanted: bool = True) -> None:
        self._streams: list[torch.cuda.Stream] = []
        if wanted and has_graphs(device) and not _branched:
            self._streams = [own_stream(device, self) for _ in (HEADS, WEIGHTS)]
            _branched.add(self)
        self._begun: set[int] = set()
        self._kept: list[Any] = []

    @property
    def apart(self) -> bool:
        """Whether anything runs beside the rest."""
        return bool(self._streams)

    def stop(self) -> None:
        """From now on everything runs where it stands; no other run has branches meanwhile."""
        for left in (self._streams, self._begun, self._kept):
            left.clear()

    @contextmanager
    def beside(self, branch: int, *read: Any) -> Iterator[None]:
        """What is launched inside waits for what was launched before it, and nothing waits for it.

        Args:
            branch: HEADS or WEIGHTS.
            *read: What it reads, tensors or whatever holds them.
        """
        if not self._streams:
            yield
            return
        stream = self._streams[branch]
        stream.wait_stream(torch.cuda.current_stream())
        self._begun.add(branch)
        self._kept.append(read)
        with torch.cuda.stream(stream):
            yield

    def join(self, *made: Any) -> None:
        """What is launched from now on waits for all that was launched beside.

        Args:
            *made: What it reads of that, kept until the next call.
        """
        for branch in self._begun:
            torch.cuda.current_stream().wait_stream(self._streams[branch])
        self._begun.clear()
        self._kept = [made]


class _Conv(torch.autograd.Function):
    """A convolution whose weight's gradient is computed beside the rest."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, how: tuple[Any, ...], branches: Branches
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.how, ctx.branches = how, branches
        return torch.conv2d(images, weight, None, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how

        def gradient(place: int) -> Tensor:
            made: Tensor = torch.ops.aten.convolution_backward(
                grads[0], images, weight, None, stride, padding, dilation, False, [0, 0], groups,
                [place == 0, place == 1, False],
            )[place]  # fmt: skip
            return made

        with ctx.branches.beside(WEIGHTS, grads, images):
            of_weight = gradient(1)
        of_images = gradient(0) if ctx.needs_input_grad[0] else None
        return of_images, of_weight, None, None


class BranchedConv2d(nn.Conv2d):
    """`nn.Conv2d`, the gradient of its weight beside the rest."""

    branches: Branches

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros" and not isinstance(self.padding, str):
            if self._leaves_one_pixel(input):
                return to_one_pixel(input, weight, bias)
            if bias is None and torch.is_grad_enabled():
                how = (self.stride, self.padding, self.dilation, self.groups)
                made: Tensor = _Conv.apply(input, weight, how, self.branches)
                return made
        plain: Tensor = super()._conv_forward(input, weight, bias)
        return plain

    def _leaves_one_pixel(self, images: Tensor) -> bool:
        """Depthwise from 2x2 pixels to one, where cuDNN goes channel by channel: 512 launches of a
        layer of VGG16."""
        shape = (self.groups, self.out_channels, self.kernel_size, self.padding, self.dilation)
        alike = shape == (self.in_channels, self.in_channels, (3, 3), (1, 1), (1, 1))
        return alike and max(images.shape[2:]) <= min(2, *self.stride)


class _BranchedUnbiased(Unbiased, BranchedConv2d):
    """`Unbiased`, the gradient of its weight beside the rest."""


class BranchedNet(MultiExitNet):
    """`MultiExitNet` whose heads run beside the stages that come after them."""

    branches: Branches

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `MultiExitNet`."""
        features: list[Tensor] = []
        x: Any = images
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k not in self.taps:
                continue
            head = self.heads[len(features)]
            if k == len(self.stages) - 1:
                features.append(head(x))
            else:
                with self.branches.beside(HEADS, x):
                    features.append(head(x))
        self.branches.join(features)
        return self._read(features)


_BRANCHED: dict[type[nn.Module], type[nn.Module]] = {
    MultiExitNet: BranchedNet,
    nn.Conv2d: BranchedConv2d,
    Unbiased: _BranchedUnbiased,
}


def branch(network: MultiExitNet, branches: Branches) -> None:
    """Lets a network's heads and the gradients of its convolutions' weights run beside the rest.

    The network stays the same object with the same state. After a backward pass the branches have
    to be joined.
    """
    for module in network.modules():
        if type(module) in _BRANCHED:
            module.__class__ = _BRANCHED[type(module)]
            module.branches = branches  # type: ignore[assignment]
