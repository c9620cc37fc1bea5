"""The rows of `python -m tests.faults` in their short form; the long one is in README."""

import random

import pytest

from tests.faults import server_rows
from tests.faults.__main__ import FAULTS
from tests.faults.counting import Row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Ray leaves sockets and subprocesses to the garbage collector, and warns of its own future.
    pytest.mark.filterwarnings("default"),
]
# How often, and the epochs that each may cost: the running one of each trial that runs.
SHORT = {
    "driver: SIGKILL while a checkpoint is written": (3, 1),
    "driver: SIGKILL while the storage is written": (3, 1),
    "worker on Ray: SIGKILL": (3, 1),
    "worker on Ray: frozen": (1, 1),
    "newest checkpoint: truncated": (6, 1),
    "name of a study, hostile": (30, 0),
    "config file, bad": (60, 0),
}


def judged(row: Row, times: int, epochs: int) -> None:
    assert row.tried == times
    assert (row.lost, row.twice, row.executed, row.outside) == (0, 0, 0, 0), row
    assert row.repeated <= times * epochs, row


@pytest.mark.parametrize("name", SHORT)
def test_a_fault_costs_no_trial(name):
    times, epochs = SHORT[name]
    row = Row()
    for part in FAULTS[name].make(times, random.Random(name)):
        row += part
    judged(row, times, epochs)


def test_a_server_started_again_costs_two_searches_no_trial(server):
    row = Row()
    for part in server_rows.restarted_of(server, 2, random.Random(0)):
        row += part
    judged(row, 2, 0)
