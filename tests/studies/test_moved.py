"""A project of a user's files that is moved: its studies and trained networks go on."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from studies import dashboard
from studies.export import edited, export, read_exported, write_config
from studies.final import train_finals
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.search import make_plan, search
from studies.trial import Event
from tests.studies import made_up
from trainers import trained
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.folders import describe_folder
from trainers.own import file_digest
from trainers.places import noted

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


def asked(trials: int) -> StudyPlan:
    """A search of the network and the space of the project that one is in."""
    return make_plan(
        "space.py", backbone="nets/net.py", epochs=1, limit_train=60, trials=trials, device="cpu",
        workers=1, threads=1, precision="fp32", study="own",
    )  # fmt: skip


def run(trials: int) -> list[Path]:
    """Goes on with the study; where each trial's network lies."""
    with closing(search(asked(trials), runs=Path("runs"))) as record:
        assert [outcome.state for outcome in record.outcomes()] == ["COMPLETE"] * trials
        return [Path(record.plan.base.backbone), Path(record.plan.space)]


def written(project: Path, path: Path) -> None:
    """A config of the project's network, as an export has it."""
    net = str(project / "nets" / "net.py")
    source = {"places": noted([net], path.parent.absolute()), "backbone_digest": file_digest(net)}
    write_config(path, TrialConfig(backbone=net, epochs=1, limit_train=60), source)


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
    written(project, Path("one.yaml"))
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
            f"the plan of study 'own' cannot be read: '{project}/nets/net.py' does not exist: put "
            "the file there"
        )
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    with pytest.raises(InputError, match=f"'{project}/nets/net.py' .*, nor does '{after}/nets/net"):
        StudyRecord.open("own", runs=Path("runs"))
    shutil.move(after / "networks", after / "nets")
    StudyRecord.open(runs=Path("runs")).close()


def test_records_are_read_from_any_folder(project, monkeypatch):
    written(project, Path("runs/one.yaml"))
    before = train_finals(Path("runs/one.yaml"), seeds=1, threads=1).folder
    run(2)
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir("/")
    net = str(after / "nets" / "net.py")
    with closing(StudyRecord.open("own", runs=after / "runs")) as record:
        assert record.plan.base.backbone == net and record.plan.space == str(after / "space.py")
        assert {o.config and o.config.backbone for o in record.outcomes()} == {net}
    assert read_exported(after / "runs" / "one.yaml")[0].backbone == net
    weights = after / "runs" / before.name / "seed-1"
    assert trained.load(weights).config.backbone == net


def test_an_export_is_of_the_network_that_was_searched(project, monkeypatch):
    run(1)
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        path = export(record)[0]
        assert not edited(*read_exported(path))
        (project / "nets" / "net.py").write_text(f"{NETWORK}# edited\n")
        assert edited(*read_exported(path)), "there, and edited: trained as it is"
        assert edited(*read_exported(export(record)[0])), "exported after it was edited"
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    config, source = read_exported(Path("runs/own/best/1.yaml"))
    assert config.backbone == str(after / "nets" / "net.py") and edited(config, source)


def test_a_network_that_edited_while_it_is_searched_ends_the_search(project):
    net = project / "nets" / "net.py"

    def edit(event: Event) -> None:
        if event.kind == "ended":
            net.write_text(f"{NETWORK}# edited\n")

    with pytest.raises(InputError, match="backbone file .* has changed since study 'own' was made"):
        search(asked(3), runs=Path("runs"), on_event=edit)
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        assert [o.state for o in record.outcomes()] == ["COMPLETE", "WAITING", "WAITING"]
    net.write_text(NETWORK)
    run(3)


SCHEME = """
from trainers.schemes import Scheme

SCHEME = Scheme("the mean", lambda a: [[1 / len(a)] * len(a)], lambda a: [[1.0]] * len(a))
"""


