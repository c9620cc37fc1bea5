"""A project of a user's files that is moved: its studies and trained networks go on."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from studies.export import export, is_edited, read_exported
from studies.final import train_finals
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.search import make_plan, search
from trainers import own, trained
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.folders import describe_folder
from trainers.own import moved

NETWORK = """
from torch import nn
from trainers.backbones import Backbone

EXITS = 2


def build(width, image_size, image_channels):
    return Backbone((nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)), (8, 8), nn.Linear)
"""
SPACE = """
def starts(base):
    return [{'t': 3.0}]


def suggest(trial, base):
    return base.with_(temperature=trial.suggest_float('t', 1, 9))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and a space, which one is in."""
    folder = tmp_path / "before"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "net.py").write_text(NETWORK)
    (folder / "space.py").write_text(SPACE)
    monkeypatch.chdir(folder)
    return folder


def run(trials: int) -> list[Path]:
    """Goes on with the study; where each trial's network lies."""
    asked = make_plan(
        "space.py", backbone="nets/net.py", epochs=1, limit_train=60, trials=trials, device="cpu",
        workers=1, threads=1, precision="fp32", study="own",
    )  # fmt: skip
    with closing(search(asked, runs=Path("runs"))) as record:
        assert [outcome.state for outcome in record.outcomes()] == ["COMPLETE"] * trials
        return [Path(record.plan.base.backbone), Path(record.plan.space)]


def test_a_study_goes_on_where_its_project_lies_now(project, monkeypatch):
    assert run(1) == [project / "nets" / "net.py", project / "space.py"]
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        assert record.plan.base.backbone == str(after / "nets" / "net.py")
    assert run(2) == [after / "nets" / "net.py", after / "space.py"]
    (after / "nets" / "net.py").write_text(NETWORK + "# edited\n")
    with pytest.raises(InputError, match="backbone file .* has changed since study 'own' was made"):
        run(3)


def test_a_training_goes_on_where_its_project_lies_now(project, monkeypatch):
    config = TrialConfig(backbone=str(project / "nets" / "net.py"), epochs=1, limit_train=60)
    Path("one.yaml").write_text(f"config: {config.model_dump_json()}\n")
    before = train_finals(Path("one.yaml"), seeds=1, threads=1).folder
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    assert read_exported(Path("one.yaml"))[0].backbone == str(after / "nets" / "net.py")
    assert train_finals(Path("one.yaml"), seeds=1, threads=1).folder == before, "not trained again"
    assert trained.load(before / "seed-1").config.backbone == str(after / "nets" / "net.py")
    (after / "nets" / "net.py").write_text(NETWORK + "# edited\n")
    with pytest.raises(InputError, match="has changed since"):
        trained.load(before / "seed-1")


def test_what_is_nowhere_is_said_with_what_to_do(project, monkeypatch):
    run(1)
    shutil.move(project / "nets", project / "networks")
    for name in ("own", None):
        with pytest.raises(InputError) as caught:
            StudyRecord.open(name, runs=Path("runs"))
        assert str(caught.value) == (
            f"the plan of study 'own' cannot be read: backbone file '{project}/nets/net.py' does "
            "not exist or is not a file: put it there, or beside the runs folder"
        )
    shutil.copy(project / "networks" / "net.py", project)
    StudyRecord.open(runs=Path("runs")).close()


def test_records_are_read_from_any_folder(project, monkeypatch):
    config = TrialConfig(backbone=str(project / "nets" / "net.py"), epochs=1, limit_train=60)
    Path("runs").mkdir()
    Path("runs/one.yaml").write_text(f"config: {config.model_dump_json()}\n")
    before = train_finals(Path("runs/one.yaml"), seeds=1, threads=1).folder
    run(2)
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir("/")
    net = str(after / "nets" / "net.py")
    with closing(StudyRecord.open("own", runs=after / "runs")) as record:
        assert record.plan.base.backbone == net and record.plan.space == str(after / "space.py")
        assert {o.config and o.config.backbone for o in record.outcomes()} == {net}
    monkeypatch.setattr(own, "_places", [])
    assert read_exported(after / "runs" / "one.yaml")[0].backbone == net
    monkeypatch.setattr(own, "_places", [])
    weights = after / "runs" / before.name / "seed-1"
    assert trained.load(weights).config.backbone == net


