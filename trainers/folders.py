"""A tree of class folders, train/<class>/*.jpg and test/<class>/*.jpg, as uint8 arrays.

Both splits are only ever reached through `list_tree(root, split)`, so what asks for "train"
cannot touch test/. numpy and Pillow only: flags can describe a folder without torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainers.catalog import InputError
from trainers.imagefiles import ADVICE, EXTENSIONS, Bytes, all_of, exact, square

Split = Literal["train", "test"]
Labels = NDArray[np.int64]
File = tuple[str, int, int]  # name, bytes, time of change in ns

FORM = "train/<class>/*.jpg and test/<class>/*.jpg (or .png, ...)"


@dataclass(frozen=True, eq=False)
class Decoded:
    """The images of one split.

    Attributes:
        pixels: (n, C, H, W).
        labels: (n,), 0..K-1.
        classes: K names, in the order of the labels.
        mean, std: Per channel, of all pixels scaled to 0..1.
    """

    pixels: Bytes
    labels: Labels
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pixels: Bytes, labels: Labels, classes: tuple[str, ...]) -> Decoded:
        """With mean and standard deviation."""
        moments = Moments()
        moments.add(pixels)
        return cls(pixels, labels, classes, *moments.mean_and_std())


class Moments:
    """Mean and standard deviation of images as they come; from sums of integers, so exactly."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares = 0, np.zeros(1, object), np.zeros(1, object)

    def add(self, pixels: Bytes) -> None:
        """Args: pixels: (n, C, H, W)."""
        self.count += pixels.size // pixels.shape[1]
        self.sums = self.sums + pixels.sum(axis=(0, 2, 3), dtype=np.uint64).astype(object)
        squares = np.einsum("nchw,nchw->c", pixels, pixels, dtype=np.uint64)
        self.squares = self.squares + squares.astype(object)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel, of pixels scaled to 0..1."""
        count = self.count
        mean = tuple(one / (255 * count) for one in self.sums)
        variances = [
            count * two - one * one for one, two in zip(self.sums, self.squares, strict=True)
        ]
        # A channel of one value has nothing to scale.
        std = tuple(math.sqrt(value) / (255 * count) if value else 1.0 for value in variances)
        return mean, std


@dataclass(frozen=True, eq=False)
class Opened:
    """A split as it is decoded, piece by piece.

    Attributes:
        labels: (n,), 0..K-1.
        classes: K names.
        pieces: (k, C, H, W) each, n images in all; raises InputError at one that cannot be read.
    """

    labels: Labels
    classes: tuple[str, ...]
    pieces: Iterator[Bytes]


@dataclass(frozen=True, eq=False)
class Listing:
    """One split as it lies on disk; no image has been opened.

    Attributes:
        folder: The data set's folder, resolved.
        split: Which part of it.
        classes: Names of the classes, in the order of the labels.
        counts: Images of each class.
        files: Name, size (bytes) and time of change (ns) of every file that `open` reads.
        side: Height and width that the decoded images will have (pixels); may open one of them.
        open: Begins to read them all.
        form: What is done to the images before they are stored, in words.
        variant: That of them by which a folder that can be read in several has several caches.
    """

    folder: Path
    split: Split
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    files: tuple[File, ...]
    side: Callable[[], int]
    open: Callable[[], Opened]
    form: str = ""
    variant: str = ""

    @property
    def labels(self) -> Labels:
        """(n,): how many of each class there are; the order is `open`'s only in a tree."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def fingerprint(self) -> str:
        """Another one as soon as a file is added, removed or changed."""
        text = "\0".join(f"{name}\0{size}\0{time}" for name, size, time in self.files)
        return hashlib.sha256(os.fsencode(text + self.form)).hexdigest()[:32]

    def decode(self) -> Decoded:
        """All images, in memory."""
        opened = self.open()
        pieces = list(opened.pieces)
        return Decoded.of(np.concatenate(pieces), opened.labels, opened.classes)


def need_folder(path: Path, otherwise: str) -> None:
    """Raises InputError unless `path` is a folder; `otherwise` says what is expected there."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"no folder {str(path)!r}: {otherwise}") from None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise InputError(f"{str(path)!r} is a file where a folder is needed: {otherwise}")


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, without hidden files (.DS_Store and the like)."""
    try:
        with os.scandir(folder) as found:
            visible = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read {str(folder)!r}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: entry.name)


def _class_names(root: Path, split: Split) -> list[str]:
    need_folder(root, f"a data set is a folder with {FORM}; `--dataset digits` needs no files")
    folder = root / split
    hint = "" if folder.is_dir() else _instead(root, split)
    need_folder(folder, f"a data set is a folder with {FORM}{hint}")
    names = [entry.name for entry in entries(folder) if entry.is_dir()]
    if not names:
        raise InputError(f"{str(folder)!r} holds no class folders: expected {FORM}")
    return names


ALIKE = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}  # what others call a split


def _instead(root: Path, split: Split) -> str:
    """What a tree without that split may have in its place, and what to do about it."""
    there = [entry.name for entry in entries(root) if entry.is_dir()]
    for name in there:
        if name.lower() in ALIKE[split]:
            return f"; rename {name}/ to {split}/ if it is for that"
    others = [name for name in there if name.lower() in ALIKE["test"]]
    if split == "train" and there and not others:
        return f"; if {there[0]}/ is a class, put the class folders into train/"
    return ""


