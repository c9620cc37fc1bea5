"""A real Ray cluster of several nodes on this machine, each with a folder of its own.

Where the system lets us, each node lives in a mount namespace of its own: what it sees at `own` is
another folder than the driver and the other nodes see there, as on another machine.
"""

import ctypes
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest import mock

NEWNS, REC, PRIVATE, BIND = 0x20000, 0x4000, 1 << 18, 0x1000


def separate(own: Path, instead: Path) -> None:
    """From now on this thread, and what it starts, sees `instead` at `own`. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def must(code: int) -> None:
        if code:
            raise OSError(ctypes.get_errno(), "this system has no mount namespaces for us")

    must(libc.unshare(NEWNS))
    must(libc.mount(b"none", b"/", None, REC | PRIVATE, None))
    must(libc.mount(os.fsencode(instead), os.fsencode(own), None, BIND, None))


class Keeper(threading.Thread):
    """A thread that calls once and then waits: what it started ends with it, as Ray has it.

    Args:
        call: Made in the thread.
        over: Ends it.
    """

    def __init__(self, call: Callable[[], Any], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.call, self.over = call, over
        self.found: queue.Queue[tuple[bool, Any]] = queue.Queue()
        self.start()

    def run(self) -> None:
        try:
            self.found.put((True, self.call()))
        except BaseException as error:
            self.found.put((False, error))
        self.over.wait()

    def result(self) -> Any:
        """What the call returned, or raised."""
        good, value = self.found.get()
        if not good:
            raise value
        return value


class Nodes:
    """A head that trains nothing, and nodes of one core each.

    Args:
        number: Of nodes.
        own: A folder that each node has for itself: `own`.0, `own`.1 and so on stand behind it.
    """

    def __init__(self, number: int, own: Path | None = None) -> None:
        self.number, self.own = number, own
        self.nodes: list[Any] = []
        self.made = 0
        self.over = threading.Event()

    def __enter__(self) -> Self:
        from studies import cluster  # noqa: F401  # sets Ray's environment first

        from ray.cluster_utils import Cluster  # isort: skip

        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        try:
            for _ in range(self.number):
                self.add()
        except BaseException:
            self.cluster.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()
        self.over.set()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, **wanted: Any) -> None:
        """Another node."""

        def start() -> Any:
            if self.own is not None:
                instead = Path(f"{self.own}.{self.made}")
                instead.mkdir()
                separate(self.own, instead)
            # Ray would install a handler, which threads cannot.
            with mock.patch("ray._private.utils.set_sigterm_handler"):
                return self.cluster.add_node(**{"num_cpus": 1, **wanted})

        self.nodes.append(Keeper(start, self.over).result())
        self.made += 1

    def lose(self, which: int) -> None:
        """Kills a node with all that runs there."""
        self.cluster.remove_node(self.nodes.pop(which), allow_graceful=False)