def test_a_scheme_moves_with_its_project_and_is_not_edited(project, monkeypatch):
    (project / "scheme.py").write_text(SCHEME)

    def searched(trials: int) -> StudyRecord:
        plan = make_plan(
            "teacher_scheme", scheme="scheme.py", epochs=1, limit_train=60, trials=trials,
            device="cpu", workers=1, threads=1, precision="fp32", study="own",
        )  # fmt: skip
        return search(plan, runs=Path("runs"))

    with closing(searched(12)) as record:
        mine = [o for o in record.outcomes() if o.params["scheme"] == "own"]
        assert [o.config and o.config.scheme for o in mine] == [str(project / "scheme.py")]
        export(record, top=12)
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    with closing(searched(13)) as record:
        named = {outcome.config.scheme for outcome in record.outcomes() if outcome.config}
        assert {name for name in named if "/" in name} == {str(after / "scheme.py")}
    exported = [read_exported(one) for one in Path("runs/own/best").glob("*.yaml")]
    config, source = next(one for one in exported if "/" in one[0].scheme)
    assert config.scheme == str(after / "scheme.py") and not edited(config, source)
    (after / "scheme.py").write_text(SCHEME + "# edited\n")
    assert edited(config, source) == ["scheme"]
    with pytest.raises(InputError, match="scheme file .* has changed since study 'own' was made"):
        searched(14)
    (after / "scheme.py").unlink()
    with pytest.raises(InputError, match="scheme.py' does not exist.*: put the file there"):
        StudyRecord.open("own", runs=Path("runs"))


def test_a_folder_of_images_is_found_too(class_folders, project, monkeypatch):
    shutil.move(class_folders(), project / "images")

    def plan() -> StudyPlan:
        return make_plan(
            "single_alpha", dataset="./images", backbone="cnn4", epochs=1, trials=1, device="cpu",
            workers=1, threads=1, precision="fp32", study="own",
        )  # fmt: skip

    StudyRecord.create_or_open(plan(), runs=Path("runs")).close()
    after = project.with_name("after")
    shutil.copytree(project, after)
    monkeypatch.chdir(after)
    with closing(StudyRecord.create_or_open(plan(), runs=Path("runs"))) as record:
        assert record.plan.base.dataset == str(after / "images"), "the copy's"
    shutil.rmtree(project)
    monkeypatch.chdir("/")
    with closing(StudyRecord.open("own", runs=after / "runs")) as record:
        assert record.plan.base.dataset == str(after / "images")
    # Another folder of that name, elsewhere, is not taken for it.
    (after / "sub").mkdir()
    shutil.move(after / "images", after / "sub" / "images")
    monkeypatch.chdir(after / "sub")
    other = plan()
    with pytest.raises(InputError, match="dataset is .*images, now .*sub/images"):
        StudyRecord.create_or_open(other, runs=after / "runs")


def test_a_copy_goes_on_beside_its_original(project, monkeypatch):
    run(1)
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    assert run(2) == [copy / "nets" / "net.py", copy / "space.py"]
    (project / "nets" / "net.py").write_text(f"{NETWORK}# edited in the original\n")
    assert run(3) == [copy / "nets" / "net.py", copy / "space.py"]
    with closing(StudyRecord.open("own", runs=Path("runs"))) as record:
        nets = {o.config and o.config.backbone for o in record.outcomes()}
    assert nets == {str(copy / "nets" / "net.py")}


def test_trials_name_one_network_however_often_their_study_is_copied(project, monkeypatch):
    run(1)
    with closing(StudyRecord.create_or_open(asked(2), runs=Path("runs"))) as record:
        ticket = record.ask()
        assert ticket is not None
        record.give_back(ticket)  # it waits, with its config
    for place in ("second", "third"):
        copy = project.with_name(place)
        shutil.copytree(Path.cwd(), copy)
        Path("nets/net.py").write_text(f"{NETWORK}# edited in what it was copied from\n")
        monkeypatch.chdir(copy)
        with closing(StudyRecord.create_or_open(asked(2), runs=Path("runs"))) as record:
            net = record.plan.base.backbone
            assert net == str(copy / "nets" / "net.py")
            ticket = record.ask()
            assert ticket is not None and ticket.config.backbone == net
            record.give_back(ticket)
            assert [o.config and o.config.backbone for o in record.outcomes()] == [net, net]
    run(4)  # two more, whose configs are made there
    last = project.with_name("last")
    shutil.move(copy, last)
    shutil.rmtree(project)
    shutil.rmtree(project.with_name("second"))
    with closing(StudyRecord.open("own", runs=last / "runs")) as record:
        nets = [o.config and o.config.backbone for o in record.outcomes()]
        assert nets == [str(last / "nets" / "net.py")] * 4
        with dashboard.copied(record) as view:
            assert view.plan.base.backbone == str(last / "nets" / "net.py")


