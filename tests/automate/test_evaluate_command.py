"""`automate evaluate` over a real, tiny run."""

import json
from pathlib import Path

import pytest

from studies.export import write_config
from studies.final import train_finals
from tests.automate.conftest import Cli
from trainers.config import TrialConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best")
    config = TrialConfig(dataset="digits", epochs=1, limit_train=60)
    write_config(folder / "1.yaml", config, {"study": "tiny"})
    return train_finals(folder / "1.yaml", seeds=2).folder


def test_it_prints_what_a_reviewer_asks_and_writes_the_page(cli: Cli, run: Path):
    said = cli("evaluate", str(run), "--budgets", "60k", "0.1M", "--out", "page.html")
    assert (said.code, said.err) == (0, "")
    for text in (
        "On 900 test images, mean ± std of n = 2 seeds",
        "calibration error",
        "717 held-out images",
        "leave at 4",
        "Overthinking:",
        "Oracle:",
        "Teachers:",
        "The test images were read.",
    ):
        assert text in said.out
    assert "0.060" in said.out and "0.100" in said.out and "0.233" in said.out
    assert "<html" in Path("page.html").read_text(encoding="utf-8")


def test_json_is_alone_on_stdout_and_the_page_lies_beside_the_run(cli: Cli, run: Path):
    said = cli("evaluate", str(run / "seed-1"), "--json")
    found = json.loads(said.out)
    assert (said.code, said.err, found["split"], found["seeds"]) == (0, "", "test", [1])
    assert found["page"] == str(run / "seed-1" / "evaluation.html")
    assert Path(found["page"]).is_file()
    assert len(found["budget"]["flops"]) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budgets", "1G"], "cannot be spent: this network's exits cost from 47.834k"),
        (["--budgets", "60q"], "FLOPs need a number above 0"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--threads", "0"], "threads needs to be at least 1"),
        (["--data-root", "x", "--out", "."], "needs a file to be written to"),
    ],
)
def test_wrong_flags_are_one_line(cli: Cli, run: Path, words: list[str], said: str):
    found = cli("evaluate", str(run), *words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err


def test_a_folder_without_a_run_is_one_line(cli: Cli):
    found = cli("evaluate", ".")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "has no trained run" in found.err
