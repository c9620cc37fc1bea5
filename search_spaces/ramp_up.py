"""How slowly the distillation sets in, how strong it then is, and α.

Strong distillation starts slowly and may win late: a ramp-up, which ONE and OKDDip have, lets the
exits learn from the labels first.
"""

from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig

ONES = 80 / 300  # ONE's and OKDDip's own code: the first 80 of 300 epochs


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default, which has no ramp-up; the same with ONE's."""
    return [{"ramp_up": share, "kd_weight": 1.0, "alpha": 3.0} for share in (0.0, ONES)]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    # As a share of the epochs, so that one space serves every length.
    share = trial.suggest_float("ramp_up", 0.0, 0.5)
    return base.with_(
        ramp_up=round(share * base.epochs),
        kd_weight=trial.suggest_float("kd_weight", 0.03, 10, log=True),
        alpha=trial.suggest_float("alpha", 0.1, 100, log=True),
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """With and without ONE's ramp-up, at 1, 3 and 9 times the strength (9: T² at T = 3)."""
    return [
        {"ramp_up": share, "kd_weight": weight, "alpha": 3.0}
        for weight in (1.0, 3.0, 9.0)
        for share in (0.0, ONES)
    ]
