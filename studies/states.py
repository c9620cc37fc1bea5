"""The states of a trial, who owns it, and what of it the outside sees.

    state     meaning                                   becomes
    WAITING   not begun, or given back with its         RUNNING (asked for)
              parameters, reports and checkpoint
    RUNNING   owned: driver, attempt, lease             WAITING (given back, or reclaimed from a
                                                        driver that died or lost its lease),
                                                        COMPLETE, PRUNED, FAIL
    COMPLETE  full length, finite                       nothing more
    PRUNED    stopped by a rung; or diverged, then      nothing more
              with chance accuracy as its value
    FAIL      broke; the reason is stored               nothing more

A trial that a rung stopped may run on (`run_on`): RUNNING until its full length, then PRUNED with
the value that it was stopped with, whatever it reached or met. Its later epochs lie in the reports
alone: no value at their steps, so that neither a sampler nor a rung ever sees them.

Where it lies in Optuna's storage, of each trial:

    value at step e        the objective after e epochs; of a front, which is several, none
    values                 the objective at the end; of a front one per exit, of full length only:
                           what else it compares lies in the reports
    system attribute       report:<e>   the whole `EpochReport`, one each, so that tables and
                                        columns of the dashboard stay readable
                           passed       the last rung that let the trial pass
                           run_on       the rung that stopped it, where it runs on all the same
                           ran_to       and the objective that it reached
                           failures     reasons of the attempts that were given back broken
    user attribute         config       the `TrialConfig`
                           claim        the `Claim`
                           start        true for the points tried first
                           reason       why it was stopped or failed
                           anytime      of a front's trial of full length: what orders it
                           (or hypervolume)
                           diverged     true if the loss was not finite
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, ValidationError

from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.places import renamed
from trainers.reports import EpochReport, ExitPoint, Record

State = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]

TRANSITIONS: dict[State, frozenset[State]] = {
    "WAITING": frozenset({"RUNNING"}),
    "RUNNING": frozenset({"WAITING", "COMPLETE", "PRUNED", "FAIL"}),
    "COMPLETE": frozenset(),
    "PRUNED": frozenset(),
    "FAIL": frozenset(),
}
ENDED = frozenset(state for state, after in TRANSITIONS.items() if not after)

REPORT = "report:"
EXITS, DECODER = re.compile(r'"exits":\s*'), json.JSONDecoder()


@dataclass(frozen=True)
class Claim:
    """Who runs a trial.

    Attributes:
        owner: The driver's name, or None once the trial is given back.
        attempt: Counts from 1; 0 before the first.
        until: End of the lease, seconds since 1970: whoever holds the trial says so again by then.
    """

    owner: str | None = None
    attempt: int = 0
    until: float = 0.0

    @classmethod
    def read(cls, stored: Any) -> "Claim":
        """From the stored attribute; whatever is none counts as never claimed."""
        try:
            owner, attempt, until = stored["owner"], stored["attempt"], stored["until"]
            return cls(None if owner is None else str(owner), int(attempt), float(until))
        except (TypeError, KeyError, ValueError):
            return cls()

    def to_json(self) -> dict[str, Any]:
        """What is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Ticket:
    """A trial to run, as `StudyRecord.ask` hands it out.

    Attributes:
        number: Of the trial.
        config: What to train.
        attempt: Counts from 1; with the driver's name it says who may report.
        epochs_done: Epochs whose reports are stored already.
        start: One of the points tried first, which no rung stops.
        failures: Why earlier attempts broke, oldest first.
    """

    number: int
    config: TrialConfig
    attempt: int
    epochs_done: int
    start: bool
    failures: tuple[str, ...] = ()


class Outcome(Record):
    """A trial as the storage has it now."""

    number: int
    state: State
    config: TrialConfig | None = Field(description="None before it was asked for the first time")
    params: dict[str, Any] = Field(description="what the sampler chose")
    value: float | None = Field(
        description="the objective after the last epoch; of a front the anytime accuracy (or the "
        "hypervolume, where networks differ in cost), which orders its trials"
    )
    epochs: int = Field(description="completed")
    report: EpochReport | None = Field(
        description="the last one with exits; where it ran on, the last one before it was stopped"
    )
    reason: str | None = Field(description="why it was stopped or failed")
    start: bool = Field(description="one of the points tried first")
    diverged: bool = Field(False, description="the loss was not finite")
    attempt: int = Field(0, description="how often it was begun")
    run_on: int | None = Field(
        None, description="the rung (epochs) that stopped it, where it ran on all the same"
    )
    ran_to: float | None = Field(
        None, description="and the objective at its full length, outside the search"
    )


def epochs_of(trial: FrozenTrial) -> int:
    """Epochs whose reports are stored."""
    return max(_stored(trial.system_attrs), default=0)


