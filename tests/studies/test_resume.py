from dataclasses import replace

import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from search_spaces import load_space, names
from studies import resume
from studies.calibration_space import spread_out
from studies.drivers import Driver
from studies.record import StudyRecord
from studies.resume import RUNTIME, differences
from tests.studies.example import SPACE, make_plan, make_report, run, run_all, space_file
from trainers.catalog import InputError
from trainers.config import TrialConfig


@pytest.fixture
def storage():
    return InMemoryStorage()


@pytest.fixture
def opening(tmp_path, storage):
    def opens(fresh=False, runtime=None, **fields):
        plan = make_plan(tmp_path, **fields)
        return StudyRecord.create_or_open(plan, storage, tmp_path, fresh, runtime)

    return opens


CHANGES = {
    "sampler": "random",
    "objective": "mean",
    "budgets": (1.0, 1.0, 1.0, 2.0),
    "seed": 5,
    "early_stopping": False,
    "eta": 3,
    "grace": 1,
    "rungs": (2, 3),
    "tolerance": 0.01,
    "run_on": 0.05,
    "configs": 8,
    "space": "single_alpha",
}


@pytest.mark.parametrize("field", CHANGES)
def test_another_search_of_the_same_name_is_refused(opening, field):
    old = getattr(opening().plan, field)
    with pytest.raises(InputError) as caught:
        opening(**{field: CHANGES[field]})
    text = str(caught.value)
    assert text.startswith("study 'tried' is another search: ")
    assert f"{field} is " in text and f", now {CHANGES[field]}" in text
    assert str(old)[-10:] in text and "--fresh" in text and "--study NAME" in text
    assert text.count(", now ") == 1 and "\n" not in text


def test_every_differing_field_of_the_base_config_is_named(opening):
    opening(base={"lr": 0.1, "alpha": 3})
    with pytest.raises(InputError) as caught:
        opening(base={"lr": 0.2, "alpha": (1, 2, 3, 4)}, eta=3)
    said = "alpha is 3.0, now (1.0, 2.0, 3.0, 4.0); lr is 0.1, now 0.2; eta is 2, now 3:"
    assert said in str(caught.value)


def test_all_fields_of_a_plan_are_compared_but_those_that_may_change():
    free = {"study", "trials", "data_root", "base", "speeds", "calibrated", *RUNTIME}
    free |= {"purpose", "each_epoch", "rule", "only"}  # of experiments: see test_reproduce.py
    free |= {"finalists", "race", "box"}  # of confirmations: see test_confirm.py
    free |= {"digests"}  # looked at before a trial runs: see test_search.py
    free |= {"places"}  # where what is compared lies: see test_moved.py
    from studies.plan import StudyPlan

    assert set(CHANGES) == set(StudyPlan.model_fields) - free


def test_a_trial_of_other_pixels_is_refused():
    """Resized or not, images of one size are not the same ones."""
    base = TrialConfig(dataset="./tree", classes=3, resize=32, backbone="vgg16")
    assert resume.checked_config(base.with_(alpha=2.0), base).alpha == (2.0,)
    with pytest.raises(InputError, match="suggest changes resize from 32 to None"):
        resume.checked_config(base.with_(resize=None), base)


def test_the_same_space_file_by_another_path_is_the_same(opening, tmp_path, monkeypatch):
    opening()
    monkeypatch.chdir(tmp_path)
    opening(space="./space.py")
    (tmp_path / "copy").mkdir()
    space_file(tmp_path / "copy", SPACE)
    opening(space="copy/space.py")
    space_file(tmp_path / "..", f"{SPACE}# another\n")
    with pytest.raises(InputError, match=r"space is .*space.py, now \.\./space.py"):
        opening(space="../space.py")


CONDITIONAL = """
def starts(base):
    return [{}]

def suggest(trial, base):
    scheme = trial.suggest_categorical("scheme", ["mate", "dks"])
    if scheme == "dks":
        return base.with_(scheme=scheme)
    return base.with_(scheme=scheme, alpha=trial.suggest_float("alpha", 0.1, 100))
"""


