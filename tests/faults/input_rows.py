"""Rows of the table: checkpoints cut short, and names and configs that are none."""

import contextlib
import io
import os
import random
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from automate.main import run
from studies import local
from studies.record import StudyRecord
from studies.trial import Event
from tests.faults.counting import Row, compared, count_told, plan, told_in, trained, untouched
from tests.faults.hostile import CONFIGS, names

TRIALS, EPOCHS = 8, 12


def truncated(times: int, rng: random.Random) -> Iterator[Row]:
    """A trial is given back, its newest checkpoint cut at a random byte, and it goes on."""
    whole, done = untouched(TRIALS, EPOCHS), 0
    while done < times:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            made = StudyRecord.create_or_open(plan(home, TRIALS, EPOCHS), runs=home)
            with closing(made) as record, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the loop says which checkpoint it leaves
                count_told(home / "s" / "study.db")
                row = Row()
                while interrupted(record, rng.randint(2, 8)):
                    if done + row.tried < times:
                        row.tried += cut(record, rng)
                row += compared(record, whole, told_in(home / "s" / "study.db"), trained(home))
            done += row.tried
            yield row


def interrupted(record: StudyRecord, epochs: int) -> bool:
    """Searches on for so many epochs; whether something is left."""
    done = {outcome.number: outcome.epochs for outcome in record.outcomes()}
    seen = 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        # What the checkpoint holds is reported again.
        seen += event.report is not None and event.report.epoch > done[event.number]
        if seen == epochs:
            raise KeyboardInterrupt

    try:
        local.search(record, interrupt)
    except KeyboardInterrupt:
        return True
    return False


def cut(record: StudyRecord, rng: random.Random) -> bool:
    """Cuts the newest checkpoint of the trial that waits to go on; whether there is one."""
    for outcome in record.outcomes():
        path = record.checkpoint(outcome.number)
        if outcome.state == "WAITING" and path.exists():
            os.truncate(path, rng.randrange(path.stat().st_size))
            return True
    return False


def said(*words: str) -> tuple[int, str]:
    """Exit code and stderr of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    return code, err.getvalue()


@contextlib.contextmanager
def inside() -> Iterator[tuple[Path, Path]]:
    """A folder to be in, some folders below one in which nothing should be written."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "a" / "b" / "home"
        home.mkdir(parents=True)
        os.chdir(home)
        try:
            yield Path(folder), home
        finally:
            os.chdir(before)


def outside(top: Path, allowed: Sequence[Path]) -> list[Path]:
    """Whatever is there but the allowed ones, what they hold and the folders that they lie in."""
    found, look = [], [top]
    while look:
        for path in look.pop().iterdir():
            if path in allowed:
                continue
            if any(path in one.parents for one in allowed):
                look.append(path)
            else:
                found.append(path)
    return found


def hostile_names(times: int, rng: random.Random) -> Iterator[Row]:
    """`automate search --study NAME`: refused in one line, or a plain name with its folder."""
    with inside() as (top, home):
        allowed = [home / "runs" / "none"]
        given = [str(top / "out"), "../../out", *names(times, rng.randrange(2**30))][:times]
        for name in given:
            row = Row(tried=1)
            code, err = said(
                "search", f"--study={name}", "--space", "diverse_alpha", "--trials", "1",
                "--epochs", "1", "--limit-train", "40", "--workers", "1", "--threads", "1",
                "--device", "cpu", "--precision", "fp32", "--quiet", "--backbone", "cnn4",
            )  # fmt: skip
            if code == 0:
                folder = home / "runs" / name
                assert folder.parent == home / "runs" and folder.is_dir(), name
                allowed.append(folder)
            else:
                assert code == 2 and len(err.splitlines()) == 1, (name, err)
                assert err[:-1].isprintable(), err
            row.executed = len(list(top.rglob("pwned*")))
            row.outside = len(outside(top, allowed))
            yield row


def bad_configs(times: int, rng: random.Random) -> Iterator[Row]:
    """`automate train FILE`: refused in one line."""
    with inside() as (top, home):
        for nth in range(times):
            path = home / "c.yaml"
            path.write_text(CONFIGS[nth % len(CONFIGS)])
            code, err = said("train", "c.yaml")
            assert code == 2 and len(err.splitlines()) == 1 and err[:-1].isprintable(), err
            executed = len(list(top.rglob("pwned*")))
            yield Row(tried=1, executed=executed, outside=len(outside(top, [path])))
