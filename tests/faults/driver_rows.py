"""Rows of the table: the driver is ended, by signals and while it writes."""

import functools
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from studies.record import StudyRecord
from tests.faults import points
from tests.faults.counting import Described, Row, backbone, compared, told_in, trained
from tests.faults.drivers import Search, described

TRIALS, EPOCHS = 8, 20
RUNS_FOR = 3.0  # seconds that a search trains, roughly, until it has come to its end
# With two workers trials end in any order, so what they are must not depend on it.
ANY_ORDER = ("--sampler", "random", "--no-early-stopping")

End = Callable[[Path, tuple[str, ...], random.Random], bool]
Make = Callable[[int, random.Random], Iterator[Row]]  # of so many faults, a row for each study


def words(home: Path, *more: str) -> tuple[str, ...]:
    """What is searched."""
    return (
        "--trials", str(TRIALS), "--epochs", str(EPOCHS), "--grace", "5",
        "--backbone", backbone(home), *more,
    )  # fmt: skip


def signalled(number: signal.Signals, again: bool = False, training: bool = False) -> End:
    """Starts the search and sends it a signal at a random moment; whether it ended before.

    Args:
        number: The signal.
        again: Send it twice.
        training: Not before an epoch has begun: on Ray that takes a while.
    """

    def end(home: Path, line: tuple[str, ...], rng: random.Random) -> bool:
        lock = home / "runs" / "s" / "driver.lock"
        before = lock.stat().st_mtime_ns if lock.exists() else 0
        process = Search(home, *line, forked=True)
        while process.poll() is None and not (lock.exists() and lock.stat().st_mtime_ns > before):
            time.sleep(0.01)
        begun = trained(home)
        while training and process.poll() is None and trained(home) == begun:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, RUNS_FOR))
        process.send_signal(number)
        if again:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(number)
        code, out, err = process.ended()
        # While Python itself ends, after the search has, signals act as they do in any program.
        assert code in (0, -signal.SIGKILL, 128 + number) or "Report: " in out, err
        return code == 0

    return end


def while_it_writes(what: str, places: tuple[str, ...]) -> End:
    """Starts the search, which kills itself in the middle of a write; whether it ended before."""

    def end(home: Path, line: tuple[str, ...], rng: random.Random) -> bool:
        fault = f"{what}:{rng.randint(1, 30)}:{rng.choice(places)}"
        code, _, err = Search(home, *line, fault=fault, forked=True).ended()
        assert code in (0, -signal.SIGKILL), err
        return code == 0

    return end


@functools.cache
def unended(*more: str) -> Described:
    """What comes out if nobody ends the search."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        code, _, err = Search(home, *words(home, *more), forked=True).ended()
        assert code == 0, err
        found = described(home)
        assert trained(home) == sum(trial[4] for trial in found), "epochs are well counted"
        return found


def tried(
    end: End, times: int, rng: random.Random, *more: str, alone: tuple[str, ...] = ()
) -> Iterator[Row]:
    """Studies, each ended and begun again until its trials have ended.

    Args:
        end: Begins the search and ends it; says whether it had ended by itself.
        times: Yields no more once it was ended so often.
        rng: Moments are drawn from it.
        *more: Words of the search.
        alone: Those of the search that nobody ends, if others.
    """
    whole = unended(*(alone or more))
    done = 0
    while done < times:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            line, row = words(home, *more), Row()
            while done + row.tried < times and not end(home, line, rng):
                row.tried += 1
            code, _, err = Search(home, *line, forked=True).ended()
            assert code == 0, err
            with closing(StudyRecord.open("s", runs=home / "runs")) as record:
                told = told_in(home / "runs" / "s" / "study.db")
                row += compared(record, whole, told, trained(home))
            done += row.tried
            yield row


def signals(name: str, again: bool = False) -> Make:
    end = signalled(signal.Signals[name], again)
    return lambda times, rng: tried(end, times, rng)


def two_workers(times: int, rng: random.Random) -> Iterator[Row]:
    line = ("--workers", "2", *ANY_ORDER)
    end = signalled(signal.SIGKILL, training=True)
    return tried(end, times, rng, *line, alone=ANY_ORDER)


def checkpoints(times: int, rng: random.Random) -> Iterator[Row]:
    return tried(while_it_writes("checkpoint", points.CHECKPOINT), times, rng)


def storages(times: int, rng: random.Random) -> Iterator[Row]:
    return tried(while_it_writes("storage", points.STORAGE), times, rng)
