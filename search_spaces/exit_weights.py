"""How much the cross-entropy of each exit counts, and one α."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default: all the same (Eq. 2)."""
    return [{**{f"exit_weight_{i}": 1.0 for i in range(1, base.exits + 1)}, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    weights = tuple(
        trial.suggest_float(f"exit_weight_{i}", 0.1, 10, log=True) for i in range(1, base.exits + 1)
    )
    alpha = trial.suggest_float("alpha", 0.1, 100, log=True)
    return base.with_(exit_weights=None if set(weights) == {1.0} else weights, alpha=alpha)
