"""A confirmation as a study: who runs, when, and that whatever is killed goes on."""

import itertools
import shutil
from contextlib import closing

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from studies import confirm, doctor, limits, racing
from studies.cleaning import needless
from studies.conclusions import sentences
from studies.conclusions import test as on_test
from studies.confirmation import Confirmation
from studies.drivers import Driver
from studies.export import export
from studies.finalists import away, finalists, same, simplicity
from studies.plan import Finalist
from studies.record import StudyRecord, list_studies
from studies.report import report_page
from studies.view import look
from tests.studies import made_up
from tests.studies import made_up_confirmations as made
from trainers.catalog import InputError
from trainers.checkpoints import before
from trainers.config import TrialConfig


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    made.searched(folder).close()
    return folder


@pytest.fixture
def found(searches, tmp_path):
    shutil.copytree(searches, tmp_path, dirs_exist_ok=True)
    with closing(StudyRecord.open("searched", runs=tmp_path)) as record:
        yield record


def states(record: StudyRecord) -> list[str]:
    return [outcome.state for outcome in record.outcomes()]


def test_the_default_and_the_best_on_seeds_that_the_search_never_used(found):
    plan = confirm.make_plan(found, top=4, seeds=3)
    rows = plan.finalists or ()
    assert plan.study == "searched-confirm" and plan.confirms == "searched"
    assert [row.trial for row in rows][0] == 0 and len(rows) == 5
    said = [row.said for row in rows[1:]]
    assert len({row.trial for row in rows}) == 5 and None not in said
    assert plan.race == racing.schedule(4, 3) and plan.trials == 15
    used = {outcome.config.seed for outcome in found.outcomes()}
    assert used == {0} and plan.base.seed == plan.base.split_seed == 1


