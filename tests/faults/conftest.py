"""The fault suite: everything here is slow, and against what really breaks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Server, binaries


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL that runs."""
    pytest.importorskip("psycopg")
    if binaries() is None:
        pytest.skip("no PostgreSQL is installed (apt-get install postgresql)")
    made = Server(Path(tmp_path_factory.mktemp("postgres")))
    made.start()
    yield made
    with contextlib.suppress(AssertionError):
        made.stop("immediate")
