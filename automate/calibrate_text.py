"""A calibration in words and a table: when stopping is right."""

from typing import Any

from automate.printing import say, say_table
from studies.calibrating import Findings, calibration_of
from studies.calibration_text import (
    calibration_json,
    calibration_lines,
    head_of,
    row_of,
    shown,
    table_title,
)
from studies.plan import StudyPlan
from studies.verdict import states_text
from studies.view import View
from trainers.catalog import InputError


def say_findings(found: Findings, plan: StudyPlan) -> None:
    """The table and the sentences."""
    rows = [row_of(moment, plan) for moment in shown(found.best)]
    say_table(head_of(plan), rows, title=table_title(found))
    for line in calibration_lines(found, plan):
        say(line)


def say_calibration(view: View) -> None:
    """The same of a study; of one that cannot say anything yet, why not."""
    try:
        found = calibration_of(view)
    except InputError as error:
        say(error)
        return
    say_findings(found, view.plan)


def calibration_view_json(view: View) -> dict[str, Any]:
    """The same for `--json`; `calibration` is null where `sentences` say why there is none."""
    try:
        found = calibration_of(view)
    except InputError as error:
        sentences, numbers = [str(error)], None
    else:
        sentences, numbers = calibration_lines(found, view.plan), calibration_json(found)
    return {
        "states": states_text(view.outcomes),
        "sentences": sentences,
        "calibration": numbers,
    }