def test_runs_of_a_round_share_seed_and_hold_out(found):
    with closing(made.started(found, top=4, seeds=3)) as record:
        made.race(record)
        rounds: dict[int, set[tuple[int, int]]] = {}
        for outcome in record.outcomes():
            if outcome.config is not None:
                pair = outcome.config.seed, outcome.config.split_seed
                rounds.setdefault(outcome.number // 5, set()).add(pair)
        assert rounds == {k: {(k + 1, k + 1)} for k in range(3)}
        first = (record.plan.finalists or ())[1].config
        (ran,) = (o for o in record.outcomes() if o.number == 1)
        assert ran.config.with_(seed=0, split_seed=0) == first


def test_the_worst_leave_and_their_trials_are_ended_without_a_run(found):
    with closing(made.started(found, top=6, seeds=4)) as record:
        made.race(record)
        outcomes = record.outcomes()
        ran = [o for o in outcomes if o.state == "COMPLETE"]
        gone = [o for o in outcomes if o.state == "PRUNED"]
        assert len(ran) == racing.cost(record.plan.race) and len(ran) + len(gone) == 28
        assert all(o.epochs == 0 and o.value is None for o in gone)
        assert all("left the race before round" in (o.reason or "") for o in gone)
        values = np.full((7, 4), np.nan)
        for o in ran:
            values[o.number % 7, o.number // 7] = o.value
        whole = [row for row in range(7) if not np.isnan(values[row]).any()]
        assert whole[0] == 0 and len(whole) == 3
        best = racing.order(values[1:, :1])[: record.plan.race[1]]
        assert {row for row in range(1, 7) if not np.isnan(values[row, 1])} == {r + 1 for r in best}


def result_row(record: StudyRecord, row: int) -> str:
    return (record.plan.finalists or ())[row].name


def two_drivers(found, tmp_path, **race):
    plan, storage = confirm.make_plan(found, **race), InMemoryStorage()
    return [
        StudyRecord.create_or_open(
            plan, storage, tmp_path, driver=Driver(name=f"elsewhere:1:0:{k}", lease=1e6)
        )
        for k in range(2)
    ]


def test_drivers_wait_at_the_end_of_a_round(found, tmp_path):
    one, two = two_drivers(found, tmp_path, top=3, seeds=2)
    assert one.plan.race == (3, 2)
    tickets = [one.ask(), one.ask(), two.ask(), two.ask()]
    assert [ticket.number for ticket in tickets] == [0, 1, 2, 3]
    assert one.ask() is None and one.held_back() and two.held_back()
    for record, ticket in zip((one, one, two, two), tickets, strict=True):
        assert two.ask() is None
        for report in made.reports(ticket.config):
            record.report(ticket, report)
    assert not two.held_back()
    assert two.ask().number == 4


def test_drivers_wait_for_no_round_before_which_nobody_leaves(found, tmp_path):
    one, two = two_drivers(found, tmp_path, top=2, seeds=3)
    assert one.plan.race == (2, 2, 2) and not one.held_back()
    assert [record.ask().number for record in (one, two) * 4 + (one,)] == list(range(9))
    assert one.ask() is None


def test_a_search_holds_nothing_back(found):
    assert not found.held_back()


def test_interrupted_anywhere_it_comes_to_the_same_end(found, tmp_path):
    with closing(made.started(found, top=3, seeds=3)) as record:
        made.race(record)
        wanted = record.outcomes()
    shutil.copytree(tmp_path / "searched", tmp_path / "again" / "searched")
    with closing(StudyRecord.open("searched", runs=tmp_path / "again")) as other:
        for every in itertools.cycle((1, 4, 5, 2)):
            with closing(made.started(other, top=3, seeds=3)) as record:
                if not made.race(record, most=every) and confirm.is_over(
                    record.outcomes(), record.plan
                ):
                    break
                # a killed driver leaves what it ran RUNNING
                record.ask()
                record._held.clear()
        with closing(StudyRecord.open("searched-confirm", runs=tmp_path / "again")) as record:
            got = record.outcomes()
    same = ("number", "state", "params", "value", "epochs", "report", "reason")
    for one, another in zip(wanted, got, strict=True):
        for name in same:
            assert getattr(one, name) == getattr(another, name), (one.number, name)


def test_a_run_that_breaks_ends_its_config_but_not_the_race(found):
    with closing(made.started(found, top=3, seeds=3)) as record:
        first = record.ask()
        for report in made.reports(first.config):
            record.report(first, report)
        broken = record.ask()
        assert record.fail(broken, "out of memory")
        made.race(record)
        assert states(record).count("FAIL") == 1
        ran = [o.number for o in record.outcomes() if o.state == "COMPLETE"]
        assert [number for number in ran if number % 4 == 1] == []
        result = confirm.confirmation(record)
        assert result.failed == 1 and [row.name for row in result.lost] == [result_row(record, 1)]
        assert result.judged is not None and len(result.rows) == 3


def test_more_seeds_go_on_and_nothing_else_changes(found, tmp_path):
    with closing(made.started(found, top=4, seeds=3)) as record:
        made.race(record)
        before = record.outcomes()
    plan = confirm.make_plan(found, seeds=5)
    assert plan.race == (*racing.schedule(4, 3), 2, 2) and plan.trials == 25
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as record:
        made.race(record)
        after = record.outcomes()
    assert after[:15] == before
    assert sum(o.state == "COMPLETE" for o in after[15:]) == 6
    for wrong, said in (
        ({"top": 3}, "confirms 4 candidates, got --top 3"),
        ({"seeds": 4}, "has 5 seeds, got 4"),
        ({"seeds": 0}, "seeds needs to be at least 1"),
    ):
        with pytest.raises(InputError, match=said):
            confirm.make_plan(found, **wrong)
    assert confirm.make_plan(found, top=2, seeds=2, fresh=True).trials == 6


def test_more_candidates_than_the_search_has_is_the_same_race_twice(tmp_path):
    with closing(made.searched(tmp_path, trials=3)) as found:
        made.started(found, top=8, seeds=2).close()
        plan = confirm.make_plan(found, top=8, seeds=2)
        assert len(plan.finalists or ()) == 3 and plan.trials == 6
        longer = found.plan.with_(trials=9)
    with closing(StudyRecord.create_or_open(longer, runs=tmp_path)) as found:
        made_up.search(found)
        with pytest.raises(InputError, match="confirms 2 candidates, got --top 8"):
            confirm.make_plan(found, top=8, seeds=2)  # the search has more now


def test_of_a_search_that_has_gone_on_the_verdict_says_so(found, tmp_path):
    with closing(made.started(found, top=2, seeds=2)) as record:
        made.race(record)
    assert not confirm.confirmation_of(found).outdated
    rows = (confirm.make_plan(found).finalists or ())[1:]
    found.close()
    for trials in range(15, 60, 5):
        plan = found.plan.with_(trials=trials)
        with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as longer:
            made_up.search(longer)
            result = confirm.confirmation_of(longer)
            best = finalists(longer.outcomes(), plan.base, 2)[1:]
            assert result.outdated == ({r.trial for r in best} != {r.trial for r in rows})
            if result.outdated:
                break
    assert "--fresh` confirms those" in sentences(result)[-1]


def test_of_a_search_that_started_over_the_old_verdict_is_not_shown(found, tmp_path):
    with closing(made.started(found, top=2, seeds=2)) as record:
        made.race(record)
    assert confirm.confirmation_of(found) is not None
    plan = found.plan.with_(seed=7)
    found.close()
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path, fresh=True)) as other:
        made_up.search(other)
        assert confirm.confirmation_of(other) is None
        with pytest.raises(InputError, match="earlier search named searched: start it over"):
            confirm.make_plan(other)


