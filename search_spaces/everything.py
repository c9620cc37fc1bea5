"""Scheme, α per exit, strength, temperature and ramp-up at once."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig
from trainers.schemes import SCHEMES

CHOICES = tuple(name for name, scheme in SCHEMES.items() if scheme.multi_exit)


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, and BranchyNet: no distillation at all."""
    default = {"scheme": "mate", "kd_weight": 1.0, "temperature": 3.0, "ramp_up": 0.0}
    default |= {f"alpha_{i}": 3.0 for i in range(1, base.exits + 1)}
    return [default, {"scheme": "branchynet"}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    name = trial.suggest_categorical("scheme", CHOICES)
    scheme = SCHEMES[name]
    changes: dict[str, Any] = {"scheme": name}
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
