"""How a study of many trials behaves: to open, ask, show its front, report. Nothing is trained.

python -m tests.benchmarks.scale [--trials 10000] [--left 100] [--objective front]

The study lies in SQLite, filled by SQL with made-up curves of 30 epochs, of which rungs stopped
half after 10 and a half of the rest after 20; the reports are as long as those of a real search. A
front's study has values of full-length trials alone, one an exit.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution, distribution_to_json

from automate.printing import say_table
from studies import database
from studies.plan import StudyPlan, is_front, ranked_by
from studies.record import StudyRecord
from studies.report import write_report
from trainers.config import TrialConfig
from trainers.reports import BudgetPoint, EpochReport, ExitPoint

EPOCHS, LENGTHS = 30, (10, 20, 30)
WANTED = {"open": 2.0, "ask": 0.05, "front": 1.0, "report": 10.0}
MANY = 100_000  # rows of one statement


def report_of(accuracy: np.ndarray, epoch: int) -> EpochReport:
    """As long as a real one: exits, teachers, mix, and a budget curve of 38 points."""
    m = len(accuracy)
    exits = tuple(
        ExitPoint(exit=i, flops=10**6 * i, flops_cascade=1_100_000 * i, accuracy=float(a), top5=1.0)
        for i, a in enumerate(accuracy, 1)
    )
    return EpochReport(
        epoch=epoch,
        loss=2.0 / epoch,
        seconds=0.5,
        split="validation",
        exits=exits,
        teachers=tuple(float(a) for a in accuracy),
        lessons=tuple(float(a) for a in accuracy),
        temperature=3.0,
        mix=((1 / m,) * m,) * m,
        mix_entropy=(1.2345678,) * m,
        budget=tuple(BudgetPoint(10**6 + 10**5 * k, 0.9 + k / 1000, 0.99) for k in range(38)),
    )


def fill(record: StudyRecord, trials: int, seed: int = 0) -> None:
    """Ends the first trials of a study, by SQL."""
    rng = np.random.default_rng(seed)
    storage, base = record._direct, record.plan.base
    front = is_front(record.plan.objective)
    assert isinstance(storage, database.Database)
    first = record._trial_id(0)
    kind = distribution_to_json(FloatDistribution(0.1, 100, log=True))
    now, rows = datetime.now(), {name: [] for name in ("p", "v", "s", "u", "f", "t")}
    template = report_of(np.arange(1, 5) / 10, 7).model_dump(mode="json")
    for number in range(trials):
        trial_id = first + number
        alpha = 10 ** rng.uniform(-1, 2, 4) if number else np.full(4, 3.0)
        goal = 0.9 - 0.02 * (np.log10(alpha) - 0.7) ** 2 + rng.normal(0, 0.005, 4)
        length = 30 if number == 0 else int(rng.choice(LENGTHS, p=(0.5, 0.25, 0.25)))
        for epoch in range(1, length + 1):
            accuracy = goal * (1 - np.exp(-epoch / 5)) + rng.normal(0, 0.005, 4)
            exits = zip(template["exits"], accuracy.tolist(), strict=True)
            report = {**template, "epoch": epoch}
            report["exits"] = [{**point, "accuracy": a} for point, a in exits]
            value = json.dumps(report)
            rows["f"].append((trial_id, f"report:{epoch}", value))
            if not front:
                rows["s"].append((trial_id, epoch, float(accuracy.mean()), "FINITE"))
        for i, a in enumerate(alpha.tolist(), 1):
            rows["p"].append((trial_id, f"alpha_{i}", a, kind))
        if not front:
            rows["v"].append((trial_id, 0, rows["s"][-1][2], "FINITE"))
        elif length == EPOCHS:
            rows["v"] += [(trial_id, i, a, "FINITE") for i, a in enumerate(accuracy.tolist())]
            best = float(np.maximum.accumulate(accuracy).mean())
            rows["u"].append((trial_id, ranked_by(record.plan.objective), json.dumps(best)))
        config = base.with_(alpha=tuple(alpha.tolist())).model_dump_json()
        rows["u"].append((trial_id, "config", config))
        claim = {"owner": "a:1:2:3", "attempt": 1, "until": 0.0}
        rows["u"].append((trial_id, "claim", json.dumps(claim)))
        rows["t"].append(("COMPLETE" if length == 30 else "PRUNED", now, now, trial_id))
        if len(rows["f"]) > MANY or number == trials - 1:
            _write(storage, rows)


def _write(storage: database.Database, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    tables = {
        "p": ("trial_params", "trial_id, param_name, param_value, distribution_json"),
        "v": ("trial_values", "trial_id, objective, value, value_type"),
        "s": (
            "trial_intermediate_values",
            "trial_id, step, intermediate_value, intermediate_value_type",
        ),
        "u": ("trial_user_attributes", "trial_id, key, value_json"),
        "f": ("trial_system_attributes", "trial_id, key, value_json"),
    }
    statements = {}
    for key, (table, names) in tables.items():
        marks = ", ".join("?" for _ in names.split(","))
        statements[key] = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})"
    statements["t"] = (
        "UPDATE trials SET state = ?, datetime_start = ?, datetime_complete = ? WHERE trial_id = ?"
    )
    raw = storage.engine.raw_connection()
    try:
        for name, statement in statements.items():
            raw.cursor().executemany(statement, [tuple(map(_plain, row)) for row in rows[name]])
            rows[name].clear()
        raw.commit()
    finally:
        raw.close()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, datetime) else value


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its CPU time: other work on this machine is not counted."""
    begin = time.process_time()
    return call(), time.process_time() - begin


