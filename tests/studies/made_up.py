"""A made-up study with the shape of a real one: seeded, quick, no training.

Accuracy rises over the epochs toward a hump over log α, differently for each exit; trials are
stopped at rungs by the real rule. Nothing here is a result.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from studies.front import objective
from studies.plan import StudyPlan
from studies.record import StudyRecord
from studies.rungs import keeps, rung_epochs
from studies.states import Outcome
from studies.view import View
from trainers.config import TrialConfig
from trainers.reports import BudgetPoint, EpochReport, ExitPoint

FLOPS = (99_185_800, 192_793_700, 286_390_400, 314_175_600, 402_000_000, 530_000_000)
CASCADE = 1.018


def plan(space: str = "diverse_alpha", trials: int = 30, **changes: Any) -> StudyPlan:
    """A plan over VGG16's columns, 30 epochs."""
    base = {"dataset": "cifar100", "backbone": "vgg16", "epochs": 30, **changes.pop("base", {})}
    fields: dict[str, Any] = {
        "study": f"cifar100-vgg16-{space}",
        "space": space,
        "base": TrialConfig(**base),
        "trials": trials,
        "grace": 10,
    }
    return StudyPlan(**{**fields, **changes})


def exit_points(accuracies: list[float]) -> tuple[ExitPoint, ...]:
    return tuple(
        ExitPoint(
            exit=i + 1,
            flops=FLOPS[i],
            flops_cascade=round(FLOPS[i] * CASCADE) if i else FLOPS[i],
            accuracy=min(max(accuracy, 0.0), 1.0),
            top5=min(max(accuracy, 0.0) + 0.1, 1.0),
        )
        for i, accuracy in enumerate(accuracies)
    )


def report(config: TrialConfig, epoch: int, accuracies: list[float]) -> EpochReport:
    """One epoch; the mix starts uniform and leans to its own exit."""
    m = config.exits
    mix: tuple[tuple[float, ...], ...] = ()
    if config.scheme in ("mate", "mate_gate"):
        lean = 0.5 * epoch / config.epochs
        mix = tuple(tuple((1 - lean) / m + lean * (i == j) for i in range(m)) for j in range(m))
    elif config.scheme == "one":
        mix = ((1 / m,) * m,)
    entropy = tuple(-sum(share * np.log(share) for share in row) * 0.9 for row in mix)
    # A moving average is behind at first, and at the end where its network is.
    behind = 1 - 0.3 * (1 - epoch / config.epochs) if config.ema else 1.0
    points = exit_points([behind * accuracy for accuracy in accuracies])
    return EpochReport(
        epoch=epoch,
        loss=2.0 / epoch,
        seconds=0.5,
        split="validation",
        exits=points,
        raw=tuple(accuracies[:m]) if config.ema else (),
        budget=tuple(BudgetPoint(p.flops_cascade, p.accuracy, p.top5) for p in points),
        teachers=tuple(accuracies) if mix else (),
        mix=mix,
        mix_entropy=entropy,
        path="CPU, fast kernels, fp32, 1 thread",
        memory=700_000_000 + epoch,
    )


def trained(config: TrialConfig, seed: int) -> Iterator[EpochReport]:
    """The epochs of one run: better toward another α at each exit, plus noise."""
    rng = np.random.default_rng(seed)
    m = config.exits
    own = np.log10(np.maximum(config.alpha_per_exit(), 1e-3)) - np.linspace(1.2, 0.5, m)
    goal = np.linspace(0.70, 0.776, m) - 0.015 * own**2 + rng.normal(0, 0.004, m)
    speed = rng.uniform(3.5, 7) * config.epochs / 30
    for epoch in range(1, config.epochs + 1):
        grown = goal * (1 - np.exp(-epoch / speed)) + rng.normal(0, 0.006, m)
        yield report(config, epoch, grown.tolist())


def search(record: StudyRecord, trials: int | None = None) -> StudyRecord:
    """Runs waiting trials of a real study with made-up training."""
    for _ in range(record.plan.trials if trials is None else trials):
        ticket = record.ask()
        if ticket is None:
            break
        for epoch in trained(ticket.config, ticket.number):
            if not record.report(ticket, epoch):
                break
    return record


def alphas(rng: np.random.Generator, exits: int) -> dict[str, Any]:
    """Parameters of diverse_alpha."""
    return {f"alpha_{i + 1}": float(10 ** rng.uniform(-1, 2)) for i in range(exits)}


def view(
    the_plan: StudyPlan | None = None,
    *,
    seed: int = 0,
    params: Callable[[np.random.Generator, int], dict[str, Any]] = alphas,
    finish: int | None = None,
) -> View:
    """A study as the report reads it, with no storage behind it.

    Args:
        the_plan: `plan()` if not given.
        seed: Of everything made up.
        params: (rng, exits) -> parameters; those named as fields of the config go into it.
        finish: Trials begun so far; all if not given.
    """
    the_plan = the_plan or plan()
    rng = np.random.default_rng(seed)
    base, m = the_plan.base, the_plan.base.exits
    seen: dict[int, list[float]] = {}
    if the_plan.early_stopping:
        seen = {rung: [] for rung in rung_epochs(the_plan.grace, the_plan.eta, base.epochs)}
    outcomes, reports = [], {}
    for number in range(the_plan.trials):
        if finish is not None and number >= finish:
            outcomes.append(outcome(number, "RUNNING" if number == finish else "WAITING"))
            continue
        chosen = params(rng, m)
        if number == 0:
            chosen = {n: 3.0 if n.startswith("alpha") else x for n, x in chosen.items()}
            chosen |= {n: "mate" for n in chosen if n == "scheme"}
        alpha = tuple(x for n, x in chosen.items() if n.startswith("alpha")) or base.alpha
        fields = {n: x for n, x in chosen.items() if n in TrialConfig.model_fields}
        config = base.with_(**{**fields, "alpha": alpha})
        state, reason, done = "COMPLETE", None, []
        for epoch in trained(config, seed + number):
            done.append(epoch)
            value = objective(
                the_plan.objective, epoch.exits, the_plan.budgets, dynamic=epoch.budget
            )
            if epoch.epoch in seen:
                seen[epoch.epoch].append(value)
                if number and not keeps(value, seen[epoch.epoch], the_plan.eta):
                    state, reason = "PRUNED", f"stopped at epoch {epoch.epoch}"
                    break
        fields = {"config": config, "params": chosen, "value": value, "epochs": len(done)}
        fields |= {"report": done[-1], "reason": reason, "start": number == 0}
        outcomes.append(outcome(number, state, **fields))
        reports[number] = done
    names = outcomes[0].params
    return View(
        plan=the_plan,
        folder=Path("runs") / the_plan.study,
        outcomes=tuple(outcomes),
        reports=reports,
        importances={name: 1 / (2 + i) for i, name in enumerate(names)},
        log=frozenset(name for name in names if isinstance(names[name], float)),
        versions={"optuna": "5.0.0"},
    )


def outcome(number: int, state: str, **fields: Any) -> Outcome:
    """An outcome with everything that is not said left empty."""
    empty: dict[str, Any] = {
        "config": None,
        "params": {},
        "value": None,
        "epochs": 0,
        "report": None,
        "reason": None,
        "start": False,
    }
    return Outcome(number=number, state=state, **{**empty, **fields})
