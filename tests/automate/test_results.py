"""report, export, studies and dashboard, on a study that was made up."""

import csv
import io
import json

import pytest

from studies.record import StudyRecord
from studies.verdict import recommended, verdict
from tests.automate.conftest import Cli
from trainers.config import TrialConfig


def test_without_any_study_each_command_says_what_to_do(cli: Cli, tmp_path):
    for words in ("report", "export", "dashboard"):
        said = cli(words)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert "start one with `automate search`" in said.err
    said = cli("studies")
    assert (said.code, said.err) == (0, "")
    assert "automate search --space" in said.out
    assert cli("studies --json").out == "[]\n"
    assert not list(tmp_path.iterdir())


def test_report_is_written_and_its_verdict_said(cli: Cli, made: StudyRecord, tmp_path):
    said = cli("report")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("Report: runs/made-up/report.html\n")
    assert verdict(made.outcomes(), made.plan) in said.out
    assert "<html" in (tmp_path / "runs" / "made-up" / "report.html").read_text()
    assert cli("report", "made-up", "--out", "a b.html").code == 0
    assert (tmp_path / "a b.html").exists()


def test_report_as_json_is_alone_on_stdout(cli: Cli, made: StudyRecord):
    said = cli("report --json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    (study,) = found["studies"]
    taken = recommended(made.outcomes())
    assert taken is not None
    assert found["report"] == "runs/made-up/report.html"
    assert study["take"]["number"] == taken.number
    assert len(study["front"]) == made.plan.base.exits
    for row in study["front"]:
        assert row["best"] >= row["accuracy"]
        assert row["best"] >= row["reference"]


def test_export_writes_configs_that_can_be_read_back(cli: Cli, made: StudyRecord, tmp_path):
    said = cli("export --top 2")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:2] == [
        "runs/made-up/best/1.yaml",
        "runs/made-up/best/2.yaml",
    ]
    assert "automate train runs/made-up/best/1.yaml --seeds 3" in said.out
    assert len(list((tmp_path / "runs" / "made-up" / "best").iterdir())) == 2
    from studies.export import read_exported

    assert isinstance(read_exported(tmp_path / "runs/made-up/best/1.yaml")[0], TrialConfig)
    for words in ("export made-up --json", "export --study made-up --json"):
        found = json.loads(cli(words).out)
        assert found["study"] == "made-up"
        assert found["configs"][0] == "runs/made-up/best/1.yaml"


def test_a_study_exports_as_csv(cli: Cli, made: StudyRecord, tmp_path):
    said = cli("export --csv -")
    assert (said.code, said.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["number"] for row in rows] == [str(n) for n in range(made.plan.trials)]
    assert float(rows[0]["exit_4_accuracy"]) > 0.5
    assert not (tmp_path / "runs" / "made-up" / "best").exists()
    said = cli("export --csv trials.csv")
    assert said.out == "Trials: trials.csv\n"
    assert (tmp_path / "trials.csv").read_text() == cli("export --csv -").out
    assert "best/1.yaml" in cli("export --csv trials.csv --top 1").out


def test_studies_are_listed(cli: Cli, made: StudyRecord):
    said = cli("studies")
    assert (said.code, said.err) == (0, "")
    assert "made-up" in said.out
    assert "6 of 6" in said.out
    (study,) = json.loads(cli("studies --json").out)
    assert study["study"] == "made-up"
    assert sum(study["states"].values()) == 6
    assert study["plan"]["space"] == "diverse_alpha"


def test_studies_lie_where_one_says(cli: Cli, made: StudyRecord, tmp_path):
    (tmp_path / "runs").rename(tmp_path / "other runs")
    assert cli("report").code == 2
    said = cli("export", "--runs-dir", "other runs", "--json")
    assert json.loads(said.out)["configs"][0] == "other runs/made-up/best/1.yaml"
    url = f"sqlite:///{tmp_path}/other runs/made-up/study.db"
    assert json.loads(cli("studies", "--storage", url, "--json").out)[0]["study"] == "made-up"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("report made-down", "did you mean 'made-up'?"),
        ("report made-up [red]x", "study name '[red]x' cannot be used"),
        ("report --out .", "is a folder"),
        ("report --runs-dir file", "runs folder file cannot be read"),
        ("report --storage nonsense", "is no URL"),
        ("report --storage sqlite:///.", "is a folder"),
        ("export --top 0", "top needs to be at least 1"),
        ("export --top few", "expected a whole number, got 'few'"),
        ("export ../made-up", "cannot be used"),
        ("export --csv .", "cannot be written"),
        ("export --csv - --json", "both write to stdout: leave out one, or name a file"),
        ("export --csv no/such/folder.csv", "cannot be written"),
        ("studies --runs-dir file", "cannot be read"),
        ("dashboard made-down", "unknown study 'made-down'"),
        ("dashboard --port 0", "port needs to be from 1 to 65535, got 0"),
        ("dashboard --port 70000", "port needs to be from 1 to 65535"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, made: StudyRecord, tmp_path, words, said):
    (tmp_path / "file").touch()
    found = cli(words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err


def test_dashboard_serves_the_study_it_is_given(cli: Cli, made: StudyRecord, monkeypatch):
    served = []

    def serve(record: StudyRecord, host: str, port: int) -> None:
        served.append((record.name, host, port))
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.dashboard.serve", serve)
    said = cli("dashboard --port 9001")
    assert (said.code, said.err) == (0, "")
    assert served == [("made-up", "127.0.0.1", 9001)]
    assert "http://127.0.0.1:9001" in said.out
    assert "closed" in said.out
