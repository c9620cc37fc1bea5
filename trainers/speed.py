"""How fast a config trains on this machine, and whether bf16 computes the same here.

A rule for when bf16 pays would be wrong somewhere: with AMX it is three times as fast as fp32;
where a CPU has no bf16 PyTorch emulates it, 7 to 36 times slower; tiny networks are slower in it
anywhere. So both are tried, for a second or two.
"""

import copy
import math
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.data import Data, random_images
from trainers.draws import Draws
from trainers.run import Run

FEW = 8  # images of the first, careful try
STEP = 0.5  # seconds that a timed step should take at most: fewer images where it would take more
ROUNDS = 2  # turns of each candidate, at least
BATCHES = 32  # of an epoch that is timed on a GPU
HOPELESS = 3.0  # times slower than fp32 in the first try, from which bf16 is not timed any further
PAYS = 1.2  # times as fast as fp32, from which bf16 is taken: where it pays, it is 1.5 or more
SAME_LOSS = 1e-2  # relative, of the first step on a few images; on a full batch 1e-3 holds
SAME_LAYER = 0.03  # relative, of a layer's output and gradients: bf16 itself rounds by 0.004


def _batch(config: TrialConfig, device: str, number: int) -> tuple[Tensor, Tensor]:
    """Random images and labels, the same every time."""
    generator = torch.Generator().manual_seed(0)
    size = (number, config.channels, config.image_size, config.image_size)
    labels = torch.randint(config.classes, (number,), generator=generator)
    return torch.rand(size, generator=generator).to(device), labels.to(device)


class _Candidate:
    """One way to run a config's steps: its precision, and a number of threads."""

    def __init__(self, config: TrialConfig, device: str, threads: int | None = None) -> None:
        self.config, self.device, self.threads = config, device, threads
        self.run = Run(config, device)
        self.run.network.train()
        self.times: list[float] = []
        self.worked: list[float] = []  # of which the calling thread had a core

    def step(self, batch: tuple[Tensor, Tensor]) -> float:
        """One step, timed. Returns its loss."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        begin, worked = time.perf_counter(), time.thread_time()
        value = self.run.step(*batch)
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() - begin)
        self.worked.append(time.thread_time() - worked)
        return float(value)


def _in_turns(candidates: Sequence[_Candidate], seconds: float) -> list[float]:
    """Images per second of each, from interleaved steps: what else runs slows all of them."""
    config, device = candidates[0].config, candidates[0].device
    few = _batch(config, device, min(FEW, config.batch_size))
    for candidate in candidates:
        candidate.step(few)
        candidate.step(few)
    each = min(candidate.times[-1] for candidate in candidates) / len(few[1])
    batch = _batch(config, device, max(len(few[1]), min(config.batch_size, int(STEP / each))))
    for candidate in candidates:
        candidate.step(batch)
        candidate.times.clear()
        candidate.worked.clear()
    until = time.perf_counter() + seconds * len(candidates)
    while len(candidates[0].times) < ROUNDS or time.perf_counter() < until:
        for candidate in candidates:
            candidate.step(batch)
    return [len(batch[1]) / statistics.median(candidate.times) for candidate in candidates]


def throughput(
    config: TrialConfig,
    device: str = "cpu",
    threads: Sequence[int | None] = (None,),
    seconds: float = 0.1,
) -> list[float]:
    """Training images per second of a config on this machine, on random images.

    Args:
        config: Sizes, scheme and precision are read.
        device: "cpu" or "cuda".
        threads: Numbers of CPU threads to try; None for as many as there are set.
        seconds: Of measuring, for each number, after a warm-up.

    Returns:
        One value for each number of threads.
    """
    if torch.device(device).type == "cuda":
        return [_on_gpu(config, device)] * len(threads)  # where the CPU's threads do nothing
    before = torch.get_num_threads()
    try:
        return _in_turns([_Candidate(config, device, number) for number in threads], seconds)
    finally:
        torch.set_num_threads(before)


def _on_gpu(config: TrialConfig, device: str) -> float:
    """Images per second of an epoch as a search trains it. Leaves nothing in the GPU's memory."""
    from trainers.opening import free_memory

    speed = _of_epoch(config, device)
    free_memory()
    return speed


