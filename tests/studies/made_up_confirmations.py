"""Confirmations of made-up searches: no training, no result."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from studies import confirm
from studies.confirmation import Confirmation, confirmed
from studies.finalists import race_space
from studies.plan import CONFIRM, Finalist, StudyPlan
from studies.racing import field, schedule
from studies.record import StudyRecord
from studies.states import Outcome
from tests.studies import made_up
from trainers.config import TrialConfig
from trainers.hits import Hits, packed
from trainers.reports import EpochReport

Worth = Callable[[TrialConfig], float]


def searched(runs: Path, trials: int = 14, **plan: Any) -> StudyRecord:
    """A made-up search that ran to its end, without early stopping: every trial is a candidate."""
    made = made_up.plan(
        trials=trials, study="searched", base={"epochs": 3}, grace=3, early_stopping=False, **plan
    )
    return made_up.search(StudyRecord.create_or_open(made, runs=runs))


def reports(config: TrialConfig, rng: int = 0) -> Iterator[EpochReport]:
    """The epochs of one run, a function of its config, with a scatter of half a point or so."""
    alpha = np.log10(config.alpha_per_exit())
    own = np.random.default_rng([config.seed, rng, *(int(1e6 * (a + 2)) for a in alpha)])
    common = np.random.default_rng([config.split_seed, rng]).normal(0, 0.003)
    goal = 0.7 + 0.02 * np.arange(config.exits) - 0.01 * (alpha - 1) ** 2 + common
    for epoch in range(1, config.epochs + 1):
        grown = goal * epoch / config.epochs + own.normal(0, 0.004, config.exits)
        yield made_up.report(config, epoch, grown.tolist())


def race(record: StudyRecord, most: int | None = None) -> int:
    """Runs what waits; at most so many epochs, then all that runs is given back. Epochs run."""
    done = 0
    while (ticket := record.ask()) is not None:
        for report in reports(ticket.config):
            if report.epoch <= ticket.epochs_done:
                continue
            if most is not None and done >= most:
                record.give_back(ticket)
                return done
            done += 1
            if not record.report(ticket, report):
                break
    return done


def started(found: StudyRecord, **wanted: Any) -> StudyRecord:
    """The record of a search's confirmation, nothing run yet."""
    plan = confirm.make_plan(found, **wanted)
    return StudyRecord.create_or_open(plan, runs=found.folder.parent)


def plan(
    candidates: int = 4, seeds: int = 4, said: float = 0.78, exits: int = 4, **changes: Any
) -> StudyPlan:
    """A confirmation's plan, of no search; the candidates' alphas are their row."""
    base = TrialConfig(dataset="cifar100", backbone="vgg16", epochs=30, seed=1, split_seed=1)
    rows = [Finalist(name="the paper's default", trial=0, config=base, said=said - 0.03)]
    rows += [
        Finalist(
            name=f"trial {10 + row}",
            trial=10 + row,
            config=base.with_(alpha=tuple(float(row + k) for k in range(exits))),
            said=said - 0.001 * row,
        )
        for row in range(1, candidates + 1)
    ]
    rounds = schedule(candidates, seeds)
    fields: dict[str, Any] = {
        "study": "made-confirm", "space": f"{CONFIRM}made", "base": base, "sampler": "grid",
        "trials": len(rows) * seeds, "early_stopping": False, "grace": 30,
        "finalists": tuple(rows), "race": rounds,
    }  # fmt: skip
    return StudyPlan(**{**fields, **changes})


def confirmation(
    truth: list[float],
    *,
    seeds: int = 5,
    spread: float = 0.3,
    rng: int = 0,
    finish: int | None = None,
    tested: bool = True,
    broken: tuple[int, ...] = (),
    hits: bool = True,
    **changes: Any,
) -> Confirmation:
    """A confirmation whose rows are so many points better than the default.

    Args:
        truth: Of each candidate, points.
        seeds: Rounds.
        spread: Of a run, points.
        rng: Of everything made up.
        finish: Trials that have ended; all if not given.
        tested: Whether the test split was read.
        broken: Numbers of the trials that failed.
        hits: Whether the runs say which images they had right.
        **changes: Of `plan`.
    """
    the_plan = plan(len(truth), seeds, **changes)
    generator = np.random.default_rng(rng)
    count = len(truth) + 1
    points = np.array([0.0, *truth])[:, None] + generator.normal(0, spread, (count, seeds))
    points += generator.normal(0, 0.3, (1, seeds))
    values = np.full(points.shape, np.nan)
    ended = np.zeros(points.shape, dtype=bool)
    the_race, space = the_plan.race or (), race_space(the_plan)
    assert space.grid is not None
    grid = space.grid(the_plan.base)
    outcomes: list[Outcome] = []
    tests: dict[int, EpochReport] = {}
    for number in range(the_plan.trials):
        this, row = divmod(number, count)
        if finish is not None and number >= finish:
            outcomes.append(made_up.outcome(number, "WAITING"))
            continue
        ended[row, this] = True
        rounds = field(values, ended, the_race)
        if row not in rounds[this]:
            outcomes.append(made_up.outcome(number, "PRUNED", reason="left the race"))
            continue
        if number in broken:
            outcomes.append(made_up.outcome(number, "FAIL", reason="broke"))
            continue
        config = (the_plan.finalists or ())[row].config.with_(seed=1 + this, split_seed=1 + this)
        accuracies = [0.70 + 0.02 * k + points[row, this] / 100 for k in range(config.exits)]
        report = made_up.report(config, config.epochs, accuracies)
        if hits:
            right = generator.random((config.exits, 500)) < np.array(accuracies)[:, None]
            text = packed(Hits(np.arange(500) + 100 * this, right))
            report = report.model_copy(update={"hits": text})
        value = sum(report.accuracies) / len(report.accuracies)
        values[row, this] = value
        outcomes.append(
            made_up.outcome(
                number, "COMPLETE", config=config, params=grid[number], value=value,
                epochs=config.epochs, report=report,
            )
        )  # fmt: skip
        tests[number] = report.model_copy(update={"split": "test"})
    last = set(field(values, ended, the_race)[-1])
    tests = {n: report for n, report in tests.items() if tested and n % count in last}
    return confirmed(the_plan, outcomes, tests)
