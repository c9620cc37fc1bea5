"""T in three equal parts of the run, and one α."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig

PARTS = ("early", "middle", "late")


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default: the same T all along."""
    return [{**{f"temperature_{part}": 3.0 for part in PARTS}, "alpha": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    phases = tuple(trial.suggest_float(f"temperature_{p}", 0.5, 16, log=True) for p in PARTS)
    alpha = trial.suggest_float("alpha", 0.1, 100, log=True)
    if len(set(phases)) == 1:
        return base.with_(temperature=phases[0], temperatures=None, alpha=alpha)
    return base.with_(temperatures=phases, alpha=alpha)
