"""What is looked at of a cluster before the first trial: who answers, and what every node sees."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from studies.plan import IMAGES
from trainers import sources
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.folders import images_digest


def knock(address: str) -> None:
    """Connects to `host:port` or `ray://host:port` for a moment: Ray itself tries for minutes.

    Raises:
        OSError: Nobody answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # "auto" and the like are Ray's to find
        socket.create_connection((host, int(port)), timeout=10).close()


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


def check_shared(folder: Path) -> None:
    """That this node sees the folder that the driver made for a trial.

    The nodes are looked at before the first trial; one that joins later shows it here.

    Raises:
        InputError: It does not: its checkpoints would be lost with it.
    """
    if not folder.is_dir():
        raise InputError(
            f"node {socket.gethostname()} does not see the checkpoint folder {folder}: "
            "take a --runs-dir that all nodes share"
        )


def check_files(config: TrialConfig, digests: Mapping[str, str] | None) -> None:
    """That this node's files of the user hold what the study's trials are of.

    Args:
        config: That names them.
        digests: The study's.

    Raises:
        InputError: One holds something else: its trials would be of another network or scheme.
    """
    if (text := _other_files(config, digests)) is not None:
        raise InputError(f"node {socket.gethostname()} {text}")


def _other_files(config: TrialConfig, digests: Mapping[str, str] | None) -> str | None:
    for field, now in config.digests.items():
        known = (digests or {}).get(field)
        if None not in (known, now) and known != now:
            return (
                f"has another {field} file {getattr(config, field)!r} than the study was made "
                "with: copy that one there"
            )
    return None


def missing(
    mark: str, config: str, data_root: str | None, digests: Mapping[str, str] | None
) -> str | None:
    """What this node lacks for a trial; None if it has all. One line.

    Args:
        mark: The file that `marked` made, on the driver.
        config: A `TrialConfig` as JSON.
        data_root: Where the data set lies.
        digests: Of the user's files and of the training images of a folder of theirs, of the study.
    """
    folder = os.path.dirname(mark)
    if not os.path.exists(mark):
        return (
            f"does not see the checkpoint folder {folder}: take a --runs-dir that all nodes share"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write the checkpoint folder {folder}"
    try:
        read = TrialConfig.read(json.loads(config))
    except InputError as error:  # a user's file that only the driver has
        return f"cannot read the config: {error}"
    if (other := _other_files(read, digests)) is not None:
        return other
    try:
        sources.check(read, data_root)
    except InputError as error:
        return f"lacks the data: {error}"
    images = (digests or {}).get(IMAGES)
    if images is not None and images_digest(read.dataset) != images:
        return f"has other training images in {read.dataset!r} than the study was made with"
    return None
