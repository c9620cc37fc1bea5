"""Tables of learning curves: made of studies and of recorded runs, to a file and back unchanged."""

import gzip
import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from studies import curve_tables
from studies.curve_tables import read_table
from studies.record import StudyRecord
from studies.recorded import images_of, made_of_runs, read_runs, table_of
from tests.benchmarks import tables
from tests.studies import made_up_curves
from tests.studies.example import make_plan, make_report, run_all
from trainers.catalog import InputError
from trainers.config import TrialConfig


def test_to_a_file_and_back_unchanged(tmp_path):
    table = made_up_curves.table(diverging=2)
    read = read_table(str(table.write(tmp_path / "made-up.npz")))
    assert (read.name, read.space, read.base) == (table.name, table.space, table.base)
    assert read.params == table.params
    assert np.array_equal(read.accuracy, table.accuracy, equal_nan=True)
    np.testing.assert_allclose(read.seconds, table.seconds, rtol=1e-6)
    assert (read.flops, read.flops_cascade) == (table.flops, table.flops_cascade)
    assert read.images == 1000


def test_a_file_holds_no_pickle(tmp_path):
    np.savez(tmp_path / "evil.npz", header=np.array([{"version": 1}], dtype=object))
    with pytest.raises(InputError, match="no table of learning curves"):
        read_table(str(tmp_path / "evil.npz"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_what_is_no_table(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="x.npz is no table of learning curves"):
        read_table(str(tmp_path / "x.npz"))


def test_names_and_paths_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="unknown table 'digitz'"):
        read_table("digitz")
    with pytest.raises(InputError, match=r"none.npz cannot be read"):
        read_table(str(tmp_path / "none.npz"))
    with pytest.raises(InputError, match=r"needs to end in \.npz"):
        made_up_curves.table().write(tmp_path / "table.csv")


def test_a_table_that_the_disk_does_not_take_leaves_the_older_one(tmp_path, monkeypatch):
    path = made_up_curves.table().write(tmp_path / "kept.npz")
    older = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="kept.npz cannot be written: No space left"):
        made_up_curves.table().write(path)
    assert path.read_bytes() == older and list(tmp_path.iterdir()) == [path]


def test_a_table_that_does_not_fit_its_header(tmp_path):
    table = made_up_curves.table()
    object.__setattr__(table, "params", table.params[:-1])
    table.write(tmp_path / "short.npz")
    with pytest.raises(InputError, match="does not fit its header"):
        read_table(str(tmp_path / "short.npz"))


def test_a_version_of_the_future(tmp_path, monkeypatch):
    monkeypatch.setattr(curve_tables, "VERSION", 2)
    made_up_curves.table().write(tmp_path / "new.npz")
    monkeypatch.undo()
    with pytest.raises(InputError, match="version 2, this automate reads 1"):
        read_table(str(tmp_path / "new.npz"))


@pytest.mark.parametrize("name", curve_tables.shipped())
def test_what_comes_with_automate(name):
    table = read_table(name)
    assert table.configs >= 40 and table.seeds >= 3
    assert set(table.params[0].values()) == {3.0}, "the paper's default comes first"
    assert len({json.dumps(params) for params in table.params}) == table.configs
    assert not table.base.dataset.startswith("/")


def test_what_comes_with_automate_is_small():
    assert curve_tables.shipped() == ["digits", "vgg16-cifar100"]
    folder = Path(curve_tables.__file__).parent / "tables"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 500_000


def test_reports_are_what_a_run_said():
    table = made_up_curves.table(diverging=1)
    reports = table.reports(0, 2)
    assert [report.epoch for report in reports] == list(range(1, 13))
    assert reports[-1].accuracies == tuple(table.accuracy[0, 2, -1])
    assert reports[0].seconds == table.seconds[0, 2]
    gone = table.reports(table.configs - 1, 0)
    assert [report.diverged for report in gone] == [False] * 6 + [True]


def test_values_of_objectives():
    table = made_up_curves.table(diverging=1)
    last = table.values("last")
    assert last[0, 0] == table.accuracy[0, 0, -1, -1]
    assert (last[-1] == 0.1).all(), "a run that diverged counts as guessing among ten classes"
    assert (table.values("anytime")[:-1] >= table.accuracy[:-1, :, -1, 0]).all()
    with pytest.raises(InputError, match="budget:150M cannot be replayed"):
        table.values("budget:150M")


def test_how_runs_and_configs_scatter():
    table = made_up_curves.table(configs=200, seeds=6, noise=0.004, images=60_000)
    run, between = table.spreads("last")
    # 0.004 of the run, and 0.2 of 0.004 that its last epoch adds; the seed's own 0.004 is out
    assert run == pytest.approx(0.004 * 1.04**0.5, rel=0.1)
    true = made_up_curves.table(configs=200, seeds=1, noise=0, images=60_000)
    assert between == pytest.approx(true.values("last").std(), rel=0.1)
    assert np.isnan(true.spreads("last")).all()


