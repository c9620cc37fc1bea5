"""Images per second that the input makes, without training and between its steps."""

import time

import torch

from trainers.bench import NETS
from trainers.config import TrialConfig
from trainers.data import batches, random_images
from trainers.plain import plain_loader
from trainers.rounds import Foreign, Row, compared, kept
from trainers.run import Run

STEPS = 8  # of a training, between which batches are made


def pipeline_table(*, images: int = 10_000, rounds: int = 3) -> list[Row]:
    """Augmented CIFAR-sized batches: a DataLoader over PIL images and ours, without training; and
    ours between the steps of a training, where nothing of it is left in the caches.

    The DataLoader's is wall time, as other processes work for it; ours is CPU time of one thread.
    """
    config = TrialConfig(**NETS["vgg16x0.25"])
    data = random_images(config, images)
    some = random_images(config, STEPS * config.batch_size)
    loader = plain_loader(data, config)
    run = Run(config)
    run.network.train()
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def plain() -> float:
        begin = time.perf_counter()
        for _ in loader:
            pass
        return images / (time.perf_counter() - begin)

    def ours() -> float:
        begin = time.thread_time()
        for _ in batches(data, config.batch_size, augmentation="crop_flip", shuffle=True):
            pass
        return images / (time.thread_time() - begin)

    def inside() -> float:
        given = batches(some, config.batch_size, augmentation="crop_flip", shuffle=True)
        taken = 0.0
        for _ in range(STEPS):
            begin = time.thread_time()
            batch = next(given)
            taken += time.thread_time() - begin
            run.step(*batch)
        return len(some) / taken

    sides = {"plain": plain, "ours": ours, "ours, inside training": inside}
    try:
        for side in sides.values():
            side()
        values: dict[str, list[float]] = {name: [] for name in sides}
        shares = []
        for _ in range(rounds):
            foreign = Foreign()
            for name, side in sides.items():
                values[name].append(side())
            shares.append(foreign.share())
    finally:
        torch.set_num_threads(before)
    good = kept(shares)
    chosen = {name: [found[i] for i in good] for name, found in values.items()}
    return compared("crop, flip, normalise", chosen, "images/s", dropped=rounds - len(good))
