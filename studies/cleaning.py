"""Files of a study that nothing needs, found and removed. Prints nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from studies.record import StudyRecord


def needless(record: StudyRecord) -> list[Path]:
    """What no trial, front or export needs: folders of ended trials, and half-written files.

    A trial that waits or runs goes on from its checkpoints; an export is trained anew from its
    config, so an ended trial needs none; a confirmation's is scored on the test split in the end.
    """
    needs = record.plan.needs_checkpoint
    needed = {o.number: o.state for o in record.outcomes() if needs(o.state)}
    home = record.folder / "trials"
    found: list[Path] = []
    for folder in sorted(home.iterdir()) if home.is_dir() and not home.is_symlink() else []:
        if not folder.name.isdecimal() or folder.is_symlink() or not folder.is_dir():
            continue
        state = needed.get(int(folder.name))
        if state is None:
            found.append(folder)
        elif state == "WAITING":  # nobody writes there; a killed process may have
            found += sorted(folder.glob(".checkpoint.pt.*"))
    return found


def weight(paths: Sequence[Path]) -> int:
    """Bytes of files, and of all files in folders."""
    files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def remove(paths: Sequence[Path]) -> None:
    """Removes files, and folders with all that is in them."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
