"""`automate replay` on files and studies."""

import json

import pytest

from automate.main import run
from studies.curve_tables import read_table, shipped
from studies.record import StudyRecord
from tests.studies import made_up_curves
from tests.studies.example import make_plan, run_all


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setattr("studies.machine.cores", lambda: 1)


def test_a_file(tmp_path, capsys, one_process):
    path = made_up_curves.table(configs=16).write(tmp_path / "made-up.npz")
    words = ["replay", str(path), "--repetitions", "4", "--workers", "1,8", "--trials", "6"]
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert "made-up: 16 configs of diverse_alpha, 5 seeds, 12 epochs" in out
    assert out.count("tpe, eta 2, grace 4") >= 2
    assert "random, full length" in out
    assert "Searching 6 of the table's 16 configs" in out
    assert "replaying tpe" in err
    assert run([*words, "--rungs", "5,9", "--quiet"]) == 0
    assert "tpe, eta 2, rungs 5 9" in capsys.readouterr().out
    assert run([*words, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert err == ""
    assert [row["workers"] for row in content["rows"]] == [1, 8]
    assert content["random_full_length"]["epochs"]["median"] == 72


def test_what_is_left_out_of_a_study_is_said(tmp_path, capsys, one_process):
    record = StudyRecord.create_or_open(make_plan(tmp_path, early_stopping=False), runs=tmp_path)
    record.fail(record.ask(), "out of memory")
    run_all(record)
    record.close()
    words = ["replay", "tried", "--runs-dir", str(tmp_path), "--repetitions", "2", "--trials", "2"]
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert "tried: 5 configs" in out and "1 of tried's trials are left out: they failed" in err


def test_a_study_and_its_table_for_others(tmp_path, capsys, one_process):
    plan = make_plan(tmp_path, early_stopping=False)
    record = StudyRecord.create_or_open(plan, runs=tmp_path)
    run_all(record)
    record.close()
    words = ["replay", "tried", "--runs-dir", str(tmp_path), "--repetitions", "2", "--trials", "3"]
    assert run([*words, "--save", str(tmp_path / "mine.npz")]) == 0
    assert "luck is not counted" in capsys.readouterr().out
    assert read_table(str(tmp_path / "mine.npz")).configs == 6


@pytest.mark.parametrize("name", shipped())
def test_tables_that_come_with_automate(name, capsys, one_process):
    assert run(["replay", name, "--repetitions", "2", "--trials", "4", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"{name}: " in out
    assert "most of what a search sees is luck" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.npz"], "none.npz cannot be read"),
        (["nothing"], "unknown table or study 'nothing': known are digits, "),
        (["x.npz", "--workers", "1,many"], "expected whole numbers"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert run(["replay", *words]) == 2
    _, err = capsys.readouterr()
    assert message in err
    assert len(err.splitlines()) == 1
