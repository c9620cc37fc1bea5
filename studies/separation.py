"""Whether an experiment separates its methods from BranchyNet at all: numbers and their sentence.

The paper prints means and spreads of three runs and compares the means. What three runs can show is
said here: the mean accuracy of the exits, each method against BranchyNet on the same seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.comparison import Difference, against
from studies.measured import Measured
from studies.page import Html, paragraph, table, tag
from studies.verdict import p_number, p_text, signed

REFERENCE = "branchynet"  # cross-entropy alone: no distillation


def separation(one: Measured) -> dict[str, Difference]:
    """Arm's label -> its difference to BranchyNet, in points of the exits' mean accuracy on test.

    Corrected for all of them together. Of arms with as many exits; empty without BranchyNet,
    without another such arm, or without two seeds of both.
    """
    keys = [arm.key for arm in one.arms if _whole(one, arm.key)]
    if REFERENCE not in keys or len(keys) < 2:
        return {}
    seeds = sorted({run.seed for key in keys for run in one.runs[key]})
    values = np.full((len(keys), len(seeds)), np.nan)
    for row, key in enumerate(keys):
        for run in one.runs[key]:
            values[row, seeds.index(run.seed)] = 100 * np.mean(run.report.accuracies)
    labels = {arm.key: arm.label for arm in one.arms}
    found = against(values, keys.index(REFERENCE))
    return {labels[keys[item.config]]: item for item in found}


def _whole(one: Measured, key: str) -> bool:
    """At least two runs, all of the study's number of exits, sharing seeds with BranchyNet."""
    runs, reference = one.runs.get(key, ()), one.runs.get(REFERENCE, ())
    shared = {run.seed for run in runs} & {run.seed for run in reference}
    return len(shared) > 1 and all(len(run.report.exits) == one.exits for run in runs)


def separation_text(one: Measured) -> str:
    """One sentence; empty where nothing can be compared."""
    found = separation(one)
    if not found:
        return ""
    lead = (
        "Mean accuracy of the exits against BranchyNet on the same seeds, corrected for "
        f"{len(found)} comparison{'s' * (len(found) != 1)}: "
    )
    apart = {name: item for name, item in found.items() if item.separated}
    if apart:
        return lead + "; ".join(f"{name} {_in_words(item)}" for name, item in apart.items()) + "."
    name, item = max(found.items(), key=lambda pair: abs(pair[1].difference))
    text = f"{lead}no difference at this number of seeds; the largest is {name}, {_in_words(item)}"
    if item.seeds_needed is not None:
        text += f"; a difference of this size, if real, would need about {item.seeds_needed} seeds"
    return text + "."


def separation_parts(measured: Sequence[Measured]) -> list[Html]:
    """A sentence and a table a study."""
    parts = []
    for one in measured:
        found = separation(one)
        if not found:
            continue
        if len(measured) > 1:
            parts.append(tag("h3", one.title))
        parts.append(paragraph(separation_text(one)))
        rows = [
            [
                name,
                signed(item.difference),
                f"{signed(item.low)} to {signed(item.high)}",
                p_number(item.p),
                str(item.seeds_needed or ""),
            ]
            for name, item in found.items()
        ]
        head = ["method", "points over BranchyNet", "95 % interval", "p", "seeds needed"]
        parts.append(table(head, rows))
    if parts:
        parts.append(
            paragraph(
                "Intervals hold together (Dunnett 1955), the variance is pooled over the methods. "
                "Seeds needed: to find a difference of that size with 80 % probability.",
                kind="note",
            )
        )
    return parts


def _in_words(item: Difference) -> str:
    way = "better" if item.difference > 0 else "worse"
    return (
        f"{abs(item.difference):.2f} points {way} (95 % interval {signed(item.low)} to "
        f"{signed(item.high)}, {p_text(item.p)})"
    )
