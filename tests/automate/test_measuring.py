"""`automate profile`."""

import json

import pytest

from tests.automate.conftest import Cli
from tests.trainers.test_exits import MINE

QUICK = "--repeats 5 --threads 1 --width 0.125"


def test_profile_measures_several_networks_in_one_table(cli: Cli):
    said = cli(f"profile vgg16 msdnet {QUICK} --batch-size 2")
    assert (said.code, said.err) == (0, "")
    assert "batches of 2" in said.out and "median of 5 rounds" in said.out
    rows = [
        line.split() for line in said.out.splitlines() if line.startswith((" vgg16", " msdnet"))
    ]
    assert [(row[0], row[2]) for row in rows] == [
        *(("vgg16", k) for k in "1234"),
        *(("msdnet", k) for k in "12345"),
    ]
    assert "FLOPs and time rank" in said.out


def test_profile_as_json(cli: Cli):
    found = json.loads(cli(f"profile resnet18 {QUICK} --dataset cifar100 --json").out)
    assert [row["exit"] for row in found["exits"]] == [1, 2, 3, 4]
    assert all(row["low"] <= row["seconds"] <= row["high"] for row in found["exits"])
    assert isinstance(found["ranked_apart"], list)


def test_profile_takes_a_users_file(cli: Cli, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    said = cli("profile mine.py --repeats 1")
    assert (said.code, said.err) == (0, "")
    assert said.out.count("mine.py") == 2
    assert "Too few rounds to compare ranks" in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("profile", "needs a backbone"),
        ("profile vgg17", "did you mean 'vgg16'?"),
        ("profile vgg16 --dataset digits", "takes images of 32 pixels"),
        ("profile cnn4 --batch-size 0", "batch_size needs to be at least 1"),
        ("profile cnn4 --repeats 1.5", "whole number"),
        ("profile cnn4 --device tpu", "known are cpu, cuda"),
    ],
)
def test_wrong_profiles_are_one_line(cli: Cli, words, says):
    found = cli(words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert says in found.err
