"""A trained run's answers to image files, each from the first exit that is sure enough."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from studies.evaluate import runs_in
from trainers.imagefiles import all_of

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
class Predictions:
    """What a network says of some images.

    Attributes:
        run: Its folder.
        exits: M.
        limits: (M,) thresholds of the exits, infinite where no or every image leaves; None where
            the last exit answers all.
        images: One by one, as they were given.
    """

    run: Path
    exits: int
    limits: tuple[float, ...] | None
    images: tuple[Prediction, ...]

    @property
    def flops(self) -> float:
        """Mean per image."""
        return statistics.fmean(image.flops for image in self.images)

    @property
    def leaving(self) -> tuple[int, ...]:
        """(M,) images that each exit answered."""
        at = [image.exit for image in self.images]
        return tuple(at.count(k + 1) for k in range(self.exits))


def predict(
    run: str | Path,
    files: Sequence[str],
    *,
    budget: float | None = None,
    data_root: str | Path | None = None,
) -> Predictions:
    """The classes of images.

    Args:
        run: A trained run; of a folder with several seeds the first is taken.
        files: Image files of any shape and mode, one at least.
        budget: FLOPs that an image may cost on average; thresholds that keep within it are set on
            the held-out images. None: the last exit answers all.
        data_root: Where the data set lies, for the thresholds; where it lay in training if not
            given.

    Raises:
        InputError: No trained run there, images that cannot be used, a budget that the network
            cannot spend, or no held-out images for it.
    """
    import torch

    from trainers.trained import load

    folder = runs_in(Path(run))[1][0]
    network = load(folder)
    limits = None if budget is None else network.thresholds(budget, data_root)
    found: list[Prediction] = []
    images = all_of(network.read, [Path(file) for file in files])
    while batch := list(islice(images, BATCH)):
        pixels = torch.stack(batch)
        if limits is None:
            best = network.predict(pixels)[-1].max(dim=-1)
            exits = [len(network.exits)] * len(batch)
            costs = [network.exits[-1].flops] * len(batch)
        else:
            early = network.stop_early(pixels, limits)
            best = early.probabilities.max(dim=-1)
            exits = [index + 1 for index in early.exits.tolist()]
            costs = [network.exits[number - 1].flops_cascade for number in exits]
        names = [network.classes[label] for label in best.indices.tolist()]
        rows = zip(names, best.values.tolist(), exits, costs, strict=True)
        found += [Prediction(files[i], *row) for i, row in enumerate(rows, start=len(found))]
    return Predictions(folder, len(network.exits), limits, tuple(found))
