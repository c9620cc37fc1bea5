"""What a report means for its trial: it goes on, has run its full length, or is stopped."""

from __future__ import annotations

import math

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from studies import rungs
from studies.front import vector
from studies.owning import Held, StudyDriver
from studies.plan import is_front, ranked_by
from studies.reading import one_line
from studies.states import REPORT, Ticket
from trainers.reports import EpochReport


class StudyJudge(StudyDriver):
    """A study whose trials report."""

    @one_line
    def report(self, ticket: Ticket, report: EpochReport) -> bool:
        """Stores an epoch and says whether to go on.

        After the last epoch the trial is COMPLETE. A rung that it does not pass, or a loss that is
        not finite, makes it PRUNED. An epoch that is stored already changes nothing, so a run that
        goes on from its checkpoint may give all its reports again.

        Args:
            ticket: From `ask`.
            report: Of the epoch after the last one reported, or an earlier one.

        Returns:
            False if the trial has ended, or is no longer this attempt's: then nothing was written.

        Raises:
            ValueError: An epoch was left out, or the report has no exits.
        """
        held = self._mine(ticket)
        if held is None or report.epoch < held.done:
            return held is not None
        if report.epoch > held.done + 1:
            raise ValueError(
                f"trial {ticket.number} reported epoch {report.epoch} after {held.done}"
            )
        if report.epoch == held.done + 1:
            values = self._values(report)
            try:
                # The report last: with it the epoch counts as stored.
                if held.run_on is not None:
                    if report.diverged or report.epoch == ticket.config.epochs:
                        ran_to = self._worth(report)
                        self._storage.set_trial_system_attr(held.trial_id, "ran_to", ran_to)
                    values = held.values
                elif values and not is_front(self.plan.objective):
                    self._storage.set_trial_intermediate_value(
                        held.trial_id, report.epoch, values[0]
                    )
                self._storage.set_trial_system_attr(
                    held.trial_id, f"{REPORT}{report.epoch}", report.model_dump(mode="json")
                )
            except UpdateFinishedTrialError:
                del self._held[ticket.number]
                return False
            held.done, held.values, held.diverged = report.epoch, values, report.diverged
            self._extend(held, 10 * report.seconds)
        elif not held.values:
            held.values = self._values(report)
        return self._judge(held)

    def _values(self, report: EpochReport) -> tuple[float, ...]:
        """The objective, or of a front its several.

        Empty of an epoch before the last whose test images an experiment leaves unread, and of a
        front's network that diverged.
        """
        plan, sound = self.plan, not report.diverged
        if sound and not report.exits and plan.experiment and report.epoch < plan.base.epochs:
            return ()
        worth = self._worth(report)
        if not is_front(plan.objective):
            return (worth,)
        return vector(plan.objective, report.exits, self._columns) if sound else ()

    def _judge(self, held: Held) -> bool:
        """What the last stored epoch means for the trial. True: go on."""
        if held.run_on is not None:
            if held.diverged or held.done >= held.ticket.config.epochs:
                self._end(held, TrialState.PRUNED, self._early(held))
                return False
            return True
        if held.diverged:
            self._storage.set_trial_user_attr(held.trial_id, "diverged", True)
            why = f"diverged: the loss of epoch {held.done} is not finite"
            self._end(held, TrialState.PRUNED, self._early(held), why)
            return False
        if held.done >= held.ticket.config.epochs:
            self._complete(held)
            return False
        plan = self.plan
        at_rung = held.done in plan.judged_after
        if held.ticket.start or not at_rung or held.passed >= held.done:
            return True
        reason = self._stopped(held)
        if reason is None:
            # Remembered, so that after an interruption the same epoch is not judged by more rivals.
            held.passed = held.done
            self._storage.set_trial_system_attr(held.trial_id, "passed", held.done)
            return True
        if rungs.runs_on(plan.seed, held.ticket.number, plan.run_on):
            # The reason first: what has a rung in `run_on` is never judged again.
            reason += "; ran on outside the search"
            self._storage.set_trial_user_attr(held.trial_id, "reason", reason)
            self._storage.set_trial_system_attr(held.trial_id, "run_on", held.done)
            held.run_on = held.done
            return True
        self._end(held, TrialState.PRUNED, self._early(held), reason)
        return False

    def _stopped(self, held: Held) -> str | None:
        """Why a trial is stopped at the rung that it has reached; None if it passes."""
        plan = self.plan
        if is_front(plan.objective):
            rows = self.vectors_at(held.done)
            own = self._raised(held.values)
            if rungs.keeps_front(own, rows, plan.eta, plan.tolerance, self._columns):
                return None
            return (
                f"stopped after epoch {held.done}: another trial beats it as a whole there, and at "
                f"no exit is it among the best {rungs.places(len(rows), plan.eta)} of {len(rows)}"
            )
        values = self.values_at(held.done)
        if rungs.keeps(held.values[0], values, plan.eta, plan.tolerance):
            return None
        count = sum(not math.isnan(value) for value in values)
        return (
            f"stopped after epoch {held.done}: {plan.objective} {held.values[0]:.4f} is not among "
            f"the best {rungs.places(count, plan.eta)} of {count} there"
        )

    def _complete(self, held: Held) -> None:
        """Full length. What orders a front's trials is written beside its values."""
        if is_front(self.plan.objective):
            trial = self._storage.get_trial(held.trial_id)
            report = EpochReport(**trial.system_attrs[f"{REPORT}{held.done}"])
            name = ranked_by(self.plan.objective)
            self._storage.set_trial_user_attr(held.trial_id, name, self._worth(report))
        self._end(held, TrialState.COMPLETE, held.values)

    def _stored_values(self, trial: FrozenTrial, done: int) -> tuple[float, ...]:
        """What a stored epoch is worth; empty before the first."""
        if is_front(self.plan.objective):
            return self._vector(trial, done)
        return tuple([trial.intermediate_values[done]] if done in trial.intermediate_values else [])
