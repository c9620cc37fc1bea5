"""α of the exits and α' of their teachers (Eqs. 6 and 7)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, in which they are the same (Eq. 8)."""
    return [{"alpha": 3.0, "alpha_teacher": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    alpha = trial.suggest_float("alpha", 0.1, 100, log=True)
    own = trial.suggest_float("alpha_teacher", 0.1, 100, log=True)
    return base.with_(alpha=alpha, alpha_teacher=None if own == alpha else own)


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """Both, in thirds of a decade and more around the paper's 3."""
    values = (3.0, 0.3, 1.0, 10.0, 30.0)
    return [{"alpha": a, "alpha_teacher": b} for a in values for b in values]