def _of_epoch(config: TrialConfig, device: str) -> float:
    from trainers.opening import opened

    number = BATCHES * config.batch_size
    images = random_images(config, number)
    data = Data(images, images, "test").to(device)
    with opened(config, data, device) as run:
        run.train_epoch(data.fit, 0)
        begin = time.perf_counter()
        run.train_epoch(data.fit, 0)  # ends when the GPU has
        return number / (time.perf_counter() - begin)


def preferred(speeds: Mapping[str, float]) -> str:
    """The precision to take: bf16 only where it is faster by more than such a timing scatters, so
    that the numbers of a study are not drawn by lot."""
    return "bf16" if speeds["bf16"] >= PAYS * speeds["fp32"] else "fp32"


def precisions(config: TrialConfig, threads: int = 1, seconds: float = 0.1) -> dict[str, float]:
    """Training images per second of a config on this CPU in each precision.

    Args:
        config: All but its precision is read.
        threads: CPU threads.
        seconds: Of measuring, for each precision. In all it takes a few seconds at most.

    Returns:
        "fp32" and "bf16"; bf16 is 0 where it does not compute the same here, in a layer or in the
        loss of the first step, and an estimate where it is hopelessly slow.
    """
    before = torch.get_num_threads()
    try:
        exact, mixed = (
            _Candidate(config.with_(precision=name), "cpu", threads) for name in ("fp32", "bf16")
        )
        few = _batch(config, "cpu", min(FEW, config.batch_size))
        losses = [_first_loss(exact, few)]
        try:
            losses.append(_first_loss(mixed, few))
        except Exception:  # a user's network need not run in bf16
            return {"fp32": _in_turns([exact], seconds)[0], "bf16": 0.0}
        for candidate in (exact, mixed, exact, mixed):
            candidate.step(few)
        slower = min(mixed.times[1:]) / min(exact.times[1:])
        if slower > HOPELESS:
            speed = _in_turns([exact], seconds)[0]
            return {"fp32": speed, "bf16": speed / slower}
        same = math.isclose(*losses, rel_tol=SAME_LOSS) and layers_agree(mixed.run.network, few[0])
        if not same:
            return {"fp32": _in_turns([exact], seconds)[0], "bf16": 0.0}
        speeds = _in_turns([exact, mixed], seconds)
        if threads == 1 and (worked := statistics.median(mixed.worked)) > 0:
            # Where others run, the clock tells their luck too.
            faster = statistics.median(exact.worked) / worked
            return {"fp32": speeds[0], "bf16": speeds[0] * faster}
        return {"fp32": speeds[0], "bf16": speeds[1]}
    finally:
        torch.set_num_threads(before)


def _first_loss(candidate: _Candidate, batch: tuple[Tensor, Tensor]) -> float:
    """Of a step whose dropout draws what every candidate's draws."""
    with Draws(0).taken():
        return candidate.step(batch)


def layers_agree(network: nn.Module, images: Tensor) -> bool:
    """Whether every convolution and linear layer computes in bf16 what it does in fp32.

    Output and all gradients, each layer on inputs of the size that it has in the network: the loss
    of a fresh network hardly depends on them, and wrong bf16 convolutions have shipped.

    Args:
        network: On the CPU, with the paths that a run takes.
        images: (B, channels, H, W).
    """
    seen: dict[tuple[object, ...], tuple[nn.Module, torch.Size]] = {}

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[(repr(module), *given[0].shape)] = (module, given[0].shape)

    hooks = [
        module.register_forward_pre_hook(see)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return all(_agrees(copy.deepcopy(module), shape) for module, shape in seen.values())


def _agrees(module: nn.Module, shape: torch.Size) -> bool:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(shape, generator=generator)
    if given.dim() == 4:
        given = given.contiguous(memory_format=torch.channels_last)
    found = []
    grad = None
    for mixed in (False, True):
        module.zero_grad()
        given = given.detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            made = module(given)
        grad = torch.randn(made.shape, generator=generator) if grad is None else grad
        made.float().backward(grad)
        grads = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        assert given.grad is not None
        found.append([made.detach().float(), given.grad.clone(), *grads])
    return all(  # NaN agrees with nothing
        float((mixed - exact).norm()) <= SAME_LAYER * float(exact.norm())
        for exact, mixed in zip(*found, strict=True)
    )
