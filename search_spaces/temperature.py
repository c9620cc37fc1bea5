"""The temperature T and one α (Fig. 9)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"temperature": 3.0, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        temperature=trial.suggest_float("temperature", 0.5, 16, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """T at the paper's α."""
    return [{"temperature": t, "alpha": 3.0} for t in (3.0, 1.0, 2.0, 4.0, 5.0, 8.0)]
