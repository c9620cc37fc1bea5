"""Trials as a table of plain values, for CSV."""

import csv
from collections.abc import Sequence
from typing import Any, TextIO

from studies.states import Outcome


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per trial: states, values, parameters, then FLOPs and accuracy of each exit."""
    return [
        {
            "number": outcome.number,
            "state": outcome.state,
            "start": outcome.start,
            "diverged": outcome.diverged,
            "value": outcome.value,
            "epochs": outcome.epochs,
            "attempt": outcome.attempt,
            "reason": outcome.reason,
            "run_on": outcome.run_on,
            "ran_to": outcome.ran_to,
            **{f"param_{name}": value for name, value in outcome.params.items()},
            **{
                f"exit_{point.exit}_{name}": getattr(point, name)
                for point in (outcome.report.exits if outcome.report else ())
                for name in ("flops", "accuracy", "top5")
            },
        }
        for outcome in outcomes
    ]


def write_csv(outcomes: Sequence[Outcome], file: TextIO) -> None:
    """The rows with a header; parameters come before exits, empty where a trial has none."""
    table = rows(outcomes)
    names = list(dict.fromkeys(name for row in table for name in row))
    names.sort(key=lambda name: 2 if name.startswith("exit_") else name.startswith("param_"))
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