@pytest.mark.parametrize(
    ("text", "point", "wrong"),
    [
        (SPACE, {"kd_wieght": 1.0}, "'kd_wieght', which suggest never asks for there (it asks for "
         "alpha, kd_weight)"),
        (SPACE, {"alpha": 3.0}, None),  # the rest is drawn
        (CONDITIONAL, {"scheme": "mate", "alpha": 3.0}, None),
        (CONDITIONAL, {"scheme": "dks", "alpha": 3.0}, "'alpha', which suggest never asks for"),
    ],
)  # fmt: skip
def test_a_start_names_only_what_the_space_asks_for(tmp_path, text, point, wrong):
    space, base = load_space(space_file(tmp_path, text)), TrialConfig()
    start = replace(space, starts=lambda _: [point])
    if wrong is None:
        resume.config_at(space, base, point)
        assert spread_out(start, base, 1)[0].items() >= point.items()
        return
    for ask in (
        lambda: resume.first_points(start, make_plan(tmp_path)),
        lambda: spread_out(start, base, 2),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert wrong in str(caught.value) and "\n" not in str(caught.value)


def test_what_runs_a_study_stays_as_stored_unless_it_is_asked_for(opening):
    stored = dict(workers=3, threads=2, gpus_per_trial=0.5, device="cuda")
    assert opening(**stored, base={"precision": "bf16"}).plan.threads == 2
    kept = opening(workers=1, threads=8).plan
    assert {name: getattr(kept, name) for name in stored} == stored
    assert kept.base.precision == "bf16"
    asked = opening(workers=1, runtime={"workers": 1, "precision": "fp32"}).plan
    assert (asked.workers, asked.threads, asked.base.precision) == (1, 2, "fp32")
    again = opening(workers=7).plan
    assert (again.workers, again.base.precision) == (1, "fp32"), "and is stored then"
    with pytest.raises(ValueError, match="runtime takes .*, got sampler"):
        opening(runtime={"sampler": "tpe"})
    with pytest.raises(InputError, match="workers"):
        opening(runtime={"workers": 0})


def test_the_data_may_move(opening):
    opening(data_root="here")
    assert opening().plan.data_root == "here"
    assert opening(data_root="there").plan.data_root == "there"
    assert opening().plan.data_root == "there"


def test_a_plan_of_an_older_version_takes_defaults_and_of_a_newer_is_refused(opening, storage):
    record = opening()
    study_id = storage.get_study_id_from_name("tried")
    plan = record.plan.model_dump(mode="json")
    for name in ("eta", "workers", "budgets", "rungs"):
        del plan[name]
    del plan["base"]["mix_width"], plan["base"]["schema_version"]
    storage.set_study_user_attr(study_id, "plan", plan)
    assert opening().plan == record.plan
    storage.set_study_user_attr(study_id, "plan", {**plan, "bandwidth": 3})
    with pytest.raises(InputError, match="the plan of study .* cannot be read: .*'bandwidth'"):
        opening()
    storage.set_study_user_attr(study_id, "plan", "nonsense")
    with pytest.raises(InputError, match="the plan of study .* cannot be read"):
        opening()
    assert len(opening(fresh=True).outcomes()) == 6


@pytest.mark.parametrize("kind", ["trials", "attributes", "direction", "directions"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_study_of_someone_else_is_refused_and_never_deleted(opening, storage, kind, fresh):
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = {"direction": [down], "directions": [up, up]}.get(kind, [up])
    study_id = storage.create_new_study(directions, "tried")
    if kind == "trials":
        storage.create_new_trial(study_id)
    if kind == "attributes":
        storage.set_study_user_attr(study_id, "theirs", 1)
    with pytest.raises(InputError, match="'tried' was not made by automate: take another --study"):
        opening(fresh=fresh)
    assert storage.get_study_id_from_name("tried") == study_id


def test_a_study_whose_maker_died_at_once_is_made_whole(opening, storage):
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "tried")
    run_all(opening())
    assert storage.get_study_id_from_name("tried") == study_id


def test_a_study_whose_maker_died_while_it_enqueued_is_made_whole(opening, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StudyRecord, "_enqueue", lambda self: None)
        assert opening().outcomes() == []
    assert len(opening().outcomes()) == 6


def test_starting_over_deletes_study_checkpoints_and_exports(opening, tmp_path):
    record = opening()
    ticket = record.ask()
    assert ticket is not None
    record.checkpoint(0).write_text("x")
    run(record, ticket)
    (record.folder / "best").mkdir()
    (record.folder / "best" / "1.yaml").write_text("x")
    (record.folder / "mine.txt").write_text("x")
    again = opening(fresh=True, sampler="random")
    assert [outcome.state for outcome in again.outcomes()] == ["WAITING"] * 6
    assert {path.name for path in record.folder.iterdir()} == {"mine.txt"}


def test_starting_over_does_not_follow_links(opening, tmp_path):
    record = opening()
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").write_text("x")
    (record.folder / "trials").symlink_to(target)
    opening(fresh=True)
    assert (target / "file").exists()


def test_starting_over_waits_for_another_drivers_trials(tmp_path, storage):
    now = [1000.0]
    plan = make_plan(tmp_path)
    other = Driver(name="elsewhere:1:0:0", clock=lambda: now[0], lease=100.0)
    there = StudyRecord.create_or_open(plan, storage, tmp_path, driver=other)
    there.ask()
    here = Driver(clock=lambda: now[0])
    with pytest.raises(InputError, match="is being searched: 1 of its trials run .*elsewhere"):
        StudyRecord.create_or_open(plan, storage, tmp_path, fresh=True, driver=here)
    now[0] += 101
    record = StudyRecord.create_or_open(plan, storage, tmp_path, fresh=True, driver=here)
    assert [outcome.attempt for outcome in record.outcomes()] == [0] * 6


def test_a_new_study_does_not_go_on_from_old_checkpoints(opening, tmp_path, storage):
    left_over = tmp_path / "tried" / "trials" / "0" / "checkpoint.pt"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("x")
    with pytest.raises(InputError, match="checkpoints of a study that is gone: start over with"):
        opening()
    opening(fresh=True)
    assert not left_over.exists()


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ('[{"alpha": 1000.0}]', "out of range"),
        ('[{"alpha": "three"}]', "three"),
        ("[3]", "need to be mappings of names to values, got 3"),
        ('[{"alpha": 3.0}, {"kd_weight": 0.01}]', "out of range"),
        ('[{"kd_weight": __import__("fractions").Fraction(1)}]', "plain numbers, texts and truth"),
        ('[{"alpha": 3.0, "unused": 1}]', "names 'unused', which suggest never asks for there"),
    ],
)
def test_a_start_that_the_space_cannot_take_is_refused(opening, storage, tmp_path, starts, said):
    text = SPACE.replace('[{"alpha": 3.0, "kd_weight": 1.0}]', starts)
    with pytest.raises(InputError, match=said) as caught:
        opening(space=space_file(tmp_path, text))
    assert "space.py" in str(caught.value) and "\n" not in str(caught.value)
    assert storage.get_all_studies() == []


