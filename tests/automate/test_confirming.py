"""`automate confirm`, and `automate search --confirm`, to the verdict."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from studies import confirm
from studies.export import read_exported
from studies.machine import Speed
from studies.record import StudyRecord
from tests.automate.conftest import Cli
from tests.studies import made_up_confirmations as made
from trainers.catalog import InputError
from trainers.config import TrialConfig

QUICK = "--workers 1 --threads 1"


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known speed, trials without training, and no weights to score."""
    monkeypatch.setattr("studies.machine.measure", lambda *_: Speed(1000.0, 1))
    monkeypatch.setattr(
        "studies.machine.measure_precisions", lambda *_: {"fp32": 1000.0, "bf16": 900.0}
    )

    def run(config: TrialConfig, **_: object) -> Iterator[object]:
        return made.reports(config)

    monkeypatch.setattr("studies.trial.run", run)
    monkeypatch.setattr(
        confirm, "_scored", lambda record, o: o.report.model_copy(update={"split": "test"})
    )


@pytest.fixture
def searched(cli: Cli) -> str:
    said = cli(f"search --space diverse_alpha --trials 9 --epochs 3 --no-early-stopping {QUICK}")
    assert said.code == 0, said.err
    assert "automate confirm digits-cnn4-diverse_alpha" in said.out
    return "digits-cnn4-diverse_alpha"


def test_from_the_race_to_the_verdict(cli: Cli, searched, tmp_path):
    dry = cli("confirm --top 5 --seeds 4 --dry-run")
    for text in (
        "digits-cnn4-diverse_alpha-confirm", "4, from 1 to 4", "then 2 candidates a round",
        "the paper's default", "read once, after the race", "at most ", "weights until the test",
    ):  # fmt: skip
        assert text in dry.out, text
    assert "1 candidate in each of 2 rounds" in cli("confirm --top 1 --seeds 2 --dry-run").out
    assert not (tmp_path / "runs" / f"{searched}-confirm").exists()
    said = cli("confirm --top 5 --seeds 4")
    assert said.code == 0
    for text in (
        "Confirmed on fresh seeds and hold-outs", "Take ", "The search's best, ", "Test images, ",
        "How to read it", f"runs/{searched}/confirmation.json", "Next:",
    ):  # fmt: skip
        assert text in said.out, text
    assert f"export {searched} --confirmed" in said.out and "--top 3" not in said.out
    again = cli("confirm --json --quiet")
    found = json.loads(again.out)
    assert found["sentences"][0] in " ".join(said.out.split()).replace("  ", " ")
    stored = json.loads((tmp_path / "runs" / searched / "confirmation.json").read_text())
    assert stored.items() <= found.items()
    page = (tmp_path / "runs" / searched / "report.html").read_text()
    assert 'id="confirmed"' in page and f"automate export {searched} --confirmed" in page
    exported = cli("export --confirmed")
    path = tmp_path / "runs" / searched / "best" / "confirmed.yaml"
    assert (exported.code, exported.err) == (0, "")
    assert exported.out.splitlines() == [
        f"runs/{searched}/best/confirmed.yaml", "Next:",
        f"  automate train runs/{searched}/best/confirmed.yaml --seeds 3",
    ]  # fmt: skip
    config, source = read_exported(path)
    (entry,) = (c for c in found["candidates"] if c["name"] == found["chosen"])
    assert config.model_dump(mode="json") == entry["config"] | {"seed": 4}, "seeds 1 to 4 are used"
    assert source["trial"] == entry["trial"] and source["runs"] == entry["rounds"]
    assert 100 * source["value"] == pytest.approx(entry["mean"]["mean"])
    assert 100 * source["accuracy"][0] == pytest.approx(entry["exit_means"][0]["mean"])
    report = cli("report --json")
    (study,) = json.loads(report.out)["studies"]
    assert study["confirmation"]["chosen"] == study["take"]["name"] == found["chosen"]
    assert study["verdict"] == found["sentences"][0]
    assert (study["take"]["number"], study["take"]["n"]) == (entry["trial"], entry["rounds"])
    assert 100 * study["take"]["value"] == pytest.approx(entry["mean"]["mean"])
    assert "unconfirmed" in study["search_verdict"] and study["search_take"]["config"]
    assert "Confirmed on fresh seeds" in cli("report").out
    more = cli("confirm --seeds 5")
    assert more.code == 0
    assert more.out.count("read 2 times, after 4 seeds and 5 seeds, each network once") == 2
    with closing(StudyRecord.open(f"{searched}-confirm")) as record:
        assert record.plan.trials == 6 * 5


def test_what_cannot_be_confirmed_is_one_line(cli: Cli, searched):
    said = cli("export --confirmed")
    assert said.code == 2 and f"{searched} is not confirmed: `automate confirm" in said.err
    assert cli("confirm --top 3 --seeds 2 --quiet --max-epochs-total 4").code == 0
    (study,) = json.loads(cli("report --json").out)["studies"]
    assert "unconfirmed" in study["verdict"] and "search_take" not in study, "it is not over"
    said = cli("export --confirmed")
    assert said.code == 2 and "is not finished: `automate confirm" in said.err
    assert cli("confirm --top 3 --seeds 2 --quiet").code == 0
    for words, text in (
        ("confirm --top 4", "confirms 3 candidates, got --top 4"),
        ("confirm --seeds 1", "seeds can be added, not taken away"),
        (f"confirm {searched}-confirm", "is a confirmation: only a search can be confirmed"),
        ("confirm nothing", "unknown study 'nothing'"),
        (f"report {searched}-confirm", f"automate report {searched}"),
        (f"export {searched}-confirm", "export from that"),
        (f"export {searched}-confirm --confirmed", "export from that"),
        ("export --confirmed --top 2", "--confirmed writes one config: leave out"),
        ("search --space single_alpha --confirm 0.01", "at least 4 are needed"),
        ("search --space single_alpha --confirm 1.2", "a share above 0 and below 1, got 1.2"),
    ):
        said = cli(words)
        assert said.code == 2 and text in said.err, (words, said)
        assert len(said.err.strip().splitlines()) == 1
    assert cli("confirm --top 4 --fresh --quiet").code == 0


