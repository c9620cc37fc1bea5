"""The front of a study in words: what each exit costs, and how often it is right."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from automate.printing import say, say_table
from studies.conclusions import headline
from studies.confirm_json import as_json, take_json
from studies.confirmation import Confirmation
from studies.front import deployable
from studies.plan import StudyPlan
from studies.states import Outcome
from studies.stopping import stopping_cost, stopping_text
from studies.verdict import (
    curves,
    percent,
    recommended,
    reference,
    reference_name,
    states_text,
    verdict,
)


@dataclass(frozen=True)
class FrontRow:
    """What can be had for the cost of one exit of the network to take, or less.

    All accuracies are of the best exit within that cost: where an exit is worse than one before it,
    they do not rise. Top-1, fraction, validation split.

    Attributes:
        exit: 1 = shallowest.
        flops: Per image, this head only.
        accuracy: Of the network to take.
        best: The highest of any trial.
        best_trial: Whose.
        reference: Of the paper's default; None without one, or where none of its exits is so cheap.
    """

    exit: int
    flops: float
    accuracy: float
    best: float
    best_trial: int
    reference: float | None


def front_rows(outcomes: Sequence[Outcome]) -> list[FrontRow]:
    """A row an exit, shallow first; none if no trial ran its full length."""
    taken, base = recommended(outcomes), reference(outcomes)
    if taken is None:
        return []
    found = curves(outcomes)
    every = [point for points in found.values() for point in points]
    rows = []
    for own in found[taken.number]:
        affordable = [point for point in every if point.flops <= own.flops]
        best = max(affordable, key=lambda p: (p.accuracy, p.trial == taken.number, -p.trial))
        mine = [point.accuracy for point in affordable if point.trial == taken.number]
        standard = [p.accuracy for p in affordable if base is not None and p.trial == base.number]
        rows.append(
            FrontRow(
                exit=own.exit,
                flops=own.flops,
                accuracy=max(mine),
                best=best.accuracy,
                best_trial=best.trial,
                reference=max(standard, default=None),
            )
        )
    return rows


def say_front(
    outcomes: Sequence[Outcome], plan: StudyPlan, *, confirmed: bool = False, stderr: bool = False
) -> None:
    """The table and the verdict.

    Args:
        outcomes, plan: Of the search.
        confirmed: A confirmation says which network to take; here it is the search's choice.
        stderr: Print there.
    """
    taken, base = recommended(outcomes), reference(outcomes)
    rows = front_rows(outcomes)
    if taken is not None:
        other = "" if base is None else f"{reference_name(base)} (trial {base.number})"
        head = [
            "exit",
            "MFLOPs",
            f"{'search would take' if confirmed else 'network to take'} (trial {taken.number})",
            "best of any trial",
        ]
        cells = [
            [
                str(row.exit),
                f"{row.flops / 1e6:.3f}" if row.flops < 1e6 else f"{row.flops / 1e6:.2f}",
                percent(row.accuracy),
                f"{percent(row.best)} (trial {row.best_trial})",
                *([] if base is None else [_at_that_cost(row.reference)]),
            ]
            for row in rows
        ]
        title = "Front: validation accuracy at the cost of each exit or less (one run each, n = 1)"
        say_table([*head, *([other] if other else [])], cells, title=title, stderr=stderr)
    say(verdict(outcomes, plan), stderr=stderr)
    if cost := stopping_text(outcomes):
        say(cost, stderr=stderr)


def _at_that_cost(accuracy: float | None) -> str:
    return "no exit so cheap" if accuracy is None else percent(accuracy)


def front_json(
    outcomes: Sequence[Outcome], plan: StudyPlan, confirmation: Confirmation | None = None
) -> dict[str, Any]:
    """The same for `--json`, with the confirmation where there is one.

    Once that is over, `verdict` and `take` are its; those of the search are `search_verdict` and
    `search_take` then.
    """
    taken, base = recommended(outcomes), reference(outcomes)
    said = verdict(outcomes, plan)
    take = None if taken is None else taken.model_dump(mode="json")
    found: dict[str, Any] = {"verdict": said, "take": take}
    if confirmation is not None:
        if confirmation.judged is not None:
            found = {"verdict": headline(confirmation), "take": take_json(confirmation)}
            found |= {"search_verdict": said, "search_take": take}
        found["confirmation"] = as_json(confirmation)
    return {
        **found,
        "stopping": None if (cost := stopping_cost(outcomes)) is None else asdict(cost),
        "states": states_text(outcomes),
        "front": [asdict(row) for row in front_rows(outcomes)],
        "reference": None if base is None else base.model_dump(mode="json"),
        "deployable": deployable(curves(outcomes)),
    }
