"""`automate status`, `doctor`, `clean` and the limits of a search, as they are typed."""

import json
import shutil
import time
from contextlib import closing

import pytest

from automate.flags import span
from studies.record import StudyRecord
from tests.automate.conftest import Cli
from tests.studies import made_up
from trainers import checkpoints


class Word:
    def __init__(self, value: str) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("45", 45), ("45s", 45), ("2h", 7200), ("1h30m", 5400), ("90 min", 5400), ("1.5 h", 5400)],
)
def test_times(words, seconds):
    assert span(None, [Word(word) for word in words.split()]) == seconds


@pytest.mark.parametrize(
    "word", ["", "h", "2x", "-2h", "2h!", "1e3", "nan", "2h" * 50 + "?", "9" * 400]
)
def test_times_that_are_none(word):
    with pytest.raises(ValueError, match="expected a time"):
        span(None, [Word(word)])


def test_a_long_time_with_a_bad_end_is_refused_at_once():
    begin = time.perf_counter()
    for word in ("1" * 40 + "!", "1 " * 2000 + "!", "2h" + " " * 2000 + "!"):
        with pytest.raises(ValueError, match="expected a time, as in"):
            span(None, [Word(word)])
    assert time.perf_counter() - begin < 1


def test_the_plan_says_when_the_search_ends(cli: Cli):
    line = "search --space diverse_alpha --device cpu --workers 1 --threads 1 --dry-run"
    said = cli(f"{line} --timeout 1h30m --max-epochs-total 100")
    assert said.code == 0
    assert "after 1 h 30 min, at the end of the epochs that run then" in said.out
    assert "before epoch 101 of the study" in said.out
    for wrong in ("--timeout 0", "--timeout x", "--max-epochs-total 0"):
        said = cli(f"{line} {wrong}")
        assert (said.code, said.err.count("\n")) == (2, 1)


def test_status_shows_a_study(cli: Cli, made: StudyRecord):
    said = cli("status made-up")
    assert said.code == 0 and said.out.startswith("made-up (runs/made-up/study.db): ")
    found = json.loads(cli("status made-up --json").out)
    assert found["trials"] == sum(found["states"].values()) == 6
    assert found["shown"] == []


def test_status_says_a_long_reason_once(cli: Cli):
    reason = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (128x64 and 32x10), in net.py"
    with closing(StudyRecord.create_or_open(made_up.plan(trials=4, study="broken"))) as record:
        for why in (reason, "short", reason, "short"):
            record.fail(record.ask(), why)
    said = cli("status broken")
    assert said.out.count("RuntimeError") == 1 and said.out.count("as trial 0") == 1
    assert said.out.count("short") == 2
    shown = json.loads(cli("status broken --json").out)["shown"]
    assert [row["why"] for row in shown] == [reason, "short", reason, "short"]


def test_doctor_looks_the_machine_and_a_study_over(cli: Cli, made: StudyRecord):
    said = cli("doctor")
    assert "python" in said.out and "runs" in said.out
    found = json.loads(cli("doctor --study made-up --json").out)
    assert {finding["verdict"] for finding in found} == {"ok"}
    assert cli("doctor --study none").code == 2


def test_clean_removes_what_nothing_needs(cli: Cli, made: StudyRecord):
    checkpoints.put(made.checkpoint(0), b"x" * 1000)
    said = cli("clean made-up --dry-run")
    assert said.out.endswith("  automate clean made-up\n")
    there = "made-up --runs-dir others --storage sqlite:///others/made-up/study.db"
    shutil.copytree("runs", "others")
    assert cli(f"clean {there} --dry-run").out.endswith(f"  automate clean {there}\n")
    assert "would be removed" in said.out and made.checkpoint(0).exists()
    found = json.loads(cli("clean made-up --dry-run --json").out)
    assert (found["removed"], found["bytes"]) == (False, 1000)
    assert str(made.checkpoint(0).parent) in found["paths"]
    said = cli("clean made-up")
    assert "1.0 kB, removed" in said.out and not made.checkpoint(0).exists()
    assert (made.folder / "study.db").exists()
