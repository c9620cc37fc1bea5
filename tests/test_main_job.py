"""The main job on trees of class folders, as a user runs it: search, export, full training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def automate(cwd: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command in a process of its own; returns what it printed on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "automate", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_search_needs_no_test_split_and_full_training_does(tmp_path, class_folders):
    tree = class_folders("tree", classes=3, train=20, test=5, side=32)
    hidden = tmp_path / "hidden"
    (tree / "test").rename(hidden)
    common = ("--workers", "1", "--threads", "1", "--width", "0.125", "--batch-size", "16")
    automate(
        tmp_path, "search", "--space", "single_alpha", "--dataset", str(tree), "--study", "s",
        "--epochs", "2", "--trials", "2", *common,
    )  # fmt: skip
    assert (tmp_path / "runs" / "s" / "report.html").stat().st_size > 1_000_000
    automate(tmp_path, "export", "s", "--top", "1")
    best = "runs/s/best/1.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "automate", "train", best, "--seeds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "test" in done.stderr and "Traceback" not in done.stderr
    hidden.rename(tree / "test")
    summary = json.loads(automate(tmp_path, "train", best, "--seeds", "1", "--json"))
    assert len(summary["exits"]) == 4 and summary["trained_on"] == "train + validation"


@pytest.mark.cifar100
def test_cifar100_is_searched_with_the_papers_backbone(tmp_path, cifar100_root):
    automate(
        tmp_path, "search", "--space", "diverse_alpha", "--dataset", "cifar100", "--data-root",
        str(cifar100_root), "--backbone", "vgg16", "--epochs", "1", "--trials", "1",
        "--limit-train", "256", "--workers", "1",
    )  # fmt: skip
    (study,) = json.loads(automate(tmp_path, "studies", "--json"))
    assert study["states"]["COMPLETE"] == 1


@pytest.mark.cifar100
def test_a_narrow_vgg16_learns_a_slice_of_cifar100(tmp_path, cifar100_root):
    tree = tmp_path / "slice"
    for split in ("train", "test"):
        for folder in sorted((cifar100_root / split).iterdir())[:5]:
            (tree / split).mkdir(parents=True, exist_ok=True)
            (tree / split / folder.name).symlink_to(folder)
    automate(
        tmp_path, "search", "--space", "single_alpha", "--dataset", str(tree), "--width", "0.125",
        "--epochs", "12", "--trials", "1", "--batch-size", "16", "--lr", "0.05", "--workers", "1",
        "--limit-train", "400",
    )  # fmt: skip
    (study,) = json.loads(automate(tmp_path, "studies", "--json"))
    assert study["best"] > 0.35, "of five classes chance is 0.2"
