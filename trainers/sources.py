"""The data sets by name or path: where their files are, and what is in them.

A split is asked for by name and only its own files are looked at: a search asks for "train" and
never meets the test images. No torch here: flags and checks stay quick.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError

import numpy as np

from trainers import cache, catalog, splits
from trainers.catalog import DATASETS, InputError
from trainers.config import TrialConfig
from trainers.folders import Decoded, Listing, Split, list_tree, need_folder

OFFICIAL = "cifar-100-python"  # the folder in CIFAR-100's published archive
FETCH = "`automate datasets fetch cifar100`"


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
    _agree(config, str(found.folder), "image_size", images.pixels.shape[-1])
    return images


def check(config: TrialConfig, root: str | Path | None = None) -> None:
    """Whether a search can begin: the training images are there and as the config says.

    Reads the names of the training files and opens one image at most; never looks at the test
    split.

    Raises:
        InputError: One line that says what is wrong, or what is missing and how to get it.
    """
    if config.dataset == "digits":
        _agree(config, "digits", "classes", 10)
        _agree(config, "digits", "image_size", 8)
        splits.training(config, np.arange(splits.DIGITS_TRAIN) % 10)
        return
    found = _listing(config, "train", root)
    _agree(config, str(found.folder), "image_size", found.side())
    splits.training(config, found.labels, found.classes)


def _listing(config: TrialConfig, split: Split, root: str | Path | None) -> Listing:
    if config.dataset == "cifar100":
        found = _cifar100(data_root(root), split)
    else:
        found = list_tree(Path(os.path.expanduser(config.dataset)).absolute(), split)
    _agree(config, str(found.folder), "classes", len(found.counts))
    return found


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


def _digits(split: Split) -> Decoded:
    from sklearn.datasets import load_digits

    found = load_digits()
    # 0..16 becomes 0..255: pixels scaled to 0..1 are then the published ones over 16.
    pixels = np.rint(found.images[:, np.newaxis] * (255 / 16)).astype(np.uint8)
    labels = found.target.astype(np.int64)
    train, test = splits.digits_parts(labels)
    index = train if split == "train" else test
    return Decoded.of(pixels[index], labels[index], tuple("0123456789"))


def _cifar100(root: Path, split: Split) -> Listing:
    """The published files, or a tree of class folders."""
    if root.name == OFFICIAL:
        root = root.parent
    if os.path.isdir(root / OFFICIAL):
        return _official(root, split)
    if os.path.exists(root):
        need_folder(root, f"--data-root needs a folder with {OFFICIAL}/ or train/ and test/")
    if os.path.exists(root / "train"):
        return list_tree(root, split)
    raise InputError(
        f"cifar100 is not there: looked for {OFFICIAL}/ and train/ in {str(root)!r}; "
        f"{DATASETS['cifar100'].get}; `--dataset digits` needs nothing"
    )


def _official(root: Path, split: Split) -> Listing:
    """A split of the published files, as torchvision unpacks them."""
    folder, files = root / OFFICIAL, []
    for name in (split, "meta"):
        try:
            about = (folder / name).stat()
        except OSError as error:
            raise InputError(
                f"cannot read {str(folder / name)!r} ({error.strerror}): the published files are "
                f"not complete; {FETCH} downloads them again"
            ) from None
        files.append((name, about.st_size, about.st_mtime_ns))
    entry = DATASETS["cifar100"]
    images = entry.train if split == "train" else entry.test
    return Listing(
        folder=folder.resolve(),
        split=split,
        classes=(),
        counts=(images // entry.classes,) * entry.classes,
        files=tuple(files),
        side=lambda: entry.image_size,
        decode=partial(_read_official, root, split),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of NumPy 2.4.0 to 2.4.4 about the dtypes in a pickle of 2009."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_official(root: Path, split: Split) -> Decoded:
    from torchvision.datasets import CIFAR100

    # torchvision checks the MD5 of the files of both lists before it unpickles one: without the
    # other split's list that file is not opened, and what is read is still checked.
    other = {"train": "test_list", "test": "train_list"}[split]
    one_split = type("OneSplit", (CIFAR100,), {other: []})
    try:
        with _quiet():
            found = one_split(root, train=split == "train")
    except (OSError, RuntimeError):
        raise InputError(
            f"{str(root / OFFICIAL)!r} is damaged: {split!r} or 'meta' is not the published file "
            f"(by its MD5); delete the folder, and {FETCH} downloads it again"
        ) from None
    pixels = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
    return Decoded.of(pixels, np.asarray(found.targets, np.int64), tuple(found.classes))


def fetch(name: str, root: str | Path | None = None) -> Path | None:
    """Downloads a data set through torchvision, unless it is there already.

    Args:
        name: "cifar100". "digits" is no error: there is nothing to do.
        root: Where to put it; AUTOMATE_DATA or ./data if None.

    Returns:
        The folder to give as --data-root; None where there is nothing to download.

    Raises:
        InputError: Unknown name; no connection, no space, or what came is not the published file.
    """
    if name not in DATASETS:
        raise catalog.unknown("dataset", name, DATASETS)
    if name == "digits":
        return None
    from torchvision.datasets import CIFAR100

    folder = data_root(root)
    try:
        with _quiet():
            CIFAR100(folder, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise InputError(
            f"cannot download cifar100 to {str(folder)!r} from {CIFAR100.url}: {error}"
        ) from None
    return folder
