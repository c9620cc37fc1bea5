"""The students' α (Eq. 6) and the teachers' own α' (Eq. 7), which the paper sets equal (Eq. 8)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig

VALUES = (3.0, 0.3, 1.0, 10.0, 30.0)


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default."""
    return [{"alpha": 3.0, "alpha_teacher": 3.0}]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
        alpha_teacher=trial.suggest_float("alpha_teacher", 0.1, 100, log=True),
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """Every pair over the range of Fig. 8."""
    return [{"alpha": a, "alpha_teacher": b} for a in VALUES for b in VALUES]
