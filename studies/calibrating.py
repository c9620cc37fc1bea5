"""A study that says when stopping is right: planned, read, remembered, found again.

`automate calibrate` runs configs that are spread out over a space, each with several seeds, to
their full length as a study of its own, `<study>-calibrate`. Any other search without early
stopping is read the same way. What it says (`studies.calibration`) is kept with the study, and the
next search of the same base and objective whose name it bears takes its grace or list of rungs, its
eta and its tolerance from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.calibration import FEWEST, Calibration, Curves, Rule, calibrate
from studies.front import objective
from studies.plan import CALIBRATION, StudyPlan, checked_study_name, default_grace, is_front
from studies.rungs import after_drops
from trainers.catalog import InputError
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.view import View

ENDING = "-calibrate"
KEPT = "calibration"  # attribute of the study
CONFIGS, SEEDS = 12, 3


def calibration_name(study: str) -> str:
    """The study that calibrates a study of that name."""
    return f"{checked_study_name(study)[: 100 - len(ENDING)]}{ENDING}"


def calibration_plan(plan: StudyPlan, configs: int = CONFIGS, seeds: int = SEEDS) -> StudyPlan:
    """The plan that calibrates early stopping for a search.

    Args:
        plan: Of the search; its machine, objective and base are taken.
        configs: Spread out over its space, the paper's default among them.
        seeds: Of each, the base's and those after it.

    Raises:
        InputError: Too few configs or seeds, too short a run, or a plan that is no search.
    """
    if plan.experiment or plan.calibrates:
        raise InputError(f"study {plan.study!r} is no search: there is nothing to calibrate for it")
    _checked(plan.objective)
    if configs < FEWEST:
        raise InputError(f"configs needs to be at least {FEWEST}, got {configs}")
    if seeds < 1:
        raise InputError(f"seeds needs to be at least 1, got {seeds}")
    if plan.base.epochs < 2:
        raise InputError("runs of one epoch cannot be stopped early: there is nothing to calibrate")
    return plan.with_(
        study=calibration_name(plan.study),
        space=f"{CALIBRATION}{plan.space}",
        trials=configs * seeds,
        configs=configs,
        sampler="grid",
        early_stopping=False,
        grace=plan.base.epochs,
        eta=2,
        rungs=None,
        tolerance=0.0,
        run_on=0.0,
        calibrated=None,
    )


def _checked(objective: str) -> None:
    """Refuses what is not one number of one network's report. Raises InputError."""
    if is_front(objective) or objective == "hypervolume":
        raise InputError(
            f"objective {objective} cannot be calibrated: take --objective anytime over a space of "
            "one network, and give the search the flags that it finds"
        )


def curves_in(view: View) -> Curves:
    """(C, S, E), the objective of every config and seed; a diverged run is at chance from there on.

    Trials that differ in nothing but their seed are one config's.

    Raises:
        InputError: Trials that were stopped early, too few of full length, or an objective that
            needs more than the reports.
    """
    plan, name = view.plan, view.plan.study
    if plan.early_stopping or plan.experiment:
        what = "stopped trials early" if plan.early_stopping else "is an experiment of the paper"
        raise InputError(
            f"study {name!r} {what}: what ran its full length was chosen, so it cannot say what "
            "stopping costs; `automate calibrate` runs a study that can"
        )
    _checked(plan.objective)
    found: dict[str, dict[int, list[float]]] = {}
    epochs = plan.base.epochs
    for outcome in view.outcomes:
        whole = outcome.state == "COMPLETE" or outcome.diverged
        whole &= outcome.number in view.reports  # of thousands an even choice
        if not whole or outcome.config is None or outcome.config.epochs != epochs:
            continue
        values = [
            objective(plan.objective, report.exits, plan.budgets, None, report.budget)
            for report in view.reports[outcome.number]
            if report.exits
        ]
        values += [1 / plan.base.classes] * (epochs - len(values))
        params = {name: value for name, value in outcome.params.items() if name != "seed"}
        seeds = found.setdefault(json.dumps(params, sort_keys=True), {})
        seeds.setdefault(outcome.config.seed, values)
    # Of a study that still runs, the configs that have as many seeds as the middle one.
    counts = sorted(map(len, found.values()))
    fewest = counts[len(counts) // 2] if counts else 0
    rows = [
        [seeds[seed] for seed in sorted(seeds)[:fewest]]
        for seeds in found.values()
        if len(seeds) >= fewest
    ]
    if len(rows) < FEWEST or epochs < 2:
        raise InputError(
            f"study {name!r} has {len(rows)} configs of full length: {FEWEST} or more, of at least "
            "2 epochs, can say when stopping is right"
        )
    return np.array(rows, dtype=np.float64)


def calibration_of(view: View) -> Calibration:
    """What a study of full-length trials says about stopping. Raises InputError as `curves_in`."""
    plan, epochs = view.plan, view.plan.base.epochs
    listed = after_drops(plan.base.milestones, epochs)
    return calibrate(curves_in(view), Rule(default_grace(epochs)), seed=plan.seed, listed=listed)


def flags_of(found: Calibration) -> str:
    """The flags of `automate search` that stop as the calibration says."""
    if not found.stops:
        return "--no-early-stopping"
    rule = found.chosen.rule
    when = f"--grace {rule.grace}"
    if rule.rungs is not None:
        when = f"--rungs {','.join(str(rung) for rung in rule.rungs)}"
    text = f"{when} --eta {rule.eta}"
    return text + (f" --tolerance {rule.tolerance:g}" if rule.tolerance else "")


def keep(record: StudyRecord, found: Calibration) -> None:
    """Stores the rule with the study, for the next search."""
    record.note(KEPT, asdict(found.chosen.rule) | {"stops": found.stops})


def kept_rule(
    study: str,
    base: TrialConfig,
    objective: str,
    stored: Callable[[str], tuple[StudyPlan, dict[str, Any]] | None],
) -> tuple[str, Rule] | None:
    """The rule that calibrates a new search, and the study that it comes from.

    Args:
        study: Name of the search.
        base, objective: Of the search: a calibration of any other does not count.
        stored: A study's plan and its kept calibration by name, if there is one.
    """
    found = stored(calibration_name(study))
    if found is None:
        return None
    plan, kept = found
    same = _same(plan.base) == _same(base) and plan.objective == objective
    try:
        rungs = kept.get("rungs")
        listed = None if rungs is None else tuple(int(rung) for rung in rungs)
        rule = Rule(int(kept["grace"]), int(kept["eta"]), float(kept["tolerance"]), listed)
    except (KeyError, TypeError, ValueError):
        return None
    return (plan.study, rule) if same else None


def _same(base: TrialConfig) -> TrialConfig:
    """What has to be equal: precision and seed do not move ranks."""
    return base.with_(precision="fp32", seed=0)
