"""Which trials of a race may begin: a confirmation's rounds, as its storage tells them."""

from __future__ import annotations

import math

import numpy as np

from studies.finalists import settled_rounds
from studies.judging import StudyJudge
from studies.reading import one_line
from trainers import checkpoints


class RaceDriver(StudyJudge):
    """A study whose trials may wait for others, if it is a race; of a search all may begin."""

    def _rounds(self) -> list[list[int]] | None:
        """The rows of each round of a race, as far as it is settled; None of any other study."""
        if self.plan.race is None:
            return None
        values = np.full(self.plan.trials, math.nan)
        ended = np.zeros(self.plan.trials, dtype=bool)
        for trial in self._all():
            if trial.number < self.plan.trials and trial.state.is_finished():
                ended[trial.number] = True
                values[trial.number] = trial.values[0] if trial.values else math.nan
        return settled_rounds(self.plan, values, ended)

    @one_line
    def held_back(self) -> bool:
        """Whether trials wait for runs of the round before, which another driver may be at."""
        rounds = self._rounds()
        return rounds is not None and len(rounds) < len(self.plan.race or ())

    def _has_left(self, number: int) -> bool:
        """Whether the trial's config has left the race; then nothing needs its weights any more."""
        rounds = self._rounds()
        if rounds is None:
            return False
        this, row = divmod(number, len(rounds[0]))
        if row in rounds[this]:
            return False
        for earlier in range(this):
            checkpoints.remove(self.checkpoint(earlier * len(rounds[0]) + row))
        return True
