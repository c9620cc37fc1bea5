"""`automate search` as processes of their own, and what their study came to."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from studies.record import StudyRecord

ROOT = Path(__file__).parents[2]
SPACE = "diverse_alpha"
OVER = ("COMPLETE", "PRUNED")


def start(cwd: Path, *words: str, storage: str | None = None) -> "subprocess.Popen[str]":
    """A small search on the digits, one worker and one thread."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("AUTOMATE_STORAGE", None)
    if storage is not None:
        environment["AUTOMATE_STORAGE"] = storage
    line = [
        sys.executable, "-m", "automate", "search", "--space", SPACE, "--study", "s",
        "--workers", "1", "--threads", "1", "--device", "cpu", "--grace", "1",
        "--limit-train", "100", *words,
    ]  # fmt: skip
    return subprocess.Popen(
        line, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: "subprocess.Popen[str]", timeout: float = 300) -> tuple[int, str, str]:
    """Exit code and what was printed; no traceback in it."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in out + err, err
    return process.returncode, out, err


def described(cwd: Path, storage: str | None = None) -> list[tuple[Any, ...]]:
    """The study without clocks: what two searches of the same seed have in common."""
    with closing(StudyRecord.open("s", storage, cwd / "runs")) as record:
        return [
            (o.number, o.state, o.params, o.value, o.epochs, o.report and o.report.accuracies)
            for o in record.outcomes()
        ]


def whole(cwd: Path, trials: int, epochs: int, storage: str | None = None) -> None:
    """Every trial ended once, with every epoch once, and nothing is left of them."""
    with closing(StudyRecord.open("s", storage, cwd / "runs")) as record:
        outcomes = record.outcomes()
        assert [o.number for o in outcomes] == list(range(trials))
        assert set(Counter(o.state for o in outcomes)) <= set(OVER), outcomes
        for outcome in outcomes:
            done = [report.epoch for report in record.reports(outcome.number)]
            assert done == list(range(1, outcome.epochs + 1))
            assert (outcome.state == "COMPLETE") == (outcome.epochs == epochs)
            assert not list((record.folder / "trials").rglob("*.pt*"))
