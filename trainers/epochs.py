"""Epochs on one device, in the ways that there are, several runs at once, and how long one more
takes to begin: what a search gets.

Meant for a GPU. On a CPU the same goes through, uncaptured and with few images, so that it can be
tested.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trainers.bench import NETS
from trainers.captured import CapturedRun
from trainers.config import TrialConfig
from trainers.data import Data, random_images
from trainers.rounds import Row, compared
from trainers.run import Run

EAGER = 20  # batches of an epoch that is launched step by step: it takes seven seconds whole


def synthetic(config: TrialConfig, number: int, device: str) -> Data:
    """Random images, the same every time, also to score."""
    images = random_images(config, number)
    return Data(images, images, "test").to(device)


def epoch_table(
    net: str,
    *,
    device: str,
    images: int = 50_000,
    together: Sequence[int] = (2, 4),
    rounds: int = 3,
    scheme: str = "mate",
) -> list[Row]:
    """Training images per second of a network, a row a way.

    Args:
        net: Of `trainers.bench.NETS`.
        device: "cuda", or "cpu" to see that it runs.
        images: Of an epoch.
        together: Numbers of runs that share the device.
        rounds: How often each way has its turn.
        scheme: Of the distillation.
    """
    config = TrialConfig(**{**NETS[net], "scheme": scheme, "precision": "bf16"})
    data = synthetic(config, images, device)
    few = synthetic(config, min(images, EAGER * config.batch_size), device)
    exact = config.with_(precision="fp32")
    captured = [
        CapturedRun(config.with_(seed=seed), data, device) for seed in range(max((1, *together)))
    ]
    eager, mixed = Run(exact, device), Run(config, device)
    sides: list[tuple[str, int, Callable[[int], object]]] = [
        ("step by step, fp32", len(few.fit), lambda epoch: eager.train_epoch(few.fit, epoch)),
        ("step by step, bf16", len(few.fit), lambda epoch: mixed.train_epoch(few.fit, epoch)),
        (captured[0].path, images, lambda epoch: captured[0].train_epoch(data.fit, epoch)),
    ]
    for number in together:

        def at_once(epoch: int, number: int = number) -> None:
            with ThreadPoolExecutor(number) as pool:
                tasks = [pool.submit(run.train_epoch, data.fit, epoch) for run in captured[:number]]
            for task in tasks:
                task.result()  # raises what the run did

        sides.append((f"{number} together", number * images, at_once))
    speeds: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for place, (_, amount, train) in enumerate(sides):
            begin = time.perf_counter()
            train(number)
            if number:  # the first is a warm-up
                speeds[place].append(amount / (time.perf_counter() - begin))
    return compared(
        net, {side: mine for (side, *_), mine in zip(sides, speeds, strict=True)}, "images/s"
    )


def begin_table(
    net: str, *, device: str, images: int = 50_000, beside: int = 3, scheme: str = "mate"
) -> list[Row]:
    """Seconds until another run of a network can train, alone and beside runs that train.

    Args:
        net: Of `trainers.bench.NETS`.
        device: "cuda", or "cpu" to see that it runs.
        images: Of an epoch.
        beside: Number of the runs that train meanwhile.
        scheme: Of the distillation.
    """
    config = TrialConfig(**{**NETS[net], "scheme": scheme, "precision": "bf16"})
    data = synthetic(config, images, device)

    def made(seed: int) -> float:
        begin = time.perf_counter()
        CapturedRun(config.with_(seed=seed), data, device)
        return time.perf_counter() - begin

    # made here as the timed ones are: libraries choose their kernels once a thread
    others = [CapturedRun(config.with_(seed=seed), data, device) for seed in range(beside)]
    alone = made(beside)
    enough = threading.Event()

    def go(run: CapturedRun) -> None:
        while not enough.is_set():
            run.train_epoch(data.fit, 0)

    with ThreadPoolExecutor(beside) as pool:
        tasks = [pool.submit(go, run) for run in others]
        try:
            together = made(beside)
        finally:
            enough.set()
    for task in tasks:
        task.result()  # raises what the run did
    return [
        Row(net, "one more begins, alone", alone, "s", ratio=1.0),
        Row(net, f"beside {beside} that train", together, "s", ratio=alone / together),
    ]
