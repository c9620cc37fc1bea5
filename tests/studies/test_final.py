"""From a study to exported configs to fully trained networks, and back to Python."""

import json
import statistics
from pathlib import Path

import pytest
import torch
import yaml

from studies import final, local
from studies.export import export, read_exported, write_config
from studies.final import train_finals
from studies.front import curve, deployable
from studies.plan import StudyPlan
from studies.record import StudyRecord
from trainers import checkpoints, trained
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import load

TINY = TrialConfig(dataset="digits", epochs=2, limit_train=60)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    plan = StudyPlan(
        study="tiny", space="single_alpha", base=TINY, trials=5, grace=2, early_stopping=False
    )
    record = StudyRecord.create_or_open(plan, runs=runs)
    local.search(record)
    yield record
    record.close()


def test_folders_of_earlier_trainings_keep_their_names():
    """A new field that says nothing must not have every network trained again."""
    assert final._digest(TrialConfig(), {}, Path("1.yaml"), False) == "cf5147d3"
    config = TrialConfig(dataset="cifar100", alpha=(1, 2, 3, 4))
    assert final._digest(config, {}, Path("1.yaml"), True) == "95507911"


def test_an_exported_file_is_headed_by_the_command_that_trains_it(tmp_path, monkeypatch):
    """From where the user exported it; no name of a folder gets out of the comment."""
    monkeypatch.chdir(tmp_path)
    for folder, named in (
        ("runs/x/best", "runs/x/best/1.yaml"),
        ("my runs", "'my runs/1.yaml'"),
        ("a\nconfig: {}", "1.yaml"),
    ):
        path = Path(folder) / "1.yaml"
        write_config(path, TINY, {"study": "x"})
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# automate train {named} --seeds 3"
        assert read_exported(path)[0] == TINY


def test_exports_are_whole_configs_deployable_ones_first(study):
    paths = export(study, top=3)
    assert [path.name for path in paths] == ["1.yaml", "2.yaml", "3.yaml"]
    outcomes = {outcome.number: outcome for outcome in study.outcomes()}
    curves = {n: curve(n, o.report.exits) for n, o in outcomes.items()}
    whole = set(deployable(curves))
    chosen = []
    for path in paths:
        config, source = read_exported(path)
        outcome = outcomes[source["trial"]]
        assert config == outcome.config
        assert set(yaml.safe_load(path.read_text())["config"]) == set(TrialConfig.model_fields)
        assert source["value"] == outcome.value and source["split"] == "validation"
        chosen.append(source["trial"])
    ranks = [(n not in whole, -outcomes[n].value) for n in chosen]
    assert ranks == sorted(ranks)


def test_a_shorter_export_removes_what_an_older_one_left(study):
    export(study, top=3)
    assert [path.name for path in export(study, top=1)] == ["1.yaml"]
    assert sorted(path.name for path in (study.folder / "best").glob("*.yaml")) == ["1.yaml"]


def test_a_study_without_a_full_trial_exports_nothing(tmp_path):
    plan = StudyPlan(study="none", space="single_alpha", base=TINY, trials=1, grace=1)
    record = StudyRecord.create_or_open(plan, runs=tmp_path)
    with pytest.raises(InputError, match="no trial of full length yet"):
        export(record)
    with pytest.raises(InputError, match="top needs to be at least 1"):
        export(record, top=0)
    record.close()


def written(tmp_path, **changes):
    path = tmp_path / "1.yaml"
    write_config(path, TINY.with_(**changes), {"study": "tiny"})
    return path


def test_finals_train_fresh_seeds_and_read_the_test_split_once(tmp_path):
    path = written(tmp_path)
    seen = []
    summary = train_finals(
        path, seeds=2, on_report=lambda seed, report: seen.append((seed, report))
    )
    assert summary.seeds == (1, 2), "the search has used the config's own seed 0"
    assert [(seed, r.epoch, bool(r.exits)) for seed, r in seen] == [
        (1, 1, False), (1, 2, True), (2, 1, False), (2, 2, True),
    ]  # fmt: skip
    last = [report for _, report in seen if report.exits]
    assert all(report.split == "test" for report in last)
    for i, point in enumerate(summary.exits):
        accuracies = [report.accuracies[i] for report in last]
        assert point.mean == pytest.approx(statistics.mean(accuracies))
        assert point.std == pytest.approx(statistics.stdev(accuracies))
        assert point.n == 2
    stored = json.loads((summary.folder / "summary.json").read_text())
    assert stored["exits"][0]["mean"] == summary.exits[0].mean

    run = trained.load(summary.folder / "seed-1")
    data = load(TINY, "final")
    right = run.predict(data.score.pixels).argmax(dim=-1) == data.score.labels
    assert right.float().mean(dim=1).tolist() == pytest.approx(last[0].accuracies)
    assert len(run.exits) == 4 and run.classes == data.fit.classes
    assert not list(summary.folder.rglob("checkpoint.pt")), "a finished run needs no checkpoint"


