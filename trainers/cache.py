"""Decoded splits as .npy files that several processes map: decoded once, shared from then on.

    <cache>/<data set>-<split>/<fingerprint>/    pixels.npy, labels.npy, about.json

A data set's folder is known by a digest of its path, its content by the fingerprint of its files,
so a changed tree is decoded again. Each split lies in its own folder: "train" needs and holds
nothing of "test". Nothing is unpickled.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.folders import Decoded, Listing

WRITING = "writing-"  # begins the name of a folder that is not complete yet
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

    The pixels are mapped copy-on-write: memory is shared, and writing to them changes no file.
    Where the cache cannot be written, one warning is logged and the images stay in memory.

    Raises:
        InputError: An image that cannot be read or is unlike the others.
    """
    try:
        key = hashlib.sha256(os.fsencode(listing.folder)).hexdigest()[:16]
        folder = place() / f"{key}-{listing.split}" / listing.fingerprint()
    except OSError as error:
        _warn(str(error))
        return listing.decode()
    if found := _read(folder):
        return found
    decoded = listing.decode()
    try:
        return _write(folder, decoded, listing.folder)
    except OSError as error:
        _warn(f"{str(folder)!r}: {error.strerror or error}")
        return decoded


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


def _write(folder: Path, decoded: Decoded, source: Path) -> Decoded:
    """Writes it whole or not at all, and returns it mapped.

    Two processes may do so at once: each fills a folder of its own name, the first to rename it
    wins, and the other one takes what is there.

    Raises:
        OSError: It cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = folder.parent / f"{WRITING}{os.getpid()}-{secrets.token_hex(4)}"
    own.mkdir()
    try:
        about = {
            "source": ascii(str(source)),
            "classes": decoded.classes,
            "mean": decoded.mean,
            "std": decoded.std,
        }
        _save(own / "pixels.npy", decoded.pixels)
        _save(own / "labels.npy", decoded.labels)
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
    return _read(folder) or decoded


def _save(path: Path, array: NDArray[Any]) -> None:
    """On disk, not only in the system's buffers, before the folder gets its final name."""
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
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