def test_only_a_search_with_candidates_is_confirmed(found, tmp_path):
    with closing(made.started(found, top=2, seeds=2)) as record:
        with pytest.raises(InputError, match="is a confirmation: only a search"):
            confirm.make_plan(record)
        with pytest.raises(InputError, match="export from that"):
            export(record)
        with pytest.raises(InputError, match="its verdict is in the report of that"):
            report_page([look(record)])
    few = made_up.plan(trials=1, study="one", base={"epochs": 3})
    with closing(StudyRecord.create_or_open(few, runs=tmp_path)) as record:
        made_up.search(record)
        with pytest.raises(InputError, match="nothing to confirm yet"):
            confirm.make_plan(record)


def test_the_latest_study_is_a_search(found, tmp_path):
    made.started(found, top=2, seeds=2).close()
    assert [s.name for s in list_studies(tmp_path)] == ["searched-confirm", "searched"]
    with closing(StudyRecord.open(runs=tmp_path)) as record:
        assert record.name == "searched"


def test_the_test_split_is_read_once_after_the_race_for_finalists_alone(found, monkeypatch):
    scored: list[int] = []
    stopped: list[bool] = []

    def score(record, outcome):
        if len(scored) == 4 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        scored.append(outcome.number)
        assert len(scored) > 9 or record.checkpoint(outcome.number).exists()
        return outcome.report.model_copy(update={"split": "test"})

    monkeypatch.setattr(confirm, "_scored", score)
    monkeypatch.setattr(confirm, "check", lambda *_, **__: None)  # CIFAR-100 is not there
    with closing(made.started(found, top=4, seeds=3)) as record:
        made.race(record, most=5)
        with pytest.raises(InputError, match="when the race is over"):
            confirm.read_test(record)
        while (ticket := record.ask()) is not None:
            path = record.checkpoint(ticket.number)
            path.write_bytes(b"weights")
            before(path).write_bytes(b"older")
            for report in made.reports(ticket.config):
                record.report(ticket, report)
            assert path.exists() and not before(path).exists()
        record.checkpoint(0).write_bytes(b"weights")
        judged = confirm.confirmation(record).judged
        rows = judged.finalists
        kept = {n for n in range(record.plan.trials) if record.checkpoint(n).exists()}
        assert kept == {n for n in range(record.plan.trials) if n % 5 in rows}
        assert not {path.name for path in needless(record)} & {str(n) for n in kept}
        record.release()
        looked = doctor.study(record.name, runs=found.folder.parent)
        assert {finding.verdict for finding in looked} == {"ok"}
        assert "PRUNED" in states(record), "configs that left are no contradiction"
        assert kept == {n for n in range(record.plan.trials) if record.checkpoint(n).exists()}
        with pytest.raises(KeyboardInterrupt):
            confirm.read_test(record)
        assert confirm.read_test(record) == 5
        assert {n % 5 for n in scored} == set(rows) and len(scored) == 9
        assert not any(record.checkpoint(n).exists() for n in range(record.plan.trials))
        assert confirm.read_test(record) == 0 and len(scored) == 9
        assert set(confirm.tests(record)) == set(scored)
        assert all(report.split == "test" for report in confirm.tests(record).values())
        result = confirm.confirmation_of(found)
        assert isinstance(result, Confirmation) and result.readings == (3,)
        assert "Test images, read once, after the race, for the finalists" in on_test(result)
    plan = confirm.make_plan(found, seeds=4)
    with closing(StudyRecord.create_or_open(plan, runs=found.folder.parent)) as record:
        made.race(record)
        assert confirm.read_test(record) == 3 and len(set(scored)) == len(scored) == 12
        result = confirm.confirmation(record)
        assert result.readings == (3, 4)
        assert "read 2 times, after 3 seeds and 4 seeds, each network once" in on_test(result)
        assert "Seeds were added after a first look at them" in on_test(result)
        record.note(confirm.READINGS, None)
        assert confirm.readings(record, confirm.tests(record)) == (4,), "as an older study has it"


@pytest.mark.parametrize("lost", [False, True])
def test_the_real_networks_of_the_digits_are_scored_on_test(tmp_path, lost):
    """Also where the weights are gone: they are trained again, to the same ones."""
    from studies.search import drive
    from trainers.data import load
    from trainers.loop import train

    base = TrialConfig(epochs=1, limit_train=60)
    plan = made_up.plan(trials=2, study="real", grace=1, early_stopping=False).with_(base=base)
    with closing(StudyRecord.create_or_open(plan, runs=tmp_path)) as found:
        drive(found)
        with closing(made.started(found, seeds=1)) as record:
            drive(record)
            if lost:
                record.checkpoint(0).unlink()
            assert confirm.read_test(record) == 2
            config = record.outcome(0).config
            *_, wanted = train(config, load(config, "final-holdout"))
            last = list(train(config, load(config), hits=True))[-1]
            assert record.outcome(0).report.hits == last.hits != ""
            assert found.outcome(0).report.hits == "", "a search keeps none"
            got = confirm.tests(record)[0]
            assert got.exits == wanted.exits and got.budget == wanted.budget
            assert got.split == "test"


def test_equal_configs_count_once_and_the_simplest_comes_first():
    base = TrialConfig()
    paper = base.with_(alpha=(3.0,) * 4)
    assert same(base, paper.with_(seed=5, split_seed=2, precision="bf16"))
    assert away(base.with_(alpha=5), base) == ["alpha"]
    assert away(base.with_(scheme="eed", alpha=5), base.with_(scheme="eed")) == []
    configs = [
        base,
        base.with_(alpha=(3, 5, 10, 30)),
        base.with_(alpha=5, temperature=2.0),
        base.with_(alpha=5),
        base.with_(scheme="mate_fixed", alpha=5),
        base.with_(scheme="eed"),
        base.with_(alpha=(3, 3, 3, 30)),
    ]
    rows = [Finalist(name=str(k), trial=k, config=c, said=0.5) for k, c in enumerate(configs)]
    order = sorted(range(len(rows)), key=lambda row: simplicity(rows)[row])
    assert order == [0, 5, 4, 3, 2, 6, 1]


@pytest.mark.parametrize(
    ("share", "trials", "most", "wanted"),
    [
        (0.3, 100, None, (73, 8, 5, None)),
        (0.3, 20, None, (14, 1, 3, None)),
        (0.5, 40, None, (22, 5, 5, None)),
        (0.3, 100, 1000, (100, 1, 5, 700)),  # 30 epochs a run: 10 runs are paid for
        (0.3, 20, 10**6, (14, 1, 3, 10**6 - 180)),
    ],
)
def test_a_share_of_the_epochs_is_kept_for_the_confirmation(share, trials, most, wanted):
    plan = made_up.plan(trials=trials)
    parts = limits.shared(plan, share, most)
    trials_left, top, seeds, left = wanted
    assert (parts.trials, parts.top, parts.seeds) == (trials_left, top, seeds)
    if most is not None and most < trials * 30:
        assert parts.most == left and parts.most + parts.epochs <= most
    else:
        assert parts.trials * 30 + parts.epochs == trials * 30
    assert parts.epochs <= share * parts.total


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, 0.1])
def test_a_share_that_pays_for_nothing_is_refused(share):
    with pytest.raises(InputError, match="confirm"):
        limits.shared(made_up.plan(trials=20), share)