def run_on_of(trial: FrozenTrial) -> int | None:
    """The rung, epochs, that stopped a trial which runs on all the same; None of any other."""
    stored = trial.system_attrs.get("run_on")
    return stored if isinstance(stored, int) else None


def reports_of(trial: FrozenTrial) -> list[EpochReport]:
    """All stored reports, by epoch, of a trial that was read with all of them.

    Raises:
        InputError: One of them is none of ours.
    """
    try:
        return [_read(fields) for _, fields in sorted(_stored(trial.system_attrs).items())]
    except (ValidationError, TypeError):
        raise _unreadable(trial.number) from None


def reports_in(number: int, texts: Iterable[tuple[str, str]]) -> list[EpochReport]:
    """The same from (key, JSON) of the attributes of a trial of that number."""
    try:
        return [_read(text) for _, text in sorted(_stored(dict(texts)).items())]
    except (ValidationError, TypeError):
        raise _unreadable(number) from None


def _unreadable(number: int) -> InputError:
    return InputError(f"trial {number} holds a report that cannot be read")


def _read(stored: Any) -> EpochReport:
    """A stored report: JSON text, or what it says. Raises ValidationError, TypeError."""
    if isinstance(stored, str):
        return EpochReport.model_validate_json(stored)
    return EpochReport(**stored)


def exits_at(trial: FrozenTrial, epoch: int) -> tuple[ExitPoint, ...]:
    """The exits of a stored report that the search may see.

    None if there is no such report, one that is none of ours, or of a trial that ran on only. It is
    quicker than the whole report: a rung asks this of every trial.
    """
    run_on = run_on_of(trial)
    if run_on is not None and epoch > run_on:
        return ()
    return exits_of(trial.system_attrs.get(f"{REPORT}{epoch}"))


def exits_of(stored: Any) -> tuple[ExitPoint, ...]:
    """The exits of a report, JSON text or what it says; none of one that is none of ours."""
    try:
        if isinstance(stored, str):
            # Alone: the rest of a report is ten times as long.
            at = EXITS.search(stored)
            listed = DECODER.raw_decode(stored, at.end())[0] if at else ()
        else:
            listed = stored["exits"]
        return tuple(ExitPoint(**fields) for fields in listed)
    except (KeyError, TypeError, ValueError):  # pydantic's and json's errors are ValueErrors
        return ()


Worth = Callable[[EpochReport], float]


def outcome_of(
    trial: FrozenTrial,
    start: bool,
    worth: Worth | None = None,
    names: Mapping[str, str] | None = None,
) -> Outcome:
    """The trial without Optuna. What a foreign hand made unreadable is left out, never raised.

    Args:
        trial: As stored.
        start: One of the points tried first.
        worth: The value of a report, where the storage has no single one: of a front.
        names: Of files and folders, as the trial has them -> as they are now.
    """
    config, last, newest = None, None, None
    try:
        if "config" in trial.user_attrs:
            config = TrialConfig.read(renamed(trial.user_attrs["config"], names or {}))
    except InputError:
        pass
    stored, run_on = _stored(trial.system_attrs), run_on_of(trial)
    ran_to = trial.system_attrs.get("ran_to")
    for epoch in sorted(stored, reverse=True):
        if run_on is not None and epoch > run_on:
            continue
        try:
            report = _read(stored[epoch])
        except (ValidationError, TypeError):
            continue
        newest = newest or report
        if report.exits:
            last = report
            break
    values = trial.values if trial.state.is_finished() else None
    if not values and trial.intermediate_values:
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
    if worth is not None:
        values = None if newest is None else [worth(newest)]
    # One that is left from a driver that died before it told the state says nothing yet.
    ended_early = trial.state in (TrialState.PRUNED, TrialState.FAIL)
    reason = trial.user_attrs.get("reason") if ended_early else None
    return Outcome(
        number=trial.number,
        state=state_of(trial.state),
        config=config,
        params=trial.params,
        value=values[0] if values and abs(values[0]) < float("inf") else None,
        epochs=max(stored, default=0),
        report=last,
        reason=None if reason is None else str(reason),
        start=start,
        diverged=ended_early and bool(trial.user_attrs.get("diverged")),
        attempt=Claim.read(trial.user_attrs.get("claim")).attempt,
        run_on=run_on,
        ran_to=ran_to if isinstance(ran_to, float) and run_on is not None else None,
    )


def state_of(state: TrialState) -> State:
    """Optuna's state by its name."""
    return cast(State, state.name)


def _stored(attributes: Mapping[str, Any]) -> dict[int, Any]:
    """epoch -> stored report."""
    return {
        int(key.removeprefix(REPORT)): value
        for key, value in attributes.items()
        if key.startswith(REPORT) and key.removeprefix(REPORT).isdecimal()
    }
