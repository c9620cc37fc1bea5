"""The machine and a study looked over."""

import importlib.metadata
import sqlite3
from contextlib import closing

import pytest

from studies import doctor
from studies.cleaning import needless
from studies.drivers import Driver
from studies.record import StudyRecord
from tests.studies.example import make_plan, make_report, run
from trainers import checkpoints


@pytest.fixture
def made(tmp_path):
    """One complete trial, one begun and given back, and one whose driver died."""
    dead = Driver(f"{Driver().name.split(':')[0]}:4194303:1:1")
    record = StudyRecord.create_or_open(
        make_plan(tmp_path, trials=5, early_stopping=False), runs=tmp_path / "runs", driver=dead
    )
    tickets = [record.ask() for _ in range(3)]
    run(record, tickets[0])
    for ticket in tickets[1:]:
        record.report(ticket, make_report(1, 0.5))
        checkpoints.write(record.checkpoint(ticket.number), {"n": 1})
    record.give_back(tickets[1])
    record._lock.release()  # as its process died
    return record


def verdicts(findings):
    return {finding.what: finding.verdict for finding in findings}


def look(tmp_path, **fields):
    return doctor.study("tried", runs=tmp_path / "runs", **fields)


def test_a_study_is_mended_and_a_copy_kept(made, tmp_path):
    assert verdicts(look(tmp_path, mend=False))["ghosts"] == "wrong"
    assert made.outcome(2).state == "RUNNING"
    checkpoints.write(made.checkpoint(0), {"n": 1})
    found = verdicts(look(tmp_path))
    assert found["ghosts"] == found["checkpoints"] == "mended"
    assert found["database"] == found["reports"] == found["begun trials"] == "ok"
    (kept,) = (tmp_path / "runs" / "tried").glob("*.copy")
    assert sqlite3.connect(kept).execute("SELECT COUNT(*) FROM trials").fetchone() == (5,)
    with closing(StudyRecord.open("tried", runs=tmp_path / "runs")) as record:
        assert [o.state for o in record.outcomes()] == ["COMPLETE"] + ["WAITING"] * 4
        assert not record.checkpoint(0).exists() and record.checkpoint(2).exists()
    assert set(verdicts(look(tmp_path)).values()) == {"ok"}


def test_a_damaged_database_is_said_with_what_mends_it(made, tmp_path):
    made.close()
    database = tmp_path / "runs" / "tried" / "study.db"
    sqlite3.connect(database).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database.read_bytes())
    content[4096 * 3 : 4096 * 9] = bytes(4096 * 6)
    database.write_bytes(bytes(content))
    (finding,) = look(tmp_path)
    assert finding.verdict == "wrong" and ".recover" in finding.fix
    assert "\n" not in finding.text


def test_states_that_contradict_their_reports_are_said(made, tmp_path):
    made.close()
    file = sqlite3.connect(tmp_path / "runs" / "tried" / "study.db")
    file.execute("DELETE FROM trial_system_attributes WHERE key = 'report:2' AND trial_id = 1")
    file.commit()
    file.close()
    found = [f for f in look(tmp_path) if f.what == "reports"]
    assert [f.verdict for f in found] == ["wrong"]
    assert "trial 0 misses reports" in found[0].text


def test_begun_trials_without_a_readable_checkpoint_are_said(made, tmp_path):
    made.checkpoint(1).write_bytes(b"x")
    look(tmp_path)
    (finding,) = [f for f in look(tmp_path) if f.what == "begun trials"]
    assert finding.verdict == "note" and "trials 1" in finding.text


def test_a_checkpoint_that_the_disk_does_not_give_is_wrong_and_stays(made, tmp_path):
    path = made.checkpoint(1)
    path.unlink()
    path.mkdir()  # reads as a disk that fails does: with an OSError
    (finding,) = [f for f in look(tmp_path) if f.what == "begun trials"]
    assert finding.verdict == "wrong" and "cannot be read: Is a directory" in finding.text
    assert path.exists()


def test_needless_files_are_those_of_ended_trials(made, tmp_path):
    checkpoints.write(made.checkpoint(0), {"n": 1})
    half = made.checkpoint(1).with_name(".checkpoint.pt.abc")
    half.touch()
    assert needless(made) == [made.checkpoint(0).parent, half]


def test_the_machine_is_looked_over(tmp_path):
    found = doctor.machine(tmp_path / "runs", data_root=str(tmp_path))
    names = verdicts(found)
    assert names["python"] == names["packages"] == names["runs"] == "ok"
    assert names["storage"] == "ok"
    (data,) = [finding for finding in found if finding.what == "data"]
    assert data.text.startswith("digits (")


def test_a_torchvision_of_another_torch_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch==1.0.0"])
    (wrong,) = [f for f in doctor._versions() if f.verdict == "wrong"]
    assert "built for torch 1.0.0" in wrong.text and "pip install" in wrong.fix
