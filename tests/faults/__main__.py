"""The table of the README: `python -m tests.faults --times 50`, some ten minutes a row on one core.

A search on the digits is ended again and again at random moments and begun again until its trials
have ended; then another one, until the fault was tried so often. The study is compared with that of
a search that nobody ended. A trigger in the database counts how often a trial was told, and a
backbone of the search's own how many epochs were trained.
"""

import argparse
import contextlib
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.drivers import described, ended, start

TRIALS, EPOCHS = 6, 10
BACKBONE = """
import os, pathlib
from torch import nn
from trainers.backbones import Backbone
EXITS = 2
class Counted(nn.Conv2d):
    def train(self, mode=True):
        if mode:  # once an epoch, and once when the speed of the machine is measured
            with open(pathlib.Path(__file__).parent / f"{os.getpid()}.epochs", "a") as file:
                file.write("x")
        return super().train(mode)
def build(width, image_size, image_channels):
    stages = (Counted(image_channels, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, padding=1))
    return Backbone(stages, (8, 12), nn.Linear)
"""
TOLD = """
CREATE TABLE IF NOT EXISTS told (number INTEGER);
CREATE TRIGGER IF NOT EXISTS tells AFTER UPDATE OF state ON trials
WHEN NEW.state IN ('COMPLETE', 'PRUNED', 'FAIL')
BEGIN INSERT INTO told VALUES (NEW.number); END;
"""


@dataclass
class Row:
    """What became of a fault.

    Attributes:
        tried: How often.
        lost: Trials that differ from those of the search that nobody ended.
        twice: Trials told more than once.
        repeated: Epochs trained more than once.
    """

    tried: int = 0
    lost: int = 0
    twice: int = 0
    repeated: int = 0


def words(home: Path) -> tuple[str, ...]:
    backbone = home / "counted.py"
    if not backbone.exists():
        backbone.write_text(BACKBONE)
    return ("--trials", str(TRIALS), "--epochs", str(EPOCHS), "--backbone", str(backbone))


def begin(home: Path, fault: str, rng: random.Random) -> bool:
    """The search, ended by the fault at a random moment; whether it came to its end before."""
    lock, database = home / "runs" / "s" / "driver.lock", home / "runs" / "s" / "study.db"
    before = lock.stat().st_mtime_ns if lock.exists() else 0
    process = start(home, *words(home))
    while process.poll() is None and not (lock.exists() and lock.stat().st_mtime_ns > before):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 4))
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as file:
        file.executescript(TOLD)
    process.send_signal(getattr(signal, fault if fault.startswith("SIG") else "SIGKILL"))
    code, out, err = ended(process)
    # While Python itself ends, after the search has, signals act as they do in any program.
    assert code in (0, -9, 130, 143) or "Report: " in out, err
    if fault == "truncated" and code:
        for path in (home / "runs" / "s" / "trials").rglob("checkpoint.pt"):
            path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    return code == 0


def trained(home: Path) -> int:
    """Epochs, in all processes; each measured the machine first."""
    return sum(max(path.stat().st_size - 1, 0) for path in home.glob("*.epochs"))


def compared(home: Path, whole: list[tuple[object, ...]], row: Row) -> None:
    """Adds what became of a search that has ended."""
    found = described(home)
    row.lost += abs(len(found) - len(whole))
    row.lost += sum(a != b for a, b in zip(found, whole, strict=False))
    with contextlib.closing(sqlite3.connect(home / "runs" / "s" / "study.db")) as file:
        told = Counter(number for (number,) in file.execute("SELECT number FROM told"))
    row.twice += sum(count > 1 for count in told.values())
    row.repeated += trained(home) - sum(int(str(trial[4])) for trial in found)


def tried(fault: str, times: int, whole: list[tuple[object, ...]], seed: int) -> Row:
    """A fault, so often."""
    row, rng = Row(), random.Random(seed)
    while row.tried < times:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            while row.tried < times and not begin(home, fault, rng):
                row.tried += 1
            code, _, err = ended(start(home, *words(home)))
            assert code == 0, err
            compared(home, whole, row)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        code, _, err = ended(start(home, *words(home)))
        assert code == 0, err
        whole = described(home)
        assert trained(home) == sum(trial[4] for trial in whole), "the counting is right"
    print("| fault | times tried | trials lost | told twice | epochs repeated |")
    print("|---|---|---|---|---|")
    for name, fault in (
        ("SIGKILL of the driver", "SIGKILL"),
        ("SIGTERM of the driver", "SIGTERM"),
        ("SIGINT of the driver", "SIGINT"),
        ("SIGKILL and the newest checkpoint truncated", "truncated"),
    ):
        row = tried(fault, given.times, whole, given.seed)
        print(f"| {name} | {row.tried} | {row.lost} | {row.twice} | {row.repeated} |", flush=True)


if __name__ == "__main__":
    main()