def test_another_file_of_the_name_is_not_taken_for_the_exported_one(project, monkeypatch):
    run(1)
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        path = export(record)[0]
    assert not is_edited(*read_exported(path))
    (project / "nets" / "net.py").write_text(f"{NETWORK}# edited\n")
    assert is_edited(*read_exported(path)), "there, and edited: trained as it is"
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    with pytest.raises(InputError, match="net.py' does not exist, and '.*after/nets/net.py' is an"):
        read_exported(path.relative_to(project) if path.is_absolute() else path)


def test_a_folder_of_images_is_found_too(class_folders, project, monkeypatch):
    shutil.move(class_folders(), project / "images")
    fields = describe_folder(str(project / "images"))
    gone = {**fields, "backbone": "cnn4"} | {"dataset": "/gone/images"}
    assert TrialConfig(**gone).dataset == str(project / "images")


def test_a_copy_goes_on_beside_its_original(project, monkeypatch):
    run(1)
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(own, "_places", [])  # another command
    assert run(2) == [copy / "nets" / "net.py", copy / "space.py"]
    (project / "nets" / "net.py").write_text(f"{NETWORK}# edited in the original\n")
    shutil.rmtree(project)
    assert run(3) == [copy / "nets" / "net.py", copy / "space.py"]
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        nets = {o.config and o.config.backbone for o in record.outcomes()}
    assert nets == {str(copy / "nets" / "net.py")}


def test_a_copied_training_goes_by_the_copy(project, monkeypatch):
    config = TrialConfig(backbone=str(project / "nets" / "net.py"), epochs=1, limit_train=60)
    Path("one.yaml").write_text(f"config: {config.model_dump_json()}\n")
    seed = train_finals(Path("one.yaml"), seeds=1, threads=1).folder / "seed-1"
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir("/")
    for folder in (copy, project):
        monkeypatch.setattr(own, "_places", [])  # another command
        net = str(folder / "nets" / "net.py")
        assert read_exported(folder / "one.yaml")[0].backbone == net
        monkeypatch.setattr(own, "_places", [])
        assert trained.load(folder / seed).config.backbone == net


def test_an_edited_copy_is_not_taken_for_the_original(project, monkeypatch):
    run(1)
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(own, "_places", [])  # another command
    (copy / "nets" / "net.py").write_text(f"{NETWORK}# edited\n")
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        assert record.plan.base.backbone == str(project / "nets" / "net.py")
    with pytest.raises(
        InputError, match="backbone is .*before/nets/net.py, now .*copy/nets/net.py"
    ):
        run(2)


@pytest.mark.parametrize("changed", ["nets/net.py", "space.py"])
def test_a_search_that_is_refused_changes_nothing(project, changed):
    run(1)
    text = Path(changed).read_text()
    Path(changed).write_text(f"{text}# edited\n")
    with pytest.raises(InputError, match="has changed since study 'own' was made"):
        run(5)
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        assert len(record.outcomes()) == record.plan.trials == 1


def test_a_path_that_is_typed_is_taken_as_it_is(project):
    shutil.copy("nets/net.py", "net.py")
    for name in ("elsewhere/net.py", str(project / "elsewhere" / "net.py")):
        with pytest.raises(InputError, match=f"backbone file '{name}' does not exist"):
            make_plan("space.py", backbone=name)
    with pytest.raises(InputError, match="space file 'elsewhere/space.py' does not exist"):
        make_plan("elsewhere/space.py")


def test_the_longest_end_of_a_path_that_is_there(project):
    gone = "/gone/nets/net.py"
    assert moved(gone) == str(project / "nets" / "net.py")
    shutil.copy("nets/net.py", "net.py")
    assert moved(gone) == str(project / "nets" / "net.py")
    (project / "nets" / "net.py").unlink()
    assert moved(gone) == str(project / "net.py")
    (project / "net.py").unlink()
    (project / "net.py").mkdir()
    assert moved(gone) == gone
    assert moved("nets/net.py") == "nets/net.py" and moved("vgg16") == "vgg16"


def test_a_calibration_of_a_users_space(project):
    made = make_plan("space.py", epochs=2, trials=1, study="own", early_stopping=False)
    plan = StudyPlan(**made.model_dump() | {"space": "calibrate:/gone/space.py"})
    assert plan.calibrates == str(project / "space.py")
