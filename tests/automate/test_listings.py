"""What there is, as tables and as JSON."""

import json
import re

import pytest

from search_spaces import names
from tests.automate.conftest import Cli
from trainers.catalog import BACKBONES, DATASETS
from trainers.schemes import SCHEMES


@pytest.mark.parametrize(
    ("words", "known"),
    [("spaces", names()), ("datasets", DATASETS), ("schemes", SCHEMES), ("backbones", BACKBONES)],
)
def test_listings_have_every_row(cli: Cli, words, known):
    said = cli(words)
    assert (said.code, said.err) == (0, "")
    for name in known:
        assert re.search(rf"^ {name} .*\S{{3}}", said.out, re.MULTILINE), name
    said = cli(f"{words} --json")
    assert (said.code, said.err) == (0, "")
    rows = json.loads(said.out)
    assert {row.get("name") or row["backbone"] for row in rows} == set(known)


def test_schemes_tell_what_they_read(cli: Cli):
    rows = {row["name"]: row["reads"] for row in json.loads(cli("schemes --json").out)}
    assert "temperature" in rows["byot"] and "temperature" not in rows["dbt"]
    assert "kd_weight" in rows["dbt"]
    assert rows["branchynet"] == ["exit_weights"]
    assert "gate_input" in rows["mate_gate"] and "gate_input" not in rows["one"]
    said = " ".join(cli("schemes").out.split())
    assert "also reads kd_weight, t_squared, kl, ramp_up, attached; every scheme reads" in said


def test_one_scheme_shows_its_matrices(cli: Cli, tmp_path):
    shown = json.loads(cli("schemes mate --alpha 1 2 3 4 --json").out)
    assert [row[i] for i, row in enumerate(shown["weights"])] == [2, 3, 4, 5]
    assert (shown["network"], shown["mix"][0][0]) == ("attention", pytest.approx(2 / 5))
    said = cli("schemes mate").out
    assert re.search(r"teacher 1 +0\.571 +0\.143", said) and re.search(r"exit 4 +1 +1 +1 +4", said)
    assert "V (Eq. 7)" not in said and "V (Eq. 7)" in cli("schemes mate_primary").out
    assert "nobody teaches" in cli("schemes branchynet").out
    assert re.search(r"exit 5 +0 *$", cli("schemes byot --backbone msdnet").out, re.MULTILINE)
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from trainers.schemes import Scheme\n"
        "SCHEME = Scheme('the mean', lambda a: [[1 / len(a)] * len(a)], lambda a: [[2]] * len(a))\n"
    )
    said = cli(f"schemes {mine}").out
    assert said.startswith("mine.py: the mean\n") and re.search(r"exit 4 +2", said)
    mine.write_text(mine.read_text().replace("[[2]]", "[[2, 2]]"))
    said = cli(f"schemes {mine}")
    assert said.code == 2 and "mix needs to give 2 rows" in said.err and said.err.count("\n") == 1


def test_backbones_tell_what_exits_cost_as_table_1_does(cli: Cli):
    rows = json.loads(cli("backbones vgg16 --json").out)
    assert [row["exit"] for row in rows] == [1, 2, 3, 4]
    assert [round(row["flops"] / 1e6, 2) for row in rows] == [99.19, 192.79, 286.39, 314.18]
    assert rows[3]["flops_cascade"] > rows[3]["flops"]
    assert "99.186" in cli("backbones vgg16").out


def test_backbones_are_listed_at_every_size_that_a_data_set_has(cli: Cli):
    rows = json.loads(cli("backbones --json").out)
    listed = {(row["backbone"], row["image_size"]) for row in rows}
    there = {entry.image_size for entry in DATASETS.values()}
    takes = {(name, size) for name, entry in BACKBONES.items() for size in entry.image_sizes}
    assert listed == {(name, size) for name, size in takes if size in there}


