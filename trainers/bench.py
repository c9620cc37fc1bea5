"""Steps timed by network, scheme and precision; the loss alone; operations; the matrix peak;
inference that stops early."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.exits import MultiExitNet, build_network
from trainers.losses import loss
from trainers.plain import PlainRun, plain_loss
from trainers.rounds import Row, interleaved
from trainers.run import Run
from trainers.speed import precisions, preferred
from trainers.teachers import Teachers

# The networks that a gain is named for: what a step is timed on.
NETS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits"},
    "digits128": {"dataset": "digits", "batch_size": 128},
    "vgg16x0.25": {"dataset": "cifar100", "width": 0.25},
    "vgg16": {"dataset": "cifar100"},
    "resnet18": {"dataset": "cifar100", "backbone": "resnet18"},
}
SHORT = ("digits", "vgg16x0.25")


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the ATen operations that compute: views, which only relabel memory, do not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not func.is_view and func.name() not in ("aten::_unsafe_view", "aten::detach"):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def loss_operations(config: TrialConfig, plain: bool = False) -> list[str]:
    """ATen operations of a config's loss, forward and backward, down to features and logits."""
    features, logits, labels, teachers = _given(config)
    with Operations() as seen:
        _loss(features, logits, labels, teachers, config, plain).backward()  # type: ignore[no-untyped-call]
    names: list[str] = seen.names
    return names


def _given(config: TrialConfig, width: int = 512) -> tuple[Tensor, Tensor, Tensor, Teachers]:
    generator = torch.Generator().manual_seed(0)
    shape = (config.exits, config.batch_size)
    features = torch.randn(*shape, width, generator=generator)
    logits = torch.randn(*shape, config.classes, generator=generator).requires_grad_()
    labels = torch.randint(config.classes, (config.batch_size,), generator=generator)
    return features, logits, labels, Teachers(config, width)


