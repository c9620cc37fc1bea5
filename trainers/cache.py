"""Decoded splits as .npy files that several processes map: decoded once, shared from then on.

    <cache>/<data set>-<split>/<fingerprint>/    pixels.npy, labels.npy, about.json

A data set's folder is known by a digest of its path and of what its images are made into, its
content by the fingerprint of its files, so a changed tree is decoded again. One process decodes,
the others wait for it. Each split lies in its own folder: "train" needs and holds nothing of
"test". Nothing is unpickled.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trainers.catalog import InputError
from trainers.folders import Decoded, Listing, Moments, Opened

WRITING = "writing-"  # begins the name of a folder that is not complete yet
LARGE = 1_000_000_000  # bytes of pixels that no process holds in memory of its own
ANNOUNCED = 200_000_000  # bytes, of files or of pixels, that take long enough to be said
ABANDONED = 3600.0  # seconds after which such a folder belongs to a process that was killed


def place() -> Path:
    """The cache's folder: AUTOMATE_CACHE, else the user's cache folder.

    Raises:
        OSError: There is no such place (no home folder).
    """
    if given := os.environ.get("AUTOMATE_CACHE"):
        return Path(os.path.expanduser(given)).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    except RuntimeError as error:
        raise OSError(str(error)) from None
    return base / "mate-automate"


def stored(listing: Listing) -> Decoded:
    """The split's images from the cache; decoded, and cached, where it has none yet.

    Images are written as they are decoded, by one process while the others wait, so memory holds
    a few at a time. The pixels are mapped copy-on-write: memory is shared, and writing to them
    changes no file. Where the cache cannot be written, one warning is logged and the images stay in
    memory, unless they are too many.

    Raises:
        InputError: An image that cannot be read or is unlike the others; more than `LARGE` bytes
            that cannot be cached.
    """
    where = ""
    try:
        # With the variant: one tree in two sizes is decoded twice, not in turns again and again.
        key = hashlib.sha256(os.fsencode(str(listing.folder) + listing.variant)).hexdigest()[:16]
        split = f"{key}-{listing.split}"
        folder = place() / split / listing.fingerprint()
        where = f"{str(folder)!r}: "
        if found := _read(folder):
            return found
        with _alone(place() / f"{split}.lock"):
            return _read(folder) or _write(folder, listing)
    except OSError as error:
        return _in_memory(listing, f"{where}{error.strerror or error}")


def _in_memory(listing: Listing, reason: str) -> Decoded:
    """The images where there is no cache."""
    opened = listing.open()
    first = next(opened.pieces)
    total = len(opened.labels) * first[0].nbytes
    if total > LARGE:
        raise InputError(
            f"cannot cache the decoded images of {str(listing.folder)!r}, {total / 1e9:.1f} GB "
            f"({reason}): make room, or let AUTOMATE_CACHE name another folder"
        )
    _warn(reason)
    pixels = np.concatenate([first, *opened.pieces])
    return Decoded.of(pixels, opened.labels, opened.classes)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process of this machine decodes the same split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        # A file system without locks: then several decode, and the first one's is taken.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@lru_cache
def _warn(reason: str) -> None:
    """Says it once in this process, on stderr unless the program set up logging otherwise."""
    logging.getLogger(__name__).warning(
        "cannot cache decoded images (%s): they are decoded again for every run; "
        "AUTOMATE_CACHE names another folder",
        reason,
    )


def _read(folder: Path) -> Decoded | None:
    """What was written there; None if nothing was, or if it is damaged."""
    try:
        about = json.loads((folder / "about.json").read_bytes())
        pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="c")
        labels = np.lib.format.open_memmap(folder / "labels.npy", mode="c")
        classes, mean, std = (tuple(about[name]) for name in ("classes", "mean", "std"))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    if pixels.ndim != 4 or labels.shape != pixels.shape[:1]:
        return None
    return Decoded(pixels, labels, classes, mean, std)


def _write(folder: Path, listing: Listing) -> Decoded:
    """Decodes into the cache, whole or not at all, and returns it mapped.

    Two processes may do so at once: each fills a folder of its own name, the first to rename it
    wins, and the other one takes what is there.

    Raises:
        OSError: It cannot be written.
        InputError: An image that cannot be read.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = folder.parent / f"{WRITING}{os.getpid()}-{secrets.token_hex(4)}"
    own.mkdir()
    try:
        opened = listing.open()
        mean, std = _save_pixels(own / "pixels.npy", opened, listing)
        about = {
            "source": ascii(str(listing.folder)),
            "classes": opened.classes,
            "mean": mean,
            "std": std,
        }
        with _saved(own / "labels.npy") as file:
            np.save(file, opened.labels, allow_pickle=False)
        (own / "about.json").write_text(json.dumps(about), encoding="utf-8")
        if found := _read(folder):  # by another process, while this one decoded
            return found
        shutil.rmtree(folder, ignore_errors=True)  # damaged, if it is there
        own.rename(folder)
    except OSError:
        if found := _read(folder):
            return found
        raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
    _sweep(folder)
    if found := _read(folder):
        return found
    raise OSError(f"{str(folder)!r} cannot be read again")


def _save_pixels(
    path: Path, opened: Opened, listing: Listing
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Writes the pieces one after the other. Returns mean and standard deviation.

    Not into a mapped file: on a full disk that would end the process instead of raising.
    """
    moments, first = Moments(), True
    with _saved(path) as file:
        for piece in opened.pieces:
            if first:
                shape = (len(opened.labels), *piece.shape[1:])
                form = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, form)
                _announce(listing, shape)
                first = False
            file.write(np.ascontiguousarray(piece).data)
            moments.add(piece)
    return moments.mean_and_std()


def _announce(listing: Listing, shape: tuple[int, ...]) -> None:
    """Says what takes a while; a warning, because logging shows nothing less by itself."""
    total, read = math.prod(shape), sum(size for _, size, _ in listing.files)
    if max(total, read) > ANNOUNCED:
        logging.getLogger(__name__).warning(
            "decoding %s images of %s into the cache, once: %.1f GB of files, %.1f GB of pixels",
            f"{shape[0]:,}", listing.folder, read / 1e9, total / 1e9,
        )  # fmt: skip


@contextmanager
def _saved(path: Path) -> Iterator[BinaryIO]:
    """On disk, not only in the system's buffers, before the folder gets its final name."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sweep(folder: Path) -> None:
    """Removes the same split's older states, and what killed processes left.

    A process that has an older state mapped keeps it: its files vanish from the folder only.
    """
    for other in folder.parent.iterdir():
        try:
            fresh = time.time() - other.stat().st_mtime < ABANDONED
        except OSError:
            continue  # another process was faster
        if other != folder and not (other.name.startswith(WRITING) and fresh):
            shutil.rmtree(other, ignore_errors=True)