def test_backbones_show_all_four_costs_of_each_exit(cli: Cli):
    said = cli("backbones msdnet").out
    first, fifth = (line.split() for line in said.splitlines() if re.search(r" [15] +\d+\.", line))
    assert first[-4:] == ["6.860", "6.860", "6.793", "299,704"]
    assert fifth[-4:-2] == ["46.325", "58.481"]
    rows = json.loads(cli("backbones msdnet --json").out)
    assert {"flops", "flops_cascade", "macs", "parameters"} <= set(rows[0])


def test_backbones_of_another_width_and_data_set(cli: Cli):
    rows = json.loads(cli("backbones resnet18 --width 0.25 --dataset cifar100 --json").out)
    assert len(rows) == 4
    assert rows[0]["flops"] < 163e6 / 4


def test_backbones_on_images_of_ones_own(cli: Cli, class_folders):
    tree = class_folders(classes=5, side=20)
    words = f"backbones vgg16 --dataset {tree}"
    said = cli(words)
    assert said.code == 2 and "--resize 8, 32 or 224" in said.err
    rows = json.loads(cli(f"{words} --resize 32 --json").out)
    assert [row["image_size"] for row in rows] == [32] * 4
    said = cli(f"profile vgg16 --dataset {tree} --resize 32 --repeats 1 --width 0.125 --json")
    assert said.code == 0, said.err
    assert [row["image_size"] for row in json.loads(said.out)["exits"]] == [32] * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("backbones vgg16 --resize 32", "--resize is of class folders of your own: name them by"),
        ("backbones vgg17", "did you mean 'vgg16'?"),
        ("backbones ./nothing.py", "does not exist"),
        ("schemes ./nothing.py", "scheme file './nothing.py' does not exist"),
        ("schemes mat", "did you mean 'mate'?"),
        ("schemes mate --alpha 1 2", "alpha needs 1 or 4 values, got 2"),
        ("backbones vgg16 --dataset digits", "takes images of 32 pixels"),
        ("backbones --dataset mnist", "unknown dataset 'mnist'"),
        ("backbones --width 0", "width: "),
        ("datasets fetch mnist", "unknown dataset 'mnist'"),
    ],
)
def test_wrong_names_are_one_line(cli: Cli, words, said):
    found = cli(words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err


def test_digits_need_no_fetching(cli: Cli, tmp_path):
    said = cli("datasets fetch digits")
    assert (said.code, said.err) == (0, "")
    assert "nothing to fetch" in said.out
    assert not list(tmp_path.iterdir())


def test_datasets_tell_what_they_take(cli: Cli):
    rows = {row["name"]: row for row in json.loads(cli("datasets --json").out)}
    assert rows["cub200"]["decoded"] == (5_994 + 5_794) * 3 * 256 * 256
    assert rows["cub200"]["download"] == 1_150_585_339
    assert rows["digits"]["download"] == 0
    assert re.search(r"^ cub200 .* 2\.3 GB ", cli("datasets").out, re.MULTILINE)


def test_fetch_tells_how_far_it_is(cli: Cli, tmp_path, monkeypatch):
    from trainers import fetching

    def download(name, root, mirror, *, on_note, on_progress):
        assert (name, root, mirror) == ("cub200", "place", "http://host")
        on_note("cub200: 1,151 MB to place")
        on_progress(fetching.Progress("CUB_200_2011.tgz", 250_000_000, 1_000_000_000, 5e6))
        return tmp_path

    monkeypatch.setattr(fetching, "fetch", download)
    monkeypatch.setattr("automate.commands.listings.TELL_EVERY", 0.0)
    said = cli("datasets fetch cub200 --mirror http://host --data-root place")
    assert (said.code, said.out) == (0, f"cub200 is in {tmp_path}\n")
    assert "CUB_200_2011.tgz: 25 % of 1.0 GB, 5.0 MB/s, 2 min 30 s left" in said.err


def test_fetch_needs_a_mirror_that_is_one(cli: Cli, tmp_path):
    said = cli(f"datasets fetch cub200 --mirror nowhere --data-root {tmp_path}")
    assert said.code != 0 and said.out == ""
    assert "--mirror needs an http or https address, got 'nowhere'" in said.err
    assert cli("datasets fetch digits").out == "digits comes with scikit-learn: nothing to fetch\n"
