"""Trials that run on after a rung stopped them: outside the search, and what they tell."""

import html

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from scipy.stats import hypergeom

from studies import stopping, verdict
from studies.record import StudyRecord
from studies.report import report_page
from studies.view import look
from tests.studies import made_up
from trainers.reports import EpochReport


def searched(tmp_path, **changes) -> StudyRecord:
    """A whole search with made-up training."""
    plan = made_up.plan(trials=24, **changes)
    return made_up.search(StudyRecord.create_or_open(plan, InMemoryStorage(), tmp_path))


def seen(record: StudyRecord) -> list[tuple]:
    return [
        (o.number, o.state, o.value, o.params, o.report and o.report.accuracies)
        for o in record.outcomes()
    ]


@pytest.mark.parametrize(("seed", "objective"), [(0, "anytime"), (1, "front")])
def test_a_search_decides_the_same_whoever_runs_on(tmp_path, seed, objective):
    fields = {"seed": seed, "objective": objective}
    none, all_ = (searched(tmp_path, **fields, run_on=share) for share in (0.0, 1.0))
    assert seen(none) == seen(all_)
    stopped = [o for o in none.outcomes() if o.state == "PRUNED"]
    assert len(stopped) > 5
    after = [all_.outcome(o.number) for o in stopped]
    assert [o.run_on for o in after] == [o.epochs for o in stopped]
    assert all(o.epochs == 30 and o.ran_to is not None for o in after)
    assert all("; ran on outside the search" in (o.reason or "") for o in after)
    assert verdict.verdict(none.outcomes(), none.plan) == verdict.verdict(
        all_.outcomes(), all_.plan
    )
    assert verdict.curves(none.outcomes()) == verdict.curves(all_.outcomes())
    shown = report_page([look(all_)])
    assert stopping.stopping_text(all_.outcomes()) in html.unescape(shown)
    assert "What stopping cost" not in report_page([look(none)])


def test_one_that_ran_on_breaks_or_diverges_and_stays_what_it_was(tmp_path):
    record = StudyRecord.create_or_open(
        made_up.plan(trials=4, run_on=1.0, base={"epochs": 4}, grace=1),
        InMemoryStorage(),
        tmp_path,
    )
    first = record.ask()
    assert first is not None
    for report in made_up.trained(first.config, 0):
        record.report(first, report)
    ends = []
    for low, end in ((0.003, "fail"), (0.002, "diverge"), (0.001, "give back")):
        ticket = record.ask()
        assert ticket is not None
        config = ticket.config
        assert record.report(ticket, made_up.report(config, 1, [low] * 4)), "it runs on"
        good = made_up.report(config, 2, [0.99] * 4)
        assert record.report(ticket, good)
        if end == "fail":
            record.fail(ticket, "it broke")
        elif end == "diverge":
            gone = EpochReport(epoch=3, loss=None, seconds=0.1, split="validation", exits=())
            assert not record.report(ticket, gone)
        else:
            record.give_back(ticket)
            ticket = record.ask()
            assert ticket is not None and ticket.epochs_done == 2
            assert record.report(ticket, good), "its checkpoint gives it again"
            for epoch in (3, 4):
                record.report(ticket, made_up.report(config, epoch, [0.99] * 4))
        ends.append(record.outcome(ticket.number))
    assert [o.state for o in ends] == ["PRUNED"] * 3
    assert [o.value for o in ends] == pytest.approx([0.003, 0.002, 0.001])
    assert [o.diverged for o in ends] == [False] * 3
    assert [o.run_on for o in ends] == [1] * 3
    assert [o.ran_to for o in ends] == [None, pytest.approx(0.01), pytest.approx(0.99)]
    assert verdict.ranked(record.outcomes())[0].number == 0
    cost = stopping.stopping_cost(record.outcomes())
    assert cost is not None and (cost.stopped, cost.followed, cost.winners) == (3, 2, 1)
    assert "1 of them ended above the best full-length trial" in stopping.stopping_text(
        record.outcomes()
    )


def test_the_estimate_is_right_on_average():
    rng = np.random.default_rng(0)
    base = made_up.outcome(0, "COMPLETE", value=0.5, report=REPORT)
    found, covered = [], []
    for _ in range(400):
        ends = np.where(np.arange(40) < 8, 0.6, 0.4)  # 8 of 40 stopped trials would have won
        drawn = rng.random(40) < 0.2
        outcomes = [base] + [
            made_up.outcome(k + 1, "PRUNED", value=0.1, run_on=5, ran_to=end if on else None)
            for k, (end, on) in enumerate(zip(ends.tolist(), drawn, strict=True))
        ]
        cost = stopping.stopping_cost(outcomes)
        if cost is not None:
            found.append(cost.share)
            covered.append(cost.low <= 0.2 <= cost.high)
    assert np.mean(found) == pytest.approx(0.2, abs=4 * np.std(found) / len(found) ** 0.5)
    assert np.mean(covered) >= 0.95
    assert stopping.stopping_cost([base]) is None and stopping.stopping_text([base]) == ""


REPORT = EpochReport(
    epoch=30, loss=1.0, seconds=1.0, split="validation", exits=made_up.exit_points([0.5] * 4)
)


@pytest.mark.parametrize(
    ("hits", "of", "among", "expected"),
    [
        (0, 6, 6, (0, 0)),  # all seen: known
        (2, 6, 6, (2, 2)),
        (0, 1, 6, (0, 5)),  # 5 of 6 are missed by 1 draw in 6
        (1, 1, 6, (1, 6)),
        (0, 5, 6, (0, 1)),
        (0, 10, 10**6, (0, 308_492)),  # of very many: as of draws with replacement
        (2, 20, 10**6, (12_349, 316_980)),
    ],
)
def test_the_exact_interval_of_a_finite_number(hits, of, among, expected):
    found = stopping.interval(hits, of, among)
    assert among * np.array(found) == pytest.approx(expected, abs=1e-9 if among < 100 else 20)


@pytest.mark.parametrize("among", [1, 2, 6, 13, 30])
def test_the_interval_holds_whatever_the_truth(among):
    """All true numbers of winners and all that can be seen of them, by their probabilities."""
    for of in range(1, among + 1):
        held = [stopping.interval(hits, of, among) for hits in range(of + 1)]
        low, high = (among * np.array(held)).T
        for true in range(among + 1):
            chance = hypergeom.pmf(np.arange(of + 1), among, true, of)
            covered = (low <= true + 1e-9) & (true <= high + 1e-9)
            assert chance[covered].sum() >= 0.95


def test_where_all_were_seen_nothing_is_estimated():
    base = made_up.outcome(0, "COMPLETE", value=0.5, report=REPORT)
    stopped = [
        made_up.outcome(k + 1, "PRUNED", value=0.1, run_on=5, ran_to=0.6 if k == 0 else 0.4)
        for k in range(6)
    ]
    text = stopping.stopping_text([base, *stopped])
    assert "all 6 stopped trials ran on to the end, outside the search; 1 of them ended" in text
    assert text.endswith("That is 17 % of all stopped trials, by one run each.")
