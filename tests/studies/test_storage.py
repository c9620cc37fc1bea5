import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from sqlalchemy.exc import ArgumentError, OperationalError, PendingRollbackError

from studies.record import StudyRecord
from studies.storage import (
    StorageError,
    connect,
    holds_studies,
    one_line_errors,
    patiently,
    place,
)
from tests.studies.example import make_plan, make_report, run, run_all
from trainers.catalog import InputError

SECRET = "h3mlich%40&/ x"
QUOTED = "h3mlich%2540%26%2F%20x"


def opening(folder: Path, storage: str | None = None) -> StudyRecord:
    return StudyRecord.create_or_open(make_plan(folder), storage=storage, runs=folder / "runs")


def test_the_default_is_a_database_in_the_studys_folder_in_wal_mode(tmp_path):
    record = opening(tmp_path)
    database = tmp_path / "runs" / "tried" / "study.db"
    assert record.place.database == database and record.folder == database.parent
    file = sqlite3.connect(database)
    assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()
    record.close()


def test_a_relative_runs_folder_is_held_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = StudyRecord.create_or_open(make_plan(tmp_path), runs=Path("runs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    record._direct.engine.dispose()
    run_all(record)
    assert not any((tmp_path / "elsewhere").iterdir())
    assert record.checkpoint(0).is_absolute()
    record.close()


@pytest.mark.parametrize("name", ["100% {x}", "a?b#c", "ä ö"])
def test_folders_of_any_name_work(name, tmp_path):
    runs = tmp_path / name
    record = StudyRecord.create_or_open(make_plan(tmp_path), runs=runs)
    record.close()
    assert StudyRecord.open("tried", runs=runs).outcomes()[0].state == "WAITING"
    url = f"sqlite:///{tmp_path}/{'other {y} %.db'}"
    other = StudyRecord.create_or_open(make_plan(tmp_path), storage=url, runs=runs)
    assert (tmp_path / "other {y} %.db").stat().st_size > 0
    other.close()


def test_a_sqlite_url_has_one_driver_too(tmp_path):
    url = f"sqlite:///{tmp_path}/deep/all.db"
    record = opening(tmp_path, url)
    ticket = record.ask()
    assert ticket is not None
    with pytest.raises(InputError, match="being searched by this process"):
        StudyRecord.create_or_open(make_plan(tmp_path), url, tmp_path / "other runs")
    run(record, ticket)
    record.close()


def test_the_environment_names_a_storage_and_the_flag_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMATE_STORAGE", f"sqlite:///{tmp_path}/environment.db")
    record = opening(tmp_path)
    assert record.place.database == tmp_path / "environment.db"
    record.close()
    record = opening(tmp_path, f"sqlite:///{tmp_path}/flag.db")
    assert record.place.database == tmp_path / "flag.db"
    record.close()


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("runs/x.db", "is no URL: take e.g. sqlite:///FILE"),
        ("sqlite://", "needs a file: sqlite:///FILE"),
        ("sqlite:///:memory:", "needs a file: sqlite:///FILE"),
        (f"redis://me:{QUOTED}@localhost", "redis://... is no URL of a database that Optuna"),
        (f"postgresql://me:{QUOTED}@host:port/x", "postgresql://... is no URL of a database"),
        (f"nonsense://{SECRET}", "nonsense://... is no URL of a database"),
    ],
)
def test_what_is_no_storage_is_refused_without_its_password(storage, said, tmp_path):
    with pytest.raises(InputError) as caught:
        opening(tmp_path, storage)
    assert said in str(caught.value)
    assert "h3mlich" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:{QUOTED}@127.0.0.1:1/automate",
        f"postgresql+psycopg://me@127.0.0.1:1/automate?password={QUOTED}",
        f"postgresql://me:{QUOTED}@127.0.0.1:1/automate?application_name=x",
        f"mysql+pymysql://me:{QUOTED}@127.0.0.1:1/automate",
    ],
)
def test_a_server_that_does_not_answer_is_one_line_without_its_password(url, tmp_path, capfd):
    with pytest.raises(InputError) as caught:
        opening(tmp_path, url)
    text = f"{caught.value}{''.join(capfd.readouterr())}{caught.value.__cause__}"
    assert "127.0.0.1" in text
    assert "h3mlich" not in text and "\n" not in str(caught.value)
    assert "h3mlich" not in repr(place(url, tmp_path, "tried"))
    for path in (tmp_path / "runs").rglob("*"):
        assert path.is_dir() or b"h3mlich" not in path.read_bytes()