def _loss(
    features: Tensor,
    logits: Tensor,
    labels: Tensor,
    teachers: Teachers,
    config: TrialConfig,
    plain: bool,
) -> Tensor:
    if plain:
        return plain_loss(features, logits, labels, teachers, config)
    return loss(features, logits, labels, teachers, config).total


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """PyTorch on that many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def step_table(nets: Sequence[str], *, rounds: int = 6, seconds: float = 0.2) -> list[Row]:
    """A training step of MATE in one thread: plain, each precision of ours; schemes in the best."""
    rows = []
    with _threads(1):
        for net in nets:
            config = TrialConfig(**NETS[net])
            images = torch.rand(config.batch_size, config.channels, *[config.image_size] * 2)
            batch = images, torch.randint(config.classes, (config.batch_size,))
            amount = float(config.batch_size)
            sides = {"plain": PlainRun(config).step}
            for precision in ("fp32", "bf16"):
                run = Run(config.with_(precision=precision))
                run.network.train()
                sides[precision] = run.step
            calls = {name: _calling(step, batch) for name, step in sides.items()}
            found = interleaved(net, calls, amount=amount, rounds=rounds, seconds=seconds)
            rows += found
            best = max(found[1:], key=lambda row: row.value).side
            calls = {}
            for scheme in ("branchynet", "eed", "mate"):
                run = Run(config.with_(precision=best, scheme=scheme))
                run.network.train()
                calls[f"{scheme} {best}"] = _calling(run.step, batch)
            # A difference of some hundredths: many short turns, a few steps each.
            rows += interleaved(
                f"{net} schemes", calls, amount=amount, rounds=8 * rounds, seconds=seconds / 8
            )
    return rows


def _calling(step: Callable[..., object], given: tuple[Any, ...]) -> Callable[[], object]:
    return lambda: step(*given)


def _loss_step(*given: Any) -> None:
    _loss(*given).backward()  # type: ignore[no-untyped-call]


def loss_table(*, rounds: int = 6, seconds: float = 0.1) -> list[Row]:
    """The loss alone, forward and backward, B 128, K 100, C 512: time and operations."""
    rows = []
    with _threads(1):
        for scheme in ("branchynet", "eed", "dks", "mate"):
            config = TrialConfig(dataset="cifar100", scheme=scheme)
            given = _given(config)

            sides = {
                "plain": _calling(_loss_step, (*given, config, True)),
                "ours": _calling(_loss_step, (*given, config, False)),
            }
            rows += interleaved(scheme, sides, amount=1, unit="/s", rounds=rounds, seconds=seconds)
            for side in ("plain", "ours"):
                number = len(loss_operations(config, plain=side == "plain"))
                rows.append(Row(scheme, side, number, "ATen operations"))
    return rows


def early_table(net: str, rounds: int, seconds: float) -> list[Row]:
    """Inference that stops early, in one thread and fp32: the last exit alone, all exits, and as
    many images leaving at each. Its note is the ratio that the FLOPs promise.

    One image at a time and in batches; the network is untrained, so that only the shares matter.
    """
    config, rows = TrialConfig(**NETS[net]), []
    network, spent = _settled(config), costs(config)
    mean = sum(cost.flops_cascade for cost in spent) / len(spent)
    note = f"{spent[-1].flops / mean:.2f} by FLOPs"
    with _threads(1):
        for batch in (1, 32 * config.exits):
            number = 4 * max(batch, config.exits)
            images = torch.randn(number, config.channels, *[config.image_size] * 2)
            with torch.inference_mode():
                limits = evenly(network(images)[1])
            parts = torch.split(images, batch)
            calls = {
                "last exit": partial(_each, network.path(config.exits - 1), parts),
                "all exits": partial(_each, network, parts),
                "early": partial(_each, partial(network.stop_early, limits=limits), parts),
            }
            what = f"{net}, {batch} at a time"
            found = interleaved(what, calls, amount=number, rounds=rounds, seconds=seconds)
            rows += [*found[:-1], replace(found[-1], note=note)]
    return rows


@torch.no_grad()
def _settled(config: TrialConfig) -> MultiExitNet:
    """A fresh network whose norms have seen random images: without, deep features are nearly 0."""
    network = build_network(config).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randn(64, config.channels, *[config.image_size] * 2))
    return network.eval()


def evenly(logits: Tensor) -> list[float]:
    """Thresholds under which as many images leave at each exit.

    Args:
        logits: (M, B, K), B a multiple of M.
    """
    exits, number, _ = logits.shape
    confidence = logits.softmax(dim=-1).amax(dim=-1).double()
    left, limits = torch.ones(number, dtype=torch.bool), []
    for row in confidence[:-1]:
        limits.append(row[left].topk(number // exits).values[-1].item())
        left &= row < limits[-1]
    return [*limits, -math.inf]


@torch.inference_mode()
def _each(network: Callable[[Tensor], object], parts: Sequence[Tensor]) -> None:
    for images in parts:
        network(images)


def machine() -> dict[str, Any]:
    """What was timed on: versions, cores, vector units."""
    return {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def peak(precision: str, threads: int = 1, size: int = 1024) -> float:
    """FLOP/s of a square matrix product, the best of some rounds."""
    with _threads(threads):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size).to(dtype)
        best = float("inf")
        for _ in range(8):
            begin = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def step_flops(config: TrialConfig) -> float:
    """FLOPs of a training step per image: multiply and add are two, backward is twice forward."""
    return 6.0 * costs(config)[-1].flops_cascade


def path_table(nets: Sequence[str]) -> list[Row]:
    """The precision that a search of each net takes here, and its share of the matrix peak."""
    rows = []
    for net in nets:
        config = TrialConfig(**NETS[net])
        speeds = precisions(config)
        best = preferred(speeds)
        share = speeds[best] * step_flops(config) / peak(best)
        note = f"{100 * share:.1f} % of the {best} matrix peak of a core"
        if not speeds["bf16"]:
            note += "; bf16 does not compute the same here"
        ratio = speeds[best] / speeds["fp32"]
        rows.append(Row(net, best, speeds[best], "images/s", ratio, ratio, ratio, note=note))
    return rows
