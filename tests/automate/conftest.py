"""The command line, called in this process from a folder of the test's own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from automate.main import run
from studies.record import StudyRecord
from tests.studies import made_up


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `automate WORDS` in an empty folder; words are separate, or one text to be split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["automate"])
    for name in ("AUTOMATE_STORAGE", "AUTOMATE_DATA", "AUTOMATE_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str) -> Said:
        capfd.readouterr()
        code = run(words[0].split() if len(words) == 1 else words)
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def made_up_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with the study `made-up`, which ran to its end without any training."""
    runs = tmp_path_factory.mktemp("made-up") / "runs"
    plan = made_up.plan(trials=6, study="made-up", base={"epochs": 6}, grace=2)
    with closing(StudyRecord.create_or_open(plan, runs=runs)) as record:
        made_up.search(record)
    return runs


@pytest.fixture
def made(cli: Cli, made_up_runs: Path, tmp_path: Path) -> Iterator[StudyRecord]:
    """That study in ./runs, the test's own copy."""
    shutil.copytree(made_up_runs, tmp_path / "runs")
    with closing(StudyRecord.open("made-up")) as record:
        yield record
