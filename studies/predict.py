"""A trained run's answers to image files, each from the first exit that is sure enough."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studies.evaluate import runs_in
from trainers.catalog import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.trained import Trained

BATCH = 64  # images


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        file: As it was given.
        label: The most probable class, by its name.
        probability: Of that class, by the exit that answered.
        exit: Which one, 1 = shallowest.
        flops: That the answer cost; with thresholds the heads on the way included.
    """

    file: str
    label: str
    probability: float
    exit: int
    flops: int


@dataclass(frozen=True)
class Refused:
    """An image that could not be used.

    Attributes:
        file: As it was given.
        reason: One line.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Predictions:
    """What a network says of some images.

    Attributes:
        run: Its folder.
        exits: M.
        limits: (M,) thresholds of the exits, infinite where no or every image leaves; None where
            the last exit answers all.
        no_budget: Why this network takes no budget; None if it does.
        images: One by one, as they were given.
        refused: Those that could not be used.
    """

    run: Path
    exits: int
    limits: tuple[float, ...] | None
    no_budget: str | None
    images: tuple[Prediction, ...]
    refused: tuple[Refused, ...]

    @property
    def flops(self) -> float | None:
        """Mean per image; None without any."""
        return statistics.fmean(one.flops for one in self.images) if self.images else None

    @property
    def leaving(self) -> tuple[int, ...]:
        """(M,) images that each exit answered."""
        at = [image.exit for image in self.images]
        return tuple(at.count(k + 1) for k in range(self.exits))


def predict(run: str | Path, files: Sequence[str], budget: float | None = None) -> Predictions:
    """The classes of images.

    Args:
        run: A trained run; of a folder with several seeds the first is taken.
        files: Image files of any shape.
        budget: FLOPs that an image may cost on average; thresholds keep within it on the held-out
            images. None: the last exit answers all.

    Raises:
        InputError: No trained run there, one that takes no image files, a budget that the network
            cannot spend, or no held-out images for it.
    """
    from trainers.trained import load

    folder = runs_in(Path(run))[1][0]
    network = load(folder)
    network.check_takes_files()
    limits = None if budget is None else network.thresholds(budget)
    found: list[Prediction] = []
    refused: list[Refused] = []
    for start in range(0, len(files), BATCH):
        named, pixels = [], []
        for file in files[start : start + BATCH]:
            try:
                pixels.append(network.read(file))
                named.append(file)
            except InputError as error:
                refused.append(Refused(file, str(error)))
        if named:
            found += _answers(network, named, pixels, limits)
    return Predictions(
        folder, len(network.exits), limits, network.no_thresholds(), tuple(found), tuple(refused)
    )


def _answers(
    network: "Trained",
    files: Sequence[str],
    pixels: "Sequence[Tensor]",
    limits: tuple[float, ...] | None,
) -> list[Prediction]:
    """Of one batch of images."""
    import torch

    if limits is None:
        best = network.last(torch.stack(list(pixels))).max(dim=-1)
        exits = [len(network.exits)] * len(files)
        costs = [network.exits[-1].flops] * len(files)
    else:
        early = network.stop_early(torch.stack(list(pixels)), limits)
        best = early.probabilities.max(dim=-1)
        exits = [index + 1 for index in early.exits.tolist()]
        costs = [network.exits[number - 1].flops_cascade for number in exits]
    names = [network.classes[label] for label in best.indices.tolist()]
    rows = zip(files, names, best.values.tolist(), exits, costs, strict=True)
    return [Prediction(*row) for row in rows]
