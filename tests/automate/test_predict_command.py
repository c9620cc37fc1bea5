"""`automate predict` over a real, tiny run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studies.export import write_config
from studies.final import train_finals
from tests.automate.conftest import Cli
from trainers.config import TrialConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the tree `photos`, and `run`, trained on it with its hold-out unseen."""
    folder, rng = tmp_path_factory.mktemp("predict"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(100 * label, 100 * label + 155, (20, 30)).astype(np.uint8)
                path = folder / "photos" / split / name / f"{number}.jpg"
                Image.fromarray(pixels).save(path)
    config = TrialConfig(
        dataset=str(folder / "photos"), classes=2, resize=8, epochs=4, batch_size=8, validation=0.5
    )
    write_config(folder / "1.yaml", config, {"study": "tiny"})
    train_finals(folder / "1.yaml", seeds=2, keep_validation=True).folder.rename(folder / "run")
    return folder


def test_the_last_exit_answers(cli: Cli, folder: Path):
    image = str(folder / "photos" / "test" / "light" / "3.jpg")
    said = cli("predict", str(folder / "run"), image)
    assert (said.code, said.err) == (0, "")
    assert "light/3.jpg" in said.out and "seed-1" in said.out
    assert "the last exit answered all; with --budget images leave early." in said.out


def test_a_budget(cli: Cli, folder: Path):
    images = [str(path) for path in sorted((folder / "photos" / "test").rglob("*.jpg"))]
    said = cli("predict", str(folder / "run"), *images, "--budget", "100k", "--json")
    found = json.loads(said.out)
    assert (said.code, said.err, found["budget"]) == (0, "", 100_000)
    assert [image["file"] for image in found["images"]] == images
    assert {image["label"] for image in found["images"]} <= {"dark", "light"}
    assert len(found["thresholds"]) == 4 and found["thresholds"][-1] == 0.0
    mean = sum(image["flops"] for image in found["images"]) / len(images)
    assert found["flops"] == pytest.approx(mean)
    said = cli("predict", str(folder / "run" / "seed-2"), *images, "--budget", "100k")
    assert said.code == 0 and "The thresholds keep within 100k on the held-out" in said.out


def test_an_image_that_cannot_be_used_costs_the_others_nothing(cli: Cli, folder: Path):
    image = str(folder / "photos" / "test" / "light" / "3.jpg")
    said = cli("predict", str(folder / "run"), "none.jpg", image, "--json")
    found = json.loads(said.out)
    assert said.code == 1
    assert said.err == "automate: cannot read 'none.jpg': No such file or directory\n"
    assert [one["file"] for one in found["images"]] == [image]
    assert [one["file"] for one in found["refused"]] == ["none.jpg"]


def test_a_file_name_that_is_no_text_is_still_json(cli: Cli, folder: Path, tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/odd\xff.jpg"
    shutil.copy(folder / "photos" / "test" / "light" / "3.jpg", name)
    said = cli("predict", str(folder / "run"), os.fsdecode(name), "--json")
    assert said.code == 0 and "\\udcff.jpg" in said.out
    (image,) = json.loads(said.out)["images"]
    assert os.fsencode(image["file"]) == name


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "predict needs image files, e.g. `automate predict RUN photo.jpg`"),
        (["none.jpg"], "cannot read 'none.jpg': No such file"),
        (["none.jpg", "--budget", "60q"], "FLOPs need a number above 0"),
        (["none.jpg", "--budget", "1G"], "cannot be spent: this network's exits cost from"),
        (["none.jpg", "--bugdet", "1G"], "--budget"),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, folder: Path, words: list[str], text: str):
    said = cli("predict", str(folder / "run"), *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert text in said.err
