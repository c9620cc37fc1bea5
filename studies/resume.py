"""What of a plan may change when a study goes on, and the points that it tries first."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial

from search_spaces import Space
from studies.front import Box
from studies.plan import FRONT_FLOPS, StudyPlan, ranked_by
from studies.samplers import quietly
from studies.storage import DATABASE_FAILURES
from trainers.catalog import InputError, is_path
from trainers.config import TrialConfig
from trainers.own import file_digest, told

# What runs a study, not what it is: the stored value is kept unless another is given explicitly.
RUNTIME = ("workers", "threads", "gpus_per_trial", "device", "precision")
# What the trials of a study cannot differ in, or their values would not be of the same thing.
COMMON = ("dataset", "classes", "image_size", "resize", "epochs", "validation", "limit_train")
# How far the hypervolume's box reaches beyond the exits of base config, starts and corners.
MARGIN = 10.0


def first_points(space: Space, plan: StudyPlan) -> tuple[list[dict[str, Any]], int]:
    """The fixed parameters of the study's first trials, and how many of these are starts.

    The space's starts, which no rung stops, then, for the grid sampler, the grid's other points.

    Raises:
        InputError: No grid where one is asked, or a point that the space itself cannot take.
    """
    points, starts = given_points(space, plan.base, plan.sampler)
    for point in points:
        config_at(space, plan.base, point)
    try:
        # As the storage gives them back.
        return list(json.loads(json.dumps(points))), starts
    except (TypeError, ValueError):
        raise InputError(
            f"space {space.name}: its starts and grid need plain numbers, texts and truth values"
        ) from None


def given_points(space: Space, base: TrialConfig, sampler: str) -> tuple[list[dict[str, Any]], int]:
    """`first_points` as the space gives them, tried by nobody yet.

    Raises:
        InputError: No grid where one is asked.
    """
    starts = list(space.starts(base))
    if sampler != "grid":
        return starts, len(starts)
    if space.grid is None:
        raise InputError(f"space {space.name} gives no grid: take another --sampler")
    return starts + [point for point in space.grid(base) if point not in starts], len(starts)


def config_at(space: Space, base: TrialConfig, point: Mapping[str, Any]) -> TrialConfig:
    """The config of a point, tried in a study that is thrown away.

    Raises:
        InputError: The space's own `suggest` fails at it, it lies outside the space, or it has a
            name that `suggest` does not ask for there.
    """
    if not isinstance(point, Mapping):
        raise InputError(
            f"space {space.name}: its starts and grid need to be mappings of names to "
            f"values, got {point!r}"
        )
    try:
        with quietly(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Fixed parameter")
            study = optuna.create_study(sampler=RandomSampler(seed=0))
            study.enqueue_trial(dict(point))
            trial = study.ask()
            config = checked_config(space.suggest(trial, base), base)
    except Exception as error:  # whatever a user's file raises is the user's to read
        text = told(error, space.name)
        raise InputError(f"space {space.name} cannot take its point {point}: {text}") from None
    # Optuna passes over a name that is not asked for, and draws what the name was meant for.
    for name in point:
        if name not in trial.params:
            raise InputError(
                f"space {space.name}: its point {point} names {name!r}, which suggest never asks "
                f"for there (it asks for {', '.join(trial.params) or 'nothing'}): correct the "
                "name or leave it out"
            )
    return config


def corner_configs(space: Space, base: TrialConfig) -> list[TrialConfig]:
    """The cheapest and the dearest networks of a space; none where all cost the same.

    Raises:
        InputError: A corner that the space itself cannot take.
    """
    points = space.corners(base) if space.corners is not None else []
    return [config_at(space, base, point) for point in points]


def suggested_config(space: Space, trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    """What a space makes of a trial, checked.

    Raises:
        InputError: Whatever the space's own `suggest` raises, with the line of its file, or what
            it returns is no config that can be compared with the others.
    """
    try:
        return checked_config(space.suggest(trial, base), base)
    except DATABASE_FAILURES:  # the storage's, which the trial asks
        raise
    except Exception as error:  # whatever a user's file raises is the user's to read
        values = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in trial.params.items()}
        at = ", ".join(f"{name}={value}" for name, value in values.items()) or "once"
        raise InputError(f"space {space.name} fails at {at}: {told(error, space.name)}") from error


def checked_config(suggested: Any, base: TrialConfig) -> TrialConfig:
    """What a space's `suggest` returned, if it is a config that can be compared with the others.

    Args:
        suggested: By the space.
        base: What all trials have in common.

    Raises:
        InputError: No config, or one of another length, other data or another split of it.
    """
    if not isinstance(suggested, TrialConfig):
        raise InputError(f"suggest needs to return a TrialConfig, got {type(suggested).__name__}")
    for name in COMMON:
        if getattr(suggested, name) != getattr(base, name):
            raise InputError(
                f"suggest changes {name} from {getattr(base, name)} to {getattr(suggested, name)}: "
                "trials are compared with each other, so this is the search's own (a flag)"
            )
    return suggested


def total(plan: StudyPlan, points: int) -> int:
    """How many trials the plan comes to: no more than there are points for the grid sampler."""
    return min(plan.trials, points) if plan.sampler == "grid" else plan.trials


def box_of(space: Space, plan: StudyPlan, points: list[dict[str, Any]]) -> Box | None:
    """The hypervolume's box, fixed when the study is made; None where nothing is ranked by it.

    A factor `MARGIN` around the FLOPs of the base config's exits, those of the first points and
    those of the space's corners; accuracy from chance up.
    """
    if ranked_by(plan.objective) != "hypervolume" or plan.box is not None:
        return plan.box
    from trainers.costs import costs  # torch

    flops = [cost.flops for config in _known(space, plan, points) for cost in costs(config)]
    return min(flops) / MARGIN, max(flops) * MARGIN, 1.0 / plan.base.classes


def _known(space: Space, plan: StudyPlan, points: list[dict[str, Any]]) -> list[TrialConfig]:
    """The base config, those of the first points and those of the space's corners."""
    first = [config_at(space, plan.base, point) for point in points]
    return [plan.base, *first, *corner_configs(space, plan.base)]


