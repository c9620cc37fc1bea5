"""A calibration as a study: planned, gone on with, read, and found again by the next search."""

import html
from dataclasses import replace

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from search_spaces import load_space, names
from studies import calibrating, confirm
from studies.calibrating import (
    Findings,
    calibration_of,
    calibration_plan,
    curves_in,
    flags_of,
    kept_rule,
)
from studies.calibration import Range, calibrate
from studies.calibration_sections import calibration
from studies.calibration_space import spread_out
from studies.calibration_text import calibration_json, calibration_lines, row_of
from studies.export import export
from studies.halving import Outcome, Rule
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.recorded import table_of
from studies.report import report_page
from studies.search import make_plan
from studies.verdict import percent, recommended
from studies.view import look
from tests.studies import made_up
from tests.studies.example import make_plan as example_plan
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import EpochReport


def planned(configs: int = 6, seeds: int = 2, **base) -> StudyPlan:
    return calibration_plan(made_up.plan(base={"epochs": 8, **base}, grace=2), configs, seeds)


@pytest.fixture
def record(tmp_path) -> StudyRecord:
    """A whole calibration with made-up training."""
    return made_up.search(StudyRecord.create_or_open(planned(), InMemoryStorage(), tmp_path))


@pytest.mark.parametrize("name", names())
def test_points_are_spread_out_over_every_space_the_default_first(name):
    base = TrialConfig(dataset="cifar100")
    found = spread_out(load_space(name), base, 8)
    assert len(found) == 8 and found == spread_out(load_space(name), base, 8)
    starts = load_space(name).starts(base)[:8]
    assert found[: len(starts)] == starts
    if name == "diverse_alpha":  # every half of a range is tried about as often
        low = sum(point["alpha_1"] < 3.16 for point in spread_out(load_space(name), base, 33)[1:])
        assert 14 <= low <= 18


def test_no_point_comes_twice_unless_the_space_has_too_few(tmp_path):
    for seed in range(4):
        found = spread_out(load_space("everything"), TrialConfig(), 24, seed)
        assert all(point not in found[:number] for number, point in enumerate(found))
    text = "def starts(base): return [{'alpha': 3}]\n"
    text += "def suggest(trial, base): return base.with_(alpha=trial.suggest_int('alpha', 1, 3))\n"
    (tmp_path / "three.py").write_text(text)
    alphas = [
        p["alpha"] for p in spread_out(load_space(str(tmp_path / "three.py")), TrialConfig(), 5)
    ]
    assert alphas[0] == 3 and sorted(alphas[:3]) == [1, 2, 3] and set(alphas[3:]) < {1, 2, 3}


def test_every_config_runs_with_each_seed_in_full(record):
    outcomes = record.outcomes()
    assert [o.state for o in outcomes] == ["COMPLETE"] * 12
    assert [o.config.seed for o in outcomes if o.config] == [0] * 6 + [1] * 6
    alphas = [o.config.alpha for o in outcomes if o.config]
    assert alphas[:6] == alphas[6:] and len(set(alphas)) == 6 and alphas[0] == (3.0,) * 4
    assert all(o.config.split_seed == 0 for o in outcomes if o.config)


def test_it_is_a_table_to_replay_searches_on(record):
    table = table_of(record)
    assert (table.configs, table.seeds, table.space) == (6, 2, "diverse_alpha")
    outcome = record.outcomes()[6 + table.params.index({f"alpha_{i}": 3.0 for i in (1, 2, 3, 4)})]
    assert outcome.report is not None
    assert table.accuracy[0, 1, -1] == pytest.approx(outcome.report.accuracies, abs=1e-4)


def test_it_goes_on_and_takes_more_seeds(tmp_path):
    storage = InMemoryStorage()
    half = StudyRecord.create_or_open(planned(), storage, tmp_path)
    made_up.search(half, trials=4)
    half.close()
    more = StudyRecord.create_or_open(planned(seeds=3), storage, tmp_path)
    made_up.search(more)
    assert [o.config.seed for o in more.outcomes() if o.config] == [0] * 6 + [1] * 6 + [2] * 6
    assert curves_in(look(more)).shape == (6, 3, 8, 1)
    with pytest.raises(InputError, match="configs is 6, now 8"):
        StudyRecord.create_or_open(planned(configs=8), storage, tmp_path)


