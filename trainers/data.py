"""What a run trains on and is scored on: splits in memory, and augmented batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers import splits
from trainers.catalog import DATASETS
from trainers.config import TrialConfig
from trainers.folders import Decoded, describe_folder
from trainers.sources import check, data_root, decoded, fetch

__all__ = [
    "Data",
    "Images",
    "batches",
    "check",
    "data_root",
    "describe_folder",
    "fetch",
    "load",
]

PADDING = 8  # a crop may shift by the side / 8: 4 pixels of 32, 1 of 8


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory, with their labels and normalisation.

    Attributes:
        pixels: (n, C, H, W) uint8. May be mapped from the cache: do not write to it.
        labels: (n,) int64, 0..K-1.
        classes: K names.
        mean, std: C values each, of pixels scaled to 0..1.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "Images":
        """The same images on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """What one run sees.

    Attributes:
        fit: Trained on.
        score: Scored on; shares no image with `fit`.
        split: What `score` is.
    """

    fit: Images
    score: Images
    split: Literal["validation", "test"]

    def to(self, device: str | torch.device) -> "Data":
        """The same images on another device."""
        return replace(self, fit=self.fit.to(device), score=self.score.to(device))


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
            the same 180: with more, every config sits at the ceiling.)
            "final-holdout": as "final", but the hold-out stays unseen.
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
        pixels, labels = torch.from_numpy(source.pixels), torch.from_numpy(source.labels)
        if index is not None and len(index) < len(labels):
            chosen = torch.from_numpy(index)
            pixels, labels = pixels.index_select(0, chosen), labels.index_select(0, chosen)
        return Images(pixels, labels, source.classes, mean, std)

    if purpose == "reproduce":
        every = images(train, splits.whole(config, train.labels))
        return Data(every, images(decoded(config, "test", root), None), "test")
    kept, held = splits.training(config, train.labels, train.classes)
    if purpose == "search":
        return Data(images(train, kept), images(train, held), "validation")
    if purpose == "final" and config.dataset != "digits":
        kept = np.union1d(kept, held)
    return Data(images(train, kept), images(decoded(config, "test", root), None), "test")


def batches(
    images: Images,
    batch_size: int,
    *,
    augmentation: Literal["none", "crop_flip"] = "none",
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the images, the last batch smaller if need be.

    The random numbers of the whole pass are drawn first, on the CPU whatever the device: the order
    `randperm(n)` if shuffled; for the augmentation the shifts `randint(2 * pad + 1, (n, 2))`, down
    and right, and the mirrors `randint(2, (n,))`, by place in the pass.

    Args:
        images: On any device.
        batch_size: Images a batch.
        augmentation: "crop_flip": each image is mirrored or not, padded with black by an eighth of
            its side, and a square of its own size is cut out anywhere.
        shuffle: Whether in a random order.
        generator: On the CPU; torch's default one if None.

    Yields:
        (B, C, H, W) float32 normalised, and (B,) int64, on the images' device.
    """
    n, device = len(images), images.pixels.device
    pad = images.pixels.shape[-1] // PADDING if augmentation == "crop_flip" else 0
    order = torch.randperm(n, generator=generator).to(device) if shuffle else None
    shifts = mirrors = torch.empty(0)
    if augmentation == "crop_flip":
        shifts = torch.randint(2 * pad + 1, (n, 2), generator=generator).to(device)
        mirrors = torch.randint(2, (n,), generator=generator).to(device)
    mean = torch.tensor(images.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(images.std, device=device).view(1, -1, 1, 1)
    scale, offset = 1 / (255 * std), -mean / std
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        if order is None:
            pixels, labels = images.pixels[part], images.labels[part]
        else:
            pixels = images.pixels.index_select(0, order[part])
            labels = images.labels.index_select(0, order[part])
        if augmentation == "crop_flip":
            pixels = crop_flip(pixels, shifts[part], mirrors[part], pad)
        yield pixels.float().mul_(scale).add_(offset), labels


def crop_flip(pixels: Tensor, shifts: Tensor, mirrors: Tensor, pad: int) -> Tensor:
    """Each image mirrored or not, then padded with 0 and cut to its size again.

    In memory every cut of every padded image is the same pattern of C x H rows of W values, begun
    at another place. So the cuts are rows of one strided view, and choosing them copies whole
    pieces: three times as fast as a gather of single pixels (CPU).

    Args:
        pixels: (B, C, H, W) uint8.
        shifts: (B, 2), where the cut begins in the padded image, down and right, 0..2 pad.
        mirrors: (B,), 1 for mirrored, else 0.
        pad: Pixels on each side.

    Returns:
        (B, C, H, W) uint8.
    """
    b, channels, height, width = pixels.shape
    places = torch.arange(b, device=pixels.device)
    both = torch.cat((pixels, pixels.flip(3)))
    padded = functional.pad(both.index_select(0, places + b * mirrors), (pad,) * 4)
    image, channel, row, _ = padded.stride()
    reach = (channels - 1) * channel + (height - 1) * row + width
    cuts = padded.as_strided(
        (padded.numel() - reach + 1, channels, height, width), (1, channel, row, 1)
    )
    return cuts.index_select(0, places * image + shifts[:, 0] * row + shifts[:, 1])
