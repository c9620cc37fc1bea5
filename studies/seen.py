"""What TPE sees of a study: of a front its stopped trials too, and of a long study a part."""

import copy
import heapq
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.front import undominated

# Number of a front's stopped trial -> epochs and values when it was stopped (`StudyReader.early`).
Early = Mapping[int, tuple[int, tuple[float, ...]]]

BEST = 25  # as many as TPE ever takes for good ones
MOST = 500
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class Behind:
    """A front's study in which stopped trials are complete ones, behind all that came further.

    TPE takes a tenth of the trials for good ones. Where fewer ran to their end it fills up with
    stopped ones, those first that were reported furthest and best; but of several objectives
    nothing is reported to Optuna, so it would take the earliest ones. Here each stopped trial has
    its last vector, lowered by more than any accuracy for each epoch that it lacks to the furthest:
    so it is dominated by all that came further, and compares with those of the same epoch.
    """

    def __init__(self, study: Study, early: Early) -> None:
        self._study = study
        self._early = early

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, use_cache=use_cache)
        early = {t.number: self._early[t.number] for t in trials if t.number in self._early}
        furthest = max((epochs for epochs, _ in early.values()), default=0)
        signs = [1 if way == StudyDirection.MAXIMIZE else -1 for way in self._study.directions]
        told = [t.values for t in trials if t.state == TrialState.COMPLETE and t.values]
        every = np.array([*(values for _, values in early.values()), *told])
        span = signs * (2 * np.abs(every).max(axis=0, initial=0.0) + 1)
        seen = []
        for trial in trials:
            if trial.number in early:
                epochs, values = early[trial.number]
                trial = copy.copy(trial)
                trial.state = TrialState.COMPLETE
                trial.values = (values - (1 + furthest - epochs) * span).tolist()
            seen.append(trial)
        return [trial for trial in seen if states is None or trial.state in states]


class Glance:
    """A study of which no more than a part is seen: what TPE needs of a long one.

    Its time grows with the trials that it looks at, and so does its memory of trials that say
    little any more. It sees the best of the ended trials, `BEST` or more, of which its model of
    good ones is made, all that run, and of the others the newest, `MOST` ended ones in all.
    """

    def __init__(self, study: Study, early: Callable[[], Early] = dict) -> None:
        self._study = study
        self._early = early
        self._ended: list[FrozenTrial] | None = None  # those that are seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        if self._ended is None:
            every = self._study._get_trials(deepcopy=False, states=ENDED, use_cache=True)
            self._ended = every if len(every) < MOST else self._worth_a_look(every)
        if len(self._ended) < MOST:
            return self._study._get_trials(deepcopy, states, use_cache)
        moving = [s for s in (TrialState.RUNNING, TrialState.WAITING) if not states or s in states]
        found = [trial for trial in self._ended if not states or trial.state in states]
        if moving:
            found += self._study._get_trials(deepcopy, moving, use_cache)
            found.sort(key=lambda trial: trial.number)
        return found

    def _worth_a_look(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The ended trials that TPE sees, by number: the best, and the newest of the others."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        stopped = [trial for trial in trials if trial.state == TrialState.PRUNED]
        ways, early = self._study.directions, self._early()
        if len(ways) == 1:
            best, reached = _highest(complete), _reached
        else:
            signs = [1 if way == StudyDirection.MAXIMIZE else -1 for way in ways]
            best = _foremost(complete, np.array(signs))

            def reached(trial: FrozenTrial) -> tuple[int, float]:
                epochs, values = early.get(trial.number, (-1, ()))
                return epochs, sum(x for x, sign in zip(values, signs, strict=False) if sign > 0)

        if len(best) < BEST:  # as TPE has it: those that came furthest, and of these the best
            best += heapq.nlargest(BEST - len(best), stopped, key=reached)
        chosen = {trial.number for trial in best}
        others = [trial for trial in trials if trial.number not in chosen]
        return sorted([*best, *others[len(best) - MOST :]], key=lambda trial: trial.number)


def _highest(complete: list[FrozenTrial]) -> list[FrozenTrial]:
    """The best by one number."""
    return heapq.nlargest(BEST, complete, key=lambda trial: trial.values[0])


def _reached(trial: FrozenTrial) -> tuple[int, float]:
    step, value = max(trial.intermediate_values.items(), default=(-1, math.nan))
    return step, -math.inf if math.isnan(value) else value


def _foremost(complete: list[FrozenTrial], signs: np.ndarray) -> list[FrozenTrial]:
    """Of several numbers: what no other beats, then what only these beat, till there are `BEST`; of
    more than half of what may be seen an even choice."""
    found: list[FrozenTrial] = []
    left = complete
    while left and len(found) < BEST:
        best = set(undominated(signs * np.array([trial.values for trial in left])))
        found += [trial for i, trial in enumerate(left) if i in best]
        left = [trial for i, trial in enumerate(left) if i not in best]
    return found[:: -(-len(found) // max(BEST, MOST // 2)) or 1]