@pytest.mark.parametrize(
    ("configs", "lost", "kept", "seeds"),
    [
        (7, {1}, [0, 2, 3, 4, 5, 6], [0, 1, 2]),
        (7, {1, 17, 18, 19, 20}, [0, 2, 3, 4, 5, 6], [0, 1]),  # the last seed has just begun
        (5, {1}, [0, 2, 3, 4, 1], [1, 2]),  # five configs are needed at least, so all of them stay
    ],
)
def test_configs_are_compared_on_the_same_seeds(tmp_path, configs, lost, kept, seeds):
    record = StudyRecord.create_or_open(planned(configs, 3), InMemoryStorage(), tmp_path)
    whole = look(made_up.search(record))
    view = replace(whole, outcomes=[o for o in whole.outcomes if o.number not in lost])
    assert np.array_equal(curves_in(view), curves_in(whole)[np.ix_(kept, seeds)])
    first = calibration_lines(calibration_of(view), view.plan)[0]
    assert first.startswith(f"{len(kept)} configs of diverse_alpha, each with {len(seeds)} seeds")
    left = 3 * configs - len(kept) * len(seeds)
    assert f" {left} of the {3 * configs} trials are left out" in first
    assert "left out" not in calibration_lines(calibration_of(whole), view.plan)[0]


def test_configs_that_share_no_seed_cannot_be_compared(record):
    view = look(record)
    apart = [o for o in view.outcomes if (o.number < 6) == (o.number % 6 < 3)]
    with pytest.raises(InputError, match="no seed that 5 configs of full length share"):
        curves_in(replace(view, outcomes=apart))


