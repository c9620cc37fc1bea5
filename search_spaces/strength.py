"""How strong the distillation is as a whole, and α: what part of α is plain strength."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"kd_weight": 1.0, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        kd_weight=trial.suggest_float("kd_weight", 0.03, 10, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )
