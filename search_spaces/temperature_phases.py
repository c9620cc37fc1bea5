"""T in three parts of the run, one after another: whether it should rise or fall."""

from itertools import permutations
from typing import Any

from optuna.trial import BaseTrial

from trainers.config import TrialConfig

NAMES = ("temperature_1", "temperature_2", "temperature_3")


def starts(base: TrialConfig) -> list[dict[str, Any]]:
    """The paper's default: T = 3 throughout."""
    return [dict.fromkeys(NAMES, 3.0)]


def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
    return base.with_(
        temperatures=tuple(trial.suggest_float(name, 0.5, 16, log=True) for name in NAMES)
    )


def grid(base: TrialConfig) -> list[dict[str, Any]]:
    """T = 3 throughout, and 1.5, 3 and 6 in every order."""
    orders = permutations((1.5, 3.0, 6.0))
    return [*starts(base), *(dict(zip(NAMES, order, strict=True)) for order in orders)]
