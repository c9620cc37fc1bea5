"""How long the distillation takes to reach its strength, that strength, and one α."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, without a ramp-up; and with one over half the epochs."""
    return [{"ramp_up": share, "kd_weight": 1.0, "alpha": 3.0} for share in (0.0, 0.5)]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    # As a share of the epochs, so that one space serves every length.
    share = trial.suggest_float("ramp_up", 0.0, 1.0)
    return base.with_(
        ramp_up=round(share * base.epochs),
        kd_weight=trial.suggest_float("kd_weight", 0.03, 10, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )
