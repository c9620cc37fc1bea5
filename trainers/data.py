"""What a run trains on and is scored on: splits, and augmented batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainers import splits
from trainers.augment import augment, draw, frame
from trainers.catalog import DATASETS
from trainers.config import Augmentation, TrialConfig
from trainers.folders import Decoded
from trainers.sources import check, data_root, decoded

__all__ = [
    "Data",
    "Images",
    "batches",
    "check",
    "data_root",
    "load",
    "normalisation",
    "only_test",
    "passes",
    "random_images",
    "scaling",
    "score_batch",
]

CHUNK = 256  # images moved to another device at a time


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels and normalisation; some of those that are stored.

    Attributes:
        stored: (N, C, S, S) uint8, N >= n. May be mapped from the cache, so that only what is read
            is in memory: do not write to it.
        labels: (n,) int64, 0..K-1.
        classes: K names.
        mean, std: C values each, of pixels scaled to 0..1.
        rows: (n,) int64, which of the stored images; all if None.
        size: Height and width of the batches, at most S; S if None.
    """

    stored: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor | None = None
    size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width of an image in a batch (pixels)."""
        return self.size or self.stored.shape[-1]

    @property
    def pixels(self) -> Tensor:
        """(n, C, S, S) uint8: all of them. Where only some are stored rows, a copy in memory."""
        return self.read(slice(None))

    def read(self, index: Tensor | slice) -> Tensor:
        """(B, C, S, S) uint8: those at some places of 0..n-1, in that order."""
        if self.rows is not None:
            index = self.rows[index]
        if isinstance(index, slice):
            return self.stored[index]
        return self.stored.index_select(0, index)

    def to(self, device: str | torch.device) -> "Images":
        """The same images on another device, which holds all n of them."""
        device, here = torch.device(device), self.stored.device
        if device.type == here.type and device.index in (None, here.index):
            return self
        there = torch.empty((len(self), *self.stored.shape[1:]), dtype=torch.uint8, device=device)
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            there[part] = self.read(part).to(device)
        return replace(self, stored=there, labels=self.labels.to(device), rows=None)


@dataclass(frozen=True, eq=False)
class Data:
    """What one run sees.

    Attributes:
        fit: Trained on.
        score: Scored on; shares no image with `fit`.
        split: What `score` is.
        calibrate: Held-out images for thresholds, where the test split is scored and the hold-out
            was not trained on.
    """

    fit: Images
    score: Images
    split: Literal["validation", "test"]
    calibrate: Images | None = None

    def to(self, device: str | torch.device) -> "Data":
        """The same images on another device."""
        held = None if self.calibrate is None else self.calibrate.to(device)
        fit, score = self.fit.to(device), self.score.to(device)
        return replace(self, fit=fit, score=score, calibrate=held)


def load(
    config: TrialConfig,
    purpose: Literal["search", "final", "final-holdout", "reproduce"] = "search",
    root: str | Path | None = None,
) -> Data:
    """The images of a run.

    Args:
        config: dataset, classes, image_size, limit_train, validation and split_seed are read.
        purpose: "search": trained on the training images without the hold-out, scored on the
            hold-out; the test split is not opened, neither its files nor its cache.
            "final": trained on both, scored on the test split. (The digits are always trained on
            180 alone: with more, every config sits at the ceiling.)
            "final-holdout": as "final", but the hold-out stays unseen and is `calibrate`.
            "reproduce": trained on all training images, or on `limit_train` of them, without any
            hold-out; scored on the test split.
        root: Where a named data set lies; AUTOMATE_DATA or ./data if None.

    Raises:
        InputError: Data that is missing, not of the expected form, or not what the config says.
    """
    train = decoded(config, "train", root)
    entry = DATASETS.get(config.dataset)
    mean, std = (entry.mean, entry.std) if entry else (train.mean, train.std)

    def images(source: Decoded, index: splits.Index | None) -> Images:
        stored, labels = torch.from_numpy(source.pixels), torch.from_numpy(source.labels)
        rows = None
        if index is not None and len(index) < len(labels):
            rows = torch.from_numpy(index)
            labels = labels[rows]
        return Images(stored, labels, source.classes, mean, std, rows, config.image_size)

    if purpose == "reproduce":
        every = images(train, splits.whole(config, train.labels))
        return Data(every, images(decoded(config, "test", root), None), "test")
    kept, held = splits.training(config, train.labels, train.classes)
    if purpose == "search":
        return Data(images(train, kept), images(train, held), "validation")
    test = images(decoded(config, "test", root), None)
    if purpose == "final" and config.dataset != "digits":
        return Data(images(train, np.union1d(kept, held)), test, "test")
    return Data(images(train, kept), test, "test", calibrate=images(train, held))


def only_test(config: TrialConfig, root: str | Path | None = None) -> Images:
    """The test split alone, with its own normalisation: to be seen by a network that has one.

    Args:
        config, root: As `load` takes them.

    Raises:
        InputError: As of `load`.
    """
    found = decoded(config, "test", root)
    pixels, labels = torch.from_numpy(found.pixels), torch.from_numpy(found.labels)
    size = config.image_size
    return Images(pixels, labels, found.classes, found.mean, found.std, None, size)


def random_images(config: TrialConfig, number: int) -> Images:
    """Images of random pixels and labels, of a config's size, the same every time: to time with."""
    generator = torch.Generator().manual_seed(0)
    size = (number, config.channels, config.image_size, config.image_size)
    pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    labels = torch.randint(config.classes, (number,), generator=generator)
    half = (0.5,) * config.channels
    return Images(pixels, labels, tuple(map(str, range(config.classes))), half, half)


