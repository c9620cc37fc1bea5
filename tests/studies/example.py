"""A small search that needs no training: a space file, a plan, and reports by formula."""

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import Any

from studies.plan import StudyPlan, is_front
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


def make_report(epoch: int, accuracy: float | Sequence[float] | None) -> EpochReport:
    """Every exit as accurate as that, or one each; None is a loss that is not finite."""
    accuracies = [accuracy] * len(FLOPS) if isinstance(accuracy, float | int) else accuracy or []
    exits = [
        ExitPoint(exit=i, flops=f, flops_cascade=f, accuracy=a, top5=1.0)
        for i, (f, a) in enumerate(zip(FLOPS, accuracies, strict=False), 1)
    ]
    loss = None if accuracy is None else 1.0
    return EpochReport(epoch=epoch, loss=loss, seconds=0.1, split="validation", exits=tuple(exits))


def accuracy_of(config: TrialConfig, epoch: int) -> float:
    """Best at alpha = 10 and kd_weight = 1, better with every epoch."""
    distance = abs(log10(config.alpha[0]) - 1) + abs(log10(config.kd_weight or 0.01))
    return (1 - distance / 5) * epoch / (epoch + 1)


def accuracies_of(config: TrialConfig, epoch: int) -> list[float]:
    """Each exit best at another alpha: deep ones at a larger, as one gains another loses."""
    middle, lean = accuracy_of(config, epoch), 0.3 * (log10(config.alpha[0]) - 1)
    return [min(1.0, max(0.0, middle + lean * side)) for side in (-1.0, -0.3, 0.3, 1.0)]


def run(record: StudyRecord, ticket: Ticket, until: int = 10**6) -> bool:
    """Reports the trial from its first epoch on, as a checkpoint does; whether it goes on."""
    going_on, several = True, is_front(record.plan.objective)
    for epoch in range(1, min(until, ticket.config.epochs) + 1):
        reached = (accuracies_of if several else accuracy_of)(ticket.config, epoch)
        going_on = record.report(ticket, make_report(epoch, reached))
        if not going_on:
            break
    return going_on


def run_all(record: StudyRecord) -> None:
    while (ticket := record.ask()) is not None:
        run(record, ticket)
