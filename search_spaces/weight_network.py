"""The weight network, attention or gates, and one α (Section 4.7.5, Fig. 10)."""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig

NETWORKS = ("mate", "mate_gate")


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, and the same α with gates."""
    return [{"scheme": scheme, "alpha": 3.0} for scheme in NETWORKS]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        scheme=trial.suggest_categorical("scheme", NETWORKS),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """Both networks over the range of Fig. 10."""
    return [
        {"scheme": scheme, "alpha": alpha}
        for alpha in (3.0, 0.3, 1.0, 5.0, 10.0, 30.0, 100.0)
        for scheme in NETWORKS
    ]
