"""Studies of the paper's experiments with made-up accuracies: no training, no result."""

from pathlib import Path
from typing import Any

import numpy as np

from studies.experiments import EXPERIMENTS, arms_of, settled, space_of
from studies.plan import EXPERIMENT, StudyPlan
from studies.states import Outcome
from studies.view import View
from tests.studies import made_up
from trainers.config import TrialConfig
from trainers.reports import BudgetPoint, EpochReport, ExitPoint
from trainers.schemes import scheme_named


def plan(name: str, *, seeds: int = 3, base: TrialConfig | None = None, **fields: Any) -> StudyPlan:
    """A plan of an experiment, on the paper's own network and data set at full length."""
    name = settled(name)
    row = EXPERIMENTS[name]
    base = base or TrialConfig(dataset="cifar100", backbone="vgg16")
    only = fields.get("only")
    return StudyPlan(
        **{
            "study": f"made-{name}",
            "space": f"{EXPERIMENT}{name}",
            "base": base,
            "trials": seeds * len(arms_of(name, base, only)),
            "sampler": "grid",
            "objective": "last",
            "early_stopping": False,
            "grace": base.epochs,
            "purpose": row.purpose,
            "each_epoch": row.each_epoch,
            **fields,
        }
    )


def report(config: TrialConfig, epoch: int, rng: np.random.Generator) -> EpochReport:
    """An epoch whose exits get better with depth and with epochs."""
    m, scheme = config.exits, scheme_named(config.scheme)
    deep = np.linspace(0.68, 0.77, 4)[-m:] if m <= 4 else np.linspace(0.6, 0.7, m)
    grown = deep * (1 - np.exp(-4 * epoch / config.epochs)) + rng.normal(0, 0.004, m)
    teachers = len(scheme.weights(config.alpha_per_exit())[0])
    mix = rng.dirichlet(np.ones(m), teachers) if teachers else np.zeros((0, m))
    flops = made_up.FLOPS
    return EpochReport(
        epoch=epoch,
        loss=1.0,
        seconds=0.5,
        split="test",
        exits=tuple(
            ExitPoint(exit=i + 1, flops=flops[i], flops_cascade=flops[i], accuracy=a, top5=a + 0.1)
            for i, a in enumerate(grown.clip(0, 0.9).tolist())
        ),
        teachers=tuple((grown.mean() + rng.normal(0, 0.01, teachers)).clip(0, 1).tolist()),
        lessons=tuple((grown + 0.02).clip(0, 1).tolist()) if teachers else (),
        mix=tuple(map(tuple, mix.tolist())),
        mix_entropy=tuple([0.9] * teachers),
        budget=tuple(
            BudgetPoint(int(x), 0.6 + y / 100, 0.85 + y / 100)
            for y, x in enumerate(np.linspace(6.8e6, 58e6, 8).tolist())
        ),
    )


def view(name: str, *, finish: int | None = None, seed: int = 0, **fields: Any) -> View:
    """A study as its report reads it.

    Args:
        name: Of the experiment.
        finish: Trials that ended; all if not given.
        seed: Of everything made up.
        **fields: Of `plan`.
    """
    the_plan = plan(name, **fields)
    rng = np.random.default_rng(seed)
    points = (space_of(the_plan).grid or list)(the_plan.base)[: the_plan.trials]
    arms = {arm.key: arm for arm in arms_of(settled(name), the_plan.base)}
    outcomes: list[Outcome] = []
    reports: dict[int, list[EpochReport]] = {}
    for number, point in enumerate(points):
        if finish is not None and number >= finish:
            outcomes.append(made_up.outcome(number, "WAITING"))
            continue
        config = the_plan.base.with_(**arms[point["arm"]].point, seed=point["seed"])
        first = 1 if the_plan.each_epoch else config.epochs
        reports[number] = [report(config, e, rng) for e in range(first, config.epochs + 1)]
        last = reports[number][-1]
        outcomes.append(
            made_up.outcome(
                number,
                "COMPLETE",
                config=config,
                params=point,
                value=last.accuracies[-1],
                epochs=config.epochs,
                report=last,
            )
        )
    return View(
        plan=the_plan, folder=Path("runs") / the_plan.study, outcomes=tuple(outcomes),
        reports=reports,
    )  # fmt: skip
