"""The benchmark commands of searches in their smallest form: long ones, many workers, sweeps."""

from studies import samplers
from studies.replay import Policy
from tests.benchmarks import scale, sweep, workers
from tests.studies import made_up_curves


def test_a_long_study(tmp_path, capsys):
    found = scale.measure(tmp_path, trials=40, left=8)
    assert set(scale.WANTED) <= set(found)
    assert found["ask"] > 0 < found["report"]


def test_searches_of_many_workers(capsys):
    rows = workers.main(["--trials", "8", "--workers", "1", "8", "--repetitions", "1"])
    assert float(rows[1][1].replace(",", "")) < float(rows[0][1].replace(",", ""))


def test_a_sweep_of_policies(tmp_path, capsys, monkeypatch):
    path = made_up_curves.table(configs=10, seeds=2).write(tmp_path / "small.npz")
    monkeypatch.setattr(samplers, "STARTUP", samplers.STARTUP)  # which `run` changes
    assert len(sweep.run((str(path), Policy(grace=4), 5, 4, 2))) == 2
    some = list(sweep.policies(30, quick=False))
    assert len(some) == len(set(some)) > 40
    assert sweep.text(*some[0], epochs=30) == "random, full length"
