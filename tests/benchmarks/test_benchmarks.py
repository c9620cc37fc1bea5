"""Each benchmark command in its smallest form: it ends, with rows that make sense."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from studies.curve_tables import read_table
from studies.overhead import beyond_table, start_table, trial_table
from tests.benchmarks import (
    against,
    confirming,
    early,
    epochs,
    fronts,
    longest,
    loss,
    memory,
    methods,
    pipeline,
    processes,
    racing,
    ranks,
    record,
    step,
    tables,
)
from trainers import SPINS, teams
from trainers.bench import evenly
from trainers.config import TrialConfig
from trainers.dynamic import leaving
from trainers.teams import Team, team_table

TINY = ["--rounds", "1", "--seconds", "0.01"]


def test_step(tmp_path, capsys):
    rows = step.main([*TINY, "--nets", "digits", "--json", str(tmp_path / "step.json")])
    assert {row.what for row in rows} == {"digits", "digits schemes"}
    assert all(row.value > 0 for row in rows)
    content = json.loads((tmp_path / "step.json").read_text())
    assert len(content["step"]) == len(rows)
    assert content["machine"]["torch"]
    assert "images/s" in capsys.readouterr().out


def test_epochs(capsys):
    rows = epochs.main(["--rounds", "1", "--nets", "digits"])
    assert [row.side.split(",")[0] for row in rows] == [
        "step by step", "step by step", "uncaptured", "2 together", "4 together",
        "one more begins", "beside 3 that train",
    ]  # fmt: skip
    assert all(row.value > 0 for row in rows) and rows[0].ratio == 1


def test_early(capsys):
    rows = early.main([*TINY, "--nets", "digits"])
    assert [row.side for row in rows] == ["last exit", "all exits", "early"] * 2
    assert {row.what for row in rows} == {"digits, 1 at a time", "digits, 128 at a time"}
    assert all(row.value > 0 for row in rows) and rows[2].note == rows[5].note != ""


def test_as_many_images_leave_at_each_exit():
    torch.manual_seed(0)
    logits = torch.randn(4, 40, 10)
    left = leaving(logits.softmax(dim=-1).amax(dim=-1).numpy(), np.array([evenly(logits)]))
    assert np.bincount(left[0]).tolist() == [10] * 4


def test_loss(capsys):
    rows = loss.main(TINY)
    assert sum(row.unit == "ATen operations" for row in rows) == 8


def test_pipeline(monkeypatch, capsys):
    from trainers import pipeline as made

    loader = made.plain_loader
    monkeypatch.setattr(made, "plain_loader", lambda images, config: loader(images, config, 0))
    monkeypatch.setattr(made, "STEPS", 2)
    plain, ours, inside = pipeline.main(TINY, images=512)
    assert min(plain.value, ours.value, inside.value) > 0
    assert (plain.side, ours.side, inside.side) == ("plain", "ours", "ours, inside training")


@pytest.mark.slow
def test_processes(capsys):
    rows = processes.main([*TINY, "--nets", "digits"])
    units = ("images/s", "images/CPU s", "MB a process")
    assert [row.unit for row in rows] == [unit for unit in units for _ in range(4)]


@pytest.mark.slow
def test_memory(capsys):
    plain, ours = memory.main([*TINY, "--nets", "digits"])
    assert (plain.side, ours.side[:4], plain.unit) == ("plain", "ours", "MB a process")
    assert 50 < ours.value < 5000


def test_a_team_of_processes():
    speed, of_cpu, held = team_table("digits", [Team("one", 1, 1)], rounds=1, seconds=0.01)
    assert speed.value > 0 < of_cpu.value
    assert 50 < held.value < 5000


def test_a_trials_cost():
    ask, report, whole, clock = trial_table(trials=3)
    assert 0 < report.value < whole.value <= clock.value * 1.5
    assert ask.rounds == 3
    (row,) = beyond_table((("local", 1),), each=2, epochs=1)
    assert -1 < row.value < 60


@pytest.mark.slow
def test_start():
    (row,) = start_table((("local", ("--workers", "1", "--threads", "1")),), rounds=1)
    assert 0.5 < row.value < 120


def test_against_others():
    rows = against.table(
        3, 1, epochs=2, seeds=1, sides=("Optuna + SuccessiveHalvingPruner", "ours, one process")
    )
    found = {(row.what, row.side.split()[0]): row.value for row in rows}
    assert len(rows) == 8
    assert found["states right (%)", "Optuna"] == found["states right (%)", "ours,"] == 100
    assert 3 <= found["epochs", "ours,"] <= 6
    assert against.right("PRUNED", 1, 2)
    assert not against.right("COMPLETE", 1, 2)


def test_racing(tmp_path, capsys):
    rows = racing.main(["--studies", "4", "--json", str(tmp_path / "racing.json")])
    assert len(json.loads((tmp_path / "racing.json").read_text())) == len(rows)
    assert "a false claim" in capsys.readouterr().out


def test_fronts(tmp_path, capsys):
    rows = fronts.main(["--studies", "2", "--json", str(tmp_path / "fronts.json")])
    assert len(json.loads((tmp_path / "fronts.json").read_text())) == len(rows)
    held = [row.value for row in rows if row.what.endswith("intervals that hold")]
    assert len(held) == 2 * len(fronts.CASES) and all(0 <= share <= 1 for share in held)


def test_confirming():
    rng = np.random.default_rng(0)
    truth = np.concatenate([[0.0], rng.normal(0, 0.2, 59)])
    values = truth[:, None] + rng.normal(0, 0.3, (60, 10)) + rng.normal(0, 1.0, (1, 10))
    rows = confirming.confirmations(values, 60, trials=40, top=8, rounds=5)
    found = {row.what: row.value for row in rows}
    assert found["the search's best says too much"] > 0.3
    assert abs(found["what is expected of it says too much"]) < 0.15
    assert found["the chosen one over the default"] > 0
    with pytest.raises(ValueError, match="40 configs and 12 seeds are needed"):
        confirming.confirmations(values, 1, trials=40, top=8, rounds=10)
    few = confirming.confirmations(values[:, :5], 20, trials=40, top=8, rounds=3)
    assert few[0].case == "40 trials, top 8, 3 rounds" and all(row.n <= 20 for row in few)


def test_recording_goes_on_where_it_was(tmp_path, capsys):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    record.main(["points", "diverse_alpha", "3", str(made), "--set", '{"epochs": 2}'])
    record.main(["runs", str(made), str(runs), "--seeds", "1"])
    first = runs.read_text().splitlines()
    assert len(first) == 3 and json.loads(first[0])["params"] == {
        f"alpha_{i}": 3.0 for i in range(1, 5)
    }
    runs.write_text("\n".join(first[:2]) + "\n")
    record.main(["runs", str(made), str(runs), "--seeds", "1"])
    again = [json.loads(line) for line in runs.read_text().splitlines()]
    assert [line["point"] for line in again] == [0, 1, 2]
    assert again[2]["accuracy"] == json.loads(first[2])["accuracy"], "a run is its seed's"


def test_a_table_of_the_plain_networks(tmp_path, capsys):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    base = '{"epochs": 2, "ema": 0.5, "limit_train": 64}'
    record.main(["points", "diverse_alpha", "2", str(made), "--set", base])
    record.main(["runs", str(made), str(runs)])
    raw = [json.loads(line)["raw"] for line in runs.read_text().splitlines()]
    assert record.points(str(runs), 9, TrialConfig()) == json.loads(made.read_text())
    plain = tables.main(["averaged", str(runs), str(tmp_path), "--plain"])
    assert np.allclose(plain.accuracy[:, 0], raw, atol=1e-6) and plain.base.ema == 0
    averaged = tables.main(["averaged", str(runs), str(tmp_path)])
    assert averaged.base.ema == 0.5 and not np.allclose(averaged.accuracy, plain.accuracy)


def test_the_shipped_table_is_made_of_its_records(tmp_path, capsys):
    records = Path(tables.__file__).with_name("records") / "vgg16-cifar100.jsonl.gz"
    made = tables.main(["vgg16-cifar100", str(records), str(tmp_path), "--plain"])
    kept = read_table("vgg16-cifar100")
    assert made.params == kept.params and made.base == kept.base
    assert np.array_equal(made.accuracy, kept.accuracy, equal_nan=True)


def test_the_arms_of_an_experiment_are_points_too():
    arms = record.points("table2", 9, TrialConfig())
    assert arms[0]["params"] == {"arm": "baseline"} and arms[1]["config"]["scheme"] == "branchynet"


def test_the_arms_of_two_experiments_beside_the_paper(tmp_path, capsys):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    record.main(["points", "table2,recipe", "99", str(made), "--set", '{"epochs": 1}'])
    points = json.loads(made.read_text())
    arms = [point["params"]["arm"] for point in points]
    assert len(arms) == len(set(arms)) == 11
    made.write_text(json.dumps([points[0], points[-1]]))
    record.main(["runs", str(made), str(runs), "--seeds", "2", "--purpose", "reproduce"])
    baseline, mate = methods.main([str(runs)])
    assert baseline[:5] == ["Baseline", "2", "", "", ""] and " ± " in baseline[5]
    assert mate[:2] == ["MATE, T²", "2"] and all(" ± " in cell for cell in mate[2:])
    lines = []  # the same as if it were the paper's network
    for run in map(json.loads, runs.read_text().splitlines()):
        vgg16 = TrialConfig(dataset="cifar100", scheme=run["config"]["scheme"])
        lines.append(json.dumps(run | {"config": vgg16.model_dump(mode="json")}))
    runs.write_text("\n".join(reversed(lines)))
    baseline, mate = methods.main([str(runs)])
    assert baseline[6:] == ["", "", "", "75.51 ± 0.21"] and mate[6] == "70.79 ± 0.08"
    assert "vgg16 x1 on cifar100, 300 epochs" in capsys.readouterr().out


def test_what_runs_on_a_gpu_machine_needs_little():
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(('optuna', 'ray', 'cyclopts', 'plotly')))"
    )
    wanted = "from tests.benchmarks import epochs, longest, record"
    subprocess.run([sys.executable, "-c", f"{blocked}; {wanted}"], check=True)


def test_the_longest_schedule_that_fits(tmp_path, capsys):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    record.main(["points", "table2", "9", str(made), "--set", '{"epochs": 99, "limit_train": 60}'])
    arms = ["branchynet", "mate"]
    begin = time.perf_counter()
    number = longest.main(
        [str(made), str(runs), "--seconds", "6", "--purpose", "reproduce", "--only", *arms]
    )
    assert 1 < number <= 99 and time.perf_counter() - begin < 30
    lines = [json.loads(line) for line in runs.read_text().splitlines()]
    assert {line["params"]["arm"] for line in lines} == set(arms)
    assert all(line["config"]["epochs"] == len(line["accuracy"]) == number for line in lines)
    epochs = [
        json.loads(line) for line in (tmp_path / "runs.epochs.jsonl").read_text().splitlines()
    ]
    assert [
        e["accuracy"] for e in epochs if e["for"] == "run" and e["params"]["arm"] == "mate"
    ] == [
        pytest.approx(accuracy, abs=1e-6)
        for line in lines
        if line["params"]["arm"] == "mate"
        for accuracy in line["accuracy"]
    ]
    timed = [e for e in epochs if e["for"] == "time"]
    assert all(sum(e["params"]["arm"] == arm for e in timed) >= longest.TIMED for arm in arms)
    # at most what the points ask for, and at least an epoch
    made.write_text(made.read_text().replace('"epochs": 99', '"epochs": 3'))
    assert longest.main([str(made), str(runs), "--seconds", "600", "--only", "mate"]) == 3
    assert longest.main([str(made), str(runs), "--seconds", "0", "--only", "mate"]) == 1


def test_a_run_that_fails_costs_the_others_nothing(tmp_path, capsys):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    record.main(["points", "table2", "9", str(made), "--set", '{"epochs": 4, "limit_train": 60}'])
    points = json.loads(made.read_text())
    points[1]["config"]["backbone"] = "gone.py"
    made.write_text(json.dumps(points[:3]))
    assert longest.main([str(made), str(runs), "--seconds", "60"]) == 4
    arms = {json.loads(line)["params"]["arm"] for line in runs.read_text().splitlines()}
    assert arms == {points[0]["params"]["arm"], points[2]["params"]["arm"]}
    assert "gone.py" in capsys.readouterr().err


def test_the_plain_trainers_threads_wait_as_nobody_has_set_it(monkeypatch):
    monkeypatch.setenv(SPINS, "1000")
    for plain, spins in ((True, "300000"), (False, "1000")):
        with teams._as_installed(plain):
            assert os.environ[SPINS] == spins
        assert os.environ[SPINS] == "1000"
    monkeypatch.delenv(SPINS)  # where OMP_WAIT_POLICY is set
    with teams._as_installed(True):
        assert SPINS not in os.environ


def test_one_that_ends_while_it_is_timed_costs_the_others_nothing(tmp_path, capsys, monkeypatch):
    made, runs = tmp_path / "points.json", tmp_path / "runs.jsonl"
    record.main(["points", "table2", "9", str(made), "--set", '{"epochs": 60, "limit_train": 60}'])
    points = json.loads(made.read_text())[:3]
    arms = [point["params"]["arm"] for point in points]
    points[0]["config"]["epochs"] = 3  # shorter than what is timed, and than the others
    made.write_text(json.dumps(points))
    real = longest.train

    def breaks(config, *args, **more):
        for report in real(config, *args, **more):
            if config.scheme == points[1]["config"]["scheme"] and report.epoch == 3:
                raise RuntimeError("broke while it was timed")
            yield report

    monkeypatch.setattr(longest, "train", breaks)
    number = longest.main([str(made), str(runs), "--seconds", "600"])
    assert number == 60 and "broke while it was timed" in capsys.readouterr().err
    epochs = (tmp_path / "runs.epochs.jsonl").read_text().splitlines()
    timed = [e for e in map(json.loads, epochs) if e["for"] == "time"]
    counts = [sum(e["params"]["arm"] == arm for e in timed) for arm in arms]
    assert counts[:2] == [1, 0] and longest.TIMED <= counts[2] < 20
    lines = {e["params"]["arm"]: e for e in map(json.loads, runs.read_text().splitlines())}
    assert [len(lines[arm]["accuracy"]) for arm in arms] == [3, 60, 60]
    points[0]["config"]["backbone"] = "gone.py"
    made.write_text(json.dumps(points[:1]))
    with pytest.raises(SystemExit, match="none of the points can be run"):
        longest.main([str(made), str(runs), "--seconds", "60"])


def test_ranks(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = []
    for point, ramp_up in itertools.product(range(9), (0, 2)):
        for seed in (1,) if point == 8 else (0, 1):  # the last lost a run: it is left out
            config = TrialConfig(alpha=1.0 + point, epochs=5, ema=0.9, ramp_up=ramp_up, seed=seed)
            worth = 0.5 + 0.02 * point + 0.01 * np.arange(5)[:, None] + np.zeros(4)
            run = {"config": config.model_dump(mode="json"), "params": {"alpha": point + 1.0}}
            run |= {"seed": seed, "seconds": [1.0] * 5, "accuracy": worth.tolist()}
            lines.append(json.dumps(run | {"raw": (worth + rng.normal(0, 0.05, (5, 4))).tolist()}))
    (tmp_path / "made.jsonl").write_text("\n".join(lines))
    found = ranks.main([str(tmp_path / "made.jsonl")])
    kinds = ["averaged", "plain", "ramp_up 2, averaged", "ramp_up 2, plain"]
    assert [table.name for table in found] == [f"made, {kind}" for kind in kinds]
    assert found[0].values.shape == (8, 2, 5)
    said = capsys.readouterr().out
    assert "first safe epoch (halving): 1" in said, "the averaged order never changes"
    assert "against made, averaged: 8 points x 2 seeds" in said
