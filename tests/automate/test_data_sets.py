"""A search on small trees in the published layouts, as a user runs it."""

import json
import shutil

import pytest
from PIL import Image

from tests.automate.conftest import Cli

SMALL = (
    "search --space single_alpha --epochs 1 --trials 1 --workers 1 --threads 1 --device cpu "
    "--width 0.1875 --batch-size 4 --study s --quiet"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tinyimagenet", "cub200"])
def test_a_search_from_the_published_layout(cli: Cli, official_tree, tmp_path, monkeypatch, name):
    """Without the test images; at 224x224 for the fine-grained sets."""
    monkeypatch.setenv("AUTOMATE_CACHE", str(tmp_path / "cache"))
    root = official_tree(name, classes=2, train=5, test=2)
    if name == "tinyimagenet":
        shutil.rmtree(root / "tiny-imagenet-200" / "val")
    dry = cli(f"{SMALL} --dataset {name} --data-root {root} --dry-run --json")
    assert dry.code == 0, dry.err
    assert not (tmp_path / "cache").exists(), "a plan decodes nothing"
    said = cli(f"{SMALL} --dataset {name} --data-root {root}")
    assert said.code == 0, said.err
    (study,) = json.loads(cli("studies --json").out)
    assert study["states"]["COMPLETE"] == 1


def test_what_is_missing_is_said_in_one_line(cli: Cli, tmp_path):
    said = cli(f"{SMALL} --dataset stanford_dogs --data-root {tmp_path / 'none'}")
    assert said.code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    for part in (str(tmp_path / "none"), "datasets fetch stanford_dogs", "--dataset digits"):
        assert part in said.err


def test_photographs_of_any_shape_and_mode(cli: Cli, class_folders, tmp_path, monkeypatch):
    """Refused as they are, with the flag that takes them; searched and trained with it."""
    monkeypatch.setenv("AUTOMATE_CACHE", str(tmp_path / "cache"))
    root = class_folders(classes=2, train=6, test=2)
    for split in ("train", "test"):
        for number, path in enumerate(sorted((root / split).rglob("*.png"))):
            made = Image.open(path).resize((40 + 9 * number, 50)).convert("LP"[number % 2])
            made.save(path)
    words = f"{SMALL} --dataset {root} --validation 0.25"
    said = cli(words)
    assert said.code == 2 and said.out == "" and "`--resize N`" in said.err
    said = cli(f"{words} --resize 16")
    assert said.code == 2 and "--resize 8, 32 or 224 makes them fit" in said.err
    said = cli(f"{words} --resize 8")
    assert said.code == 0, said.err
    plan = json.loads(cli(f"{words} --resize 8 --dry-run --json").out)["plan"]
    assert plan["base"]["resize"] == 8 and plan["base"]["image_size"] == 8
    said = cli(f"{words} --resize 32")
    assert said.code == 2 and "resize" in said.err, "another config than the study's"
    assert cli("export s --top 1").code == 0
    trained = cli("train runs/s/best/1.yaml --seeds 1 --device cpu --json")
    assert trained.code == 0, trained.err


def test_a_plan_says_what_is_passed_over_and_what_is_not_there_yet(cli: Cli, class_folders):
    root = class_folders(classes=2, train=6)
    words = f"{SMALL.removesuffix(' --quiet')} --dataset {root} --validation 0.25 --dry-run"
    said = " ".join(cli(words).out.split())
    assert "the test images stay unread" in said and "passed over" not in said
    folder = root / "train" / "class001"
    for name in ("a.heic", "b.HEIC", "notes"):
        (folder / name).write_bytes(b"")
    (folder / "deeper").mkdir()
    shutil.rmtree(root / "test")
    said = " ".join(cli(words).out.split())
    assert "no test/ is there yet, which confirm and train need; no images by their names" in said
    assert "passed over: 2 .heic, 1 folder, 1 without extension" in said
    found = json.loads(cli(f"{words} --json").out)["estimate"]
    assert found["passed_over"][".heic"] == 2 and not found["has_test"]
