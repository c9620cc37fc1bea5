"""From what a sampler proposes to a config that a table of learning curves has.

What a sampler proposes is a point of the continuous space; the table has a finite number of
configs. A proposal becomes the nearest config that its search has not used yet, by Euclidean
distance over the parameters, each from 0 to 1 over its range (of the logarithm where the range is
logarithmic; a category that differs, or a parameter that one side lacks, counts 1). The parameters
of that config, not the proposed ones, are what the study stores, so the sampler learns from what
was really trained. A search therefore has at most as many trials as the table has configs, and one
of nearly as many finds the best config whatever its sampler proposes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial, Trial

from search_spaces import Space, load_space
from studies.curve_tables import CurveTable
from studies.drafts import Draft
from trainers.config import TrialConfig


class Snapping:
    """A table's configs as the points of its space.

    Args:
        table: Of learning curves.
    """

    def __init__(self, table: CurveTable) -> None:
        self.table = table
        self.whole = load_space(table.space)
        self._names = {frozenset(params) for params in table.params}
        self._coordinates: dict[tuple[str, BaseDistribution], NDArray[np.float64]] = {}

    def space(self, study: str, rows: dict[int, int]) -> Space:
        """The table's space, whose points are the table's configs, each of them once.

        Args:
            study: Name of the study that is searched.
            rows: Trial -> place of its config in the table; filled as trials are asked for.
        """

        def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
            assert isinstance(trial, Trial)
            if trial.study.study_name != study:  # the points tried first, only looked at
                return self.whole.suggest(trial, base)
            wish = Draft(trial.study, trial._trial_id)
            self.whole.suggest(wish, base)
            row = self.nearest(wish, set(rows.values()))
            rows[trial.number] = row
            trial.storage.set_trial_system_attr(
                trial._trial_id, "fixed_params", dict(self.table.params[row])
            )
            return self.whole.suggest(Trial(trial.study, trial._trial_id), base)

        return replace(self.whole, suggest=suggest)

    def nearest(self, wish: Trial, used: Iterable[int]) -> int:
        """The free config nearest to what was proposed; of equally near ones the first."""
        distance = np.zeros(self.table.configs)
        wished = wish.params
        for name, distribution in wish.distributions.items():
            there = self._column(name, distribution)
            if isinstance(distribution, CategoricalDistribution):
                distance += np.where(there == distribution.to_internal_repr(wished[name]), 0, 1)
            else:
                away = there - place_of(wished[name], distribution)
                distance += np.where(np.isnan(away), 1.0, away**2)
        if not self._names <= {frozenset(wished)}:
            distance += [len(params.keys() - wished.keys()) for params in self.table.params]
        distance[list(used)] = np.inf
        return int(distance.argmin())

    def _column(self, name: str, distribution: BaseDistribution) -> NDArray[np.float64]:
        """(C,), where each config lies in a parameter's range; NaN of one that lacks it."""
        key = (name, distribution)
        if key not in self._coordinates:
            categories = isinstance(distribution, CategoricalDistribution)
            self._coordinates[key] = np.array(
                [
                    np.nan
                    if name not in params
                    else distribution.to_internal_repr(params[name])
                    if categories
                    else place_of(params[name], distribution)
                    for params in self.table.params
                ]
            )
        return self._coordinates[key]


def place_of(value: float, distribution: BaseDistribution) -> float:
    """Where a number lies in its range, 0 to 1; of the logarithm where that is uniform."""
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    if high == low:
        return 0.0
    if distribution.log:  # type: ignore[attr-defined]
        return float(np.log(value / low) / np.log(high / low))
    return (float(value) - low) / (high - low)
