"""The published layouts of the named data sets: which images, in which classes, in which split.

The lists that come with a data set say what belongs to a split, and only that split's images are
looked at, also where both lie in one folder. Counts are checked against the catalog. Images of
the published archives are of many sizes, and some are grey, CMYK or palette: they are made RGB,
their middle square is cut out, and it is resized (Pillow's bilinear filter, which averages when
it makes smaller).
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from trainers import lists
from trainers.catalog import DATASETS, InputError
from trainers.folders import File, Listing, Opened, Split
from trainers.imagefiles import all_of, square

CIFAR100 = "cifar-100-python"  # the folder in CIFAR-100's published archive


@dataclass(frozen=True)
class Layout:
    """How a data set is published.

    Attributes:
        folder: Its folder's name.
        sign: What tells that a folder of another name is it.
        read: Reads the lists of a split.
        banner: Rows of pixels at the bottom of each image that do not belong to it.
    """

    folder: str
    sign: str
    read: Callable[[Path, Split], lists.Found]
    banner: int = 0


def listing(name: str, root: Path, split: Split) -> Listing:
    """One split of a data set in its published form. No image is opened.

    Args:
        name: A key of `LAYOUTS`, or "cifar100".
        root: The data set's folder, or the folder that holds it.
        split: Which part; nothing is looked at that is the other's alone.

    Raises:
        InputError: It is not there, not complete, or its lists are wrong.
    """
    if name == "cifar100":
        return _cifar100(root, split)
    layout, entry = LAYOUTS[name], DATASETS[name]
    folder = _place(name, root)
    try:
        found = layout.read(folder, split)
    except InputError as error:
        raise _incomplete(name, str(error)) from None
    expected = entry.train if split == "train" else entry.test
    for what, number, wanted in (
        ("classes", len(found.classes), entry.classes),
        (f"{split} images", len(found.images), expected),
    ):
        if number != wanted:
            raise _incomplete(name, f"{str(folder)!r} has {number:,} {what}, not {wanted:,}")
    files = [_about(name, folder, path) for path in found.lists]
    for path, label in found.images:
        if not 0 <= label < entry.classes:
            raise _incomplete(name, f"{str(folder)!r}: {path!r} has the unknown class {label + 1}")
        files.append(_about(name, folder, path))
    labels = np.array([label for _, label in found.images])
    paths = [folder / path for path, _ in found.images]
    side = entry.stored or entry.image_size
    one = partial(square, side=side, banner=layout.banner)

    def opened() -> Opened:
        return Opened(labels, found.classes, all_of(one, paths))

    def first_side() -> int:
        return int(one(paths[0]).shape[-1])

    return Listing(
        folder=folder.resolve(),
        split=split,
        classes=found.classes,
        counts=tuple(np.bincount(labels, minlength=entry.classes).tolist()),
        files=tuple(files),
        side=first_side,
        open=opened,
        form=f"square {side} without {layout.banner}",
    )


def folder_name(name: str) -> str:
    """What the folder of a data set is called that is downloaded."""
    return CIFAR100 if name == "cifar100" else LAYOUTS[name].folder


def _place(name: str, root: Path) -> Path:
    """The data set's folder: the one of its name in `root`, or `root` itself."""
    layout = LAYOUTS[name]
    if os.path.isdir(root / layout.folder):
        return root / layout.folder
    if os.path.isdir(root) and (root.name == layout.folder or os.path.exists(root / layout.sign)):
        return root
    raise missing(name, f"{layout.folder}/ and {layout.sign}", root)


def missing(name: str, looked_for: str, root: Path) -> InputError:
    """The error for a data set that is not there."""
    return InputError(
        f"{name} is not there: looked for {looked_for} in {str(root)!r}; "
        f"{DATASETS[name].get}; `--dataset digits` needs nothing"
    )


def _incomplete(name: str, what: str) -> InputError:
    return InputError(
        f"{what}: {name} is not complete or not the published one; move that folder away, and "
        f"`automate datasets fetch {name}` downloads it again"
    )


def _about(name: str, folder: Path, path: str) -> File:
    """Size and time of a file that a list names. Looks at nothing outside the folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise _incomplete(
            name, f"{str(folder)!r}: a list names {path!r}, which is no file below that folder"
        )
    try:
        about = os.stat(folder / path)
    except OSError as error:
        raise _incomplete(name, f"cannot read {str(folder / path)!r} ({error.strerror})") from None
    return path, about.st_size, about.st_mtime_ns


LAYOUTS = {
    "tinyimagenet": Layout("tiny-imagenet-200", "wnids.txt", lists.tiny_imagenet),
    "cub200": Layout("CUB_200_2011", "images.txt", lists.cub),
    "stanford_dogs": Layout("stanford_dogs", "Images", lists.dogs),
    # Its README asks to remove the 20 rows that name the photographer.
    "fgvc_aircraft": Layout("fgvc-aircraft-2013b", "data/variants.txt", lists.aircraft, banner=20),
}


def _cifar100(root: Path, split: Split) -> Listing:
    """A split of CIFAR-100's published files, as torchvision unpacks them."""
    root = root.parent if root.name == CIFAR100 else root
    folder, files = root / CIFAR100, []
    for name in (split, "meta"):
        try:
            about = (folder / name).stat()
        except OSError as error:
            raise _incomplete(
                "cifar100", f"cannot read {str(folder / name)!r} ({error.strerror})"
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
        open=partial(_open_cifar100, root, split),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of NumPy 2.4.0 to 2.4.4 about the dtypes in a pickle of 2009."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_cifar100(root: Path, split: Split) -> Opened:
    from torchvision.datasets import CIFAR100 as Published

    # torchvision checks the MD5 of the files of both lists before it unpickles one: without the
    # other split's list that file is not opened, and what is read is still checked.
    other = {"train": "test_list", "test": "train_list"}[split]
    one_split = type("OneSplit", (Published,), {other: []})
    try:
        with _quiet():
            found = one_split(root, train=split == "train")
    except (OSError, RuntimeError):
        raise InputError(
            f"{str(root / CIFAR100)!r} is damaged: {split!r} or 'meta' is not the published file "
            "(by its MD5); delete the folder, and `automate datasets fetch cifar100` downloads it "
            "again"
        ) from None
    pixels = found.data.transpose(0, 3, 1, 2)
    return Opened(np.asarray(found.targets, np.int64), tuple(found.classes), iter([pixels]))