def test_curves_are_the_objective_of_each_config_and_seed(record):
    view = look(record)
    found = curves_in(view)
    assert found.shape == (6, 2, 8, 1)
    for number, outcome in enumerate(view.outcomes):
        assert found[number % 6, number // 6, -1, 0] == pytest.approx(outcome.value)
    steps = record.study.get_trials(deepcopy=False)[7].intermediate_values
    assert found[1, 1, :, 0].tolist() == pytest.approx([steps[e] for e in range(1, 9)])


def test_the_plain_network_is_judged_beside_its_average(record):
    view = look(record)
    assert view.plan.base.ema == calibrating.AVERAGE
    plain, averaged = curves_in(view, plain=True), curves_in(view)
    exits = view.reports[7][2]
    assert plain[1, 1, 2, 0] == pytest.approx(np.mean(np.maximum.accumulate(exits.raw)))
    assert (plain[:, :, :-1] > averaged[:, :, :-1]).all(), "the average is behind at first"
    found = calibration_of(view)
    assert found.change == pytest.approx((0, 0, 0)) and found.plain and found.averaged
    assert found.plain.moments[0].spread != found.averaged.moments[0].spread
    without = calibration_plan(made_up.plan(base={"epochs": 8}), 6, 2, ema=0.0)
    assert without.base.ema == 0.0
    assert calibration_plan(made_up.plan(base={"ema": 0.9}), 6, 2).base.ema == 0.9
    budget = made_up.plan(objective="budget:100M")
    assert calibration_plan(budget, 6, 2).base.ema == 0.0, "its curve is of one network"


def test_an_average_is_proposed_where_it_saves_epochs():
    rng = np.random.default_rng(0)
    worth = np.linspace(0.5, 0.7, 12)[:, None, None, None]
    ordered = worth + rng.normal(0, 0.002, (12, 3, 10, 1))
    noisy = ordered.copy()
    noisy[:, :, :7] = rng.normal(0.5, 0.1, (12, 3, 7, 1))
    early, late = (calibrate(curves, Rule(3), draws=300) for curves in (ordered, noisy))
    change = Range(-0.0009, -0.0012, -0.0006)
    found = Findings(late, early, 0.99, change)
    assert found.averages and found.flags == flags_of(early, 0.99) and "--ema 0.99 " in found.flags
    plan = planned()
    lines = calibration_lines(found, plan)
    assert "of a moving average of the weights (--ema 0.99)" in lines[0]
    assert lines[-1].startswith(f"Scored by the plain weights instead, {flags_of(late)} trains")
    assert "by \N{MINUS SIGN}0.09 points (95 % interval \N{MINUS SIGN}0.12 to" in lines[-1]
    turned = Findings(early, late, 0.99, change)
    assert not turned.averages and "--ema" not in turned.flags and "--ema" in turned.other_flags
    assert "of the plain weights" in calibration_lines(turned, plan)[0]
    assert not Findings(early, early, 0.99, change).averages, "nothing is saved"
    alone = Findings(None, late, 0.99, None)
    assert alone.averages and alone.other_flags == "" and alone.other is None
    assert calibration_json(alone)["other_flags"] is None


def test_a_usual_rule_that_is_cheaper_by_luck_is_said_to_be_so():
    rng = np.random.default_rng(0)
    curves = np.linspace(0.5, 0.7, 12)[:, None, None, None] + rng.normal(0, 2e-3, (12, 3, 10, 1))
    curves[:, :, :7] = rng.normal(0.5, 0.1, (12, 3, 7, 1))
    found = calibrate(curves, Rule(3), draws=300)
    assert found.chosen.rule.grace > 7 and found.usual.epochs < found.chosen.epochs
    said = (
        "after epoch 3 the order of configs cannot be told from luck, so that another search need"
    )
    assert any(
        said in line for line in calibration_lines(Findings(found, None, 0.0, None), planned())
    )
    later = calibrate(curves, Rule(9), draws=300)  # no cheaper, and told from luck there
    lines = calibration_lines(Findings(later, None, 0.0, None), planned())
    assert not any("cannot be told from luck, so" in line for line in lines)


def test_a_run_that_diverged_is_at_chance_from_there_on(tmp_path):
    record = StudyRecord.create_or_open(planned(seeds=1), InMemoryStorage(), tmp_path)
    ticket = record.ask()
    assert ticket is not None
    record.report(ticket, made_up.report(ticket.config, 1, [0.5] * 4))
    gone = EpochReport(epoch=2, loss=None, seconds=0.1, split="validation", exits=())
    assert not record.report(ticket, gone)
    made_up.search(record)
    curves = curves_in(look(record), plain=True)
    assert curves[0, 0, :, 0].tolist() == pytest.approx([0.5] + [0.01] * 7)


def test_a_search_without_early_stopping_is_read_and_one_with_it_is_refused(tmp_path):
    plan = made_up.plan(trials=8, base={"epochs": 6}, early_stopping=False, study="whole")
    whole = made_up.search(StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path))
    assert curves_in(look(whole)).shape == (8, 1, 6, 1)
    with pytest.raises(InputError, match="stopped trials early.*automate calibrate"):
        curves_in(replace(look(whole), plan=plan.with_(early_stopping=True)))
    with pytest.raises(InputError, match="has 4 configs of full length: 5 or more"):
        curves_in(replace(look(whole), outcomes=look(whole).outcomes[:4]))


def test_what_is_found_is_said_the_same_everywhere(record):
    view = look(record)
    found = calibration_of(view)
    page = report_page([view])
    lines = calibration_lines(found, view.plan)
    assert all(html.escape(line) in page for line in lines)
    assert "6 configs of diverse_alpha, each with 2 seeds, ran all 8 epochs" in lines[0]
    main = page[page.index("<main") :]
    assert main.index("<section") == main.index('<section id="calibration"')
    assert "calibration of diverse_alpha" in page and "Which network to take" not in page
    assert found.flags in lines[-2] and found.other_flags in lines[-1]
    said = calibration_json(found)
    assert (said["flags"], said["averaged"]) == (found.flags, found.averages)
    assert (said["configs"], said["seeds"], len(said["by_epoch"])) == (6, 2, 8)
    stopped = made_up.view()
    together = report_page([stopped, view])
    together = together[together.index('id="all"') : together.index('id="study-0"')]
    best = recommended(view.outcomes)
    assert best is not None and best.value is not None
    assert percent(best.value) not in together, "the best of runs of different seeds is luck"
    assert calibration(stopped) == [] and "When stopping is right" not in report_page([stopped])