def columns_of(space: Space, plan: StudyPlan, points: list[dict[str, Any]]) -> int:
    """How many exits a front compares: those of the deepest network, fixed with the study."""
    if plan.objective != FRONT_FLOPS:
        return plan.base.exits
    return max(config.exits for config in _known(space, plan, points))


def with_runtime(plan: StudyPlan, runtime: Mapping[str, Any]) -> StudyPlan:
    """The plan with other workers, threads, GPUs, device or precision."""
    wrong = set(runtime) - set(RUNTIME)
    if wrong:
        raise ValueError(f"runtime takes {', '.join(RUNTIME)}, got {', '.join(sorted(wrong))}")
    changes = dict(runtime)
    if "precision" in changes:
        changes["base"] = plan.base.with_(precision=changes.pop("precision"))
    return plan.with_(**changes)


def going_on(stored: StudyPlan, asked: StudyPlan, runtime: Mapping[str, Any]) -> StudyPlan:
    """The plan with which a study goes on.

    The number of trials and, if given, the place of the data are the asked ones; workers, threads,
    GPUs, device and precision the stored ones unless `runtime` says otherwise.

    Raises:
        InputError: Anything else differs; the fields are named with both values.
    """
    changed = differences(stored, asked)
    if changed:
        raise InputError(
            f"study {stored.study!r} is another search: {'; '.join(changed)}: give the stored "
            "values, start over with --fresh, or take another --study NAME"
        )
    data_root = asked.data_root if asked.data_root is not None else stored.data_root
    changes = {"trials": asked.trials, "race": asked.race, "data_root": data_root}
    return with_runtime(stored.with_(**changes), runtime)


def differences(stored: StudyPlan, asked: StudyPlan) -> list[str]:
    """The fields that make two plans different searches: "lr is 0.1, now 0.2".

    Those of the config come first: others, as the grace period, follow from them.
    """
    free = {"study", "base", "trials", "race", "data_root", "speeds", "calibrated", "digests"}
    free |= {"places"}
    free |= set(RUNTIME)

    def named(plan: StudyPlan) -> dict[str, Any]:
        fields = plan.model_dump(exclude=free)
        fields["search_seed"] = fields.pop("seed")  # a config has a seed too
        return plan.base.model_dump(exclude={"precision"}) | fields

    before, now = named(stored), named(asked)
    return [
        f"{name} is {_shown(before[name])}, now {_shown(now[name])}"
        for name in before
        if _same_path(before[name]) != _same_path(now[name])
    ]


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    text = str(value)
    if len(text) <= 60:
        return text
    # Of paths the ends differ.
    return f"...{text[-57:]}" if isinstance(value, str) else f"{text[:57]}..."


def _same_path(value: Any) -> Any:
    """A user's file by what is in it, a folder by where it is; anything else as it is."""
    if not isinstance(value, str) or not is_path(value):
        return value
    return file_digest(value) or Path(value).resolve()
