"""Learning rate and weight decay of SGD, and one α: is α worth more than these?"""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"lr": 0.1, "weight_decay": 5e-4, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        lr=trial.suggest_float("lr", 0.003, 1.0, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )
