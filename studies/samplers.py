"""Optuna's samplers, seeded afresh for each trial and parameter.

A driver that starts again must go on as if it had never stopped. A sampler that lives in the
process cannot: seeded once, it repeats its first points in the next process. So every draw gets its
own generator, made from the study's seed, the trial's number and, where parameters are drawn one by
one, the parameter's name. What a trial gets then depends on nothing but the study's history.

Nothing is read from the storage but numbers and names (Optuna's CMA-ES unpickles what it finds
there, so it is not among these).
"""

import functools
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.plan import StudyPlan, is_front
from studies.seen import Behind, Early, Glance

STARTUP = 10  # ended trials, the starting points among them, before a model is followed
FOLLOWED = 5  # draws of a trial by the model, if all repeat other trials

_quiet = threading.RLock()


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's warnings that something is experimental, and its lines on new studies.

    Both are settings of the whole process: one thread at a time, so hold it briefly.
    """
    with _quiet:
        before = optuna.logging.get_verbosity()
        loud = before < optuna.logging.ERROR
        if loud:  # each change empties the caches of all loggers of the process
            optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                yield
        finally:
            if loud:
                optuna.logging.set_verbosity(before)


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


class _Process(GPSampler):
    """Gaussian process that sees stopped trials too, with the value that they had.

    Optuna's looks at complete trials alone. Where a rung stops what it proposes it then learns
    nothing and proposes the same point for ever (seen: six trials in a row). So it is shown a copy
    of the study in which stopped trials are complete ones. That they might have got better is no
    harm: they were the worse half.
    """

    _copy: Study | None = None

    def __init__(self, early: Callable[[], Early], seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False)
        self._early = early

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._copy = _with_stopped_as_complete(study, trial, self._early())
        return super().infer_relative_search_space(self._copy, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self._copy is None:
            return super().sample_relative(study, trial, search_space)
        asked = self._copy.ask()  # what it writes to a trial goes to the copy
        frozen = next(t for t in self._copy.get_trials(deepcopy=False) if t.number == asked.number)
        return super().sample_relative(self._copy, frozen, search_space)


def _with_stopped_as_complete(study: Study, trial: FrozenTrial, early: Early) -> Study:
    """A copy in memory of the trials that have parameters, this one left out."""
    with quietly():
        copied = optuna.create_study(directions=study.directions)
    for other in study.get_trials(deepcopy=False):
        values = early[other.number][1] if other.number in early else other.values
        ended = other.state in (TrialState.COMPLETE, TrialState.PRUNED) and values is not None
        if other.number == trial.number or not (ended or other.state == TrialState.RUNNING):
            continue
        copied.add_trial(
            create_trial(
                state=TrialState.COMPLETE if ended else TrialState.RUNNING,
                values=values if ended else None,
                params=other.params,
                distributions=other.distributions,
            )
        )
    return copied


class _Parzen(TPESampler):
    """TPE for a front: see `Behind`."""

    def __init__(self, early: Callable[[], Early], **settings: Any) -> None:
        super().__init__(**settings)
        self._early = early

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super()._sample(cast(Study, Behind(study, self._early())), trial, search_space)


class TrialSampler(BaseSampler):
    """The sampler of one trial.

    - tpe: Optuna's own, multivariate and in groups, so that the parameters of one teacher scheme
      are modelled together and apart from another's. Running trials count as bad ("constant liar"),
      which keeps several workers apart and changes nothing for one. The first ten finished trials,
      stopped ones and starting points among them, are followed at random. Of more than `seen.MOST`
      ended trials it looks at a part, see `Glance`.
    - random, and grid: the grid's points are fixed parameters of the trials; only what a point
      leaves open is drawn.
    - qmc: one scrambled Sobol sequence for the study; parameters that the study's first finished
      trial did not have are drawn at random.
    - gp: a Gaussian process over complete and stopped trials; the first ten are followed at random.

    Of a front, several objectives, tpe models what is on it and what is not (by ranks of domination
    and hypervolume), and gp each objective by itself, seconds a trial. Stopped trials stand behind
    all that came further (`Behind`), or with the vector that they had (gp).

    Args:
        plan: Of the study: sampler and seed.
        number: Of the trial.
        points: How many of the study's first trials have fixed parameters.
        alone: No other trial runs, so TPE need not look for any (a third of its time).
        early: What a front's stopped trials had; the study has no values of these.
        again: How often the trial was drawn before; from the fifth time on at random, since a model
            that likes best what the study has already would propose it again.
    """

    def __init__(
        self,
        plan: StudyPlan,
        number: int,
        points: int,
        alone: bool = False,
        early: Callable[[], Early] = dict,
        again: int = 0,
    ) -> None:
        self._plan, self._again = plan, again
        self._alone, self._early = alone, functools.cache(early)
        self._number = number
        self._index = max(0, number - points)
        self._relative = self._make(number)
        self._glance: Study | None = None

    def _make(self, *key: int) -> BaseSampler:
        drawn = (self._again,) if self._again else ()
        entropy = np.random.SeedSequence([self._plan.seed, *key, *drawn])
        seed = int(entropy.generate_state(1)[0])
        with quietly():
            if self._again >= FOLLOWED:
                return RandomSampler(seed=seed)
            if self._plan.sampler == "tpe":
                settings: dict[str, Any] = {"multivariate": True, "group": True, "seed": seed}
                settings["n_startup_trials"] = STARTUP
                settings["constant_liar"] = not self._alone
                if is_front(self._plan.objective):
                    return _Parzen(self._early, **settings)
                return TPESampler(**settings)
            if self._plan.sampler == "gp":
                return _Process(self._early, seed)
            if self._plan.sampler == "qmc" and len(key) == 1 and not self._again:
                return _Sequence(self._plan.seed, self._index)
            return RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is drawn together."""
        return self._relative.infer_relative_search_space(self._seen(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Those, from the trial's own generator."""
        return self._relative.sample_relative(self._seen(study), trial, search_space)

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
        return sampler.sample_independent(self._seen(study), trial, param_name, param_distribution)

    def _seen(self, study: Study) -> Study:
        """What the sampler sees of the study."""
        if self._plan.sampler != "tpe":
            return study
        if self._glance is None:
            self._glance = cast(Study, Glance(study, self._early))
        return self._glance

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
