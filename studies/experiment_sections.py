"""The report of an experiment: ours beside the paper's, cell by cell, and the paper's sentences.

Where ours is smaller than the paper's there is no difference column: its figures are for reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from studies import verdict as v
from studies.cost_figures import budget_figure
from studies.experiment_figures import cells_figure, curves_figure, gaps_figure, sweep_figure
from studies.experiments import DIVERSE
from studies.measured import (
    Measured,
    Stat,
    at_budget,
    budgets_of,
    gap_over_epochs,
    mean_mixes,
)
from studies.mix_figures import entropy_figure, heat_figure, mix_sentence
from studies.page import Html, figure, paragraph, table, tag
from studies.paper import Printed, paper
from studies.separation import separation_parts

# First columns, ours in words, ours as a number, the paper's.
Row = tuple[list[str], str, float | None, Printed | None]
REFERENCE = "for reference only: ours is not trained as the paper's"


def printed_text(printed: Printed | None) -> str:
    """`69.43 ± 0.27`, or nothing."""
    if printed is None:
        return ""
    spread = "" if printed.std is None else f" ± {printed.std:.2f}"
    return f"{printed.mean:.2f}{spread}".replace("-", v.MINUS)


def comparison(
    measured: Sequence[Measured],
    head: Sequence[str],
    rows_of: Callable[[Measured], list[Row]],
) -> list[Html]:
    """A table a study: what it is of, ours, the paper's, and only where it may be, the difference.

    Args:
        measured: The studies.
        head: Names of the first columns.
        rows_of: study -> rows: first columns, ours in words, ours as a number, the paper's.
    """
    parts = []
    for one in measured:
        rows: list[list[object]] = []
        for first, text, mean, printed in rows_of(one):
            row: list[object] = [*map(Html, map(_safe, first)), text, printed_text(printed)]
            if one.comparable:
                both = mean is not None and printed is not None
                row.append(
                    v.signed(mean - printed.mean)
                    if both and mean is not None and printed is not None
                    else ""
                )
            rows.append(row)
        if len(measured) > 1:
            parts.append(tag("h3", one.title))
        columns = [*head, "ours", "paper" if one.comparable else f"paper ({REFERENCE})"]
        if not one.known:
            columns[-1] = "paper (has none of this)"
        parts.append(table(columns + (["ours \u2212 paper"] if one.comparable else []), rows))
    return parts


def _safe(text: str) -> str:
    return str(tag("span", text))


def _numbers(stat: Stat | None) -> tuple[str, float | None]:
    return ("no run yet", None) if stat is None else (stat.text(), stat.mean)


def _cell_rows(one: Measured) -> list[Row]:
    rows = []
    for arm in one.arms:
        for i in range(one.exits):
            stat, printed = one.accuracy(arm.key, i), one.cell(arm, i)
            if stat is not None or printed is not None:
                mark = " (ours, no row of the paper)" if arm.ours else ""
                rows.append(([arm.label + mark, f"exit {i + 1}"], *_numbers(stat), printed))
    return rows


def cells(measured: Sequence[Measured]) -> list[Html]:
    """Accuracy of every arm and exit."""
    caption = (
        "Top-1 accuracy on the test images by exit; bars are the standard deviation over seeds, "
        "hollow markers the paper's figures where it prints them, dotted lines controls of ours."
    )
    plot = figure(cells_figure(measured), caption, wide=True)
    return [plot, *comparison(measured, ["method", "exit"], _cell_rows)]


def every_cell(measured: Sequence[Measured]) -> list[Html]:
    """The same of a sweep, whose figure is drawn over its axis: a table that folds."""
    parts = comparison(measured, ["method", "exit"], _cell_rows)
    return [tag("details", tag("summary", "Accuracy of every arm and exit"), *parts)]


def curves(measured: Sequence[Measured]) -> list[Html]:
    """Every exit over training (Fig. 3)."""
    return [
        figure(
            curves_figure(one),
            f"{one.title}: top-1 accuracy of each exit after every epoch, mean over seeds; each "
            "seed faintly. The paper's Fig. 3 has the same axes; it prints no points.",
            wide=True,
        )
        for one in measured
    ]


def _gap_rows(one: Measured) -> list[Row]:
    rows: list[Row] = []
    for arm in one.arms:
        for i in range(one.exits):
            gap = gap_over_epochs(one.runs[arm.key], i)
            if gap is not None:
                n = f"n = {gap[0].n}" if gap[0].n > 1 else v.UNCONFIRMED
                text = f"{gap[0].mean:.2f} ± {gap[1].mean:.2f} ({n})".replace("-", v.MINUS)
                first = [arm.label, f"exit {i + 1}"]
                rows.append((first, text, gap[0].mean, one.printed(arm, i)))
    return rows


def gap_table(measured: Sequence[Measured]) -> list[Html]:
    """Learning gaps, mean and deviation over epochs (Table 4)."""
    text = (
        "Accuracy of an exit's teacher minus the exit's own, on the test images after every epoch, "
        "in points: mean and standard deviation over all epochs, averaged over seeds. The teacher "
        "is the primary one for MATE, the deepest exit for BYOT, the mean of all exits for EED; "
        "for DKS the paper does not say, and it is the mean of the other exits' softmaxes at T."
    )
    return [paragraph(text), *comparison(measured, ["method", "exit"], _gap_rows)]


def gap_curves(measured: Sequence[Measured]) -> list[Html]:
    """Learning gaps over training (Fig. 6)."""
    return [
        figure(
            gaps_figure(one),
            f"{one.title}: the gap over training, exits from shallow to deep, mean over seeds, "
            "smoothed by a Savitzky-Golay filter (order 3, a tenth of the run wide, at least 5 "
            "epochs; shorter runs are not smoothed; the paper does not say its own).",
            wide=True,
        )
        for one in measured
    ]


def mixes(measured: Sequence[Measured]) -> list[Html]:
    """Who composes MATE's teachers (Fig. 7)."""
    parts: list[Html] = []
    for one in measured:
        reports = mean_mixes(one.runs.get("mate", ()))
        if not reports:
            parts.append(paragraph(f"{one.title}: no run of full length yet."))
            continue
        config = one.runs["mate"][0].config
        caption = (
            f"{one.title}: who composes each teacher, mean over test images and seeds, at epochs "
            "1, 11, 51 and 300 of 300 or what corresponds to them; darker is more."
        )
        parts += [
            figure(heat_figure(reports, config), caption, wide=True),
            paragraph(mix_sentence(reports, config)),
            figure(
                entropy_figure(reports, config),
                "How evenly teachers are mixed over training, and how far that is from the fixed "
                "optimum.",
                wide=True,
            ),
        ]
    return parts


