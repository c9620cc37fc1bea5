"""The points of a calibration: configs spread out over a space, each with several seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.samplers import QMCSampler

from search_spaces import Point, Space, load_space
from studies.plan import MOST_SEEDS, StudyPlan
from studies.resume import config_at, suggested_config
from studies.samplers import quietly
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

REPEATED = 4  # draws of a space with few points, for each point that is wanted


def spread_out(space: Space, base: TrialConfig, count: int, seed: int = 0) -> list[Point]:
    """Points of a space: its starts, the paper's default among them, then a Sobol sequence.

    None twice, unless the space has too few: configs that are one would seem to agree.

    Args:
        space: Whose `suggest` is asked.
        base: What all configs have in common.
        count: How many.
        seed: Of the sequence.

    Raises:
        InputError: A point that the space itself cannot take.
    """
    starts = space.starts(base)[:count]
    for point in starts:
        config_at(space, base, point)
    with quietly():
        sampler = QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
        study = optuna.create_study(sampler=sampler)
        for point in starts:
            study.enqueue_trial(point)
        found: list[Point] = []
        repeated: list[Point] = []
        while len(found) < count and len(repeated) < REPEATED * count:
            trial = study.ask()
            suggested_config(space, trial, base)
            point = dict(trial.params)
            (repeated if point in found else found).append(point)
            study.tell(trial, 0.0)
    return [*found, *repeated][:count]


def calibration_space(plan: StudyPlan) -> Space:
    """What a calibration's trials are taken from.

    Every config with the first seed, then every config with the next one, so that a study that is
    stopped has whole orders, and one with more seeds goes on. The hold-out is the same for all, as
    it is in the search.
    """
    inner = load_space(plan.calibrates or "")
    count, first = plan.configs or plan.trials, plan.base.seed

    def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
        config = inner.suggest(trial, base)
        return config.with_(seed=trial.suggest_int("seed", first, first + MOST_SEEDS - 1))

    def points(base: TrialConfig) -> list[Point]:
        found = spread_out(inner, base, count, plan.seed)
        seeds = range(first, first + -(-plan.trials // count))
        return [{**point, "seed": seed} for seed in seeds for point in found]

    title = f"{count} configs spread out over {inner.name}, each with several seeds"
    return Space(
        name=plan.space,
        title=title,
        starts=lambda base: points(base)[:1],
        suggest=suggest,
        grid=points,
        corners=inner.corners,
    )