def test_a_study_that_ran_in_full_is_a_table(tmp_path):
    plan = make_plan(tmp_path, early_stopping=False)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        with pytest.raises(InputError, match="6 of its 6 trials have not ended"):
            table_of(record)
        run_all(record)
        table = table_of(record)
        outcomes = record.outcomes()
    assert table.accuracy.shape == (6, 1, 4, 4)
    for config, outcome in enumerate(outcomes):
        assert table.params[config] == outcome.params
        assert table.reports(config, 0)[-1].accuracies == outcome.report.accuracies
    assert table.flops == (1000, 2000, 3000, 4000)


def test_a_study_with_stopped_trials_is_none(tmp_path):
    with closing(StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)) as record:
        run_all(record)
        stopped = sum(outcome.state == "PRUNED" for outcome in record.outcomes())
        assert stopped
        with pytest.raises(
            InputError, match=f"{stopped} of its 6 trials were stopped early.*--no-"
        ):
            table_of(record)


def test_a_diverged_trial_is_part_of_a_table(tmp_path):
    plan = make_plan(tmp_path, trials=2, early_stopping=False)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        for last in (4, 2):
            ticket = record.ask()
            for epoch in range(1, 5):
                gone = last == 2 and epoch == 2
                if not record.report(ticket, make_report(epoch, None if gone else 0.5)):
                    break
        table = table_of(record)
    assert not np.isnan(table.accuracy[0]).any()
    assert np.isnan(table.accuracy[1, 0]).any(axis=1).tolist() == [False, True, True, True]


def recorded(table, path):
    """The runs of a table as a recorder writes them."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for config, seed in np.ndindex(table.configs, table.seeds):
            params = dict(table.params[config])
            alpha = tuple(params.values())
            curve = table.accuracy[config, seed]
            run = {
                "config": table.base.with_(alpha=alpha, seed=seed, split_seed=seed).model_dump(),
                "params": params,
                "point": config,
                "seed": seed,
                "seconds": [table.seconds[config, seed]] * table.epochs,
                "accuracy": curve[~np.isnan(curve).any(axis=1)].tolist(),
                "loss": [1.0] * table.epochs,
            }
            file.write(json.dumps(run) + "\n")


def test_recorded_runs_are_a_table(tmp_path):
    table = made_up_curves.table(configs=6, seeds=3, diverging=1)
    recorded(table, tmp_path / "runs.jsonl.gz")
    runs = read_runs(tmp_path / "runs.jsonl.gz")
    base = TrialConfig(**{**runs[0]["config"].model_dump(), "dataset": "/home/me/slice"})
    made = made_of_runs("slice", "diverse_alpha", base, runs)
    assert np.array_equal(made.accuracy, table.accuracy, equal_nan=True)
    assert made.params == table.params
    assert made.base.dataset == "./slice", "where data lay on another machine is left out"
    assert made.images == 1000
    assert made.flops == tuple(sorted(made.flops)), "counted"


def test_configs_of_a_table_have_the_same_seeds(tmp_path):
    """A config that lost one run of three is left out; a seed that half of the configs lack is."""
    table = made_up_curves.table(configs=6, seeds=3)
    recorded(table, tmp_path / "runs.jsonl.gz")
    runs = read_runs(tmp_path / "runs.jsonl.gz")
    base = runs[0]["config"]
    lost = [run for run in runs if (run["point"], run["seed"]) != (2, 0)]
    made = made_of_runs("lost", "diverse_alpha", base, lost)
    whole = [0, 1, 3, 4, 5]
    assert np.array_equal(made.accuracy, table.accuracy[whole])
    assert made.params == tuple(table.params[config] for config in whole)
    half = [run for run in runs if run["seed"] or run["point"] < 3]
    assert np.array_equal(
        made_of_runs("half", "diverse_alpha", base, half).accuracy, table.accuracy[:, 1:]
    )
    apart = [run for run in runs if run["seed"] == run["point"]]
    with pytest.raises(InputError, match="no two of 3 configs ran with the same seed"):
        made_of_runs("apart", "diverse_alpha", base, apart)


def test_a_shipped_table_is_made_by_a_command(tmp_path, capsys):
    table = made_up_curves.table(configs=3, seeds=2)
    recorded(table, tmp_path / "runs.jsonl.gz")
    made = tables.main(["small", str(tmp_path / "runs.jsonl.gz"), str(tmp_path)])
    assert made.base.seed == made.base.split_seed == 0
    assert "3 configs, 2 seeds, 12 epochs, 4 exits, 1000 images" in capsys.readouterr().out
    read = read_table(str(tmp_path / "small.npz"))
    assert np.array_equal(read.accuracy, table.accuracy)


def test_recorded_runs_that_are_none(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"config": {}, "params": {}}\n')
    with pytest.raises(InputError, match="line 1: accuracy, seconds, seed missing"):
        read_runs(path)
    path.write_text("")
    with pytest.raises(InputError, match="holds no run"):
        read_runs(path)
    path.write_text("{")
    with pytest.raises(InputError, match="line 1"):
        read_runs(path)


def test_images_that_were_scored():
    assert images_of(np.array([0.5, 0.25, np.nan, 1.0])) == 4
    assert images_of(np.array([3 / 717, 700 / 717])) == 717
    assert images_of(np.round(np.arange(500, 717) / 717, 6)) == 717
    assert images_of(np.random.default_rng(0).uniform(size=1000)) == curve_tables.DIVERGED - 1
