"""Who drives a study: a process's name, whether it still lives, and the lock of a SQLite study."""

import errno
import fcntl
import itertools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainers.catalog import InputError

# Seconds for which a trial is owned without a word from its driver, if no epoch takes longer. Ends
# only matter where several drivers share a server, and their clocks have to agree within it.
LEASE = 600.0
_count = itertools.count(1)


def _place() -> str:
    """This machine, as far as process numbers mean the same: containers may share a host name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()}{space.removeprefix('pid:')}".replace(":", "_")


def _started(pid: int) -> str:
    """When a process began, in the kernel's clock ticks; "0" where there is no /proc.

    "" for a zombie: killed, and only not yet fetched by its parent.
    """
    try:
        # The name, in parentheses, may hold spaces: the fields after it are safe to split.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return "0"


def _name() -> str:
    """This driver's own name: machine, process, its start, and a count within the process."""
    pid = os.getpid()
    return f"{_place()}:{pid}:{_started(pid)}:{next(_count)}"


@dataclass(frozen=True)
class Driver:
    """Whoever asks for trials.

    Attributes:
        name: Unique among all drivers there ever are.
        clock: Seconds since 1970.
        lease: Seconds.
    """

    name: str = field(default_factory=_name)
    clock: Callable[[], float] = time.time
    lease: float = LEASE


def is_dead(name: str) -> bool:
    """Whether a driver is known to be dead: a process of this machine that is there no more."""
    parts = name.split(":")
    if len(parts) != 4 or parts[0] != _place() or not parts[1].isdecimal():
        return False
    pid = int(parts[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return parts[2] != _started(pid)


class DriverLock:
    """The right to drive a SQLite study, for as long as this process lives.

    A POSIX lock: the system drops it with the process, however that ends, and forked or spawned
    workers do not inherit it. It says nothing within one process, so a table does; there a second
    record takes the lock over from one that is idle (a notebook's cell, run again).

    Args:
        path: The lock's file. It stays; who holds it is written in it.
        study: Name of the study, for the message.
        busy: Whether the holder has trials out.

    Raises:
        InputError: Another process drives the study, or the file cannot be made.
    """

    _of_this_process: dict[Path, "DriverLock"] = {}

    def __init__(self, path: Path, study: str, busy: Callable[[], bool]) -> None:
        self.path = path.resolve()
        self.busy = busy
        earlier = self._of_this_process.get(self.path)
        if earlier is not None:
            # Never a second descriptor: closing any of them would drop this process's lock.
            if earlier.busy():
                raise InputError(f"study {study!r} is being searched by this process")
            earlier.release()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 200).decode(errors="replace").split("\n")[0]
            os.close(self._file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise InputError(f"{path} cannot be locked: {error.strerror}") from None
            raise InputError(
                f"study {study!r} is being searched by another process"
                f"{f' ({holder})' if holder else ''}: a SQLite study takes one at a time; wait for "
                "it, or take a server as --storage"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._of_this_process[self.path] = self

    @property
    def held(self) -> bool:
        """Whether this is still the one that holds it."""
        return self._of_this_process.get(self.path) is self

    def release(self) -> None:
        """Gives the right up; nothing if it is gone already."""
        if self.held:
            del self._of_this_process[self.path]
            os.close(self._file)
