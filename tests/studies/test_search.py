"""A search for dynamic accuracy within a budget, from the plan to the resumed study."""

import os
import shutil
from contextlib import closing

import pytest

from studies import local, machine
from studies.front import objective
from studies.record import StudyRecord
from studies.search import drive, estimate, make_plan, search
from trainers import dynamic
from trainers.catalog import InputError
from trainers.config import TrialConfig


def plan(budget: str, **changes):
    fields = {"dataset": "digits", "epochs": 4, "limit_train": 60, "trials": 4, "grace": 1}
    return make_plan(
        "single_alpha", objective=budget, workers=1, threads=1, device="cpu", study="budget",
        **{**fields, **changes},
    )  # fmt: skip


def test_a_search_within_a_budget_stops_early_and_goes_on(tmp_path):
    def cut(event):
        if event.number == 1 and event.kind == "epoch":
            raise KeyboardInterrupt

    record = StudyRecord.create_or_open(plan("budget:0.1M"), runs=tmp_path)
    with closing(record), pytest.raises(KeyboardInterrupt):
        local.search(record, cut)
    # another spelling is the same objective
    with closing(StudyRecord.create_or_open(plan("budget:100k"), runs=tmp_path)) as record:
        local.search(record)
        outcomes = record.outcomes()
        assert {o.state for o in outcomes} <= {"COMPLETE", "PRUNED"} and len(outcomes) == 4
        assert any(o.state == "COMPLETE" for o in outcomes)
        for outcome in outcomes:
            assert outcome.report is not None and outcome.report.split == "validation"
            read = dynamic.at(outcome.report.budget, 100_000)
            assert outcome.value == read
            assert outcome.value == objective(
                "budget:100000", outcome.report.exits, dynamic=outcome.report.budget
            )


def test_a_budget_out_of_range_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="cannot be spent"):
        plan("budget:1G")
    made = plan("last").with_(objective="budget:1G")
    with pytest.raises(InputError, match="cannot be spent"):
        StudyRecord.create_or_open(made, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_is_searched_whole_its_starts_beside_it_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def starts(base): return [{'t': 3.0}, {'t': 7.0}]\n"
        "def grid(base): return [{'t': 1.0}, {'t': 3.0}, {'t': 9.0}]\n"
        "def suggest(trial, base): return base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )
    made = make_plan(
        str(path), sampler="grid", workers=1, threads=1, device="cpu", epochs=1, limit_train=60,
        precision="fp32",
    )  # fmt: skip
    assert made.trials == 4
    with closing(StudyRecord.create_or_open(made, runs=tmp_path / "runs")) as record:
        local.search(record)
        ran = [outcome.params["t"] for outcome in record.outcomes()]
    assert sorted(ran) == [1.0, 3.0, 7.0, 9.0]


def test_the_next_call_removes_the_checkpoint_of_a_driver_killed_as_its_trial_ended(tmp_path):
    made = plan("last", trials=1)
    with closing(StudyRecord.create_or_open(made, runs=tmp_path)) as record:
        assert drive(record) is None
        left = record.checkpoint(0)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"x")
    with closing(StudyRecord.create_or_open(made, runs=tmp_path)) as record:
        assert drive(record) is None and not left.exists()