def test_a_front_is_calibrated_by_each_exit(tmp_path):
    plan = calibration_plan(made_up.plan(base={"epochs": 8}, objective="front"), 6, 2)
    record = StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path)
    ticket = record.ask()
    assert ticket is not None
    record.report(ticket, made_up.report(ticket.config, 1, [0.4, 0.5, 0.6, 0.7]))
    gone = EpochReport(epoch=2, loss=None, seconds=0.1, split="validation", exits=())
    assert not record.report(ticket, gone)
    made_up.search(record)
    view = look(record)
    curves = curves_in(view, plain=True)
    assert curves.shape == (6, 2, 8, 4)
    assert curves[0, 0].tolist() == [[0.4, 0.5, 0.6, 0.7]] + [[0.01] * 4] * 7
    for number, outcome in enumerate(view.outcomes[1:], 1):
        assert outcome.report is not None
        ends = curves[number % 6, number // 6, -1].tolist()
        assert ends == pytest.approx(list(outcome.report.accuracies))
    found = calibration_of(view)
    lines, page = calibration_lines(found, view.plan), report_page([view])
    assert all(html.escape(line) in page for line in lines)
    assert "the accuracy of each exit of the plain weights on the validation" in lines[0]
    assert "points at exits 1 to 4" in lines[1] and "networks of the final front" in lines[-2]
    epoch = calibration_json(found)["by_epoch"][2]
    assert epoch["tau"] in epoch["tau_of_exits"] and len(epoch["spread_of_exits"]) == 4


@pytest.mark.parametrize("objective", ["hypervolume", "front+flops"])
def test_networks_of_different_cost_are_calibrated_in_the_searchs_box(tmp_path, objective):
    search = made_up.plan("backbone", trials=12, base={"epochs": 4}, grace=2, objective=objective)
    plan = calibration_plan(search, 10, 1)
    record = StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path / "c")
    searched = StudyRecord.create_or_open(search, InMemoryStorage(), tmp_path / "s")
    assert plan.box is not None and record.box == searched.box == plan.box
    view = look(made_up.search(record))
    curves, deepest = curves_in(view), max(o.config.exits for o in view.outcomes if o.config)
    if objective == "hypervolume":
        assert curves.shape == (10, 1, 4, 1)
        for number, outcome in enumerate(view.outcomes):
            assert curves[number, 0, -1, 0] == pytest.approx(outcome.value)
    else:
        assert curves.shape == (10, 1, 4, deepest + 1)
        last = [o.report.exits[-1].flops for o in view.outcomes if o.report]
        assert (-curves[:, 0, -1, -1]).tolist() == last and len(set(last)) > 1
    lines = calibration_lines(calibration_of(view), view.plan)
    assert ("hypervolume" in lines[0]) is (objective == "hypervolume")
    known = kept_rule(
        search.study, search.base, search.space, objective,
        lambda name: (record.plan, {"plain": {"grace": 2, "eta": 2, "tolerance": 0.001}}),
    )  # fmt: skip
    assert known == (record.name, Rule(2, 2, 0.001)), "the next search takes it"


