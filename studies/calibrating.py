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

from search_spaces import load_space
from studies.calibration import FEWEST, Calibration, calibrate
from studies.front import metrics, objective, vector
from studies.halving import Curves, Rule
from studies.plan import CALIBRATION, StudyPlan, checked_study_name, default_grace, is_front
from studies.resume import box_of, first_points
from studies.rungs import after_drops
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import EpochReport

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
    if configs < FEWEST:
        raise InputError(f"configs needs to be at least {FEWEST}, got {configs}")
    if seeds < 1:
        raise InputError(f"seeds needs to be at least 1, got {seeds}")
    if plan.base.epochs < 2:
        raise InputError("runs of one epoch cannot be stopped early: there is nothing to calibrate")
    space = load_space(plan.space)
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
        # The search's own, so that a tolerance means the same there.
        box=box_of(space, plan, first_points(space, plan)[0]),
    )


def curves_in(view: View) -> Curves:
    """(C, S, E, K), the objective of every config and seed after each epoch.

    K is 1; of a front its accuracies and, where networks differ in cost, what is negative of the
    FLOPs. A diverged run is from there on what guessing reaches, at the highest cost of any. Trials
    that differ in nothing but their seed are one config's.

    Raises:
        InputError: Trials that were stopped early, or too few of full length.
    """
    plan, name = view.plan, view.plan.study
    if plan.early_stopping or plan.experiment:
        what = "stopped trials early" if plan.early_stopping else "is an experiment of the paper"
        raise InputError(
            f"study {name!r} {what}: what ran its full length was chosen, so it cannot say what "
            "stopping costs; `automate calibrate` runs a study that can"
        )
    found: dict[str, dict[int, list[tuple[float, ...]]]] = {}
    epochs, columns = plan.base.epochs, exits_in(view)
    dearest = max(
        (report.exits[-1].flops for reports in view.reports.values() for report in reports
         if report.exits), default=0,
    )  # fmt: skip
    guessed = 0.0 if plan.objective == "hypervolume" else 1 / plan.base.classes
    up = list(metrics(plan.objective, columns).values())
    gone = tuple(guessed if more else -float(dearest) for more in up)

    def values_of(report: EpochReport) -> tuple[float, ...]:
        if is_front(plan.objective):
            values = vector(plan.objective, report.exits, columns)
            return tuple(x if more else -x for x, more in zip(values, up, strict=True))
        return (objective(plan.objective, report.exits, plan.budgets, view.box, report.budget),)

    for outcome in view.outcomes:
        whole = outcome.state == "COMPLETE" or outcome.diverged
        whole &= outcome.number in view.reports  # of thousands an even choice
        if not whole or outcome.config is None or outcome.config.epochs != epochs:
            continue
        values = [values_of(report) for report in view.reports[outcome.number] if report.exits]
        values += [gone] * (epochs - len(values))
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


def exits_in(view: View) -> int:
    """How many exits the deepest network of a study has, by its reports."""
    reports = (report for reports in view.reports.values() for report in reports)
    return max((len(report.exits) for report in reports), default=view.plan.base.exits)


def calibration_of(view: View) -> Calibration:
    """What a study of full-length trials says about stopping. Raises InputError as `curves_in`."""
    plan, epochs = view.plan, view.plan.base.epochs
    listed = after_drops(plan.base.milestones, epochs)
    usual, exits = Rule(default_grace(epochs)), exits_in(view) if is_front(plan.objective) else 1
    return calibrate(curves_in(view), usual, seed=plan.seed, listed=listed, exits=exits)


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
