"""Moments at which a process kills itself, as FAULT says: while it writes a checkpoint or a study.

    FAULT=checkpoint:7:half     the 7th checkpoint is half on disk when the process is killed

A process that searches with the suite's backbone arms itself when that file is loaded; every such
process also has the database count what it is told.
"""

import contextlib
import os
import random
import signal
import sqlite3
import sys
import threading
from typing import Any

ENVIRONMENT = "FAULT"
CHECKPOINT = ("half", "written", "moved", "renamed")
STORAGE = ("before", "within", "after")


def arm() -> None:
    """Once in a process."""
    if getattr(sys, "_fault_is_armed", False):
        return
    sys._fault_is_armed = True  # type: ignore[attr-defined]
    what, nth, place = (os.environ.get(ENVIRONMENT) or "::").split(":")
    _watch_storage(int(nth or 0) if what == "storage" else 0, place)
    if what == "checkpoint":
        _watch_checkpoints(int(nth), place)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch_checkpoints(nth: int, place: str) -> None:
    fsync, replace = os.fsync, os.replace
    begun = 0

    def counting_fsync(file: int) -> None:
        nonlocal begun
        if ".checkpoint.pt." in os.readlink(f"/proc/self/fd/{file}"):
            begun += 1
            if begun == nth and place == "half":
                os.ftruncate(file, os.fstat(file).st_size // 2)
                _die()
        fsync(file)
        if begun == nth and place == "written":
            _die()

    def counting_replace(source: Any, target: Any) -> None:
        replace(source, target)
        if begun == nth and place == ("moved" if str(target).endswith(".before") else "renamed"):
            _die()

    os.fsync, os.replace = counting_fsync, counting_replace  # type: ignore[assignment]


def _watch_storage(nth: int, place: str) -> None:
    from tests.faults.counting import TOLD

    connect, commits = sqlite3.connect, 0

    class Watched(sqlite3.Connection):
        counted = False

        def commit(self) -> None:
            nonlocal commits
            commits += 1
            if commits == nth and place == "before":
                _die()
            if commits == nth and place == "within":  # SQLite lets other threads go on meanwhile
                threading.Timer(random.uniform(0, 2e-3), _die).start()
            super().commit()
            if commits == nth and place == "after":
                _die()
            if not self.counted:
                with contextlib.suppress(sqlite3.Error):  # until the tables are there
                    self.executescript(TOLD)
                    self.counted = True

    def watched(*words: Any, **named: Any) -> sqlite3.Connection:
        return connect(*words, **{"factory": Watched, **named})

    sqlite3.connect = watched  # type: ignore[assignment]