def test_a_search_keeps_a_share_of_its_epochs_for_the_confirmation(cli: Cli, tmp_path):
    words = f"search --space diverse_alpha --trials 20 --epochs 3 --confirm 0.5 {QUICK}"
    dry = cli(f"{words} --dry-run --json")
    found = json.loads(dry.out)
    assert found["plan"]["trials"] == 10 and found["confirmation"]["epochs"] == 30
    assert "50 % of the 60 epochs: then the best 1 and the default on up to 5" in dry.err
    said = cli(words)
    assert said.code == 0
    assert "Confirming the best of digits-cnn4-diverse_alpha" in said.out
    assert "Take " in said.out and "Test images, " in said.out
    assert "alpha --confirmed" in said.out and "best/confirmed.yaml" in said.out
    total = 0
    for name in ("digits-cnn4-diverse_alpha", "digits-cnn4-diverse_alpha-confirm"):
        with closing(StudyRecord.open(name)) as record:
            total += sum(outcome.epochs for outcome in record.outcomes())
    assert 30 < total <= 60
    again = cli(f"{words} --json --quiet")
    assert again.code == 0
    found = json.loads(again.out)
    assert found["confirmation"]["over"] is True
    assert found["take"]["name"] == found["confirmation"]["chosen"] and "search_take" in found
    with closing(StudyRecord.open("digits-cnn4-diverse_alpha")) as record:
        assert record.plan.trials == 10


def test_a_confirmation_without_test_images_is_refused_before_it_trains(
    cli: Cli, class_folders: Callable[..., Path], tmp_path: Path
) -> None:
    tree = class_folders("tree", classes=3, train=20, test=2, side=32)
    words = f"search --dataset ./tree --space single_alpha --trials 3 --epochs 2 --quiet {QUICK}"
    assert cli(words).code == 0
    study = "tree-vgg16-single_alpha"
    (tree / "test" / "class001").rename(tree / "class001")
    for ask in (f"confirm {study}", f"confirm {study} --dry-run", f"{words} --confirm 0.5"):
        said = cli(ask)
        assert said.code == 2 and "test/ lacks 'class001'" in said.err, said
        assert not (tmp_path / "runs" / f"{study}-confirm").exists()
    shutil.rmtree(tree / "test")
    said = cli(f"confirm {study} --dry-run")
    assert said.code == 2 and "no folder" in said.err and "tree/test'" in said.err


def test_the_verdict_does_not_wait_for_test_images_that_cannot_be_read(
    cli: Cli, class_folders: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = class_folders("tree", classes=3, train=20, test=2, side=32)
    words = f"search --dataset ./tree --space single_alpha --trials 3 --epochs 2 --quiet {QUICK}"
    assert cli(words).code == 0
    study = "tree-vgg16-single_alpha"

    def broken(*_: object) -> None:
        raise InputError("cannot read 'tree/test/class001/00000.png'")

    monkeypatch.setattr(confirm, "_scored", broken)
    said = cli(f"confirm {study} --seeds 2")
    assert said.code == 1 and "Take " in said.out and "Verdict: " in said.out
    assert said.err == (
        "automate: the test images could not be read: cannot read 'tree/test/class001/00000.png'\n"
    )
    stored = json.loads((tmp_path / "runs" / study / "confirmation.json").read_text())
    assert stored["over"] and stored["verdict"] is not None
    shutil.rmtree(tree / "test")  # nothing is left to train: the verdict is said again
    said = cli(f"confirm {study}")
    assert said.code == 1 and "Take " in said.out
    assert "the test images could not be read: no folder" in said.err


def test_an_interrupted_confirmation_goes_on_with_the_same_command(cli: Cli, searched, monkeypatch):
    calls = 0

    def run(config: TrialConfig, **_: object) -> Iterator[object]:
        nonlocal calls
        for report in made.reports(config):
            calls += 1
            if calls == 8:
                raise KeyboardInterrupt
            yield report

    monkeypatch.setattr("studies.trial.run", run)
    said = cli("confirm --top 3 --seeds 2")
    assert said.code == 130
    assert "automate confirm --top 3 --seeds 2" in said.err
    said = cli("confirm --max-epochs-total 12")
    assert "not finished" in said.out and "Stopped: the 12 epochs" in said.err
    said = cli("confirm")
    assert said.code == 0 and "Take " in said.out


def test_in_one_storage_for_all_studies(cli: Cli, tmp_path):
    where = f"--storage sqlite:///{tmp_path / 'all.db'}"
    words = "search --space diverse_alpha --trials 5 --epochs 2 --no-early-stopping --quiet"
    assert cli(f"{words} {QUICK} {where}").code == 0
    said = cli(f"confirm --top 2 --seeds 2 {where}")
    assert said.code == 0 and "Take " in said.out
    assert f"confirm digits-cnn4-diverse_alpha {where}" not in said.out
    listed = json.loads(cli(f"studies --json {where}").out)
    names = {"digits-cnn4-diverse_alpha", "digits-cnn4-diverse_alpha-confirm"}
    assert {study["study"] for study in listed} == names
    assert json.loads(cli(f"report --json {where}").out)["studies"][0]["confirmation"]["over"]
    assert not (tmp_path / "runs" / "digits-cnn4-diverse_alpha-confirm" / "study.db").exists()
