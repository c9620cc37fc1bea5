"""A study that says when stopping is right: planned, read, remembered, found again.

`automate calibrate` runs configs that are spread out over a space, each with several seeds, to
their full length as a study of its own, `<study>-calibrate`. Any other search without early
stopping is read the same way. What it says (`studies.calibration`) is kept with the study, and the
next search of the same base and objective whose name it bears takes its grace or list of rungs, its
eta and its tolerance from there.

Its runs keep a moving average of the weights as well, and both networks are judged: on some the
averaged one's order agrees with the end's long before the learning rate drops, on others it does
not help (LOG.md). Training is the same with and without, so one study answers for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import load_space
from studies.calibration import FEWEST, LEVEL, Calibration, Range, calibrate
from studies.comparison import crossed
from studies.front import metrics, objective, vector
from studies.halving import Curves, Rule
from studies.plan import (
    CALIBRATION,
    StudyPlan,
    checked_study_name,
    default_grace,
    found_digests,
    is_front,
)
from studies.resume import box_of, first_points
from studies.rungs import after_drops
from trainers.catalog import InputError, is_path
from trainers.config import TrialConfig
from trainers.reports import EpochReport

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.view import View

ENDING = "-calibrate"
KEPT = "calibration"  # attribute of the study
CONFIGS, SEEDS = 12, 3
AVERAGE = 0.99  # decay of the average that is judged beside the plain network
PAYS = 0.05  # of all epochs: what an average has to save before it is proposed


@dataclass(frozen=True)
class Findings:
    """What a study says of stopping, by the plain network's accuracies and the averaged one's.

    Attributes:
        plain, averaged: Either may be unknown, not both.
        ema: Decay of the average; 0 without one.
        change: How much more of the objective the averaged network has at the end, of a front the
            exits' mean; None where not both are known.
    """

    plain: Calibration | None
    averaged: Calibration | None
    ema: float
    change: Range | None

    @property
    def averages(self) -> bool:
        """Whether the averaged network is what a search should score."""
        if self.averaged is None or self.plain is None:
            return self.plain is None
        saved = self.plain.chosen.epochs - self.averaged.chosen.epochs
        return self.averaged.stops and saved >= PAYS

    @property
    def best(self) -> Calibration:
        """Of the network that a search should score."""
        found = self.averaged if self.averages else self.plain
        assert found is not None
        return found

    @property
    def other(self) -> Calibration | None:
        """Of the other one, if it is known."""
        return self.plain if self.averages else self.averaged

    @property
    def flags(self) -> str:
        """The flags of `automate search` that score and stop as is best."""
        return flags_of(self.best, self.ema if self.averages else 0.0)

    @property
    def other_flags(self) -> str:
        """Those for the other network; empty where it is not known."""
        ema = 0.0 if self.averages else self.ema
        return "" if self.other is None else flags_of(self.other, ema)


def calibration_name(study: str) -> str:
    """The study that calibrates a study of that name."""
    return f"{checked_study_name(study)[: 100 - len(ENDING)]}{ENDING}"


def check_counts(configs: int | None, seeds: int | None) -> None:
    """Refuses too few to say anything. Raises InputError."""
    for name, value, least in (("configs", configs, FEWEST), ("seeds", seeds, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} needs to be at least {least}, got {value}")


def calibration_plan(
    plan: StudyPlan, configs: int = CONFIGS, seeds: int = SEEDS, ema: float | None = None
) -> StudyPlan:
    """The plan that calibrates early stopping for a search.

    Args:
        plan: Of the search; its machine, objective and base are taken.
        configs: Spread out over its space, the paper's default among them.
        seeds: Of each, the base's and those after it.
        ema: Decay of the average that is judged beside the plain network, 0 for none; if not given
            the search's, or `AVERAGE`. A budget's curve is known of one network only: the search's.

    Raises:
        InputError: Too few configs or seeds, too short a run, or a plan that is no search.
    """
    if plan.experiment or plan.calibrates:
        raise InputError(f"study {plan.study!r} is no search: there is nothing to calibrate for it")
    check_counts(configs, seeds)
    if plan.base.epochs < 2:
        raise InputError("runs of one epoch cannot be stopped early: there is nothing to calibrate")
    space = load_space(plan.space)
    if ema is None:
        ema = plan.base.ema or (0.0 if _of_one(plan.objective) else AVERAGE)
    return plan.with_(
        base=plan.base.with_(ema=ema),
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


def _of_one(objective: str) -> bool:
    """Whether reports know an objective of the network that was scored alone."""
    return objective.startswith("budget:")


def curves_in(view: View, plain: bool = False) -> Curves:
    """(C, S, E, K), the objective of every config and seed after each epoch.

    K is 1; of a front its accuracies and, where networks differ in cost, what is negative of the
    FLOPs. A diverged run is from there on what guessing reaches, at the highest cost of any. Trials
    that differ in nothing but their seed are one config's. Every config has every seed: what is
    left out where runs failed or have not ended is what `comparison.crossed` leaves out.

    Args:
        view: Of the study.
        plain: Whether of the plain network, where a moving average of it was scored.

    Raises:
        InputError: Trials that were stopped early, or too few of full length on the same seeds.
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
        exits = report.exits
        if plain and report.raw:
            pairs = zip(exits, report.raw, strict=True)
            exits = tuple(point.model_copy(update={"accuracy": raw}) for point, raw in pairs)
        if is_front(plan.objective):
            values = vector(plan.objective, exits, columns)
            return tuple(x if more else -x for x, more in zip(values, up, strict=True))
        return (objective(plan.objective, exits, plan.budgets, view.box, report.budget),)

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
    if len(found) < FEWEST or epochs < 2:
        raise InputError(
            f"study {name!r} has {len(found)} configs of full length: {FEWEST} or more, of at "
            "least 2 epochs, can say when stopping is right"
        )
    every, named = (
        list(found.values()),
        sorted({seed for seeds in found.values() for seed in seeds}),
    )
    there = np.array([[seed in seeds for seed in named] for seeds in every])
    kept, shared = crossed(there, least=FEWEST)
    if not shared:
        raise InputError(
            f"study {name!r} has no seed that {FEWEST} configs of full length share: runs of "
            "different seeds cannot be compared"
        )
    rows = [[every[row][named[column]] for column in shared] for row in kept]
    return np.array(rows, dtype=np.float64)