def list_tree(root: Path, split: Split, resize: int | None = None, advice: str = ADVICE) -> Listing:
    """One split of a tree of class folders. Looks at names only, and for "train" not at test/.

    Hidden files and files that are no images by their extension are passed over; symbolic links
    are followed.

    Args:
        root: The tree's folder.
        split: Which part.
        resize: What side the middle squares of the images are given (pixels); None: the images are
            RGB, square and of one size already, and stay as they are.
        advice: What is said where they are not.

    Raises:
        InputError: Not such a tree, unreadable, a class without images, or classes of "test" that
            are not those of "train".
    """
    names = _class_names(root, split)
    if split == "test" and names != (trained := _class_names(root, "train")):
        missing, extra = sorted(set(trained) - set(names)), sorted(set(names) - set(trained))
        parts = [
            f"{what} {', '.join(map(repr, some[:3]))}{', ...' if len(some) > 3 else ''}"
            for what, some in (("test/ lacks", missing), ("only test/ has", extra))
            if some
        ]
        raise InputError(f"{str(root)!r}: train/ and test/ need the same classes: "
                         f"{'; '.join(parts)}")  # fmt: skip
    counts: list[int] = []
    files: list[File] = []
    for name in names:
        images = _images(root / split / name)
        counts.append(len(images))
        files += [(f"{name}/{file}", size, time) for file, size, time in images]
    labels = np.repeat(np.arange(len(names)), counts)
    form = "" if resize is None else f"upright square {resize}"
    return Listing(
        folder=root.resolve(),
        split=split,
        classes=tuple(names),
        counts=tuple(counts),
        files=tuple(files),
        side=partial(_side, root / split / files[0][0], resize, advice),
        open=partial(_open, root / split, files, labels, tuple(names), resize, advice),
        form=form,
        variant=form,
    )


def _images(folder: Path) -> list[File]:
    """The images of one class."""
    found = []
    for entry in entries(folder):
        if os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
            continue
        try:
            about = entry.stat()
        except OSError as error:  # a link that leads nowhere, say
            raise InputError(f"cannot read {entry.path!r}: {error.strerror}") from None
        if stat.S_ISREG(about.st_mode):
            found.append((entry.name, about.st_size, about.st_mtime_ns))
    if not found:
        raise InputError(
            f"class folder {str(folder)!r} holds no images ({', '.join(sorted(EXTENSIONS))}): "
            "add some or remove it"
        )
    return found


def _open(
    folder: Path,
    files: list[File],
    labels: Labels,
    classes: tuple[str, ...],
    resize: int | None,
    advice: str,
) -> Opened:
    paths = [folder / name for name, _, _ in files]
    side = _side(paths[0], None, advice) if resize is None else None
    return Opened(labels, classes, all_of(_reader(side, resize), paths, advice))


def _side(path: Path, resize: int | None, advice: str) -> int:
    """Of what an image gives (pixels)."""
    (image,) = all_of(_reader(None, resize), [path], advice)
    return int(image.shape[-1])


def _reader(side: int | None, resize: int | None) -> Callable[[Path], Bytes]:
    """Reads an image of that side (any if None), or makes one of whatever there is."""
    if resize is None:
        return partial(exact, side=side)
    return partial(square, side=resize, photo=True)


def describe_folder(path: str | Path, resize: int | None = None) -> dict[str, int]:
    """Number of classes and image side of a tree of class folders, from train/ alone.

    Opens one image, or none where they are resized.

    Args:
        path: The tree's folder.
        resize: Side that a config wants the images to have (pixels); None: the one that they have.

    Returns:
        {"classes": K, "image_size": side in pixels}, fields of a `TrialConfig`.

    Raises:
        InputError: Not such a tree, or fewer than two classes.
    """
    listing = list_tree(Path(os.path.expanduser(path)).absolute(), "train")
    if len(listing.counts) < 2:
        raise InputError(f"{str(path)!r} has 1 class folder, at least 2 are needed")
    return {
        "classes": len(listing.counts),
        "image_size": listing.side() if resize is None else resize,
    }


def passed_over(path: str | Path) -> dict[str, int]:
    """What lies in a tree's training classes and is not read: how many of each extension, and
    "folder" for folders. Hidden files do not count."""
    tree, found = Path(os.path.expanduser(path)).absolute(), Counter[str]()
    for name in _class_names(tree, "train"):
        for entry in entries(tree / "train" / name):
            kind = os.path.splitext(entry.name)[1].lower() or "without extension"
            if entry.is_dir():
                found["folder"] += 1
            elif kind not in EXTENSIONS:
                found[kind] += 1
    return dict(found.most_common())


def images_digest(path: str | Path) -> str | None:
    """A digest of the training images' names and sizes in bytes; None where there is no tree.

    Not of their times, which a copy changes.
    """
    try:
        files = list_tree(Path(os.path.expanduser(path)).absolute(), "train").files
    except InputError:
        return None
    text = "\0".join(f"{name}\0{size}" for name, size, _ in files)
    return hashlib.sha256(os.fsencode(text)).hexdigest()
