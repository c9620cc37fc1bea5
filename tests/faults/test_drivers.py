"""Drivers killed at random moments: nothing lost, nothing twice, the same values to the bit."""

import functools
import random
import signal
import time

import pytest

from tests.faults.drivers import Search, described, whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

TRIALS, EPOCHS = 5, 6
WORDS = ("--trials", str(TRIALS), "--epochs", str(EPOCHS))
EXITS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
OBJECTIVES = {signal.SIGKILL: "front"}  # of one number else


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What an objective's search comes to."""

    @functools.cache
    def searched(objective: str = "anytime") -> list[tuple]:
        home = tmp_path_factory.mktemp("whole")
        code, _, err = Search(home, *WORDS, "--objective", objective, forked=True).ended()
        assert code == 0, err
        return described(home)

    return searched


def kill_when_it_trains(
    home, words: tuple[str, ...], number: signal.Signals, rng: random.Random, twice: bool
) -> None:
    """Starts the search, ends it some time after it began to drive."""
    process = Search(home, *words, forked=True)
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
    # Where Ctrl-C falls into an exec() of a library's import, Python ends by the signal itself,
    # which a shell calls 130 as well.
    assert code in (EXITS[number], *([-number] if number == signal.SIGINT else [])), err
    if number != signal.SIGKILL:
        assert err.splitlines()[-2] == "Go on with:"


@pytest.mark.parametrize("number", EXITS, ids=lambda number: number.name)
def test_a_driver_that_is_ended_twice_goes_on_to_the_same_end(uninterrupted, tmp_path, number):
    rng, objective = random.Random(number), OBJECTIVES.get(number, "anytime")
    words = (*WORDS, "--objective", objective)
    for nth in range(2):
        twice = nth == 1 and number == signal.SIGINT
        kill_when_it_trains(tmp_path, words, number, rng, twice)
    code, _, err = Search(tmp_path, *words, forked=True).ended()
    assert code == 0, err
    whole(tmp_path, TRIALS, EPOCHS)
    assert described(tmp_path) == uninterrupted(objective)


def test_a_limit_and_a_second_call_come_to_the_same_end(uninterrupted, tmp_path):
    code, _, err = Search(tmp_path, *WORDS, "--max-epochs-total", "8", forked=True).ended()
    assert code == 0 and "Stopped: the 8 epochs of --max-epochs-total" in err
    assert sum(trial[4] for trial in described(tmp_path)) == 8
    code, _, err = Search(tmp_path, *WORDS, forked=True).ended()
    assert code == 0, err
    assert described(tmp_path) == uninterrupted()
