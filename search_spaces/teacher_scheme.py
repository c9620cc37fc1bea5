"""Every teacher scheme, each with its own kd_weight, and α where it is read.

Schemes differ in the sum of their weights (3 for DKS, 4 + α for MATE), so a comparison that does
not search kd_weight beside them compares strengths; and the best one of a scheme says nothing of
another's, so each is a parameter of its own. α means the same wherever it is read.
"""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig
from trainers.schemes import SCHEMES

CHOICES = tuple(name for name, scheme in SCHEMES.items() if scheme.multi_exit)


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """Every scheme as its paper has it; MATE's default first."""
    ordered = sorted(CHOICES, key=lambda name: name != "mate")
    return [_point(name) for name in ordered]


def _point(name: str) -> dict[str, Any]:
    point: dict[str, Any] = {"scheme": name}
    if SCHEMES[name].teaches:
        point[f"kd_weight_{name}"] = 1.0
    if SCHEMES[name].alpha:
        point["alpha"] = 3.0
    return point


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    name = trial.suggest_categorical("scheme", CHOICES)
    changes: dict[str, Any] = {"scheme": name}
    if SCHEMES[name].teaches:
        changes["kd_weight"] = trial.suggest_float(f"kd_weight_{name}", 0.03, 10, log=True)
    if SCHEMES[name].alpha:
        changes["alpha"] = trial.suggest_float("alpha", 0.1, 100, log=True)
    return base.with_(**changes)