def score_batch(images: Images) -> int:
    """Images of a batch that is only evaluated: more than in training, as no gradients are kept.

    500 of 32x32 pixels, and fewer of larger ones, so that memory stays the same.
    """
    return min(500, max(32, 500 * 32**2 // images.side**2))


def passes(
    images: Images,
    batch_size: int,
    *,
    augmentation: Augmentation = "none",
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the images as they are stored, augmented; the last batch smaller if need be.

    The random numbers of the whole pass are drawn first, on the CPU whatever the device: the order
    `randperm(n)` if shuffled, then what the augmentation draws, by place in the pass.

    Args:
        images: On any device.
        batch_size: Images a batch; what an image becomes does not depend on it.
        augmentation: See `trainers.augment.augment`.
        shuffle: Whether in a random order.
        generator: On the CPU; torch's default one if None.

    Yields:
        (B, C, side, side) uint8, and (B,) int64, on the images' device.
    """
    n, device = len(images), images.labels.device
    order = torch.randperm(n, generator=generator).to(device) if shuffle else None
    drawn = draw(augmentation, n, images.stored.shape[-1], images.side, generator)
    # "actions" are read one by one, on the CPU, so that nothing waits for the device.
    for name in drawn.keys() - {"actions"}:
        drawn[name] = drawn[name].to(device)
    framed = frame(augmentation, images.stored, min(batch_size, n), images.side)
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        index = part if order is None else order[part]
        mine = {name: values[part] for name, values in drawn.items()}
        pixels = augment(images.read(index), augmentation, mine, images.side, framed)
        yield pixels, images.labels[index]


def normalisation(images: Images) -> tuple[Tensor, Tensor]:
    """scale and offset (C,): a value v of 0..255 becomes v scale + offset."""
    return scaling(images.mean, images.std, images.labels.device)


def scaling(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`normalisation` by C means and deviations, of pixels scaled to 0..1."""
    means, stds = (torch.tensor(values, device=device) for values in (mean, std))
    return 1 / (255 * stds), -means / stds


def batches(
    images: Images,
    batch_size: int,
    *,
    augmentation: Augmentation = "none",
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`passes`, normalised: (B, C, side, side) float32, and (B,) int64, on the images' device."""
    scale, offset = (values.view(1, -1, 1, 1) for values in normalisation(images))
    for pixels, labels in passes(
        images,
        batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        generator=generator,
    ):
        yield pixels.float().mul_(scale).add_(offset), labels
