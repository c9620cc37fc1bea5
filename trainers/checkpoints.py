"""A run's state on disk: written to a temporary name and renamed, read without unpickling code."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainers.catalog import InputError

FORMAT = "automate-run-1"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts to a file, atomically.

    A reader sees the old file or the new one, whole; a full disk leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The content of a file that `write` made.

    Raises:
        InputError: Truncated, foreign, or in need of unpickling.
    """
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
