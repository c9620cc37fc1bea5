"""The data sets by name or path: where their files are, and what is in them.

A split is asked for by name and only its own files are looked at: a search asks for "train" and
never meets the test images. No torch here: flags and checks stay quick.
"""

import functools
import importlib.util
import os
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainers import cache, official, splits
from trainers.catalog import DATASETS, InputError
from trainers.config import TrialConfig
from trainers.folders import Decoded, Listing, Split, list_tree, need_folder


def data_root(root: str | Path | None = None) -> Path:
    """Where named data sets lie: `root`, else AUTOMATE_DATA, else ./data. Absolute."""
    return Path(os.path.expanduser(root or os.environ.get("AUTOMATE_DATA") or "data")).absolute()


def decoded(config: TrialConfig, split: Split, root: str | Path | None = None) -> Decoded:
    """The images of one split, from the cache where they are in it.

    Raises:
        InputError: Data that is missing, not of the expected form, or not what the config says.
    """
    if config.dataset == "digits":
        check(config)
        return _digits(split)
    found = _listing(config, split, root)
    images = cache.stored(found)
    _agree(config, str(found.folder), "image_size", _cut(config, images.pixels.shape[-1]))
    return images


def check(config: TrialConfig, root: str | Path | None = None, test: bool = False) -> None:
    """Whether a run can begin: the training images are there and as the config says.

    Reads the names of the training files and opens one image at most.

    Args:
        config: Of the run.
        root: As `decoded` takes it.
        test: Whether the test split is to be there as well; without it, it is not looked at.

    Raises:
        InputError: One line that says what is wrong, or what is missing and how to get it.
    """
    if config.dataset == "digits":
        _agree(config, "digits", "classes", 10)
        _agree(config, "digits", "image_size", 8)
        epoch_images(config)
        return
    found = _listing(config, "train", root)
    _agree(config, str(found.folder), "image_size", _cut(config, found.side()))
    splits.training(config, found.labels, found.classes)
    if test:
        found = _listing(config, "test", root)
        _agree(config, str(found.folder), "image_size", _cut(config, found.side()))


def epoch_images(config: TrialConfig, root: str | Path | None = None) -> tuple[int, int]:
    """Images that one epoch of a search trains on, and those that it scores. Opens none.

    Raises:
        InputError: Data that is missing, or not what the config says.
    """
    if config.dataset == "digits":
        split = splits.training(config, np.arange(splits.DIGITS_TRAIN) % 10)
    else:
        found = _listing(config, "train", root)
        split = splits.training(config, found.labels, found.classes)
    return len(split[0]), len(split[1])


def _listing(config: TrialConfig, split: Split, root: str | Path | None) -> Listing:
    if config.dataset == "cifar100":
        found = _cifar100(data_root(root), split)
    elif config.dataset in official.LAYOUTS:
        found = official.listing(config.dataset, data_root(root), split)
    else:
        tree = Path(os.path.expanduser(config.dataset)).absolute()
        found = list_tree(tree, split, None if config.resize is None else config.stored_size)
    _agree(config, str(found.folder), "classes", len(found.counts))
    return found


def _cut(config: TrialConfig, side: int) -> int:
    """The side of a batch's images, given that of the stored ones (pixels)."""
    entry = DATASETS.get(config.dataset)
    if entry and side == entry.stored:
        return entry.image_size
    return config.image_size if side == config.stored_size else side


def _agree(
    config: TrialConfig, where: str, name: Literal["classes", "image_size"], found: int
) -> None:
    """Raises InputError unless the data has what the data set of that name, and the config, say."""
    of_classes = name == "classes"
    what = f"{found} class folders" if of_classes else f"images of {found}x{found} pixels"
    entry = DATASETS.get(config.dataset)
    if entry and found != getattr(entry, name):
        raise InputError(
            f"{where!r} has {what}, {config.dataset} has {getattr(entry, name)}; "
            f"for other {'classes' if of_classes else 'sizes'} use --dataset PATH"
        )
    if found != getattr(config, name):
        what = f"{found} classes" if of_classes else what
        raise InputError(f"{where!r} has {what}, the config says {name} = {getattr(config, name)}")


@functools.cache
def _digits(split: Split) -> Decoded:
    published = _published_digits()
    # 0..16 becomes 0..255: pixels scaled to 0..1 are then the published ones over 16.
    pixels = np.rint(published[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = published[:, -1].astype(np.int64)
    train, test = splits.digits_parts(labels)
    index = train if split == "train" else test
    return Decoded.of(pixels[index], labels[index], tuple("0123456789"))


def _published_digits() -> npt.NDArray[np.float64]:
    """(1797, 65): 64 pixels 0..16 and the label, as scikit-learn ships them.

    From its file, as importing scikit-learn takes a second, which every search would wait for.
    """
    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or []) if package else []:
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack((found.data, found.target))


def _cifar100(root: Path, split: Split) -> Listing:
    """The published files, or a tree of class folders."""
    if root.name == official.CIFAR100 or os.path.isdir(root / official.CIFAR100):
        return official.listing("cifar100", root, split)
    if os.path.exists(root):
        need_folder(
            root, f"--data-root needs a folder with {official.CIFAR100}/ or train/ and test/"
        )
    if os.path.exists(root / "train"):
        return list_tree(root, split, advice="")
    raise official.missing("cifar100", f"{official.CIFAR100}/ and train/", root)
