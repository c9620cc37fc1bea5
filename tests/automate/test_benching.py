"""`automate bench`, with everything that takes time replaced."""

import json

import pytest

from tests.automate.conftest import Cli
from trainers.rounds import Row


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("digits", "plain", 1000.0, "images/s", 1.0, 1.0, 1.0, rounds=3, dropped=1)
    fast = Row("digits", "bf16", 3100.0, "images/s", 3.1, 3.0, 3.2, rounds=3)
    monkeypatch.setattr("trainers.bench.step_table", lambda nets, rounds: [row, fast])
    monkeypatch.setattr("trainers.bench.peak", lambda precision: 1e12)
    monkeypatch.setattr("trainers.bench.precisions", lambda config: {"fp32": 1e4, "bf16": 3e4})


def test_tables(cli: Cli):
    said = cli("bench --parts step --nets digits")
    assert (said.code, said.err) == (0, "")
    for part in ("x3.10", "3.00 to 3.20", "% of the bf16 matrix peak", "used the machine: 1."):
        assert part in said.out, part


def test_json(cli: Cli):
    said = cli("bench --parts step --nets digits --json")
    found = json.loads(said.out)
    assert found["step"][1]["ratio"] == 3.1
    assert found["paths"][0]["side"] == "bf16"
    assert found["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--parts stop", "unknown part 'stop' (did you mean 'step'?): known are loss, "),
        ("--nets vgg", "unknown net 'vgg' (did you mean 'vgg16'?): known are digits, "),
        ("--rounds 0", "rounds needs to be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, words, error):
    said = cli(f"bench {words}")
    assert said.code == 2
    assert error in said.err
    assert said.err.count("\n") == 1
