"""`automate search` from the plan to the front, on the digits."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection

from search_spaces import load_space
from studies.export import read_exported
from studies.front import deployable
from studies.machine import Speed
from studies.making import MADE
from studies.record import StudyRecord
from studies.report import write_report
from studies.storage import StorageError, connect, place
from studies.trial import Event
from studies.verdict import curves, states_text
from tests.automate.conftest import Cli
from tests.studies import made_up
from trainers.config import TrialConfig

ROOT = Path(__file__).parents[2]
QUICK = "--workers 1 --threads 1"
TINY = f"search --space diverse_alpha --trials 3 --epochs 2 {QUICK}"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known speed."""
    monkeypatch.setattr("studies.machine.measure", lambda *_: Speed(1000.0, 1))
    monkeypatch.setattr(
        "studies.machine.measure_precisions", lambda *_: {"fp32": 1000.0, "bf16": 900.0}
    )


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that run to their end without any training, and no report."""

    def run(config: TrialConfig, **_: object) -> Iterator[object]:
        return made_up.trained(config, seed=round(config.alpha[0] * 1000))

    monkeypatch.setattr("studies.trial.run", run)
    monkeypatch.setattr("studies.report.write_report", lambda records, path: path)


def test_dry_run_tells_the_plan_and_makes_nothing(cli: Cli, tmp_path):
    said = cli(f"search --space diverse_alpha --trials 30 --alpha 30 5 10 10 --dry-run {QUICK}")
    assert (said.code, said.err) == (0, "")
    for part in (
        "digits-cnn4-diverse_alpha",
        "runs/digits-cnn4-diverse_alpha/study.db",
        "30 trials, tpe (seed 0)",
        "trains on 180 images, scored on 717 others (one is 0.139 points), the test images stay ",
        "alpha 30 5 10 10",
        "after epoch 10, 20: the best 1 in 2 goes on",
        "1 worker, 1 thread a trial, fast kernels, fp32",
        "900 epochs, 6 min 40 s (1,000 images/s a worker), ",
        " of checkpoints at a time",
    ):
        assert part in said.out, part
    assert not list(tmp_path.iterdir())
    said = cli(f"search --space diverse_alpha --rungs 16,23 --eta 4 --dry-run {QUICK}")
    assert "after epoch 16, 23: the best 1 in 4 goes on" in said.out
    said = cli(f"search --space diverse_alpha --limit-train 50 --dry-run {QUICK}")
    assert "trains on 50 images, scored on 717 others" in said.out


def test_dry_run_as_json(cli: Cli, tmp_path):
    said = cli(f"search --space temperature --sampler grid --t-squared --json --dry-run {QUICK}")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["plan"]["base"]["t_squared"] is True
    assert found["plan"]["sampler"] == "grid"
    assert found["goes_on_from"] is None
    assert found["estimate"]["epochs"] == 30 * found["plan"]["trials"]
    assert (found["estimate"]["trained"], found["estimate"]["scored"]) == (180, 717)
    assert "stored in" in said.err
    assert not list(tmp_path.iterdir())


def test_a_users_space_of_any_name_is_printed_as_it_is(cli: Cli, tmp_path):
    space = tmp_path / "[red]x.py"
    space.write_text((ROOT / "search_spaces" / "diverse_alpha.py").read_text())
    said = cli("search", "--space", "./[red]x.py", "--dry-run", *QUICK.split())
    assert (said.code, said.err) == (0, "")
    assert "/[red]x.py: One" in said.out
    assert "digits-cnn4-red_x" in said.out


def test_a_search_ends_with_front_verdict_report_and_what_is_next(
    cli: Cli, untrained, monkeypatch, tmp_path
):
    monkeypatch.setattr("studies.report.write_report", write_report)
    said = cli(f"{TINY} --study mine")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert sum(bool(re.match(r"trial \d (complete|stopped early) after", x)) for x in lines) == 3
    assert "3 of 3 trials done" in said.out
    assert "network to take (trial " in said.out
    assert "n = 1, unconfirmed" in said.out
    folder = tmp_path / "runs" / "mine"
    assert (folder / "report.html").stat().st_size > 10_000
    after = lines[lines.index("Next:") + 1 :]
    assert after == [
        "  automate report mine",
        "  automate dashboard mine",
        "  automate export mine --top 3",
        "  automate train runs/mine/best/1.yaml --seeds 3",
    ]
    for line in (after[0], after[2]):  # they are commands that work
        assert cli(line.strip().removeprefix("automate ")).code == 0
    assert (folder / "best" / "1.yaml").exists()


def test_the_same_command_again_says_that_all_is_done(cli: Cli, untrained, monkeypatch):
    assert cli(TINY).code == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished study was driven again")

    monkeypatch.setattr("studies.search.drive", never)
    said = cli(TINY)
    assert (said.code, said.err) == (0, "")
    assert "All 3 trials of study digits-cnn4-diverse_alpha have ended" in said.out
    assert "--trials 6" in said.out
    assert "network to take" in said.out
    # the number of trials that was once said is kept
    assert "All 3 trials" in cli(TINY.replace("--trials 3", "")).out


def test_a_total_below_what_the_study_has_is_told_what_there_is(cli: Cli, untrained):
    six = TINY.replace("--trials 3", "--trials 6")
    assert cli(six).code == 0
    with closing(StudyRecord.open()) as record:
        counts = states_text(record.outcomes())
    said = cli(TINY)
    assert said.code == 0 and f"goes on from  {counts}" in re.sub(r" {2,}", "  ", said.out)
    assert "All 6 trials of study digits-cnn4-diverse_alpha have ended" in said.out
    assert "e.g. --trials 12." in said.out
    dry = cli(f"{six} --confirm 0.7 --dry-run")
    assert "2 of the 6 trials (the rest pays for the confirmation), tpe" in dry.out
    said = cli(f"{six} --confirm 0.7 --quiet")
    (total,) = re.findall(r"All 6 trials .* e\.g\. --trials (\d+)\.", said.out)
    again = cli(f"{six.replace('--trials 6', f'--trials {total}')} --confirm 0.7 --dry-run --json")
    assert json.loads(again.out)["plan"]["trials"] > 6, "the advice does something"


def test_a_total_below_what_waits_is_told_the_one_that_goes_on(cli: Cli, untrained):
    six = TINY.replace("--trials 3", "--trials 6")
    assert cli(f"{six} --no-early-stopping --max-epochs-total 8 --quiet").code == 0
    said = cli(f"{TINY} --no-early-stopping")
    assert said.code == 0
    assert "The first 3 of the 6 trials of study digits-cnn4-diverse_alpha have ended" in said.out
    assert "2 of the others have not: go on with --trials 6." in said.out
    assert "6 of 6 trials done" in cli(f"{six} --no-early-stopping").out


@pytest.mark.parametrize("died_after", ["the tables", "the study", "its points"])
def test_a_study_whose_maker_was_killed_is_made_by_the_next_search(
    cli: Cli, untrained, tmp_path, died_after
):
    where = place(None, tmp_path / "runs", "s")
    assert where.database is not None
    where.database.parent.mkdir(parents=True)
    made = connect(where)
    if died_after != "the tables":
        study_id = made.create_new_study([StudyDirection.MAXIMIZE], "s")
        if died_after == "its points":
            made.set_study_system_attr(study_id, MADE, {"points": [], "starts": 0})
        said = cli("status s")
        assert said.code == 2 and "is not begun" in said.err
    made.engine.dispose()
    assert cli(f"{TINY} --study s --dry-run").code == 0
    said = cli(f"{TINY} --study s")
    assert (said.code, said.err) == (0, "")
    with closing(StudyRecord.open("s", runs=tmp_path / "runs")) as record:
        assert record.outcome(0).start and len(record.outcomes()) == 3


def test_a_grid_has_no_more_trials_than_points(cli: Cli, untrained):
    grid = TINY.replace("diverse_alpha", "single_alpha --sampler grid").replace("3", "99")
    said = cli(grid)
    assert (said.code, said.err) == (0, "")
    number = len(load_space("single_alpha").grid(TrialConfig()))  # type: ignore[misc]
    assert f"{number} of {number} trials done" in said.out
    said = cli(grid)
    assert f"All {number} trials" in said.out
    assert "The grid has no more points" in said.out


def test_a_storage_that_fails_under_way_is_1_and_says_how_far_it_came(
    cli: Cli, untrained, monkeypatch
):
    def full(record: StudyRecord) -> object:
        if record.outcomes()[0].state == "COMPLETE":
            raise StorageError("storage x: disk I/O error")
        return ask(record)

    ask = StudyRecord.ask
    monkeypatch.setattr(StudyRecord, "ask", full)
    said = cli(TINY)
    assert said.code == 1
    assert "Stopped: 1 of 3 trials done" in said.err
    assert said.err.endswith("automate: storage x: disk I/O error\n")


def test_more_trials_and_starting_over(cli: Cli, untrained):
    assert cli(TINY).code == 0
    said = cli(TINY.replace("--trials 3", "--trials 4"))
    assert said.code == 0
    assert re.search(r"goes on from +\d complete", said.out)
    assert "4 of 4 trials done" in said.out
    said = cli(f"{TINY} --fresh")
    assert "goes on from" not in said.out
    assert "1 of 3 trials done" in said.out
    with closing(StudyRecord.open()) as record:
        assert len(record.outcomes()) == 3


def test_what_runs_a_study_is_kept_unless_it_is_said_again(cli: Cli, untrained):
    assert cli(f"{TINY} --precision bf16").code == 0
    again = TINY.replace(QUICK, "").replace("3", "4")
    assert "1 worker, 1 thread a trial, fast kernels, bf16" in cli(f"{again} --dry-run").out
    assert (
        "1 worker, 2 threads a trial, fast kernels, fp32"
        in cli(f"{again} --dry-run --threads 2 --precision fp32").out
    )
    found = json.loads(cli(f"{again} --dry-run --cpus-per-trial 2 --json").out)
    assert found["plan"]["threads"] == 2


def test_the_faster_precision_is_taken_once_a_study_and_said(cli: Cli, untrained, monkeypatch):
    calls = []

    def measured(config: TrialConfig) -> dict[str, float]:
        calls.append(config)
        return {"fp32": 1000.0, "bf16": 3100.0}

    monkeypatch.setattr("studies.machine.measure_precisions", measured)
    assert "a trial, fast kernels, bf16 (3.1x the images/s of fp32, measured)" in cli(TINY).out
    more = TINY.replace("3", "4")
    again = cli(more)  # goes on with it, and measures no more
    assert (again.code, len(calls)) == (0, 1)
    assert "a trial, fast kernels, bf16 (3.1x the images/s of fp32, measured)" in again.out
    with closing(StudyRecord.open()) as record:
        assert {o.config.precision for o in record.outcomes() if o.config} == {"bf16"}
    said = cli(f"{more.replace('4', '5')} --precision fp32")  # what is said holds
    assert "a trial, fast kernels, fp32 (bf16 reaches 3.1x its images/s, measured)" in said.out
    assert len(calls) == 1
    cli(f"{more} --fresh --precision fp32")
    assert len(calls) == 1
    cli(f"{more} --fresh")
    assert len(calls) == 2


def test_json_is_alone_on_stdout_whatever_a_driver_prints(cli: Cli, untrained, monkeypatch):
    from studies import local

    def loud(*arguments: object) -> object:
        print("Ray is here")
        return driven(*arguments)  # type: ignore[arg-type]

    driven = local.search
    monkeypatch.setattr(local, "search", loud)
    said = cli(f"{TINY} --json")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["study"] == "digits-cnn4-diverse_alpha"
    assert found["report"] == "runs/digits-cnn4-diverse_alpha/report.html"
    assert found["take"]["state"] == "COMPLETE"
    assert len(found["front"]) == 4
    assert "Ray is here" in said.err
    assert "3 of 3 trials done" in said.err


def test_quiet_is_the_result_alone(cli: Cli, untrained):
    said = cli(f"{TINY} --quiet")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Front")
    assert "Next:" not in said.out


def test_a_search_that_fails_altogether_is_1(cli: Cli, monkeypatch):
    def fails(config: TrialConfig, **_: object) -> Iterator[object]:
        raise OSError("[bold]disk is gone")

    monkeypatch.setattr("studies.trial.run", fails)
    said = cli(TINY)
    assert said.code == 1
    assert "3 of 3 trials failed: trials 0, 1 and 2: OSError: [bold]disk is gone" in said.err
    assert "No trial has run its full length (3 failed)" in said.out
    assert "Next:" not in said.out


def test_a_search_that_mostly_fails_is_1(cli: Cli, untrained, monkeypatch):
    from studies.trial import run  # the untrained one

    def fails(config: TrialConfig, **given: Any) -> Iterator[object]:
        if set(config.alpha) != {3.0}:  # all but the paper's default
            raise OSError("disk is gone")
        yield from run(config, **given)

    monkeypatch.setattr("studies.trial.run", fails)
    said = cli(TINY)
    assert said.code == 1 and "2 of 3 trials failed: trials 1 and 2: OSError" in said.err


@pytest.mark.parametrize("more", ["", " --dry-run", " --trials 9"])
def test_a_space_that_was_edited_is_refused_before_anything_is_said(
    cli: Cli, untrained, tmp_path, more
):
    space = tmp_path / "mine.py"
    text = (
        "def starts(base):\n    return [{'t': 3.0}]\n\n\ndef suggest(trial, base):\n"
        "    return base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )
    space.write_text(text)
    words = TINY.replace("diverse_alpha", str(space))
    assert cli(words).code == 0
    space.write_text(f"{text}# mended\n")
    said = cli(words.replace("--trials 3", "") + more)
    assert said.code == 2 and said.out == ""
    assert "has changed since study 'digits-cnn4-mine' was made: put it back, start" in said.err


def test_a_storage_elsewhere(cli: Cli, untrained, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/all of mine.db"
    said = cli(*TINY.split(), "--storage", url)
    assert said.code == 0
    assert f"automate export digits-cnn4-diverse_alpha --storage '{url}' --top 3" in said.out
    assert (tmp_path / "all of mine.db").exists()
    monkeypatch.setenv("AUTOMATE_STORAGE", url)
    said = cli(TINY)
    assert "All 3 trials" in said.out
    assert "--storage" not in said.out
    assert cli(TINY.replace("diverse_alpha", "single_alpha") + " --dry-run").code == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_swallows_in_a_destructor_is_heeded(
    cli: Cli, untrained, monkeypatch, number, code
):
    from automate import main
    from automate.progress import Lines

    class Dying:
        def __del__(self) -> None:
            main._stop(number, None)

    def drop(self: Lines, event: Event) -> None:
        if event.kind == "epoch" and event.number == 1 and main._asked is None:
            dying = Dying()
            del dying  # and what it raises is gone with it

    monkeypatch.setattr(main, "_asked", None)
    monkeypatch.setattr(Lines, "see", drop)
    try:
        assert cli(f"{TINY} --no-early-stopping").code == code
    except SystemExit as error:  # that of SIGTERM ends the program
        assert error.code == code
    with closing(StudyRecord.open()) as record:
        states = [outcome.state for outcome in record.outcomes()]
    assert states == ["COMPLETE", "WAITING", "WAITING"]


def test_interrupted_it_says_where_it_stands_and_how_to_go_on(cli: Cli, untrained, monkeypatch):
    from automate.progress import Lines

    full = f"{TINY} --no-early-stopping"

    def stop(self: Lines, event: Event) -> None:
        seen(self, event)
        if event.kind == "epoch" and event.number == 1:
            raise KeyboardInterrupt

    seen = Lines.see
    with monkeypatch.context() as patch:
        patch.setattr(Lines, "see", stop)
        said = cli(f"{full} --fresh")
    assert said.code == 130
    assert "Stopped: 1 of 3 trials done" in said.err
    assert said.err.endswith(f"interrupted\nGo on with:\n  automate {full}\n")
    with closing(StudyRecord.open()) as record:
        assert [outcome.state for outcome in record.outcomes()] == [
            "COMPLETE",
            "WAITING",
            "WAITING",
        ]
    said = cli(full)
    assert said.code == 0
    assert "1 complete, 2 waiting" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--alpha 1 2 3", "alpha needs 1 or 4 values, got 3"),
        ("--alpha 1,2", "alpha needs 1 or 4 values, got 2"),
        ("--alpha", "alpha needs 1 or 4 values, got 0"),
        ("--alpha -1", "alpha needs values from 0 to 1e6, got [-1.0]"),
        ("--alpha nan", "finite"),
        ("--alpha x", "expected numbers"),
        ("--temperature 0", "temperature: input should be greater than 0, got 0.0"),
        ("--temperature inf", "finite"),
        ("--epochs 0", "epochs: "),
        ("--epochs 2.5", "expected a whole number, got '2.5'"),
        ("--seed -1", "seed: "),
        ("--validation 2", "validation: "),
        ("--limit-train 100000", "there are 180 training images"),
        ("--space diverse_alfa", "did you mean 'diverse_alpha'?"),
        ("--space ./no.py", "/no.py' does not exist"),
        ("--space ./file", "is no Python file"),
        ("--space ./broken.py", "/broken.py' fails: line 1: NameError"),
        ("--space ./empty.py", "needs a function starts"),
        ("--dataset cifar10", "did you mean 'cifar100'?"),
        ("--dataset ./none", "no folder"),
        ("--dataset ./file", "is a file where a folder is needed"),
        ("--dataset .", "a data set is a folder with train/<class>/"),
        ("--dataset cifar100", "`--dataset digits` needs nothing"),
        ("--dataset cifar100 --data-root file", "is a file where a folder is needed"),
        ("--backbone vgg17", "did you mean 'vgg16'?"),
        ("--backbone vgg16", "takes images of 32 pixels, digits has 8"),
        ("--backbone ./none.py", "does not exist"),
        ("--backbone ./empty.py", "needs a line 'EXITS = "),
        ("--scheme mat", "did you mean 'mate'?"),
        ("--kl forwrd", 'Did you mean "forward"?'),
        ("--sampler tp", "did you mean 'tpe'?"),
        ("--sampler grid", "gives no grid"),
        ("--objective anytme", "did you mean 'anytime'?"),
        ("--objective exit:9", "needs K from 1 to 4"),
        ("--budgets 1 2", "budgets need 4 values"),
        ("--budgets 0 0 0 0", "not all 0"),
        ("--device cdua", "did you mean 'cuda'?"),
        ("--trials 0", "trials: "),
        ("--workers 0", "workers: "),
        ("--threads 0", "threads needs to be at least 1"),
        ("--eta 1", "eta: "),
        ("--eta 0", "eta: "),
        ("--grace 31", "grace needs to be from 1 to the 30 epochs, got 31"),
        ("--rungs 16,16", "rungs need to rise from 1 or more to less than the 30 epochs"),
        ("--rungs 16 30", "got 16 30"),
        ("--rungs 1.5", "expected whole numbers"),
        ("--rungs 16,23 --grace 10", "grace 10 contradicts rungs 16 23"),
        ("--rungs 16,23 --no-early-stopping", "without early stopping there are no rungs"),
        ("--study ../up", "study name '../up' cannot be used"),
        ("--study [red]x", "study name '[red]x' cannot be used"),
        ("--runs-dir file", "file/"),
        ("--storage nonsense", "is no URL"),
        ("--storage sqlite:///.", "is a folder"),
        ("--storage postgresql://u:secret@:x/y", "is no URL of a database"),
    ],
)
def test_hostile_input_is_one_line_and_nothing_made(cli: Cli, tmp_path, words, said):
    (tmp_path / "file").touch()
    (tmp_path / "empty.py").touch()
    (tmp_path / "broken.py").write_text("what = is_this")
    before = sorted(tmp_path.rglob("*"))
    defaults = {"--space": "diverse_alpha", "--workers": "1", "--threads": "1"}
    line = [x for flag, value in defaults.items() if flag not in words for x in (flag, value)]
    found = cli("search", *line, *words.split())
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
    assert "secret" not in found.err
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in p.parts] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--space single_alpha --study made-up", "space is diverse_alpha, now single_alpha"),
        ("--study made-up --lr 0.5", "lr is 0.1, now 0.5"),
        ("--study made-up --objective last", "objective is anytime, now last"),
    ],
)
@pytest.mark.parametrize("ending", ["--dry-run", ""])
def test_a_study_of_another_search_is_refused(
    cli: Cli, made: StudyRecord, monkeypatch, words, said, ending
):
    monkeypatch.setattr("trainers.data.check", lambda config, root, test=False: None)
    line = "--dataset cifar100 --epochs 6 --grace 2 --device cpu " + QUICK
    space = "" if "--space" in words else "--space diverse_alpha"
    found = cli(f"search {space} {line} {words} {ending}")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
    assert "--fresh" in found.err


def test_no_workers_are_wrong_where_a_study_goes_on_too(cli: Cli, made: StudyRecord, monkeypatch):
    monkeypatch.setattr("trainers.data.check", lambda config, root, test=False: None)
    line = "search --space diverse_alpha --study made-up --dataset cifar100 --epochs 6 --grace 2"
    for words, said in (("--workers 0", "workers: "), ("--threads 0", "threads needs to be")):
        found = cli(f"{line} --dry-run {words}")
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
        assert said in found.err


def test_a_damaged_study_is_one_line(cli: Cli, tmp_path):
    folder = tmp_path / "runs" / "digits-cnn4-diverse_alpha"
    folder.mkdir(parents=True)
    (folder / "study.db").write_text("this is no database")
    for words in (TINY, "report", "export"):
        found = cli(words)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
        assert "is no SQLite file" in found.err or "no study" in found.err


LEFT_OPEN = "always::ResourceWarning"  # files and databases that nobody closed, said on stderr


@pytest.mark.slow
def test_a_real_search_is_interrupted_and_goes_on_to_its_end(tmp_path):
    """Ctrl-C after the first epoch, then the very command that it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": LEFT_OPEN}
    words = [sys.executable, "-m", "automate", *TINY.replace("--epochs 2", "--epochs 40").split()]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if " epoch 1 of 40" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "trial 0 given back after epoch" in out
    assert "Traceback" not in out + err
    command = err.splitlines()[-1].strip()
    assert command.startswith("python -m automate search --space diverse_alpha")
    again = command.replace("python", sys.executable, 1)
    done = subprocess.run(
        again, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "goes on from" in done.stdout
    assert "trial 0 complete after epoch 40" in done.stdout
    assert "3 of 3 trials done" in done.stdout
    assert (tmp_path / "runs" / "digits-cnn4-diverse_alpha" / "report.html").exists()


@pytest.mark.slow
def test_a_real_search_ended_by_sigterm_gives_its_trial_back(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": LEFT_OPEN}
    words = TINY.replace("--epochs 2", "--epochs 300").split()
    process = subprocess.Popen(
        [sys.executable, "-m", "automate", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if " epoch 1 of 300" in line:
            break
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "ended by signal 15\nGo on with:\n" in err
    with closing(StudyRecord.open(runs=tmp_path / "runs")) as record:
        assert [outcome.state for outcome in record.outcomes()] == ["WAITING"] * 3


def test_a_search_for_the_whole_front_of_digits(cli: Cli, tmp_path):
    """Planned, interrupted, gone on with, listed, reported and exported, with real training."""
    line = f"search --space diverse_alpha --objective front --study mine --epochs 3 {QUICK}"
    said = cli(f"{line} --trials 6 --grace 1 --dry-run")
    assert "front: the accuracy of each exit by itself; an order, where one is needed" in said.out
    assert "what no other beats as a whole and the best 1 in 2 at any exit go on" in said.out
    said = cli(f"{line} --trials 6 --grace 1 --max-epochs-total 7")
    assert said.code == 0 and "on the front" in said.out
    said = cli(f"{line} --trials 6 --grace 1")
    assert (said.code, said.err) == (0, "")
    assert "goes on from" in said.out
    assert "The search compared each exit by itself: " in said.out
    with closing(StudyRecord.open("mine")) as record:
        outcomes = record.outcomes()
        best = [trial.number for trial in record.study.best_trials]
    assert {o.state for o in outcomes} <= {"COMPLETE", "PRUNED"} and len(outcomes) == 6
    found = json.loads(cli("report mine --json").out)["studies"][0]
    assert found["deployable"] == best == deployable(curves(outcomes))
    assert "(front, by anytime)" in cli("studies").out
    page = (tmp_path / "runs" / "mine" / "report.html").read_text(encoding="utf-8")
    assert "this number only orders its trials" in page
    assert "unless no other trial beats it as a whole there" in page
    assert cli("export mine --top 9").code == 0
    files = sorted((tmp_path / "runs" / "mine" / "best").glob("*.yaml"))
    sources = [read_exported(path)[1] for path in files]
    assert {source["trial"] for source in sources[: len(best)]} == set(best)
    values = [source["value"] for source in sources[: len(best)]]
    assert values == sorted(values, reverse=True)
    assert {(s["objective"], s["ranked_by"]) for s in sources} == {("front", "anytime")}
    refused = cli(f"{line} --trials 6 --grace 1 --objective last")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_the_whole_job_on_digits(cli: Cli, tmp_path):
    """search, report, export, train: as the first screen of the README has it."""
    said = cli(TINY)
    assert (said.code, said.err) == (0, "")
    assert cli("report").code == 0
    assert cli("export --top 1").code == 0
    said = cli("train runs/digits-cnn4-diverse_alpha/best/1.yaml --seeds 2 --threads 1")
    assert (said.code, said.err) == (0, "")
    assert "n = 2 seeds" in said.out
    weights = list((tmp_path / "runs" / "digits-cnn4-diverse_alpha" / "best").rglob("weights.pt"))
    assert len(weights) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("search --space diverse_alpha --dataset cifar100", "automate datasets fetch cifar100"),
        ("calibrate --dataset cifar100", "automate datasets fetch cifar100"),
        ("calibrate --dataset digits --configs 4", "configs needs to be at least 5, got 4"),
    ],
)
def test_what_is_missing_is_said_before_the_machine_is_measured(line, says, cli, monkeypatch):
    def never(*_):
        raise AssertionError("measured")

    monkeypatch.setattr("studies.machine.measure", never)
    monkeypatch.setattr("studies.machine.measure_precisions", never)
    refused = cli(line)
    assert refused.code == 2 and says in refused.err
