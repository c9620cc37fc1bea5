"""Drivers killed at random moments: nothing lost, nothing twice, the same values to the bit."""

import random
import signal
import time

import pytest

from tests.faults.drivers import Search, described, whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

TRIALS, EPOCHS = 5, 6
WORDS = ("--trials", str(TRIALS), "--epochs", str(EPOCHS))
EXITS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    code, _, err = Search(home, *WORDS).ended()
    assert code == 0, err
    return described(home)


def kill_when_it_trains(home, number: signal.Signals, rng: random.Random, twice: bool) -> None:
    """Starts the search, ends it some time after it began to drive."""
    process = Search(home, *WORDS)
    lock = home / "runs" / "s" / "driver.lock"
    before = lock.stat().st_mtime_ns if lock.exists() else 0
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if lock.exists() and lock.stat().st_mtime_ns > before:
            break
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 2.5))
    process.send_signal(number)
    if twice:
        time.sleep(0.05)
        process.send_signal(number)
    code, out, err = process.ended()
    if twice or code == 0 or "Report: " in out:  # it had come to its end
        assert code in (0, EXITS[number], -number), err
        return
    assert code == EXITS[number], err
    if number != signal.SIGKILL:
        assert err.splitlines()[-2] == "Go on with:"


@pytest.mark.parametrize("number", EXITS, ids=lambda number: number.name)
def test_a_driver_that_is_ended_twice_goes_on_to_the_same_end(uninterrupted, tmp_path, number):
    rng = random.Random(number)
    for nth in range(2):
        kill_when_it_trains(tmp_path, number, rng, twice=nth == 1 and number == signal.SIGINT)
    code, _, err = Search(tmp_path, *WORDS).ended()
    assert code == 0, err
    whole(tmp_path, TRIALS, EPOCHS)
    assert described(tmp_path) == uninterrupted


def test_a_limit_and_a_second_call_come_to_the_same_end(uninterrupted, tmp_path):
    code, _, err = Search(tmp_path, *WORDS, "--max-epochs-total", "8").ended()
    assert code == 0 and "Stopped: the 8 epochs of --max-epochs-total" in err
    assert sum(trial[4] for trial in described(tmp_path)) == 8
    code, _, err = Search(tmp_path, *WORDS).ended()
    assert code == 0, err
    assert described(tmp_path) == uninterrupted
