"""A small search that needs no training: a space file, a plan, and reports by formula."""

from math import log10
from pathlib import Path
from typing import Any

from studies.plan import StudyPlan
from studies.record import StudyRecord, Ticket
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint

SPACE = '''"""Two numbers."""

def starts(base):
    return [{"alpha": 3.0, "kd_weight": 1.0}]

def suggest(trial, base):
    alpha = trial.suggest_float("alpha", 0.1, 100, log=True)
    return base.with_(alpha=alpha, kd_weight=trial.suggest_float("kd_weight", 0.1, 10, log=True))

def grid(base):
    return [{"alpha": a, "kd_weight": k} for a in (1.0, 3.0, 9.0) for k in (1.0, 2.0)]
'''
FLOPS = (1000, 2000, 3000, 4000)


def space_file(folder: Path, text: str = SPACE) -> str:
    path = folder / "space.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def make_plan(folder: Path, base: dict[str, Any] | None = None, **fields: Any) -> StudyPlan:
    fields = {"study": "tried", "trials": 6, "grace": 2, **fields}
    if "space" not in fields:
        fields["space"] = space_file(folder)
    return StudyPlan(base=TrialConfig(**{"epochs": 4, **(base or {})}), **fields)


def make_report(epoch: int, accuracy: float | None) -> EpochReport:
    """Every exit as accurate as that; None is a loss that is not finite."""
    exits = [
        ExitPoint(exit=i, flops=f, flops_cascade=f, accuracy=accuracy, top5=1.0)
        for i, f in enumerate(FLOPS, 1)
        if accuracy is not None
    ]
    loss = None if accuracy is None else 1.0
    return EpochReport(epoch=epoch, loss=loss, seconds=0.1, split="validation", exits=tuple(exits))


def accuracy_of(config: TrialConfig, epoch: int) -> float:
    """Best at alpha = 10 and kd_weight = 1, better with every epoch."""
    distance = abs(log10(config.alpha[0]) - 1) + abs(log10(config.kd_weight or 0.01))
    return (1 - distance / 5) * epoch / (epoch + 1)


def run(record: StudyRecord, ticket: Ticket, until: int = 10**6) -> bool:
    """Reports the trial from its first epoch on, as a checkpoint does; whether it goes on."""
    going_on = True
    for epoch in range(1, min(until, ticket.config.epochs) + 1):
        going_on = record.report(ticket, make_report(epoch, accuracy_of(ticket.config, epoch)))
        if not going_on:
            break
    return going_on


def run_all(record: StudyRecord) -> None:
    while (ticket := record.ask()) is not None:
        run(record, ticket)
