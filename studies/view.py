"""What the report shows of a study, read from its storage once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from studies import verdict as v
from studies.confirmation import Confirmation
from studies.front import Box
from studies.learning_figures import Reports, chosen_trials
from studies.plan import StudyPlan

if TYPE_CHECKING:
    from studies.record import StudyRecord
    from studies.states import Outcome

MOST_DRAWN = 500


@dataclass(frozen=True)
class View:
    """A study at one moment.

    Attributes:
        plan: What was asked.
        folder: Where the study lies, runs/<study>.
        outcomes: All trials, by number.
        reports: Trial number -> its epochs, oldest first; of a search of the `drawn` trials.
        importances: Parameter -> share of the objective's variance; empty with too few trials.
        log: Parameters whose distribution is logarithmic.
        versions: Of what reads the study now.
        confirmation: What a confirmation of this search has come to, if there is one.
        box: Of the hypervolume, where it orders the trials.
    """

    plan: StudyPlan
    folder: Path
    outcomes: tuple[Outcome, ...]
    reports: Reports
    importances: dict[str, float] = field(default_factory=dict)
    log: frozenset[str] = frozenset()
    versions: dict[str, str] = field(default_factory=dict)
    confirmation: Confirmation | None = None
    box: Box | None = None

    @functools.cached_property
    def drawn(self) -> tuple[Outcome, ...]:
        """The trials that figures show: all, or `MOST_DRAWN` of those that were begun."""
        return drawn(self.outcomes)

    @property
    def rungs(self) -> list[int]:
        """Epochs at which a trial may be stopped; none without early stopping."""
        return self.plan.judged_after

    @property
    def saved(self) -> int:
        """Epochs that were not trained because their trial was stopped at a rung."""
        return sum(
            max(0, (o.config.epochs if o.config else self.plan.base.epochs) - o.epochs)
            for o in self.outcomes
            if o.state == "PRUNED" and not o.diverged
        )


def drawn(outcomes: Sequence[Outcome], most: int = MOST_DRAWN) -> tuple[Outcome, ...]:
    """The trials that a figure shows: all, or those that stand out and an even choice of the rest.

    The network to take, the default and the networks that none beats stand out, and whatever was
    the best so far when it ended, at an exit or by its value.
    """
    if len(outcomes) <= most:
        return tuple(outcomes)
    kept = set(chosen_trials(outcomes, most))
    best: dict[int, float] = {}
    for outcome in v.finished(outcomes):
        assert outcome.report is not None
        for place, value in enumerate((outcome.value or 0.0, *outcome.report.accuracies)):
            if value > best.get(place, -1.0):
                best[place] = value
                kept.add(outcome.number)
    return tuple(outcome for outcome in outcomes if outcome.number in kept)


def look(record: StudyRecord) -> View:
    """All of a study that the report shows. Reads only; a search may be running on it."""
    from studies.confirm import confirmation_of

    outcomes = tuple(sorted(record.outcomes(), key=lambda outcome: outcome.number))
    shown = outcomes if record.plan.experiment else drawn(outcomes)
    distributions = [
        item
        for trial in record.study.get_trials(deepcopy=False)
        for item in trial.distributions.items()
    ]
    return View(
        plan=record.plan,
        folder=_short(record.folder),
        outcomes=outcomes,
        reports={o.number: record.reports(o.number) for o in shown if o.epochs},
        importances={} if record.plan.experiment else dict(record.importances()),
        log=frozenset(name for name, kind in distributions if getattr(kind, "log", False)),
        versions=_versions(),
        confirmation=confirmation_of(record),
        box=record.box,
    )


def _short(folder: Path) -> Path:
    """The folder as a command names it: relative where it lies below the working directory."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _versions() -> dict[str, str]:
    found = {}
    for name in ("mate-automate", "optuna", "ray", "torch", "plotly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a plain checkout is not installed
            continue
    return found
