"""Where the files and folders lie that a record names: a user's network, space and images.

A record is a study's plan, an exported config or a trained network. It names them by the path that
they had when it was made, and notes where that is from the folder that it lies in itself. So a
project that is moved or copied as a whole is read by its own files, from any folder.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainers.catalog import InputError, is_path
from trainers.own import file_digest


def noted(names: Iterable[str | None], folder: Path) -> dict[str, str]:
    """What a record notes of the absolute paths among what it names: path -> from its folder.

    Args:
        names: Of data sets, networks, spaces, folders; built-in ones and relative paths are no
            record's to find.
        folder: That the record lies in.
    """
    paths = [name for name in names if name and is_path(name) and os.path.isabs(name)]
    return {path: os.path.relpath(path, folder) for path in paths}


def found(places: Any, folder: Path, digests: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The paths that a record names and that are other ones now: as it names it -> as it is.

    Where the same lies beside the record as did before, that is it: in a copy the copy's. A file
    whose digest is known is first looked for by that, so that an edited copy is none.

    Args:
        places: As `noted` gave them; anything else is passed over.
        folder: That the record lies in now.
        digests: Of files by the path that the record names them by, as `own.file_digest` has them.

    Raises:
        InputError: A file is neither there nor there.
    """
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        return {}
    now = {name: _now(name, places[name], folder, (digests or {}).get(name)) for name in places}
    return {name: path for name, path in now.items() if path != name}


def _now(name: str, place: str, folder: Path, digest: Any) -> str:
    file = name.endswith(".py")
    beside = os.path.normpath(folder.absolute() / place)
    there = [
        path
        for path in dict.fromkeys((beside, name))
        if (os.path.isfile(path) if file else os.path.isdir(path))
    ]
    if not there and file:
        where = f"{name!r} does not exist" + (f", nor does {beside!r}" if beside != name else "")
        raise InputError(f"{where}: put the file there")
    same = [path for path in there if digest is not None and file_digest(path) == digest]
    return (same or there or [name])[0]


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A record's fields (as JSON has them) with other names of files and folders.

    Args:
        value: A mapping, a list or a plain value; in a text like `calibrate:FILE` the file counts.
        names: Old -> new.
    """
    if not names:
        return value
    if isinstance(value, str):
        head, colon, rest = value.partition(":")
        return names.get(value, f"{head}:{names[rest]}" if colon and rest in names else value)
    if isinstance(value, Mapping):
        return {key: renamed(part, names) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(part, names) for part in value]
    return value


def back(names: Mapping[str, str]) -> dict[str, str]:
    """As it is -> as the record names it, to write with what was read with `names`."""
    return {path: name for name, path in names.items()}
