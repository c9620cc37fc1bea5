"""Every teacher scheme, each with its own kd_weight, and α where it is read.

A user's own (--scheme path/to/mine.py) is one more, named `own`.

Schemes differ in the sum of their weights (3 for DKS, 4 + α for MATE), so a comparison that does
not search kd_weight beside them compares strengths; and the best one of a scheme says nothing of
another's, so each is a parameter of its own. α means the same wherever it is read.
"""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig
from trainers.schemes import choices, scheme_named


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """Every scheme as its paper has it; MATE's default first."""
    ordered = sorted(choices(base.scheme), key=lambda name: name != "mate")
    return [_point(base, name) for name in ordered]


def _point(base: TrialConfig, name: str) -> dict[str, Any]:
    point: dict[str, Any] = {"scheme": name}
    scheme = scheme_named(choices(base.scheme)[name])
    if scheme.teaches:
        point[f"kd_weight_{name}"] = 1.0
    if scheme.alpha:
        point["alpha"] = 3.0
    return point


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    schemes = choices(base.scheme)
    name = trial.suggest_categorical("scheme", tuple(schemes))
    changes: dict[str, Any] = {"scheme": schemes[name]}
    scheme = scheme_named(schemes[name])
    if scheme.teaches:
        changes["kd_weight"] = trial.suggest_float(f"kd_weight_{name}", 0.03, 10, log=True)
    if scheme.alpha:
        changes["alpha"] = trial.suggest_float("alpha", 0.1, 100, log=True)
    return base.with_(**changes)