def test_what_is_trained_is_not_trained_again_and_what_is_cut_goes_on(tmp_path):
    path = written(tmp_path)
    whole = train_finals(path, seeds=1)

    class Cut(Exception):
        pass

    def cut(seed, report):
        if seed == 2:
            raise Cut

    with pytest.raises(Cut):
        train_finals(path, seeds=2, on_report=cut)
    assert (whole.folder / "seed-2" / "checkpoint.pt").exists()
    epochs = []
    again = train_finals(path, seeds=2, on_report=lambda seed, r: epochs.append((seed, r.epoch)))
    assert epochs == [(1, 2), (2, 1), (2, 2)], "seed 1 is read back; seed 2 goes on"
    assert again.seeds == (1, 2)


def test_a_kept_hold_out_goes_elsewhere(tmp_path):
    path = written(tmp_path)
    assert (
        train_finals(path, seeds=1).folder
        != train_finals(path, seeds=1, keep_validation=True).folder
    )


def test_diverged_seeds_are_named_and_not_averaged(tmp_path):
    summary = train_finals(written(tmp_path, lr=1e8, epochs=4), seeds=1)
    assert (summary.seeds, summary.diverged, summary.exits) == ((), (1,), ())


def test_one_seed_has_no_spread(tmp_path):
    assert train_finals(written(tmp_path), seeds=1).exits[0].std is None
    with pytest.raises(InputError, match="seeds needs to be at least 1"):
        train_finals(written(tmp_path), seeds=0)


GOOD = {"config": TINY.model_dump(mode="json")}
BAD = {
    "no mapping": "- 1\n- 2\n",
    "empty": "",
    "no config": "source: {}\n",
    "config no mapping": "config: 3\n",
    "unknown key": yaml.safe_dump({**GOOD, "extra": 1}),
    "unknown field": yaml.safe_dump({"config": {**GOOD["config"], "temprature": 1}}),
    "wrong type": yaml.safe_dump({"config": {**GOOD["config"], "epochs": "many"}}),
    "NaN": yaml.safe_dump({"config": {**GOOD["config"], "lr": float("nan")}}),
    "duplicate": "config: {epochs: 1}\nconfig: {epochs: 2}\n",
    "nested duplicate": "config: {epochs: 1, epochs: 2}\n",
    "alias": "config: &a {epochs: 1}\nsource: *a\n",
    "tag": "config: !!python/object/apply:os.mkdir [planted]\n",
    "broken": "config: {epochs: 1\n",
    "binary": "\x00\x01\x02",
    "source no mapping": yaml.safe_dump({**GOOD, "source": [1]}),
    "deep": "[" * 3000,
    "number key": "1: 2\nconfig: {}\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_broken_configs_get_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_exported(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert not (tmp_path / "planted").exists()


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_exported(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is not a file: `automate export` writes it"):
        read_exported(tmp_path / "best" / "1.yaml")
    with pytest.raises(InputError, match="not a file"):
        read_exported(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a" * 10_000_000)
    with pytest.raises(InputError, match="10,000,000 bytes"):
        read_exported(large)


def test_a_folder_without_weights_another_file_and_images_of_another_size(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        trained.load(tmp_path)
    folder = train_finals(written(tmp_path), seeds=1).folder / "seed-1"
    run = trained.load(folder)
    content = checkpoints.read(folder / trained.FILE)
    gone = json.loads(content["config"]) | {"backbone": str(tmp_path / "gone.py")}
    for changed, said in (
        ({"config": json.dumps(gone)}, f"^backbone file '{gone['backbone']}' does not exist"),
        ({"report": "{}"}, "is no trained network of ours"),
    ):
        checkpoints.write(tmp_path / "changed.pt", content | changed)
        with pytest.raises(InputError, match=said) as caught:
            trained.load(tmp_path / "changed.pt")
        assert "\n" not in str(caught.value)
    for pixels in (torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(InputError, match="uint8 of shape"):
            run.predict(pixels)


def test_another_version_of_a_network_file_is_trained_anew_and_its_weights_are_refused(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\nfrom trainers.backbones import Backbone\n\nEXITS = 2\n\n\n"
        "def build(width, image_size, image_channels):\n"
        "    stages = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)\n"
        "    return Backbone(stages, (8, 8), nn.Linear)\n"
    )
    path = tmp_path / "one.yaml"
    path.write_text(f"config:\n  dataset: digits\n  backbone: {file}\n  epochs: 1\n")
    before = train_finals(path, seeds=1, threads=1).folder
    trained.load(before / "seed-1")
    file.write_text(file.read_text().replace("8, 8, 3)", "8, 8, 1)"))
    with pytest.raises(InputError, match="own.py' has changed since .* was trained") as caught:
        trained.load(before / "seed-1")
    assert "\n" not in str(caught.value)
    after = train_finals(path, seeds=1, threads=1).folder
    assert after != before
    trained.load(after / "seed-1")
