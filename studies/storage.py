"""Where a study lies: URLs and SQLite files, opened with errors in one line and no password."""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, quote_plus

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from studies.database import Database
from trainers.catalog import InputError, shortened

ENVIRONMENT = "AUTOMATE_STORAGE"
DATABASE = "study.db"
SQLITE = b"SQLite format 3\0"
# Seconds that a writer waits for another one, e.g. for a note made in the dashboard.
BUSY = 60.0
# Seconds that a search waits for a server that went away, e.g. one that is started again.
PATIENCE = 120.0
# What storages raise when they fail.
DATABASE_FAILURES = (StorageInternalError, SQLAlchemyError, sqlite3.Error)
FAILURES = (*DATABASE_FAILURES, OSError, ImportError)

R = TypeVar("R")


class StorageError(InputError):
    """The storage cannot be reached, read or written; one line, no password."""


@dataclass(frozen=True)
class Place:
    """Where studies are stored.

    Attributes:
        label: For people: the URL or path without any password.
        url: For SQLAlchemy; None for a storage object made elsewhere.
        database: The file, of a SQLite storage.
        own: Whether that file is the study's own, `runs/<study>/study.db`.
    """

    label: str
    url: URL | None = field(default=None, repr=False)
    database: Path | None = None
    own: bool = False

    @property
    def secrets(self) -> set[str]:
        """Every spelling of every password in the URL."""
        if self.url is None:
            return set()
        found = [self.url.password] if self.url.password else []
        for name, values in self.url.query.items():
            if re.search("pass|pwd|secret|token|key", name, re.IGNORECASE):
                found += [values] if isinstance(values, str) else list(values)
        return {
            text
            for secret in found
            for text in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1])
        }

    def redact(self, text: str) -> str:
        """The text with *** for every password, those of other URLs too."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            # As letters of a word a short one gives nothing away, but hiding it there would.
            pattern = re.escape(secret)
            text = re.sub(pattern if len(secret) >= 4 else rf"(?<=[:=]){pattern}", "***", text)
        return re.sub(r"(\w://[^\s:/@]*):\S*@", r"\1:***@", text)


def place(storage: str | BaseStorage | None, runs: Path, study: str | None) -> Place:
    """Where to look: what was given, else $AUTOMATE_STORAGE, else `runs/<study>/study.db`.

    Raises:
        InputError: No URL, or one of a database that Optuna cannot use.
    """
    if isinstance(storage, RDBStorage) and storage.engine.url.get_backend_name() != "sqlite":
        url = storage.engine.url  # of a server: it is waited for
        return Place(Place("", url).redact(url.render_as_string(hide_password=True)), url)
    if isinstance(storage, BaseStorage):
        return Place(type(storage).__name__)
    storage = storage or os.environ.get(ENVIRONMENT)
    if not storage:
        database = (runs / (study or "") / DATABASE).absolute()
        return Place(str(runs / (study or "") / DATABASE), URL.create("sqlite"), database, own=True)
    scheme, found, _ = storage.partition("://")
    if not found:
        raise InputError(
            f"storage {storage[:80]!r} is no URL: take e.g. sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    try:
        url = make_url(storage)
        if url.drivername in ("postgresql", "postgres"):
            driver = "psycopg" if find_spec("psycopg") else "psycopg2"
            url = url.set(drivername=f"postgresql+{driver}")
        url.get_dialect()
    except (ArgumentError, ValueError, NoSuchModuleError):
        # The message may hold the whole URL, and with it a password.
        raise InputError(
            f"storage {scheme[:30]}://... is no URL of a database that Optuna can use: take e.g. "
            "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    label = Place("", url).redact(url.render_as_string(hide_password=True))
    if url.get_backend_name() != "sqlite":
        return Place(label, url)
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InputError(f"storage {label} needs a file: sqlite:///FILE")
    return Place(label, url, Path(url.database).absolute())


@contextmanager
def one_line_errors(where: Place) -> Iterator[None]:
    """Turns what a storage raises into one `StorageError` line without passwords."""
    try:
        yield
    except FAILURES as error:
        said = where.redact(" ".join(_cause(error).split()))
        raise StorageError(f"storage {where.label}: {shortened(said)}") from None


def patiently(where: Place, call: Callable[[], R], patience: float | None = None) -> R:
    """What the call returns, called again for so long while a server is away.

    Args:
        where: A SQLite file or a storage in memory is never away.
        call: May be called again after it failed in the middle.
        patience: Seconds; `PATIENCE` if not given.
    """
    end, pause = time.monotonic() + (PATIENCE if patience is None else patience), 0.1
    while True:
        try:
            return call()
        except DATABASE_FAILURES as error:
            server = where.url is not None and where.database is None
            if not server or not _is_away(error) or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _is_away(error: BaseException | None) -> bool:
    """Whether a connection broke or was refused, not a statement."""
    while isinstance(error, StorageInternalError):
        error = error.__cause__
    # The last is what a session says that was broken while it was in a transaction: the storage
    # has rolled it back by then.
    return isinstance(error, OperationalError | InterfaceError | PendingRollbackError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _cause(error: BaseException) -> str:
    """What the database itself said, without the statement and its data."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(error.orig)
    if isinstance(error, ModuleNotFoundError):
        needed = str(error.name)
        extra = ": pip install 'mate-automate[postgres]'" if needed.startswith("psycopg") else ""
        return f"needs the package {needed}{extra}"
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return str(error)


def make_folder(folder: Path) -> None:
    """The folder, made if it is not there and writable. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} cannot be a folder: a file is in the way") from None
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"folder {folder} cannot be written: take another --runs-dir")


def _check_file(where: Place, database: Path) -> None:
    """That a file can be the study's database. Raises InputError."""
    if database.is_dir():
        raise InputError(f"{where.label} is a folder, expected a SQLite file")
    try:
        with database.open("rb") as file:
            head = file.read(len(SQLITE))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{where.label} cannot be read: {error.strerror}") from None
    if head and head != SQLITE:
        raise InputError(f"{where.label} is no SQLite file: move it away, or take another --study")
    if not os.access(database, os.W_OK):
        raise InputError(f"{where.label} cannot be written")


def holds_studies(where: Place) -> bool:
    """Whether a SQLite file is there and has Optuna's tables; looks without changing it."""
    assert where.database is not None
    _check_file(where, where.database)
    if not where.database.exists():
        return False
    with one_line_errors(where), looked_at(where.database) as file:
        query = "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('studies', 'trials')"
        return bool(file.execute(query).fetchone()[0] == 2)


@contextmanager
def looked_at(database: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite file opened to read.

    Where a process was killed while it made the file, or wrote without WAL, somebody who may write
    has to roll that back before anybody can read: then that is done here.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    for mode in ("ro", "rw"):
        file = sqlite3.connect(f"{database.as_uri()}?mode={mode}", uri=True, timeout=BUSY)
        try:
            try:
                file.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                if mode == "ro" and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                    continue
                raise
            yield file
            return
        finally:
            file.close()


def connect(where: Place) -> Database:
    """The storage, its tables made where there are none.

    Raises:
        InputError: A file that cannot be one, a server that does not answer, a missing package, or
            tables of another version of Optuna.
    """
    assert where.url is not None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it prints a line for every study and trial
    url = where.url.render_as_string(hide_password=False)
    options: dict[str, object] = {"pool_pre_ping": True}
    if where.database is not None:
        _check_file(where, where.database)
        url, path = "sqlite:///study.db", where.database  # the path itself may hold a % or {

        def open_file() -> sqlite3.Connection:
            file = sqlite3.connect(path, timeout=BUSY, check_same_thread=False)
            # Readers and the writer do not wait for each other. NORMAL survives a killed process;
            # a power cut may take the last reports, which their checkpoints then give again.
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")
            return file

        options = {"creator": open_file}
    elif where.url.drivername == "postgresql+psycopg":
        options["connect_args"] = {"connect_timeout": 10}
    with one_line_errors(where):
        for attempts_left in (2, 1, 0):
            try:
                # Optuna fills templates in URLs: a brace is doubled to stay one.
                return Database(url.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
            except SQLAlchemyError as error:
                # Two drivers that make the tables of a new database at once: one finds them made.
                if not attempts_left or "already exists" not in _cause(error):
                    raise
                time.sleep(0.5)
            except RuntimeError as error:
                text = " ".join(where.redact(str(error)).split())
                raise StorageError(f"storage {where.label}: {text}") from None
    raise AssertionError