@pytest.mark.parametrize("secret", ["p4ss", "x", "ß%", "a/b:c@d", "p{0}d"])
def test_every_spelling_of_a_password_is_taken_out(secret, tmp_path):
    from sqlalchemy.engine import URL

    url = URL.create("postgresql+psycopg", "me", secret, "host", database="d")
    where = place(url.render_as_string(hide_password=False), tmp_path, None)
    assert where.url is not None and where.url.password == secret
    assert where.label == "postgresql+psycopg://me:***@host/d"
    spelled = url.render_as_string(hide_password=False)
    for text in (
        f"password={secret} failed",
        f"no route to {spelled}",
        f"{{'password': {secret!r}",
    ):
        assert f"={secret} " not in where.redact(text)
        assert f":{secret}@" not in where.redact(text) and spelled not in where.redact(text)
    if len(secret) > 3:
        assert secret not in where.redact(f"a {secret} b")


def broken(kind: str, runs: Path) -> None:
    """Puts something in the way of `runs/tried/study.db`."""
    database = runs / "tried" / "study.db"
    if kind == "runs is a file":
        runs.write_text("x")
        return
    runs.mkdir()
    if kind == "study is a file":
        (runs / "tried").write_text("x")
        return
    (runs / "tried").mkdir()
    if kind == "database is a folder":
        database.mkdir()
    elif kind == "database is text":
        database.write_text("something else entirely\n" * 10)
    elif kind == "database is damaged":
        database.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("runs is a file", "cannot be a folder: a file is in the way"),
        ("study is a file", "cannot be a folder: a file is in the way"),
        ("database is a folder", "is a folder, expected a SQLite file"),
        ("database is text", "is no SQLite file: move it away, or take another --study"),
        ("database is damaged", "storage .*study.db: (file is not a database|.*malformed)"),
    ],
)
def test_what_is_in_the_way_is_said_in_one_line(kind, said, tmp_path):
    runs = tmp_path / "runs"
    broken(kind, runs)
    with pytest.raises(InputError, match=said) as caught:
        opening(tmp_path)
    assert "\n" not in str(caught.value)
    if kind.startswith("database"):
        with pytest.raises(InputError, match=said):
            StudyRecord.open("tried", runs=runs)


@pytest.mark.parametrize("kind", ["database is text", "database is a folder"])
def test_starting_over_does_not_delete_what_is_no_study(kind, tmp_path):
    broken(kind, tmp_path / "runs")
    with pytest.raises(InputError):
        StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path / "runs", fresh=True)
    assert (tmp_path / "runs" / "tried" / "study.db").exists()


def test_starting_over_replaces_a_damaged_database(tmp_path):
    broken("database is damaged", tmp_path / "runs")
    record = StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path / "runs", fresh=True)
    assert len(record.outcomes()) == 6
    record.close()


@pytest.mark.parametrize("refused", ["folder", "database"])
def test_a_folder_or_database_that_cannot_be_written_is_one_line(refused, tmp_path, monkeypatch):
    opening(tmp_path).close()
    name = {"folder": "tried", "database": "study.db"}[refused]
    real = os.access
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != name and real(path, mode)
    )
    advice = {"folder": "take another --runs-dir", "database": ""}[refused]
    with pytest.raises(InputError, match=f"cannot be written.*{advice}$"):
        opening(tmp_path)


def test_an_empty_database_is_a_new_one(tmp_path):
    (tmp_path / "runs" / "tried").mkdir(parents=True)
    (tmp_path / "runs" / "tried" / "study.db").touch()
    record = opening(tmp_path)
    assert len(record.outcomes()) == 6
    record.close()