def test_the_next_search_of_that_name_takes_it_unless_told_otherwise(record, monkeypatch):
    monkeypatch.setattr("studies.machine.settled", lambda *_: {})
    rule = Rule(3, 4, 0.012)
    one = {"grace": 3, "eta": 4, "tolerance": 0.012}
    record.note(calibrating.KEPT, {"plain": one, "averaged": {**one, "grace": 1}})

    def known(name):
        kept = record.noted(calibrating.KEPT)
        return (record.plan, kept) if name == record.name and kept else None

    name, base = "cifar100-vgg16-diverse_alpha", record.plan.base.with_(ema=0.0)
    space = "diverse_alpha"
    assert kept_rule(name, base, space, "anytime", known) == (f"{name}-calibrate", rule)
    assert (
        kept_rule(name, base.with_(seed=3, precision="bf16"), space, "anytime", known) is not None
    )
    assert kept_rule(name, base.with_(epochs=9), space, "anytime", known) is None
    assert kept_rule(name, base, space, "last", known) is None
    assert kept_rule(name, base, "temperature", "anytime", known) is None
    edited = record.plan.with_(digests={"backbone": "another file"})
    assert kept_rule(name, base, space, "anytime", lambda _: (edited, {"plain": one})) is None
    assert kept_rule("other", base, space, "anytime", known) is None
    averaged = kept_rule(name, base.with_(ema=0.99), space, "anytime", known)
    assert averaged == (f"{name}-calibrate", Rule(1, 4, 0.012))
    assert kept_rule(name, base.with_(ema=0.9), space, "anytime", known) is None
    older = record.plan.with_(base=base)
    assert kept_rule(name, base, space, "anytime", lambda _: (older, one)) == (older.study, rule)
    assert kept_rule(name, base.with_(ema=0.99), space, "anytime", lambda _: (older, one)) is None

    def plan(**fields):
        settings = {"dataset": "cifar100", "precision": "fp32", "epochs": 8, **fields}
        return make_plan("diverse_alpha", calibration=known, **settings)

    taken = plan()
    assert (taken.grace, taken.eta, taken.tolerance) == (3, 4, 0.012)
    assert taken.calibrated == f"{name}-calibrate"
    for fields in (
        {"grace": 2}, {"eta": 2}, {"tolerance": 0.0}, {"early_stopping": False}, {"rungs": (2,)},
    ):  # fmt: skip
        told = plan(**fields)
        assert told.calibrated is None and (told.eta, told.tolerance) == (2, 0.0)
        assert told.rungs == fields.get("rungs")
    listed = Rule(5, 3, 0.0, (5, 7))
    found = calibration_of(look(record))
    assert found.plain is not None
    plain = replace(found.plain, chosen=Outcome(listed, 1, 0, 1))
    calibrating.keep(record, replace(found, plain=plain))
    taken = plan()
    assert (taken.grace, taken.rungs, taken.eta, taken.tolerance) == (5, (5, 7), 3, 0.0)
    again = plan(stored=lambda name: taken)
    assert again.rungs == (5, 7) and plan(stored=lambda name: taken, grace=5).rungs is None
    # a study that is there keeps its own, whatever was found since
    old = plan().with_(grace=5, eta=3, tolerance=0.0, calibrated=None)
    again = plan(stored=lambda name: old)
    assert (again.grace, again.eta, again.tolerance, again.calibrated) == (5, 3, 0.0, None)


def test_nothing_is_exported_from_it(record):
    with pytest.raises(InputError, match="configs that nobody chose: search that space"):
        export(record)


def test_what_cannot_be_calibrated_is_said_in_one_line(tmp_path):
    search = made_up.plan()
    for configs, seeds, says in ((4, 3, "configs needs to be at least 5"), (6, 0, "seeds needs")):
        with pytest.raises(InputError, match=says):
            calibration_plan(search, configs, seeds)
    with pytest.raises(InputError, match="no search"):
        calibration_plan(planned())
    with pytest.raises(InputError, match="runs of one epoch"):
        calibration_plan(example_plan(tmp_path, base={"epochs": 1}, grace=1))
    with pytest.raises(InputError, match="stops no trial early"):
        planned().with_(early_stopping=True)


def test_a_calibration_is_not_confirmed(record):
    with pytest.raises(InputError, match="is a calibration: only a search can be confirmed"):
        confirm.make_plan(record)


def test_a_negative_tau_has_a_minus_sign_like_every_other_number(record):
    view = look(record)
    moment = calibration_of(view).best.moments[0]
    low = replace(moment, taus=(Range(-0.3, -0.52, -0.001),))
    assert row_of(low, view.plan)[2:4] == ["−0.30", "−0.52 to 0.00"]
