"""The machine and a study looked over: what is wrong, and what mends it. Prints nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from sqlalchemy.engine import URL

from studies.listing import list_studies
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.states import Outcome
from studies.storage import (
    DATABASE,
    Place,
    connect,
    looked_at,
    make_folder,
    one_line_errors,
    place,
)
from studies.verdict import count_text
from trainers import cache, checkpoints, sources
from trainers.catalog import DATASETS, InputError, shortened
from trainers.config import TrialConfig

NEEDED = ("torch", "torchvision", "optuna", "optuna-dashboard", "ray", "numpy", "pydantic")
LITTLE = 2e9  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of what was looked at.

    Attributes:
        what: Was looked at.
        verdict: "ok"; "note": worth knowing; "wrong": to be mended by a person; "mended".
        text: What was found.
        fix: What mends it.
    """

    what: str
    verdict: Literal["ok", "note", "wrong", "mended"]
    text: str
    fix: str = ""


def machine(
    runs: Path = Path("runs"), storage: str | None = None, data_root: str | None = None
) -> list[Finding]:
    """Versions, devices, folders, space, storage and data."""
    found = [*_versions(), _device(), *_folders(runs), _storage(runs, storage)]
    root = sources.data_root(data_root)
    there = [name for name in DATASETS if _lies_in(name, root)]
    found.append(Finding("data", "ok", f"{', '.join(there)} (looked in {root})"))
    return found


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    fix = "" if sys.version_info >= (3, 11) else "take Python 3.11 or newer"
    yield Finding("python", "wrong" if fix else "ok", python, fix)
    versions = {}
    for name in NEEDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "wrong", "is not installed", f"pip install {name}")
    yield Finding("packages", "ok", ", ".join(f"{n} {v}" for n, v in versions.items()))
    if "torch" not in versions or "torchvision" not in versions:
        return
    wanted = [
        line.partition("torch==")[2].split(";")[0].strip()
        for line in importlib.metadata.requires("torchvision") or []
        if line.startswith("torch==")
    ]
    torch = versions["torch"].partition("+")[0]
    if wanted and wanted[0] != torch:
        yield Finding(
            "torchvision",
            "wrong",
            f"{versions['torchvision']} was built for torch {wanted[0]}, torch is {torch}",
            f"pip install torch=={wanted[0]} (or the torchvision of torch {torch})",
        )
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a binary that does not fit raises many kinds
        fix = "install torch and torchvision together"
        yield Finding("torchvision", "wrong", shortened(error, 200), fix)


def _device() -> Finding:
    from studies.machine import cores

    try:
        import torch
    except ImportError as error:
        return Finding("device", "wrong", f"torch cannot be loaded: {error}", "pip install torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    text = f"{cores()} CPU cores; {', '.join(gpus) if gpus else 'no CUDA device'}"
    if not gpus and shutil.which("nvidia-smi"):
        return Finding("device", "wrong", f"{text}, though nvidia-smi is here",
                       "install a torch that is built for this driver")  # fmt: skip
    return Finding("device", "ok", text)


def _folders(runs: Path) -> Iterator[Finding]:
    for what, folder in (("runs", runs.absolute()), ("cache", cache.place())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Finding(what, "wrong", f"{folder} cannot be written", "take another folder")
            continue
        free = shutil.disk_usage(there).free
        text = f"{folder}, {free / 1e9:.1f} GB free"
        little = free < LITTLE
        yield Finding(what, "note" if little else "ok", text, "make room" if little else "")


def _storage(runs: Path, storage: str | None) -> Finding:
    try:
        found = list_studies(runs, storage)
    except InputError as error:
        return Finding("storage", "wrong", str(error), "see that it runs, and its URL")
    notes = [f"{summary.name}: {summary.note}" for summary in found if summary.note]
    if notes:
        return Finding("storage", "wrong", "; ".join(notes), "automate doctor --study NAME")
    where = place(storage, runs, None)
    label = str(runs / "<study>" / DATABASE) if where.own else where.label
    return Finding("storage", "ok", f"{label}: {count_text(len(found), 'study')}")


def _lies_in(name: str, root: Path) -> bool:
    try:
        sources.check(TrialConfig(dataset=name), root)
    except InputError:
        return False
    return True


def study(
    name: str,
    storage: str | None = None,
    runs: Path = Path("runs"),
    mend: bool = True,
) -> list[Finding]:
    """A study looked over, and mended where it can be, with a copy of its database kept.

    Args:
        name: Of the study.
        storage, runs: As everywhere.
        mend: False only looks.

    Raises:
        InputError: No such study, or another process searches it.
    """
    where = place(storage, runs, name)
    found = []
    if where.database is not None and where.database.exists():
        found.append(_integrity(where))
        if found[0].verdict == "wrong":
            return found
    with contextlib.closing(StudyRecord.open(name, storage, runs)) as record:
        ghosts = _ghosts(record)
        loose = _loose(record)
        if mend and (ghosts or loose):
            found.append(Finding("copy", "ok", str(copy(record))))
            if ghosts:
                record.reclaim()
            for path in loose:
                checkpoints.remove(path)
        if ghosts:
            text = f"trials {_listed(ghosts)} are RUNNING, and nobody runs them"
            mended = not any(record.outcome(number).state == "RUNNING" for number in ghosts)
            fix = "they wait again" if mended else "the next `automate search` takes them over"
            found.append(Finding("ghosts", "mended" if mended else "wrong", text, fix))
        else:
            found.append(Finding("ghosts", "ok", "none"))
        if loose:
            text = f"{len(loose)} of trials that have ended"
            found.append(Finding("checkpoints", "mended" if mend else "note", text,
                                 "removed" if mend else "automate clean"))  # fmt: skip
        found += [*_states(record), *_files(record)]
    return found


def _integrity(where: Place) -> Finding:
    assert where.database is not None
    try:
        with looked_at(where.database) as file:
            said = [str(row[0]) for row in file.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        said = [str(error)]
    if said == ["ok"]:
        return Finding("database", "ok", f"{where.label} is whole")
    fix = f"sqlite3 {where.label} .recover | sqlite3 mended.db, and put that in its place"
    return Finding("database", "wrong", f"{where.label}: {shortened('; '.join(said))}", fix)


def copy(record: StudyRecord) -> Path:
    """A copy of a study as a SQLite file, whole even while it is written. Raises InputError.

    It lies beside the database, or in the study's folder where that is on a server.
    """
    stamp, database = time.strftime("%Y%m%d-%H%M%S"), record.place.database
    if database is None:
        target = record.folder / f"{DATABASE}.{stamp}.copy"
        make_folder(record.folder)
        there = connect(Place(str(target), URL.create("sqlite"), target))
        with one_line_errors(record.place):
            optuna.copy_study(
                from_study_name=record.name, from_storage=record.study._storage, to_storage=there
            )
        there.remove_session()
        there.engine.dispose()
        return target
    target = database.with_name(f"{database.name}.{stamp}.copy")
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=60)) as source,
            contextlib.closing(sqlite3.connect(target)) as made,
        ):
            source.backup(made)
    except sqlite3.Error as error:
        raise InputError(f"{target} cannot be written: {error}") from None
    return target


