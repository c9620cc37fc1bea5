"""What a fault cost: how often each trial was told, which epochs were trained, what came out.

The searched backbone is this suite's own. It leaves a letter in a file of its process for each
epoch that begins, and makes the process listen to `points`. A trigger in the database counts how
often a trial ended; a search that nobody touched says what should come out.
"""

import functools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from studies.plan import StudyPlan
from studies.record import StudyRecord
from trainers.config import TrialConfig

BACKBONE = """
import os, pathlib, traceback
from torch import nn
from tests.faults import points
from trainers.backbones import Backbone
EXITS = 2
points.arm()
class Counted(nn.Conv2d):
    def train(self, mode=True):
        # Not when the speed of the machine is measured.
        if mode and any(call.name == "train_epoch" for call in traceback.extract_stack()):
            with open(pathlib.Path(__file__).parent / f"{os.getpid()}.epochs", "a") as file:
                file.write("x")
        return super().train(mode)
def build(width, image_size, image_channels):
    stages = (Counted(image_channels, 4, 3, 2, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1))
    return Backbone(stages, (4, 6), nn.Linear)
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
        lost: Trials that are missing or differ from those of the search that nobody touched.
        twice: Trials told more than once.
        repeated: Epochs trained more than once.
        executed: Pieces of planted code that ran.
        outside: Files written where none belongs.
    """

    tried: int = 0
    lost: int = 0
    twice: int = 0
    repeated: int = 0
    executed: int = 0
    outside: int = 0

    def __iadd__(self, other: "Row") -> "Row":
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self


Described = list[tuple[Any, ...]]


def backbone(home: Path) -> str:
    """The path of the backbone that counts its epochs into the folder."""
    path = home / "counted.py"
    if not path.exists():
        path.write_text(BACKBONE)
    return str(path)


def trained(home: Path) -> int:
    """Epochs that were begun, in all processes."""
    return sum(path.stat().st_size for path in home.glob("*.epochs"))


def plan(home: Path, trials: int, epochs: int, workers: int = 1, **changes: Any) -> StudyPlan:
    """A search whose trials are the same in whatever order they are run."""
    base = TrialConfig(
        dataset="digits", epochs=epochs, limit_train=60, batch_size=64, precision="fp32",
        backbone=backbone(home),
    )  # fmt: skip
    given = {
        "study": "s", "space": "diverse_alpha", "base": base, "trials": trials, "workers": workers,
        "grace": epochs, "sampler": "random", "early_stopping": False, **changes,
    }  # fmt: skip
    return StudyPlan(**given)


def described(record: StudyRecord) -> Described:
    """The study without clocks: what two searches of the same seed have in common."""
    return [
        (o.number, o.state, o.params, o.value, o.epochs, o.report and o.report.accuracies)
        for o in record.outcomes()
    ]


@functools.cache
def untouched(trials: int, epochs: int) -> Described:
    """What comes out of `plan` if nothing happens, in one process."""
    from studies import local

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with closing(StudyRecord.create_or_open(plan(home, trials, epochs), runs=home)) as record:
            assert local.search(record) is None
            found = described(record)
            assert trained(home) == trials * epochs, "epochs are well counted"
            return found


def count_told(database: Path) -> None:
    """From now on the database counts how often each of its trials is told."""
    with closing(sqlite3.connect(database, timeout=60)) as file:
        file.executescript(TOLD)


def compared(
    record: StudyRecord, whole: Sequence[tuple[Any, ...]], told: list[int], trained: int
) -> Row:
    """What became of a study that has come to its end.

    Args:
        record: The study.
        whole: What `described` says of a search that nobody touched.
        told: The number of a trial each time that one was told.
        trained: Epochs.
    """
    found = described(record)
    epochs = 0
    lost = {trial[0] for trial in whole} - set(told)
    for outcome in record.outcomes():
        done = [report.epoch for report in record.reports(outcome.number)]
        epochs += len(done)
        if done != list(range(1, outcome.epochs + 1)):
            lost.add(outcome.number)
    lost |= {trial[0] for trial in (*found, *whole) if trial not in found or trial not in whole}
    record.tidy()  # as the next search does, and `automate clean`
    left = sorted((record.folder / "trials").rglob("*.pt*"))
    assert not left, f"checkpoints of ended trials: {left}"
    twice = sum(count > 1 for count in Counter(told).values())
    return Row(lost=len(lost), twice=twice, repeated=trained - epochs)


def told_in(database: Path) -> list[int]:
    """What `count_told` has counted."""
    with closing(sqlite3.connect(database, timeout=60)) as file:
        return [number for (number,) in file.execute("SELECT number FROM told")]
