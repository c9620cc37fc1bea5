"""`automate calibrate` on the digits: trained, gone on with, read, and taken by the next search."""

import json
from contextlib import closing

import pytest

from studies.calibrating import KEPT, calibration_plan
from studies.machine import Speed
from studies.record import StudyRecord
from tests.automate.conftest import Cli
from tests.studies import made_up

SMALL = "--epochs 3 --limit-train 160 --workers 1 --threads 1 --precision fp32"
CALIBRATE = f"calibrate --dataset digits --configs 5 --seeds 2 {SMALL}"
SEARCH = f"search --space diverse_alpha --dataset digits --trials 4 {SMALL}"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known speed, and no report: that is tested elsewhere."""
    monkeypatch.setattr("studies.machine.measure", lambda *_: Speed(1000.0, 1))
    monkeypatch.setattr("studies.report.write_report", lambda records, path: path)


def test_from_the_first_config_to_the_next_search(cli: Cli, tmp_path):
    planned = cli(f"{CALIBRATE} --dry-run")
    assert planned.code == 0 and not (tmp_path / "runs").exists()
    assert "10: 5 configs spread out over diverse_alpha, seeds of each: 2, from 0" in planned.out
    before = json.loads(cli(f"{SEARCH} --dry-run --json").out)["plan"]
    assert (before["calibrated"], before["grace"]) == (None, 1)

    said = cli(CALIBRATE)
    assert said.code == 0, said.err
    for part in (
        "5 configs of diverse_alpha, each with 2 seeds, ran all 3 epochs",
        "Two runs of one config that differ in their seed alone scatter by",
        "The next search of these settings, if its study is digits-cnn4-diverse_alpha,",
        "Report: runs/digits-cnn4-diverse_alpha-calibrate/report.html",
    ):
        assert part in " ".join(said.out.split()), part

    found = json.loads(cli(f"{CALIBRATE} --json").out)
    words = " ".join(said.out.split())
    assert found["flags"] in words and "judged the plain weights and their moving average" in words
    assert "The average changes the end by" in words
    rule = found["other_chosen" if found["averaged"] else "chosen"]["rule"]
    after = json.loads(cli(f"{SEARCH} --dry-run --json").out)["plan"]
    assert after["calibrated"] == "digits-cnn4-diverse_alpha-calibrate"
    assert [after[name] for name in rule] == list(rule.values())
    told = json.loads(cli(f"{SEARCH} --dry-run --json --grace 2").out)["plan"]
    assert (told["calibrated"], told["grace"]) == (None, 2)
    averaged = json.loads(cli(f"{SEARCH} --dry-run --json --ema 0.99").out)["plan"]
    assert averaged["calibrated"] == "digits-cnn4-diverse_alpha-calibrate"

    # a report of it says the same, and recommends no run
    name = "digits-cnn4-diverse_alpha-calibrate"
    told_again = cli(f"report {name}").out
    assert "The order of the configs against that of the end (" in told_again
    assert said.out.split("Report:")[0].endswith(told_again.split("Report:")[0].split("\n", 1)[1])
    assert "Take trial" not in told_again and "network to take" not in told_again
    (study,) = json.loads(cli(f"report {name} --json").out)["studies"]
    assert study["calibration"]["by_epoch"] == found["by_epoch"]
    assert "take" not in study and found["flags"] in " ".join(study["sentences"])

    # a search that stopped trials has its calibration beside it; what ran in full is only read
    searched = cli(f"{SEARCH} --quiet")
    assert searched.code == 0, searched.err
    of_search = cli("calibrate digits-cnn4-diverse_alpha --json")
    assert json.loads(of_search.out)["flags"] == found["flags"]
    read = cli("calibrate digits-cnn4-diverse_alpha-calibrate --json")
    assert json.loads(read.out)["by_epoch"] == found["by_epoch"]
    refused = cli("calibrate digits-cnn4-diverse_alpha --epochs 5")
    assert refused.code == 2 and "brings its own settings" in refused.err


def test_a_report_of_a_calibration_that_has_not_run_says_why_it_is_empty(cli: Cli, tmp_path):
    plan = calibration_plan(made_up.plan(study="early", base={"epochs": 3}), 5, 2)
    StudyRecord.create_or_open(plan, runs=tmp_path / "runs").close()
    said = cli("report")
    assert (said.code, said.err) == (0, "")
    assert "has 0 configs of full length" in said.out
    (study,) = json.loads(cli("report --json").out)["studies"]
    assert study["calibration"] is None and "0 configs" in study["sentences"][0]


def test_a_dry_run_of_a_study_that_ran_in_full_keeps_and_writes_nothing(
    cli: Cli, tmp_path, monkeypatch
):
    written: list[object] = []
    monkeypatch.setattr("studies.report.write_report", lambda *given: written.append(given))
    plan = made_up.plan(trials=6, base={"epochs": 3}, grace=3, early_stopping=False, study="full")
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path / "runs")) as record:
        made_up.search(record)
        said = cli("calibrate full --dry-run")
        assert (said.code, said.err) == (0, "")
        assert said.out == "full: 6 runs of full length are read, nothing is trained\n"
        assert json.loads(cli("calibrate full --dry-run --json").out)["left"] is None
        assert record.noted(KEPT) is None and not written
        cli("calibrate full")
        assert record.noted(KEPT) is not None and written


def test_the_next_search_for_a_front_takes_its_own_calibration(cli: Cli):
    small = SMALL.replace("--epochs 3", "--epochs 2 --dataset digits")
    said = cli(f"calibrate --configs 5 --seeds 1 {small} --objective front --json")
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["by_epoch"][0]["tau_of_exits"]) == 4
    search = f"search --space diverse_alpha {small} --dry-run --json"
    taken = json.loads(cli(f"{search} --objective front").out)["plan"]
    assert taken["calibrated"] == "digits-cnn4-diverse_alpha-calibrate"
    assert json.loads(cli(search).out)["plan"]["calibrated"] is None
