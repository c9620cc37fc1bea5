"""Scheme, α per exit, strength, temperature and ramp-up at once.

A user's own scheme (--scheme path/to/mine.py) is one more, named `own`.
"""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig
from trainers.schemes import OWN, choices, scheme_named


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, and BranchyNet: no distillation at all; a user's scheme, if any."""
    schemes = choices(base.scheme)
    return [_point(base, name) for name in ("mate", "branchynet", OWN) if name in schemes]


def _point(base: TrialConfig, name: str) -> dict[str, Any]:
    scheme = scheme_named(choices(base.scheme)[name])
    point: dict[str, Any] = {"scheme": name}
    if scheme.teaches:
        usual = {"kd_weight": 1.0, "temperature": 3.0, "ramp_up": 0.0}
        point |= {key: value for key, value in usual.items() if key in scheme.reads}
    if scheme.alpha:
        point |= {f"alpha_{i}": 3.0 for i in range(1, base.exits + 1)}
    return point


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    schemes = choices(base.scheme)
    name = trial.suggest_categorical("scheme", tuple(schemes))
    scheme = scheme_named(schemes[name])
    changes: dict[str, Any] = {"scheme": schemes[name]}
    if scheme.teaches:
        changes["kd_weight"] = trial.suggest_float("kd_weight", 0.03, 10, log=True)
        if "temperature" in scheme.reads:
            changes["temperature"] = trial.suggest_float("temperature", 0.5, 16, log=True)
        # As a share of the epochs, so that one space serves every length.
        share = trial.suggest_float("ramp_up", 0.0, 0.5)
        changes["ramp_up"] = round(share * base.epochs)
    if scheme.alpha:
        changes["alpha"] = tuple(
            trial.suggest_float(f"alpha_{i}", 0.1, 100, log=True) for i in range(1, base.exits + 1)
        )
    return base.with_(**changes)
