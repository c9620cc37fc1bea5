"""`automate reproduce` as a user runs it."""

import json

import pytest

from studies.experiments import EXPERIMENTS, settled, trains
from tests.automate.conftest import Cli
from tests.studies.test_report import Parts

QUICK = "--workers 1 --threads 1 --device cpu"
DIGITS = f"--dataset digits --epochs 1 --seeds 1 {QUICK}"
# Two arms where the experiment has more, so that all of them together stay short.
ARMS = {
    "table2": "branchynet mate",
    "table3": "byot mate",
    "fig5": "baseline mate",
    "table4": "byot mate",
    "fig6": "dks mate",
    "fig8": "alpha_3 alpha_30",
    "table5": "alpha_3 diverse",
    "fig9": "branchynet mate_t_1 mate_t_3",
    "fig10": "alpha_3 alpha_10 gate_alpha_3 gate_alpha_10",
    "table7": "branchynet mate",
    "recipe": "mate mate_t_squared",
    "cost": "mate eed",
}


def drawn(path) -> list[dict]:
    """The figures of a page that hold any data."""
    return [plot for plot in Parts(path.read_text(encoding="utf-8")).figures if plot["data"]]


def test_the_list_names_every_experiment(cli: Cli) -> None:
    said = cli("reproduce --list")
    assert said.code == 0 and all(name in said.out for name in EXPERIMENTS)
    listed = json.loads(cli("reproduce --list --json").out)
    assert [row["name"] for row in listed] == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("reproduce", "name an experiment of the paper: table1, "),
        ("reproduce tabel2", "did you mean 'table2'"),
        ("reproduce table2 --dataset digits --backbone vgg16", "vgg16 takes images of"),
        ("reproduce table2 --dataset digits --only matte", "did you mean 'mate'"),
        ("reproduce table2 --scheme byot", "--scheme"),
        ("reproduce cost --dataset digits --rounds 0", "rounds needs to be at least 1"),
        ("reproduce table1 --backbone resnet19", "did you mean 'resnet18'"),
    ],
)
def test_errors_are_one_line(cli: Cli, words: str, text: str) -> None:
    said = cli(words)
    assert said.code == 2 and text in said.err and said.err.count("\n") == 1


def test_a_dry_run_shows_arms_and_time_and_makes_nothing(cli: Cli, tmp_path) -> None:
    said = cli(f"reproduce table2 {DIGITS} --dry-run")
    assert said.code == 0 and "branchynet, byot, dks, eed, mate" in said.out
    assert "1 of 300 epochs" in said.out and "about" in said.out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_of_table_1_counts_and_writes_nothing(cli: Cli, tmp_path) -> None:
    said = cli("reproduce table1 --backbone vgg16 --dry-run")
    assert (said.code, said.err) == (0, "")
    assert said.out == "FLOPs of vgg16 on cifar100, exit by exit\n"
    assert not (tmp_path / "runs").exists()


def test_it_runs_goes_on_and_is_reported_again(cli: Cli, tmp_path) -> None:
    words = f"reproduce table2 {DIGITS} --only branchynet mate"
    said = cli(words)
    assert said.code == 0 and "1, unconfirmed" in said.out and "Not trained as" in said.out
    page = tmp_path / "runs" / "digits-cnn4-table2" / "report.html"
    assert drawn(page)
    page.unlink()
    again = cli("report digits-cnn4-table2")
    assert again.code == 0 and "Not trained as" in again.out and drawn(page)
    # more seeds of the same study; without --seeds its own number stays
    made = json.loads(cli(f"{words} --seeds 2 --json".replace("--seeds 1 ", "")).out)
    cells = made["studies"][0]["cells"]
    assert {cell["n"] for cell in cells} == {2} and not made["studies"][0]["comparable"]
    kept = json.loads(cli(f"{words} --json".replace("--seeds 1 ", "")).out)
    assert kept["studies"][0]["cells"] == cells
    refused = cli("export digits-cnn4-table2")
    assert refused.code == 2 and "on the test split" in refused.err


def test_table_1_is_counted(cli: Cli, tmp_path) -> None:
    said = cli("reproduce table1 --backbone vgg16 resnet18")
    assert "8 of 8 cells of Table 1 come out to the printed digit" in said.out
    assert "Report: runs/table1.html" in said.out
    assert drawn(tmp_path / "runs" / "table1.html")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "table1"])  # see above
def test_every_experiment_runs_end_to_end(cli: Cli, tmp_path, name: str) -> None:
    only = f"--only {ARMS[name]}" if name in ARMS else ""
    if not trains(name):
        words = f"reproduce {name} --dataset digits --rounds 1 --threads 1 --device cpu {only}"
        said = cli(words)
        assert said.code == 0 and drawn(tmp_path / "runs" / "digits-cnn4-cost.html")
        return
    said = cli(f"reproduce {name} {DIGITS} {only}")
    assert said.code == 0, said.err
    page = tmp_path / "runs" / f"digits-cnn4-{settled(name)}" / "report.html"
    assert drawn(page)


def test_test_images_that_are_missing_are_said_before_the_first_epoch(
    cli: Cli, tmp_path, class_folders
) -> None:
    tree = class_folders("tree", classes=3, train=20, test=2, side=32)
    (tree / "test" / "class001").rename(tree / "class001")
    said = cli(
        f"reproduce table2 --dataset {tree} --only branchynet --seeds 1 --epochs 1 --threads 1"
    )
    assert said.code == 2 and "test/ lacks 'class001'" in said.err, said
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_networks_of_a_tree_share_a_report(cli: Cli, tmp_path, class_folders) -> None:
    tree = class_folders("tree", classes=4, train=8, test=3, side=32)
    said = cli(
        "reproduce", "table2", "--dataset", str(tree), "--backbone", "vgg16", "resnet18", "--only",
        "mate", "eed_matched", "--width", "0.125", "--epochs", "2", "--batch-size", "8", "--seeds",
        "2", "--rule", "paper", *QUICK.split(),
    )  # fmt: skip
    assert said.code == 0, said.err
    text = Parts((tmp_path / "runs" / "table2.html").read_text(encoding="utf-8")).text
    assert "vgg16 on tree" in text and "resnet18 on tree" in text
    assert "Selected on the test set" in text and "width 0.125 of 1" in text


@pytest.mark.slow
def test_it_runs_on_ray_too(cli: Cli) -> None:
    common = "reproduce fig3 --dataset digits --epochs 2 --seeds 2 --threads 1 --device cpu --json"
    here = json.loads(cli(f"{common} --workers 1 --study here").out)
    there = json.loads(cli(f"{common} --workers 2 --study there").out)
    assert here["studies"][0]["cells"] == there["studies"][0]["cells"]
