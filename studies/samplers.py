"""Optuna's samplers, seeded afresh for each trial and parameter.

A driver that starts again must go on as if it had never stopped. A sampler that lives in the
process cannot: seeded once, it repeats its first points in the next process. So every draw gets its
own generator, made from the study's seed, the trial's number and, where parameters are drawn one by
one, the parameter's name. What a trial gets then depends on nothing but the study's history.

Nothing is read from the storage but numbers and names (Optuna's CMA-ES unpickles what it finds
there, so it is not among these).
"""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from studies.plan import StudyPlan


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's warnings that something is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class _Sequence(QMCSampler):
    """Sobol's sequence, in which a trial's place is its number.

    Optuna keeps a counter in the storage instead, which drivers race for and a killed one advances.
    """

    def __init__(self, seed: int, index: int) -> None:
        super().__init__(
            qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False
        )
        self._index = index

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._index


class TrialSampler(BaseSampler):
    """The sampler of one trial.

    - tpe: Optuna's own, multivariate and in groups, so that the parameters of one teacher scheme
      are modelled together and apart from another's. Running trials count as bad ("constant liar"),
      which keeps several workers apart and changes nothing for one. The first ten finished trials,
      stopped ones and starting points among them, are followed at random.
    - random, and grid: the grid's points are fixed parameters of the trials; only what a point
      leaves open is drawn.
    - qmc: one scrambled Sobol sequence for the study; parameters that the study's first finished
      trial did not have are drawn at random.
    - gp: a Gaussian process, fitted to the complete trials alone: it does not see stopped or
      diverged ones.

    Args:
        plan: Of the study: sampler and seed.
        number: Of the trial.
        points: How many of the study's first trials have fixed parameters.
    """

    def __init__(self, plan: StudyPlan, number: int, points: int) -> None:
        self._plan = plan
        self._number = number
        self._index = max(0, number - points)
        self._relative = self._make(number)

    def _make(self, *key: int) -> BaseSampler:
        entropy = np.random.SeedSequence([self._plan.seed, *key])
        seed = int(entropy.generate_state(1)[0])
        with quietly():
            if self._plan.sampler == "tpe":
                return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            if self._plan.sampler == "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False)
            if self._plan.sampler == "qmc" and len(key) == 1:
                return _Sequence(self._plan.seed, self._index)
            return RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is drawn together."""
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Those, from the trial's own generator."""
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One parameter, from a generator of its own.

        So a trial whose driver died between two parameters gets the second one all the same.
        """
        sampler = self._make(self._number, zlib.crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Nothing is kept between trials."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Nothing is kept between trials."""
