"""One α for all exits (Eq. 8)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(alpha=trial.suggest_float("alpha", 0.1, 100, log=True))


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """The range of Fig. 8."""
    return [{"alpha": alpha} for alpha in (3.0, 0.3, 1.0, 5.0, 10.0, 30.0, 100.0)]
