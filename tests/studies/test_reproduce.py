"""An experiment as a study: made, run, gone on with, and never a way to select on test images."""

from contextlib import closing

import numpy as np
import pytest

from studies import local
from studies.export import export
from studies.measured import measure
from studies.record import StudyRecord
from studies.reproduce import bases, counted, footprints_of, plans, table1_bases
from studies.view import look
from tests.studies import made_up_experiments as made
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import EpochReport

DIGITS = {"datasets": ["digits"], "workers": 1, "threads": 1, "device": "cpu", "epochs": 2}


def make(name="table2", **fields):
    (plan,) = plans(name, **{**DIGITS, **fields})
    return plan


def test_a_plan_stops_nothing_early_and_holds_nothing_out():
    plan = make(seeds=2, only=["mate", "branchynet"])
    assert plan.study == "digits-cnn4-table2" and plan.trials == 4
    assert not plan.early_stopping and plan.sampler == "grid" and plan.purpose == "reproduce"
    assert plan.only == ("branchynet", "mate") and not plan.each_epoch
    assert make("fig3").each_epoch and make(rule="paper").each_epoch
    assert make("table7").purpose == "final-holdout" and make("fig6").experiment == "table4"
    assert make().trials == 3 * 8 and make(only=ALL_ARMS).only is None


ALL_ARMS = (
    "baseline", "branchynet", "byot", "dks", "eed", "mate", "mate_fixed", "eed_matched",
)  # fmt: skip


def test_the_papers_first_network_unless_others_are_named():
    assert [(b.dataset, b.backbone) for b in bases("table2")] == [("cifar100", "vgg16")]
    two = bases("table2", (), ("vgg16", "resnet18", "vgg16"))
    assert [b.backbone for b in two] == ["vgg16", "resnet18"]
    assert bases("table2")[0].epochs == 300
    (digits,) = bases("table2", ("digits",))
    assert digits.backbone == "cnn4"
    assert [b.backbone for b in table1_bases((), ("vgg16",))] == ["vgg16"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "seeds needs to be at least 1, got 0"),
        ({"rule": "best"}, "unknown rule 'best'"),
        ({"only": ["matte"]}, "did you mean 'mate'"),
        ({"datasets": ["digits"], "backbones": ["cnn4", "vgg16"]}, "vgg16 takes images of"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_errors_are_one_line(wrong, said):
    with pytest.raises(InputError, match=said):
        make(**wrong)


def test_one_name_names_one_study():
    with pytest.raises(InputError, match="names one study, 2 were asked for"):
        plans("table2", backbones=["vgg16", "resnet18"], study="x", workers=1, threads=1)
    for name in ("table1", "cost"):
        with pytest.raises(InputError, match="trains nothing"):
            plans(name)


def opened(tmp_path, plan) -> StudyRecord:
    return StudyRecord.create_or_open(plan, runs=tmp_path)


def test_epochs_that_are_not_scored_are_stored_and_the_last_one_counts(tmp_path):
    with closing(opened(tmp_path, make(seeds=1, only=["mate"], epochs=3))) as record:
        ticket = record.ask()
        unread = EpochReport(epoch=1, loss=1.0, seconds=0.1, split="test", exits=())
        assert record.report(ticket, unread)
        assert record.report(ticket, unread)  # again, as after an interruption
        record.give_back(ticket)
        ticket = record.ask()
        assert ticket.epochs_done == 1
        assert record.report(ticket, unread.model_copy(update={"epoch": 2}))
        with pytest.raises(ValueError, match="has no exits"):
            record.report(ticket, unread.model_copy(update={"epoch": 3}))
        last = made.report(ticket.config, 3, np.random.default_rng(0))
        assert not record.report(ticket, last)
        outcome = record.outcome(0)
        assert outcome.state == "COMPLETE" and outcome.value == last.accuracies[-1]
        assert [len(r.exits) for r in record.reports(0)] == [0, 0, 4]


def test_a_search_still_needs_every_epoch_scored(tmp_path):
    from tests.studies.example import make_plan

    with closing(opened(tmp_path, make_plan(tmp_path))) as record:
        ticket = record.ask()
        unread = EpochReport(epoch=1, loss=1.0, seconds=0.1, split="validation", exits=())
        with pytest.raises(ValueError, match="has no exits"):
            record.report(ticket, unread)


def test_it_runs_and_goes_on_with_more_seeds(tmp_path):
    arms = ["branchynet", "mate"]
    with closing(opened(tmp_path, make(seeds=1, only=arms))) as record:
        local.search(record)
        first = {o.number: o.value for o in record.outcomes()}
        assert len(first) == 2
    with closing(opened(tmp_path, make(seeds=2, only=arms))) as record:
        local.search(record)
        outcomes = record.outcomes()
        assert [(o.params["arm"], o.params["seed"]) for o in outcomes] == [
            ("branchynet", 0), ("mate", 0), ("branchynet", 1), ("mate", 1),
        ]  # fmt: skip
        assert {n: o.value for n, o in enumerate(outcomes[:2])} == first
        assert all(o.report.split == "test" and o.config.seed == o.params["seed"] for o in outcomes)
        one = measure(look(record))
        assert one.accuracy("mate", 3).n == 2 and not one.left
        with pytest.raises(InputError, match="reproduces table2 on the test split"):
            export(record)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rule": "paper"}, "rule"),
        ({"only": ["mate"]}, "only"),
        ({"study": "digits-cnn4-table2", "name": "table7"}, "purpose"),
    ],
)
def test_another_experiment_of_the_same_name_is_refused(tmp_path, changes, field):
    opened(tmp_path, make(seeds=1)).close()
    name = changes.pop("name", "table2")
    with pytest.raises(InputError, match=f"{field} is .*, now "):
        opened(tmp_path, make(name, seeds=1, **changes))


def test_curves_are_scored_on_test_after_every_epoch(tmp_path):
    with closing(opened(tmp_path, make("fig3", seeds=1))) as record:
        local.search(record)
        assert [(r.split, len(r.exits)) for r in record.reports(0)] == [("test", 4)] * 2


def test_table_1_is_counted_without_training():
    ((config, flops),) = counted([TrialConfig(dataset="cifar100", backbone="vgg16")])
    assert config.backbone == "vgg16" and [f"{x / 1e6:.2f}" for x in flops][0] == "99.19"


def test_costs_are_measured_in_rounds_with_branchynet_among_them():
    base = TrialConfig(dataset="digits", batch_size=8)
    device, found = footprints_of(base, only=["mate"], device="cpu", threads=1, rounds=2)
    assert device == "cpu" and list(found) == ["branchynet", "mate"]
    assert all(len(rounds) == 2 for rounds in found.values())
    with pytest.raises(InputError, match="threads needs to be at least 1, got 0"):
        footprints_of(base, only=["mate"], threads=0)