def measure(
    folder: Path, trials: int, left: int, sampler: str = "tpe", objective: str = "anytime"
) -> dict[str, float]:
    """Seconds of each thing that a user waits for."""
    from automate.front_text import say_front

    base = TrialConfig(epochs=EPOCHS)
    plan = StudyPlan(
        study="scale", space="diverse_alpha", base=base, trials=trials, grace=10, sampler=sampler,
        objective=objective,
    )  # fmt: skip
    record, making = timed(lambda: StudyRecord.create_or_open(plan, runs=folder))
    first = [timed(record.ask)[1] for _ in range(3)]  # with all trials waiting
    record.release()
    _, filling = timed(lambda: fill(record, trials - left))
    record.close()
    found = {"make": making, "fill": filling, "ask, none ended": max(first[1:])}
    record, found["open"] = timed(lambda: StudyRecord.create_or_open(plan, runs=folder))
    with closing(record):
        outcomes, found["outcomes"] = timed(record.outcomes)
        _, found["front"] = timed(lambda: say_front(outcomes, plan, stderr=True))
        asks = []
        ticket = None
        for _ in range(min(left, 20)):
            ticket, seconds = timed(record.ask)
            asks.append(seconds)
        found["ask"], found["ask, slowest"] = float(np.median(asks)), max(asks[1:], default=0.0)
        told = []
        for epoch in range(1, EPOCHS + 1):
            assert ticket is not None
            going_on, seconds = timed(
                lambda e=epoch: record.report(ticket, report_of(np.full(4, 0.95), e))
            )
            told.append(seconds)
        found["an epoch's report"] = float(np.median(told))
        found["at a rung"] = max(told[9], told[19])
        page = folder / "report.html"
        _, found["report"] = timed(lambda: write_report([record], page))
        found["report, MB"] = page.stat().st_size / 1e6
    return found


def main(words: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--left", type=int, default=100, help="trials that still wait")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--objective", default="anytime", help="anytime, or front")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.trials, given.left, given.sampler, given.objective)
    rows = [(name, f"{value:.3f}", WANTED.get(name, "")) for name, value in found.items()]
    say_table(("what", "s", "wanted"), rows, title=f"{given.trials:,} trials")
    return found


if __name__ == "__main__":
    main()
