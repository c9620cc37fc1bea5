"""A tree of class folders, train/<class>/*.png and test/<class>/*.png, as uint8 arrays.

Both splits are only ever reached through `list_tree(root, split)`, so what asks for "train"
cannot touch test/. numpy and Pillow only: flags can describe a folder without torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.catalog import InputError

Split = Literal["train", "test"]
Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]
File = tuple[str, int, int]  # name, bytes, time of change in ns

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
# Named one by one because Pillow goes by the content: its EPS reader would start Ghostscript on
# a file that is merely called .png.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "I;16": "16-bit grey",
    "P": "palette",
    "RGBA": "RGB with alpha",
}
NAMED = 5  # images that a refusal of several tells of
FORM = "train/<class>/*.png and test/<class>/*.png"


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
        side: Height and width that the images have or are cut to (pixels); may open one of them.
        open: Begins to read them all.
        form: What is done to the images before they are stored, in words.
    """

    folder: Path
    split: Split
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    files: tuple[File, ...]
    side: Callable[[], int]
    open: Callable[[], Opened]
    form: str = ""

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
    need_folder(folder, f"a data set is a folder with {FORM}")
    names = [entry.name for entry in entries(folder) if entry.is_dir()]
    if not names:
        raise InputError(f"{str(folder)!r} holds no class folders: expected {FORM}")
    return names


def list_tree(root: Path, split: Split) -> Listing:
    """One split of a tree of class folders. Looks at names only, and for "train" not at test/.

    Hidden files and files that are no images by their extension are passed over; symbolic links
    are followed.

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
    return Listing(
        folder=root.resolve(),
        split=split,
        classes=tuple(names),
        counts=tuple(counts),
        files=tuple(files),
        side=partial(_side, root / split / files[0][0]),
        open=partial(_open, root / split, files, labels, tuple(names)),
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


def _read(path: Path, side: int | None) -> Bytes:
    """One image, (side, side, 3); of any side if None."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
            # The header is judged before the pixels: a huge image is refused, not unpacked.
            if mode == "RGB" and width == height and side in (None, width):
                return np.asarray(image)
    except Exception as error:  # Pillow's readers raise every kind on a broken file
        reason = getattr(error, "strerror", None) or "it is damaged, or no image"
        raise InputError(f"cannot read {str(path)!r}: {reason}") from None
    if mode != "RGB":
        named = f"{MODES[mode]}, " if mode in MODES else ""
        raise InputError(
            f"{str(path)!r} is no RGB image ({named}mode {mode}): convert the images to RGB"
        )
    expected = f"{side}x{side} like the images before it" if side else "a square image"
    raise InputError(f"{str(path)!r} is {width}x{height} pixels, expected {expected}")


def all_of(read: Callable[[Path], Bytes], paths: Sequence[Path]) -> Iterator[Bytes]:
    """Every image; after one that is refused the others are looked at, and none is given any more.

    Args:
        read: One image; raises InputError.

    Raises:
        InputError: Some were refused: how many, and why of the first `NAMED`.
    """
    refused: list[str] = []
    for path in paths:
        try:
            piece = read(path)
        except InputError as error:
            refused.append(str(error))
            continue
        if not refused:
            yield piece
    if len(refused) == 1:
        raise InputError(refused[0])
    if refused:
        rest = len(refused) - NAMED
        raise InputError(
            f"{len(refused):,} of {len(paths):,} images cannot be used: "
            f"{'; '.join(refused[:NAMED])}{f'; and {rest:,} more' if rest > 0 else ''}"
        )


def _side(path: Path) -> int:
    return len(_read(path, None))


def _open(folder: Path, files: list[File], labels: Labels, classes: tuple[str, ...]) -> Opened:
    """In one thread: Pillow holds the interpreter's lock, two were no faster."""
    side = _side(folder / files[0][0])

    def piece(path: Path) -> Bytes:
        return _read(path, side).transpose(2, 0, 1)[np.newaxis]

    return Opened(labels, classes, all_of(piece, [folder / name for name, _, _ in files]))


def describe_folder(path: str | Path) -> dict[str, int]:
    """Number of classes and image side of a tree of class folders, from train/ alone.

    Opens one image.

    Returns:
        {"classes": K, "image_size": side in pixels}, fields of a `TrialConfig`.

    Raises:
        InputError: Not such a tree, or fewer than two classes.
    """
    listing = list_tree(Path(os.path.expanduser(path)).absolute(), "train")
    if len(listing.counts) < 2:
        raise InputError(f"{str(path)!r} has 1 class folder, at least 2 are needed")
    return {"classes": len(listing.counts), "image_size": listing.side()}
