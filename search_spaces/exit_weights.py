"""How much each exit's own cross-entropy weighs (1 for all in Eq. 2)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default; the deeper exits more, and the shallower more."""
    exits = range(1, base.exits + 1)
    mean = (base.exits + 1) / 2
    return [
        {f"exit_weight_{i}": 1.0 for i in exits},
        {f"exit_weight_{i}": i / mean for i in exits},
        {f"exit_weight_{i}": (base.exits + 1 - i) / mean for i in exits},
    ]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    exits = range(1, base.exits + 1)
    return base.with_(
        exit_weights=tuple(
            trial.suggest_float(f"exit_weight_{i}", 0.1, 10, log=True) for i in exits
        )
    )