def test_a_folder_of_data_is_found_too(project, monkeypatch):
    def plan(trials: int, data_root: Path | None) -> StudyPlan:
        given = None if data_root is None else str(data_root)
        return made_up.plan(data_root=given, study="own", trials=trials)

    (project / "data").mkdir()
    (project / "more").mkdir()
    StudyRecord.create_or_open(plan(1, project / "data"), runs=Path("runs")).close()
    StudyRecord.create_or_open(plan(2, project / "more"), runs=Path("runs")).close()
    after = project.with_name("after")
    shutil.move(project, after)
    with closing(StudyRecord.open("own", runs=after / "runs")) as record:
        assert record.plan.data_root == str(after / "more")
        record.ask()


def test_a_training_on_a_folder_of_images_is_not_made_again(class_folders, project, monkeypatch):
    shutil.move(class_folders(train=20), project / "images")
    images = str(project / "images")
    fields = {**describe_folder(images), "backbone": "cnn4", "epochs": 1, "batch_size": 16}
    source = {"places": noted([images], project)}
    write_config(Path("one.yaml"), TrialConfig(dataset=images, **fields), source)
    before = train_finals(Path("one.yaml"), seeds=1, threads=1, data_root=images).folder
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    again = train_finals(Path("one.yaml"), seeds=1, threads=1, data_root=after / "images")
    assert again.folder == before and len(list(Path(before).iterdir())) == 2
    found = trained.load(before / "seed-1")
    assert found.config.dataset == found.data_root == str(after / "images")


def test_a_training_that_was_cut_at_its_end_and_moved_is_saved(project, monkeypatch):
    """Its checkpoint names the network by where it was."""
    written(project, Path("one.yaml"))

    def cut(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trained, "save", cut)
        train_finals(Path("one.yaml"), seeds=1, threads=1, keep_validation=True)
    after = project.with_name("after")
    shutil.move(project, after)
    monkeypatch.chdir(after)
    found = train_finals(Path("one.yaml"), seeds=1, threads=1, keep_validation=True)
    network = trained.load(found.folder / f"seed-{found.seeds[0]}")
    assert network.config.backbone == str(after / "nets" / "net.py")
    assert network.confidence is not None


def test_a_copied_training_goes_by_the_copy(project, monkeypatch):
    written(project, Path("one.yaml"))
    seed = train_finals(Path("one.yaml"), seeds=1, threads=1).folder / "seed-1"
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir("/")
    for folder in (copy, project):
        net = str(folder / "nets" / "net.py")
        assert read_exported(folder / "one.yaml")[0].backbone == net
        assert trained.load(folder / seed).config.backbone == net


def test_an_edited_copy_is_not_taken_for_the_original(project, monkeypatch):
    run(1)
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
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


def test_a_calibration_of_a_users_space(project, monkeypatch):
    made = make_plan("space.py", epochs=2, trials=1, study="own", early_stopping=False)
    space = f"calibrate:{project / 'space.py'}"
    plan = made.with_(space=space, sampler="grid", configs=1)
    StudyRecord.create_or_open(plan, runs=Path("runs")).close()
    after = project.with_name("after")
    shutil.move(project, after)
    with closing(StudyRecord.open("own", runs=after / "runs")) as record:
        assert record.plan.calibrates == str(after / "space.py")