def _ghosts(record: StudyRecord) -> list[int]:
    """RUNNING trials that nobody runs. Raises InputError if another process searches."""
    running = [o.number for o in record.outcomes() if o.state == "RUNNING"]
    return [number for number in running if record.is_ghost(number)]


def _loose(record: StudyRecord) -> list[Path]:
    """Checkpoints that no trial needs any more."""
    needs = record.plan.needs_checkpoint
    paths = [record.checkpoint(o.number) for o in record.outcomes() if not needs(o.state)]
    return [path for path in paths if path.exists() or checkpoints.before(path).exists()]


def _states(record: StudyRecord) -> list[Finding]:
    """What the states say against what was reported."""
    wrong = []
    for outcome in record.outcomes():
        try:
            done = [report.epoch for report in record.reports(outcome.number)]
        except InputError as error:
            wrong.append(str(error))
            continue
        if done != list(range(1, len(done) + 1)):
            wrong.append(f"trial {outcome.number} misses reports before epoch {max(done)}")
        wrong += _contradiction(outcome, record.plan)
    if not wrong:
        return [Finding("reports", "ok", "every state agrees with its reports")]
    fix = "these numbers are not to be trusted: search them again under another --study"
    return [Finding("reports", "wrong", text, fix) for text in wrong[:20]]


def _contradiction(outcome: Outcome, plan: StudyPlan) -> list[str]:
    run = ["COMPLETE", "RUNNING"]
    if plan.confirms is None:  # of a config that has left a race trials are PRUNED without a run
        run.append("PRUNED")
    if outcome.state in run and outcome.config is None:
        return [f"trial {outcome.number} is {outcome.state} and has no readable config"]
    if outcome.state == "COMPLETE" and outcome.config is not None:
        if outcome.epochs != outcome.config.epochs:
            return [
                f"trial {outcome.number} is COMPLETE after {outcome.epochs} of "
                f"{count_text(outcome.config.epochs, 'epoch')}"
            ]
        if outcome.value is None or outcome.report is None:
            return [f"trial {outcome.number} is COMPLETE without a value or a report"]
    return []


def _files(record: StudyRecord) -> Iterator[Finding]:
    """Checkpoints that waiting trials would go on from."""
    begun = [o for o in record.outcomes() if o.state == "WAITING" and o.epochs]
    missing, damaged, unread = [], [], []
    for outcome in begun:
        paths = [record.checkpoint(outcome.number)]
        paths += [checkpoints.before(paths[0])]
        there = [path for path in paths if path.exists()]
        try:
            if not there:
                missing.append(outcome.number)
            elif not any(map(_readable, there)):
                damaged.append(outcome.number)
        except checkpoints.UnreadableError as error:
            unread.append(str(error))
    fix = "see to the disk and its permissions: the trials fail till then, nothing is removed"
    yield from (Finding("begun trials", "wrong", text, fix) for text in unread[:20])
    if missing or damaged:
        text = f"of begun trials {_listed([*missing, *damaged])} cannot be read"
        yield Finding("begun trials", "note", text, "these start over, their reports are kept")
    elif not unread:
        yield Finding("begun trials", "ok", f"{len(begun)} wait with their checkpoints")


def _readable(path: Path) -> bool:
    """Whether a checkpoint is whole. Raises UnreadableError where the disk does not let it say."""
    try:
        checkpoints.read(path)
    except checkpoints.UnreadableError:
        raise
    except InputError:
        return False
    return True


def _listed(numbers: list[int]) -> str:
    text = ", ".join(str(number) for number in numbers[:10])
    return text if len(numbers) <= 10 else f"{text} and {len(numbers) - 10} more"
