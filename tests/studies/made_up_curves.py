"""Made-up learning curves with what makes real ones hard: seeded, quick. Nothing here is a result.

The end of a curve is a hump over the logarithms of the α; a large α learns slowly and crosses a
small one late; the step schedule lifts all at half and at three quarters of the epochs; each seed
shifts all configs, and each run scatters on its own. Accuracies are whole numbers of images.
"""

from typing import Any

import numpy as np

from studies.curve_tables import CurveTable
from trainers.config import TrialConfig

FLOPS = (100_000, 200_000, 300_000, 400_000)
CASCADE = (100_000, 210_000, 320_000, 430_000)


def table(
    configs: int = 40,
    seeds: int = 5,
    *,
    epochs: int = 12,
    images: int = 1000,
    noise: float = 0.003,
    rng_seed: int = 0,
    diverging: int = 0,
) -> CurveTable:
    """A table over `diverse_alpha`; the paper's default is its first config.

    Args:
        noise: Spread of a run about its config, a fraction.
        diverging: So many configs, the last ones, diverge after half of their epochs.
    """
    rng = np.random.default_rng(rng_seed)
    alpha = 10 ** rng.uniform(-1, 2, (configs, 4))
    alpha[0] = 3.0
    logs = np.log10(alpha)
    goal = np.linspace(0.86, 0.94, 4) - 0.02 * (logs - np.linspace(1.2, 0.2, 4)) ** 2  # (C, M)
    slow = (2.0 + 2.5 * np.clip(logs.mean(axis=1), 0, 2)) * epochs / 30  # (C,)
    at = np.arange(1, epochs + 1)
    grown = 1 - 0.9 * np.exp(-at / slow[:, None])  # (C, E)
    lift = np.where(at > epochs // 2, 1.0, 0.93) * np.where(at > epochs * 3 // 4, 1.0, 0.99)
    curves = goal[:, None, None, :] * (grown * lift)[:, None, :, None]  # (C, 1, E, M)
    curves = curves + rng.normal(0, noise, (1, seeds, 1, 4))
    curves = curves + rng.normal(0, noise, (configs, seeds, 1, 4))
    curves = (
        curves + rng.normal(0, noise, (configs, seeds, epochs, 4)) * (1.2 - at / epochs)[:, None]
    )
    accuracy = np.round(np.clip(curves, 0, 1) * images) / images
    if diverging:
        accuracy[-diverging:, :, epochs // 2 :] = np.nan
    return CurveTable(
        name="made-up",
        space="diverse_alpha",
        base=TrialConfig(epochs=epochs),
        params=tuple(params(row) for row in alpha),
        accuracy=accuracy,
        seconds=rng.uniform(0.8, 1.2, (configs, seeds)),
        flops=FLOPS,
        flops_cascade=CASCADE,
        images=images,
    )


def params(alpha: np.ndarray) -> dict[str, Any]:
    return {f"alpha_{i}": float(value) for i, value in enumerate(alpha, 1)}
