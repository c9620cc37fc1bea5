"""A run's state on disk: written to a temporary name and renamed, read without unpickling code.

Beside the newest file lies the one before it, `<name>.before`: what a power cut or a bad disk made
unreadable costs an epoch and not the run.
"""

import contextlib
import glob
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.catalog import InputError

FORMAT = "automate-run-1"


class UnwritableError(InputError):
    """A file cannot be written: a full disk, a folder that is read-only. No fault of the run's."""


def before(path: Path) -> Path:
    """Where the checkpoint before the newest lies."""
    return path.with_name(f"{path.name}.before")


def put(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Bytes to a file, atomically: a reader sees the old file or the new one, whole.

    Args:
        path: Where to. A full disk leaves the old file there.
        content: Of the file.
        keep: The old file moves here instead of being replaced.

    Raises:
        UnwritableError: One line.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # others may read a study, as without the temporary name
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(name, path)
    except OSError as error:
        raise UnwritableError(
            f"{path} cannot be written: {error.strerror or error}; what is there is kept"
        ) from None
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts to a file; the one that was there is kept beside.

    Raises:
        UnwritableError: A full disk, or a folder that cannot be written.
    """
    import torch

    buffer = io.BytesIO()  # so that what fails below is the disk
    torch.save({"format": FORMAT, **content}, buffer)
    put(path, buffer.getvalue(), keep=before(path))


def remove(path: Path) -> None:
    """Both checkpoints, and what a killed process left half written, if they can be removed."""
    halves = path.parent.glob(f".{glob.escape(path.name)}.*")
    for file in (path, before(path), *halves):
        with contextlib.suppress(OSError):
            file.unlink()


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The content of a file that `write` made.

    Raises:
        InputError: Truncated, foreign, or in need of unpickling.
    """
    import torch

    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no checkpoint of ours or is damaged: {reason[:120]}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of ours (format {FORMAT} expected)")
    return content