def test_a_start_may_leave_parameters_open(opening, tmp_path):
    text = SPACE.replace('{"alpha": 3.0, "kd_weight": 1.0}', '{"alpha": 3.0}')
    record = opening(space=space_file(tmp_path, text))
    ticket = record.ask()
    assert ticket is not None and ticket.start and ticket.config.alpha == (3.0,)
    assert set(record.outcome(0).params) == {"alpha", "kd_weight"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"space": "no_such_space"}, "unknown space 'no_such_space'"),
        ({"objective": "exit:9"}, "K from 1 to 4"),
        ({"objective": "luck"}, "unknown objective 'luck'"),
        ({"budgets": (1.0,)}, "budgets need 4 values"),
        ({"rungs": (2, 4)}, "less than the 4 epochs, as in 16,23, got 2 4"),
        ({"rungs": ()}, "got none"),
        ({"rungs": (3,)}, "grace 2 contradicts rungs 3, the first of which is after epoch 3"),
        ({"rungs": (2,), "early_stopping": False}, "without early stopping there are no rungs"),
    ],
)
def test_a_plan_that_cannot_be_searched_leaves_nothing_behind(opening, storage, fields, said):
    with pytest.raises(InputError, match=said):
        opening(**fields)
    assert storage.get_all_studies() == []


@pytest.mark.parametrize("space", names())
def test_every_space_of_the_house_can_be_searched(opening, space):
    record = opening(space=space, trials=6)
    run_all(record)
    assert {outcome.state for outcome in record.outcomes()} <= {"COMPLETE", "PRUNED"}


@pytest.mark.slow  # imports torch
def test_the_hypervolumes_box_is_fixed_when_the_study_is_made(opening, tmp_path):
    from trainers.costs import costs

    record = opening(objective="hypervolume")
    flops = [cost.flops for cost in costs(record.plan.base)]
    box = (min(flops) / resume.MARGIN, max(flops) * resume.MARGIN, 0.1)
    assert record._box == box
    ticket = record.ask()
    assert ticket is not None
    report = make_report(1, 0.5)
    points = zip(report.exits, flops, strict=True)
    report = report.model_copy(
        update={"exits": tuple(point.model_copy(update={"flops": f}) for point, f in points)}
    )
    record.report(ticket, report)
    value = record.outcome(0).value
    assert value is not None and 0 < value < 1
    assert opening(objective="hypervolume")._box == box
    second = record.ask()
    assert second is not None and not record.report(second, make_report(1, None))
    assert record.outcome(1).value == 0.0


def test_differences_are_short(tmp_path):
    one = make_plan(tmp_path, space=str(tmp_path / ("x" * 200 + ".py")))
    other = make_plan(tmp_path, space="everything")
    (text,) = differences(one, other)
    assert len(text) < 100 and "..." in text


def test_a_space_is_loaded_before_anything_is_made(tmp_path):
    assert load_space("single_alpha").starts(TrialConfig())
    plan = make_plan(tmp_path, space=str(tmp_path / "gone.py"))
    with pytest.raises(InputError, match="does not exist"):
        StudyRecord.create_or_open(plan, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
