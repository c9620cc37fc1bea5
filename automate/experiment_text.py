"""An experiment of the paper in words: what has to be known, and every cell beside the paper's."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from automate.printing import say, say_table
from studies.experiment_report import notes
from studies.experiment_sections import printed_text
from studies.measured import Measured, shrunk
from studies.separation import separation, separation_text


def say_experiment(measured: Sequence[Measured]) -> None:
    """What has to be known, and the accuracy of every arm and exit beside the paper's."""
    for text in notes(measured):
        say(text)
    for one in measured:
        rows = []
        for arm in one.arms:
            stats = [one.accuracy(arm.key, i) for i in range(one.exits)]
            n = len(one.runs[arm.key])
            said = "1, unconfirmed" if n == 1 else str(n)
            rows.append((arm.label, *("" if stat is None else stat.figure for stat in stats), said))
            printed = [one.cell(arm, i) for i in range(one.exits)]
            if any(printed):
                rows.append(("  the paper", *map(printed_text, printed), ""))
        head = ("top-1 on test, %", *(f"exit {i + 1}" for i in range(one.exits)), "n")
        say_table(head, rows, title=one.title)
        if text := separation_text(one):
            say(text)


def experiment_json(one: Measured) -> dict[str, Any]:
    """A study's cells for `--json`."""
    cells = []
    for arm in one.arms:
        for i in range(one.exits):
            stat, printed = one.accuracy(arm.key, i), one.cell(arm, i)
            cells.append(
                {
                    "arm": arm.key,
                    "exit": i + 1,
                    "mean": stat and stat.mean,
                    "std": stat and stat.std,
                    "n": stat.n if stat else 0,
                    "paper": printed and {"mean": printed.mean, "std": printed.std},
                }
            )
    return {
        "study": one.plan.study,
        "experiment": one.name,
        "rule": one.plan.rule,
        "not_as_the_papers": shrunk(one.plan),
        "comparable": one.comparable,
        "missing": [{"trial": o.number, "reason": o.reason} for o in one.lost],
        "cells": cells,
        "against_branchynet": {label: asdict(item) for label, item in separation(one).items()},
    }
