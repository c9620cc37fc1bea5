"""The recipe, lr and weight decay, beside one α: whether a better α is only a better step."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"lr": 0.1, "weight_decay": 5e-4, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        lr=trial.suggest_float("lr", 0.01, 1, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's values, and a step down and up of each, at the paper's α."""
    return [
        {"lr": lr, "weight_decay": decay, "alpha": 3.0}
        for lr in (0.1, 0.03, 0.3)
        for decay in (5e-4, 5e-5, 5e-3)
    ]