def alpha(measured: Sequence[Measured]) -> list[Html]:
    """Accuracy over α (Figs. 8 and 10)."""
    caption = (
        "Top-1 accuracy over α, a panel an exit; dashed: attention at α = 3. Attention is solid, "
        "gates are dotted diamonds. The values of α are ours: the paper's figure prints none."
    )
    return [figure(sweep_figure(measured, "α", log=True), caption, wide=True)]


def temperature(measured: Sequence[Measured]) -> list[Html]:
    """Accuracy over T (Fig. 9)."""
    caption = (
        "Top-1 accuracy over T, a panel an exit; level: BranchyNet, which has no T. The values of "
        "T are ours: the paper's figure prints none."
    )
    return [figure(sweep_figure(measured, "T", log=False), caption, wide=True)]


def _diverse_rows(one: Measured) -> list[Row]:
    rows = []
    for i in range(one.exits):
        best = [f"alpha_{value:g}" for value in DIVERSE]
        names = {"optimal": best[min(i, 3)], "alpha_3": "alpha_3", "diverse": "diverse"}
        labels = {"alpha_3": "α = 3", "diverse": "one α per exit: 30, 5, 10, 10"}
        labels["optimal"] = f"optimal: α = {DIVERSE[min(i, 3)]:g} for all"
        for column, key in names.items():
            figures = paper().column("table5", one.plan.base.backbone, column) if one.known else ()
            printed = figures[i] if i < len(figures) else None
            rows.append(
                ([f"exit {i + 1}", labels[column]], *_numbers(one.accuracy(key, i)), printed)
            )
    return rows


def diverse(measured: Sequence[Measured]) -> list[Html]:
    """Optimal, single and diverse α (Table 5)."""
    text = (
        "Optimal is, at each exit, a run with one α for all exits: the α that the paper found best "
        "there on its test set (30, 5, 10, 10). Ours takes the paper's choice and picks none."
    )
    plot = figure(cells_figure(measured), "All runs of this experiment, by exit.", wide=True)
    return [paragraph(text), *comparison(measured, ["exit", "α"], _diverse_rows), plot]


def _budget_rows(one: Measured) -> list[Row]:
    papers = one.known and one.plan.base.width == 1
    return [
        (
            [f"{v.flops_text(flops)}FLOPs", arm.label],
            *_numbers(at_budget(one, arm.key, flops)),
            one.printed(arm, i) if papers else None,
        )
        for i, flops in enumerate(budgets_of(one))
        for arm in one.arms
    ]


def budget(measured: Sequence[Measured]) -> list[Html]:
    """Top-5 accuracy in budget mode (Table 7)."""
    text = (
        "Dynamic evaluation: an image leaves at the first exit that is confident enough. The "
        "thresholds are set on held-out training images, which no run was trained on; FLOPs are "
        "those of the cascade, earlier heads included. Between two settings the line is read."
    )
    caption = "Top-5 accuracy on the test images over mean FLOPs; hollow: the paper's."
    return [
        paragraph(text),
        figure(budget_figure(measured), caption, wide=True),
        *comparison(measured, ["budget", "method"], _budget_rows),
    ]


# What an experiment shows: anchor -> heading, what makes it. `costs` and `footprints` are pages of
# their own, of experiments that train nothing.
SHOWS: dict[str, tuple[str, Callable[[Sequence[Measured]], list[Html]]]] = {
    "cells": ("Accuracy by exit", cells),
    "separation": ("Is any method better?", separation_parts),
    "every": ("Every cell", every_cell),
    "curves": ("Accuracy over training", curves),
    "gaps": ("Learning gaps", gap_table),
    "gap_curves": ("Learning gaps over training", gap_curves),
    "mixes": ("Who composes the teachers", mixes),
    "alpha": ("Accuracy over α", alpha),
    "temperature": ("Accuracy over T", temperature),
    "diverse": ("One α, or one per exit", diverse),
    "budget": ("Budget mode", budget),
}
