"""The network, its width and α: by the hypervolume over log FLOPs and accuracy."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.catalog import BACKBONES
from trainers.config import TrialConfig
from trainers.schemes import scheme_named

OBJECTIVE = "hypervolume"  # exits of different networks cost differently: no other compares them
NARROWEST, WIDEST = 0.25, 1.0


def _networks(base: TrialConfig) -> list[str]:
    """The base's own, then every other that takes its images.

    Where the base has a value per exit (exit weights, α' of the teachers) only those with as many
    exits.
    """
    per_exit = [base.exit_weights or (), base.alpha_teacher or ()]
    fixed = any(len(values) > 1 for values in per_exit)
    fitting = [
        name
        for name, entry in BACKBONES.items()
        if base.image_size in entry.image_sizes and (not fixed or entry.exits == base.exits)
    ]
    return [base.backbone, *(name for name in fitting if name != base.backbone)]


def _widths(base: TrialConfig) -> tuple[float, float]:
    return min(NARROWEST, base.width), max(WIDEST, base.width)


def _point(base: TrialConfig, network: str, width: float) -> dict[str, Any]:
    point: dict[str, Any] = {"width": width}
    if len(_networks(base)) > 1:
        point["backbone"] = network
    if scheme_named(base.scheme).alpha:
        point["alpha"] = 3.0
    return point


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default on the base's network; every other network at its narrowest.

    Narrow, because starting points are never stopped early.
    """
    default, *others = _networks(base)
    narrowest, _ = _widths(base)
    return [
        _point(base, default, base.width),
        *(_point(base, name, narrowest) for name in others),
    ]


def corners(base: TrialConfig) -> list[dict[str, Any]]:
    """The networks between which all others cost: each at its narrowest and its widest."""
    return [_point(base, name, width) for name in _networks(base) for width in _widths(base)]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    networks = _networks(base)
    changes: dict[str, Any] = {}
    if len(networks) > 1:
        changes["backbone"] = trial.suggest_categorical("backbone", networks)
    changes["width"] = trial.suggest_float("width", *_widths(base), log=True)
    if scheme_named(base.scheme).alpha:
        # One for all exits, since networks differ in how many they have.
        changes["alpha"] = trial.suggest_float("alpha", 0.1, 100, log=True)
    elif len(base.alpha) > 1:
        changes["alpha"] = base.alpha[:1]  # not read; one value fits any number of exits
    return base.with_(**changes)
