"""One α per exit (Eq. 9)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, on as many exits as there are."""
    return [{f"alpha_{i}": 3.0 for i in range(1, base.exits + 1)}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    exits = range(1, base.exits + 1)
    return base.with_(
        alpha=tuple(trial.suggest_float(f"alpha_{i}", 0.1, 100, log=True) for i in exits)
    )