def test_a_database_of_another_version_of_optuna_is_one_line(tmp_path):
    opening(tmp_path).close()
    file = sqlite3.connect(tmp_path / "runs" / "tried" / "study.db")
    file.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")
    file.commit()
    file.close()
    with pytest.raises(StorageError, match="no longer compatible with the table schema") as caught:
        opening(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failing_database_is_one_line_and_the_trial_is_not_lost(tmp_path):
    plan = make_plan(tmp_path, base={"epochs": 10_000})
    record = StudyRecord.create_or_open(plan, runs=tmp_path / "runs")
    ticket = record.ask()
    assert ticket is not None and record.report(ticket, make_report(1, 0.5))
    record._direct.engine.dispose()
    file = sqlite3.connect(tmp_path / "runs" / "tried" / "study.db")
    pages = file.execute("PRAGMA page_count").fetchone()[0]

    # The disk is full: SQLite is allowed no more pages.
    from sqlalchemy import event

    @event.listens_for(record._direct.engine, "connect")
    def full(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StorageError, match="database or disk is full") as caught:
        for epoch in range(2, 10_000):
            assert record.report(ticket, make_report(epoch, 0.5))
    assert "\n" not in str(caught.value) and "INSERT" not in str(caught.value)
    record.close()
    again = StudyRecord.create_or_open(plan, runs=tmp_path / "runs")
    next_ticket = again.ask()
    assert next_ticket is not None and (next_ticket.number, next_ticket.attempt) == (0, 2)
    assert next_ticket.epochs_done == record.outcome(0).epochs > 1
    again.close()
    file.close()


def test_a_storage_that_cannot_even_take_trials_back_lets_go_of_the_lock(tmp_path, monkeypatch):
    record = opening(tmp_path)
    assert record.ask() is not None

    def failing(*_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(record._storage, "set_trial_state_values", failing)
    record.close()
    again = opening(tmp_path)
    assert [outcome.state for outcome in again.outcomes()] == ["WAITING"] * 6
    again.close()


def test_a_study_deleted_while_it_is_searched_is_one_line(tmp_path):
    record = opening(tmp_path)
    ticket = record.ask()
    assert ticket is not None
    other = connect(record.place)
    other.delete_study(other.get_study_id_from_name("tried"))
    with pytest.raises(StorageError, match="was deleted while it was searched"):
        record.report(ticket, make_report(1, 0.5))
    record._held.clear()
    record.close()


def test_a_transaction_that_a_server_broke_is_tried_again(tmp_path):
    where = place("postgresql://user@127.0.0.1/none", tmp_path, "tried")
    broken = [PendingRollbackError("rollback() first"), OperationalError("", {}, Exception())]

    def call() -> str:
        if broken:
            raise StorageInternalError("it failed") from broken.pop()
        return "done"

    assert patiently(where, call, patience=60.0) == "done"
    broken.append(ArgumentError("no such column"))
    with pytest.raises(StorageInternalError):
        patiently(where, call, patience=60.0)


def test_errors_of_the_user_pass_unchanged(tmp_path):
    error = InputError("one thing")
    with pytest.raises(InputError) as caught, one_line_errors(place(None, tmp_path, "x")):
        raise error
    assert caught.value is error


def test_a_storage_object_can_be_given(tmp_path):
    record = StudyRecord.create_or_open(make_plan(tmp_path), InMemoryStorage(), tmp_path)
    assert record.place.label == "InMemoryStorage"
    run_all(record)
    record.close()
    assert record.outcomes()[0].state == "COMPLETE"


KILLED = """
import os, sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("CREATE TABLE studies (x)")
file.execute("CREATE TABLE trials (x)")
file.execute("PRAGMA cache_size = 1")
file.execute("BEGIN")
for _ in range(100):
    file.execute("INSERT INTO trials VALUES (randomblob(4000))")
os._exit(9)
"""


def test_a_database_that_a_killed_process_left_half_written_is_read(tmp_path):
    """As on its way to WAL mode: before it is rolled back nobody can only read it."""
    where = place(None, tmp_path, "s")
    assert where.database is not None
    where.database.parent.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(where.database)], timeout=60)
    with (
        closing(sqlite3.connect(f"{where.database.as_uri()}?mode=ro", uri=True)) as file,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        file.execute("SELECT * FROM studies")
    assert holds_studies(where)
    with closing(sqlite3.connect(where.database)) as file:
        assert file.execute("SELECT COUNT(*) FROM trials").fetchone() == (0,)