@pytest.mark.parametrize("kind", ["backbone", "space"])
def test_an_edited_file_does_not_go_on_in_the_same_study(tmp_path, kind):
    files = {"backbone": tmp_path / "net.py", "space": tmp_path / "mine.py"}
    files["backbone"].write_text(
        "from torch import nn\nfrom trainers.backbones import Backbone\n\nEXITS = 2\n\n\n"
        "def build(width, image_size, image_channels):\n"
        "    stages = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)\n"
        "    return Backbone(stages, (8, 8), nn.Linear)\n"
    )
    files["space"].write_text(
        "def starts(base):\n    return [{'t': 3.0}]\n\n\ndef suggest(trial, base):\n"
        "    return base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )

    def run(trials: int, fresh: bool = False) -> None:
        asked = make_plan(
            str(files["space"]), backbone=str(files["backbone"]), epochs=1, limit_train=60,
            trials=trials, device="cpu", workers=1, threads=1, precision="fp32", study="own",
        )  # fmt: skip
        with closing(search(asked, runs=tmp_path / "runs", fresh=fresh)) as record:
            assert len(record.outcomes()) == trials

    run(1)
    run(2)
    text = files[kind].read_text()
    files[kind].write_text(text + "# edited\n")
    with pytest.raises(InputError, match=f"{kind} file .* has changed since study 'own' was made"):
        run(3)
    files[kind].write_text(text)
    run(3)
    files[kind].write_text(text + "# edited\n")
    run(1, fresh=True)


def test_other_images_do_not_go_on_in_the_same_study(tmp_path, class_folders):
    """With one more the hold-out is another. Touched, or with another test, they are the same."""
    tree = class_folders(train=6)

    def run(trials: int) -> None:
        asked = make_plan(
            "single_alpha", dataset=str(tree), epochs=1, trials=trials, device="cpu", workers=1,
            threads=1, precision="fp32", study="own", validation=0.3,
        )  # fmt: skip
        with closing(search(asked, runs=tmp_path / "runs")) as record:
            assert len(record.outcomes()) == trials

    run(1)
    first = tree / "train" / "class001" / "00001.png"
    os.utime(first, ns=(1, 1))
    (tree / "test" / "class001" / "00001.png").unlink()
    run(2)
    more = first.with_name("more.png")
    shutil.copy(first, more)
    said = r"training images of '.*tree' have changed since study 'own' was made: put them back"
    with pytest.raises(InputError, match=said):
        run(3)
    more.unlink()
    whole = first.read_bytes()
    first.write_bytes(whole + b"\0")  # of another size
    with pytest.raises(InputError, match=said):
        run(3)
    first.write_bytes(whole)
    run(3)


class Cluster(machine.Machine):
    """A head without a GPU, and a node of 8 CPUs with two."""

    spread, cores, gpus, alone = True, 12, 2, 4  # type: ignore[assignment]

    def beside_gpu(self, share: float, workers: int) -> int:
        return int(share * 4)

    def ask(self, question, *given, device="cpu"):
        assert question is machine.best_threads and given[-1] == 4
        return 3


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ("cuda", 2, 4, 1.0)),
        ({"workers": 4}, ("cuda", 4, 2, 0.5)),
        ({"device": "cpu"}, ("cpu", 5, 1, 0.0)),
        ({"device": "cpu", "threads": 4}, ("cpu", 3, 4, 0.0)),
        ({"device": "cpu", "workers": 1}, ("cpu", 1, 3, 0.0)),
    ],
)
def test_what_a_cluster_is_given_by_default(asked, found):
    names = "workers", "threads", "gpus_per_trial", "device"
    given = [asked.get(name) for name in names]
    made = machine.settled(TrialConfig(), 5, None, *given, where=Cluster())
    assert (made["device"], made["workers"], made["threads"], made["gpus_per_trial"]) == found


def test_processes_of_a_cluster_take_no_turns_on_its_one_gpu(monkeypatch):
    monkeypatch.setattr(Cluster, "gpus", 1)
    made = machine.settled(TrialConfig(), 5, None, None, None, None, None, where=Cluster())
    assert (made["workers"], made["gpus_per_trial"]) == (1, 1.0)


def test_a_share_of_a_gpu_goes_with_a_gpu():
    with pytest.raises(InputError, match="gpus_per_trial 0.5 goes with --device cuda"):
        make_plan("single_alpha", device="cpu", gpus_per_trial=0.5)


def test_the_time_of_a_plan_has_what_is_scored_and_what_is_no_training(monkeypatch):
    plan = make_plan(
        "single_alpha", workers=1, threads=1, device="cpu", precision="fp32", epochs=10, trials=20
    )
    monkeypatch.setattr(machine, "measure", lambda *_: machine.Speed(1000.0, 1))
    epoch = (180 + 717 / 3) / 1000 + 0.02
    assert estimate(plan).seconds == pytest.approx(200 * epoch + 20 * 0.15)
    averaged = plan.with_(base=plan.base.with_(ema=0.9))  # both networks are scored
    assert estimate(averaged).seconds - estimate(plan).seconds == pytest.approx(200 * 0.717 / 3)


def test_a_space_that_returns_nothing_is_one_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def starts(base):\n    return [{'t': 3.0}]\n\n\ndef suggest(trial, base):\n"
        "    base.with_(temperature=trial.suggest_float('t', 1, 9))\n"
    )
    with pytest.raises(InputError, match="suggest needs to return a TrialConfig, got NoneType"):
        make_plan(str(path), device="cpu", workers=1, threads=1, precision="fp32", study="none")
