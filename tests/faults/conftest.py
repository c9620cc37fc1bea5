"""The fault suite: everything here is slow, and against what really breaks."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Server, binaries


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL that runs, under a user of its own."""
    pytest.importorskip("psycopg")
    if binaries() is None:
        pytest.skip("no PostgreSQL is installed (apt-get install postgresql)")
    # Not below pytest's folders: another pytest that starts meanwhile closes these to other users.
    with tempfile.TemporaryDirectory() as folder:
        made = Server(Path(folder))
        made.start()
        yield made
        with contextlib.suppress(AssertionError):
            made.stop("immediate")
