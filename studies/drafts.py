"""A trial's parameters drawn before any of them is stored, and once more where they repeat a trial.

A run depends on its config alone, so a config that the study has already is trained for nothing. A
point of a continuous range never repeats; one of categories does, the more the better it was:
`branchynet`, which has no parameter of its own, is one point of the space `everything`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from trainers.config import TrialConfig

DRAWS = 20  # of a trial, until one repeats no other


class Draft(Trial):
    """A trial of whose parameters none is stored before `keep`."""

    def __init__(self, study: Study, trial_id: int) -> None:
        super().__init__(study, trial_id)
        # Optuna notes there what is drawn; its storage in memory hands out what it holds.
        self._cached_frozen_trial = copy.deepcopy(self._cached_frozen_trial)
        self._unwritten: list[tuple[str, float, BaseDistribution]] = []
        self.storage = _Unwritten(self.storage, self._unwritten)  # type: ignore[assignment]

    def keep(self) -> None:
        """Stores what was drawn."""
        for name, value, distribution in self._unwritten:
            self.study._storage.set_trial_param(self._trial_id, name, value, distribution)

    def repeats(self, others: Callable[[], Sequence[FrozenTrial]]) -> bool:
        """Whether one of the others, unless it failed, has the same parameters."""
        given = self.params
        if not given or any(map(_is_continuous, self.distributions.values())):
            return False
        return any(t.params == given and t.state != TrialState.FAIL for t in others())


class _Unwritten:
    """A storage but for the parameters that are stored: those it puts on a list."""

    def __init__(self, storage: Any, unwritten: list[tuple[str, float, BaseDistribution]]) -> None:
        self._storage, self._list = storage, unwritten

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution
    ) -> None:
        self._list.append((name, value, distribution))


def _is_continuous(distribution: BaseDistribution) -> bool:
    floating = isinstance(distribution, FloatDistribution) and distribution.step is None
    return floating and not distribution.single()


def drawn(
    draft: Callable[[int], Draft],
    suggest: Callable[[Draft], TrialConfig],
    others: Callable[[], Sequence[FrozenTrial]],
    begin: int = 0,
) -> tuple[int, Draft, TrialConfig]:
    """The first draw that repeats no other trial; where all do, the first.

    Args:
        draft: Makes a draft whose sampler draws for the nth time.
        suggest: Draws its parameters, and makes a config of them.
        others: The study's other trials.
        begin: The first n.

    Returns:
        n, the draft with its parameters, of which nothing is stored, and the config.

    Raises:
        InputError: `suggest` does; the parameters that it drew are stored, for people to see.
    """
    first = None
    for again in range(begin, begin + DRAWS):
        made = draft(again)
        try:
            found = again, made, suggest(made)
        except Exception:
            made.keep()
            raise
        if not made.repeats(others):
            return found
        first = first or found
    assert first is not None
    return first
