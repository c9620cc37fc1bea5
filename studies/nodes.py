"""What every node of a cluster has to see, looked at before the first trial."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from trainers import sources
from trainers.catalog import InputError
from trainers.config import TrialConfig


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """A file in the study's folder by which a node shows that it sees the same folder."""
    mark = folder / f".node-check-{secrets.token_hex(8)}"
    try:
        mark.touch()
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def missing(mark: str, config: str, data_root: str | None) -> str | None:
    """What this node lacks for a trial; None if it has all. One line.

    Args:
        mark: The file that `marked` made, on the driver.
        config: A `TrialConfig` as JSON.
        data_root: Where the data set lies.
    """
    folder = os.path.dirname(mark)
    if not os.path.exists(mark):
        return (
            f"does not see the checkpoint folder {folder}: take a --runs-dir that all nodes share"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write the checkpoint folder {folder}"
    try:
        sources.check(TrialConfig.model_validate_json(config), data_root)
    except InputError as error:
        return f"lacks the data: {error}"
    return None
