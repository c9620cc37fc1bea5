"""Names, YAML, checkpoints and storages of an unknown hand: refused in one line, nothing run."""

import json
import pickle
import random
import sqlite3
import string
from contextlib import closing
from pathlib import Path

import pytest
import torch

from studies.export import read_exported
from studies.plan import checked_study_name
from studies.record import StudyRecord
from tests.faults.hostile import CONFIGS, GOOD, Planted, names
from tests.studies.example import make_plan, run
from trainers import checkpoints
from trainers.catalog import InputError


def test_a_name_is_a_plain_one_or_refused_in_one_line(tmp_path):
    accepted = 0
    for name in names(1000):
        try:
            checked_study_name(name)
        except InputError as error:
            assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) < 400
            continue
        accepted += 1
        inside = (tmp_path / name).resolve()
        assert inside.parent == tmp_path.resolve() and inside.name == name
        assert set(name) <= set(string.ascii_letters + string.digits + "_.+-")
    assert 0 < accepted < 200


@pytest.mark.parametrize("text", CONFIGS, ids=range(len(CONFIGS)))
def test_bad_configs_are_refused_in_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_exported(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == [path]


def test_more_bad_files_and_a_good_one(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    assert read_exported(path)[0].epochs == 2
    for content in (b"#" * 10_000_000, b"\xff\xfe\x00", b"config: \x00", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_exported(path)
    for other in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(InputError):
            read_exported(other)


def test_a_hundred_damaged_and_planted_checkpoints(tmp_path):
    path, mark = tmp_path / "c.pt", tmp_path / "pwned"
    checkpoints.write(path, {"weights": torch.arange(2000.0), "reports": ["a"]})
    whole = path.read_bytes()
    rng = random.Random(0)
    contents = [whole[: rng.randrange(len(whole))] for _ in range(100)]
    contents += [pickle.dumps(Planted(mark)), pickle.dumps({"format": checkpoints.FORMAT})[:-1]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            checkpoints.read(path)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def values(column: str) -> list[str]:
    planted = pickle.dumps(Planted(Path("pwned"))).hex()
    return [json.dumps(value) for value in (None, 3, [], "x" * 5000, {}, planted, "../../up")]


@pytest.mark.parametrize("key", ["plan", "config", "claim", "report:1", "automate", "start"])
def test_a_storage_of_an_unknown_hand_is_refused_or_read_without_harm(tmp_path, key, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path / "runs")) as record:
        ticket = record.ask()
        assert ticket is not None
        run(record, ticket)
        database = record.place.database
    tables = ("study_user_attributes", "study_system_attributes", "trial_user_attributes",
              "trial_system_attributes")  # fmt: skip
    for value in values(key):
        file = sqlite3.connect(database)
        for table in tables:
            file.execute(f"UPDATE {table} SET value_json = ? WHERE key = ?", (value, key))
        file.commit()
        file.close()
        try:
            with closing(StudyRecord.open("tried", runs=tmp_path / "runs")) as read:
                assert len(read.outcomes()) == 6
        except InputError as error:
            assert "\n" not in str(error)
    assert not (tmp_path / "pwned").exists()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == [
        "runs", "space.py",
    ]  # fmt: skip