def exits_in(view: View) -> int:
    """How many exits the deepest network of a study has, by its reports."""
    reports = (report for reports in view.reports.values() for report in reports)
    return max((len(report.exits) for report in reports), default=view.plan.base.exits)


def calibration_of(view: View) -> Findings:
    """What a study of full-length trials says about stopping. Raises InputError as `curves_in`."""
    plan, epochs = view.plan, view.plan.base.epochs
    listed = after_drops(plan.base.milestones, epochs)
    usual, exits = Rule(default_grace(epochs)), exits_in(view) if is_front(plan.objective) else 1

    def found_in(curves: Curves) -> Calibration:
        return calibrate(curves, usual, seed=plan.seed, listed=listed, exits=exits)

    scored = curves_in(view)
    if not plan.base.ema:
        return Findings(found_in(scored), None, 0.0, None)
    known = any(report.raw for reports in view.reports.values() for report in reports)
    if _of_one(plan.objective) or not known:
        return Findings(None, found_in(scored), plan.base.ema, None)
    raw = curves_in(view, plain=True)
    ends = (scored - raw)[:, :, -1, :exits].mean(axis=(1, 2))
    return Findings(found_in(raw), found_in(scored), plan.base.ema, _mean(ends))


def _mean(values: NDArray[np.float64]) -> Range:
    """Of one value a config, with the interval of Student's t."""
    from scipy.stats import t

    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Range(mean, mean - half, mean + half)


def flags_of(found: Calibration, ema: float = 0.0) -> str:
    """The flags of `automate search` that stop as the calibration says.

    Args:
        found: Of the network that the search scores.
        ema: Decay of its average; 0 for the plain one.
    """
    scored = f"--ema {ema:g} " if ema else ""
    if not found.stops:
        return f"{scored}--no-early-stopping"
    rule = found.chosen.rule
    when = f"--grace {rule.grace}"
    if rule.rungs is not None:
        when = f"--rungs {','.join(str(rung) for rung in rule.rungs)}"
    text = f"{scored}{when} --eta {rule.eta}"
    return text + (f" --tolerance {rule.tolerance:g}" if rule.tolerance else "")


def keep(record: StudyRecord, found: Findings) -> None:
    """Stores the rules with the study, for the next search."""
    sides = {"plain": found.plain, "averaged": found.averaged}
    rules = {name: asdict(side.chosen.rule) for name, side in sides.items() if side is not None}
    record.note(KEPT, rules)


def kept_rule(
    study: str,
    base: TrialConfig,
    space: str,
    objective: str,
    stored: Callable[[str], tuple[StudyPlan, dict[str, Any]] | None],
) -> tuple[str, Rule] | None:
    """The rule that calibrates a new search, and the study that it comes from.

    Args:
        study: Name of the search.
        base, space, objective: Of the search: a calibration of any other does not count. The base's
            `ema` says whether the plain network's rule or the averaged one's is taken.
        stored: A study's plan and its kept calibration by name, if there is one.
    """
    found = stored(calibration_name(study))
    if found is None:
        return None
    plan, kept = found
    same = _same(plan.base) == _same(base) and plan.objective == objective
    same &= plan.calibrates == space or is_path(space)  # a file is what is in it
    same &= plan.digests == found_digests(base, space)
    if "grace" not in kept:  # what older versions kept was of the network that was scored
        kept = kept.get("averaged" if base.ema else "plain") or {}
        same &= base.ema in (0.0, plan.base.ema)
    else:
        same &= base.ema == plan.base.ema
    try:
        rungs = kept.get("rungs")
        listed = None if rungs is None else tuple(int(rung) for rung in rungs)
        rule = Rule(int(kept["grace"]), int(kept["eta"]), float(kept["tolerance"]), listed)
    except (KeyError, TypeError, ValueError):
        return None
    return (plan.study, rule) if same else None


def _same(base: TrialConfig) -> TrialConfig:
    """What has to be equal but for `ema`: precision and seed do not move ranks."""
    return base.with_(precision="fp32", seed=0, ema=0.0)
