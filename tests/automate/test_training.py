"""`automate train` over a config, with the training itself made up."""

import json
from pathlib import Path

import pytest

from automate.commands import training
from studies.export import write_config
from studies.final import ExitSummary, FinalSummary
from tests.automate.conftest import Cli
from tests.studies import made_up
from trainers.config import TrialConfig
from trainers.own import file_digest

CONFIG = TrialConfig(epochs=3)


def summary(folder: Path, seeds: int, diverged: int = 0) -> FinalSummary:
    exits = tuple(
        ExitSummary(exit=i, flops=48_000 * i, mean=0.5 + i / 10, std=spread, n=seeds, top5=0.99)
        for i in (1, 2)
        for spread in [0.0125 if seeds > 1 else None]
        if seeds
    )
    ran = tuple(range(1, seeds + 1))
    return FinalSummary(
        folder=folder,
        config=CONFIG,
        trained_on="train + validation",
        seeds=ran,
        diverged=tuple(range(seeds + 1, seeds + 1 + diverged)),
        exits=exits,
    )


@pytest.fixture
def file(tmp_path: Path) -> str:
    write_config(tmp_path / "1.yaml", CONFIG, {"study": "x"})
    return "1.yaml"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What `train_finals` is called with; it reports three epochs of each seed."""
    called: dict[str, object] = {}

    def train_finals(path: Path, *, seeds: int, on_report: object, **options: object) -> object:
        called.update(options, path=path, seeds=seeds)
        assert callable(on_report)
        for seed in range(1, seeds + 1):
            for epoch in (1, 2, 3):
                on_report(seed, made_up.report(CONFIG, epoch, [0.5, 0.6]))
        return summary(tmp_path / "1-abc", seeds)

    monkeypatch.setattr("studies.final.train_finals", train_finals)
    return called


def test_the_summary_is_a_table_with_its_n_and_spread(cli: Cli, file, trained):
    said = cli(f"train {file} --seeds 3 --keep-validation --data-root d --device cpu --threads 2")
    assert (said.code, said.err) == (0, "")
    assert trained == {
        "path": Path("1.yaml"),
        "seeds": 3,
        "keep_validation": True,
        "data_root": "d",
        "device": "cpu",
        "threads": 2,
    }
    assert "n = 3 seeds" in said.out
    assert "60.00 ± 1.25 %" in said.out
    assert "seed 3 epoch 3 of 3: loss 0.667, test accuracy per exit 50.00 60.00 %" in said.out
    assert "/seed-1')" in said.out


def test_what_comes_next_is_a_command_each(cli: Cli, file, trained, monkeypatch):
    """Pictures where the network takes them: the digits are no files."""
    said = cli(f"train {file} --seeds 1")
    lines = said.out.splitlines()
    after = lines[lines.index("Next:") + 1 :]
    assert len(after) == 1 and after[0].split()[-2] == "evaluate" and "1-abc" in after[0]
    with_pictures = TrialConfig(dataset="cifar100", epochs=3)
    monkeypatch.setattr("tests.automate.test_training.CONFIG", with_pictures)
    said = cli(f"train {file} --seeds 1")
    assert said.out.rstrip().endswith("1-abc/seed-1 photo.jpg") and " predict " in said.out


def test_top_5_of_few_classes_is_not_said(cli: Cli, file, trained, monkeypatch):
    assert "top-5" in cli(f"train {file} --seeds 1").out
    three = TrialConfig(dataset="./tree", classes=3, image_size=8, epochs=3)
    monkeypatch.setattr("tests.automate.test_training.CONFIG", three)
    said = cli(f"train {file} --seeds 1").out
    assert "top-1" in said and "top-5" not in said


def test_a_training_that_goes_on_tells_no_epoch_of_before(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    whole = CONFIG.with_(epochs=40)
    lines = training._Lines("1.yaml", 40, stderr=False)
    for epoch in range(1, 21):  # from the checkpoint, at once
        lines.see(1, made_up.report(whole, epoch, [0.5, 0.6, 0.7, 0.8]))
    assert capsys.readouterr().out == ""
    now[0] = training.LINE_EVERY
    for epoch in (21, 22, 40):
        lines.see(1, made_up.report(whole, epoch, [0.5, 0.6, 0.7, 0.8]))
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "1.yaml", "seed 1 epoch 21 of 40", "seed 1 epoch 40 of 40",
    ]  # fmt: skip


def test_an_edited_network_is_said_to_be_trained_as_it_is(cli: Cli, tmp_path, trained):
    net = tmp_path / "net.py"
    net.write_text("EXITS = 2\n")
    config = CONFIG.with_(backbone=str(net))
    write_config(tmp_path / "2.yaml", config, {"backbone_digest": file_digest(str(net))})
    assert cli("train 2.yaml").err == ""
    net.write_text("EXITS = 2  # edited\n")
    assert cli("train 2.yaml").err == (
        f"automate: {net} has changed since the search of 2.yaml: training takes it as it is now\n"
    )
    scheme = tmp_path / "scheme.py"
    scheme.write_text(
        "from trainers.schemes import Scheme\n"
        "SCHEME = Scheme('the mean', lambda a: [[1 / len(a)] * len(a)], lambda a: [[1]] * len(a))\n"
    )
    config = CONFIG.with_(scheme=str(scheme))
    write_config(tmp_path / "3.yaml", config, {"scheme_digest": "another"})
    assert cli("train 3.yaml").err.startswith(f"automate: {scheme} has changed since the search of")


def test_one_seed_is_unconfirmed(cli: Cli, file, trained):
    said = cli(f"train {file} --seeds 1 --quiet")
    assert said.code == 0
    assert "n = 1, unconfirmed" in said.out
    assert "±" not in said.out
    assert "epoch" not in said.out


def test_json_is_alone_on_stdout(cli: Cli, file, trained):
    said = cli(f"train {file} --json")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["seeds"] == [1, 2, 3]
    assert found["exits"][0]["mean"] == 0.6
    assert found["folder"].endswith("1-abc") and found["config"]["dataset"] == CONFIG.dataset
    assert "seed 1 epoch 3 of 3" in said.err


def test_seeds_that_diverged_are_said_and_if_all_did_it_has_failed(
    cli: Cli, file, monkeypatch, tmp_path
):
    some = summary(tmp_path, 2, diverged=1)
    monkeypatch.setattr("studies.final.train_finals", lambda *_, **__: some)
    said = cli(f"train {file}")
    assert said.code == 0
    assert "seed 3 was not finite" in said.err
    none = summary(tmp_path, 0, diverged=2)
    monkeypatch.setattr("studies.final.train_finals", lambda *_, **__: none)
    said = cli(f"train {file}")
    assert said.code == 1
    assert "seed 1, 2 was not finite" in said.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("{: [", "is no readable YAML"),
        ("", "needs a mapping 'config'"),
        ("[1, 2]", "needs a mapping 'config'"),
        ("config: {dataset: digits, epochz: 3}", "did you mean 'epochs'?"),
        ("config: {dataset: digits, alpha: [1, 2]}", "alpha needs 1 or 4 values"),
        ("config: {dataset: digits, temperature: 0}", "temperature: "),
        ("config: !!python/object/apply:os.system [true]", "is no readable YAML"),
        ("config: {dataset: digits, scheme: '[red]'}", "unknown scheme '[red]'"),
    ],
)
def test_a_broken_file_is_one_line(cli: Cli, tmp_path, content, said):
    if content is not None:
        (tmp_path / "x.yaml").write_text(content)
    found = cli("train x.yaml")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seeds 0", "seeds needs to be at least 1"),
        ("--seeds two", "expected a whole number"),
        ("--device tpu", "unknown device 'tpu' (did you mean 'cpu'?): known are cpu, cuda"),
        ("--threads 0", "threads needs to be at least 1, got 0"),
    ],
)
def test_wrong_flags_are_one_line(cli: Cli, file, words, said):
    found = cli(f"train {file} {words}")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
