"""The report of an experiment: ours beside the paper's, cell by cell, and the paper's sentences.

Where ours is smaller than the paper's there is no difference column: its figures are for reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from studies import verdict as v
from studies.cost_figures import budget_figure
from studies.experiment_figures import cells_figure, curves_figure, gaps_figure, sweep_figure
from studies.experiments import DIVERSE, EXPERIMENTS
from studies.measured import (
    OPEN,
    Measured,
    Stat,
    at_budget,
    budgets_of,
    gap_over_epochs,
    mean_mixes,
    measure,
    shrunk,
)
from studies.mix_figures import entropy_figure, heat_figure, mix_sentence
from studies.page import Html, figure, paragraph, section, table, tag
from studies.paper import Printed, paper
from studies.report_sections import facts
from studies.statements import shown_by, statements_of
from studies.view import View

# First columns, ours in words, ours as a number, the paper's.
Row = tuple[list[str], str, float | None, Printed | None]
MINUS = "\u2212"
REFERENCE = "for reference only: ours is not trained as the paper's"


def printed_text(printed: Printed | None) -> str:
    """`69.43 ± 0.27`, or nothing."""
    if printed is None:
        return ""
    spread = "" if printed.std is None else f" ± {printed.std:.2f}"
    return f"{printed.mean:.2f}{spread}".replace("-", MINUS)


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
                    f"{mean - printed.mean:+.2f}".replace("-", MINUS)
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
                text = f"{gap[0].mean:.2f} ± {gap[1].mean:.2f} ({n})".replace("-", MINUS)
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
    "curves": ("Accuracy over training", curves),
    "gaps": ("Learning gaps", gap_table),
    "gap_curves": ("Learning gaps over training", gap_curves),
    "mixes": ("Who composes the teachers", mixes),
    "alpha": ("Accuracy over α", alpha),
    "temperature": ("Accuracy over T", temperature),
    "diverse": ("One α, or one per exit", diverse),
    "budget": ("Budget mode", budget),
}


def notes(measured: Sequence[Measured]) -> list[str]:
    """What has to be known before the figures are read: one sentence each."""
    found = []
    for one in measured:
        plan, base = one.plan, one.plan.base
        named = f"{one.title}: " if len(measured) > 1 else ""
        smaller = shrunk(plan)
        if smaller:
            found.append(
                f"{named}Not trained as the paper's: {'; '.join(smaller)}. So no difference to the "
                "paper is claimed; its figures stand beside ours for reference only."
            )
        if not one.known:
            found.append(f"{named}The paper has no figures of this network on this data set here.")
        seeds = max(map(len, one.runs.values()), default=0)
        if seeds < paper().recipe["seeds"]:
            what = f"n = {seeds}" if seeds > 1 else v.UNCONFIRMED
            found.append(f"{named}The paper has 3 runs of each, ours so far {seeds}: {what}.")
        if one.left:
            found.append(f"{named}{one.left} of {plan.trials} runs have not ended yet.")
        for outcome in one.lost:
            what = f"{outcome.params.get('arm')}, seed {outcome.params.get('seed')}"
            found.append(f"{named}Trial {outcome.number} ({what}) is missing: {outcome.reason}.")
        if plan.rule == "paper":
            found.append(
                f"{named}Selected on the test set: all exits at the epoch of the best last-exit "
                "test accuracy, the paper's rule (Section 4.4.1). Such figures are too good and "
                "only there to stand beside the paper's."
            )
        else:
            read = (
                "The test images were scored after every epoch, as the paper's were; nothing is "
                "selected by them, and what is one figure is of the last epoch"
                if plan.each_epoch
                else "The test images were read once, after the last epoch"
            )
            found.append(
                f"{named}{read}. The paper's figures are of the epoch with the best last-exit test "
                "accuracy, which favours them."
            )
        if plan.purpose == "final-holdout" and base.dataset != "digits":
            found.append(
                f"{named}{100 * base.validation:g} % of the training images were held out for the "
                "thresholds; the paper does not say what it calibrated on."
            )
        found.append(f"{named}The paper leaves open: {_open(one)}.")
    return list(dict.fromkeys(found))


def _open(one: Measured) -> str:
    base = one.plan.base
    given = {name: getattr(base, name) for name in OPEN}
    return ", ".join(f"{name} ({'none' if x is None else x})" for name, x in given.items())


def sentences(measured: Sequence[Measured]) -> list[Html]:
    """The paper's sentences beside what ours shows."""
    names = [name for name in EXPERIMENTS if _study_of(name) == measured[0].name]
    rows = [
        [
            f"\u201c{s.text}\u201d",
            f"Section {s.section}",
            shown_by(s.check, measured) or "nothing yet",
        ]
        for name in names
        for s in statements_of(name)
    ]
    if not rows:
        return []
    means = (
        "Means over seeds are compared, whatever their spread; with few seeds that proves little."
    )
    return [table(["the paper says", "where", "ours shows"], rows), paragraph(means, kind="note")]


def _study_of(name: str) -> str:
    return EXPERIMENTS[name].runs_as or name


def experiment_header(views: Sequence[View]) -> Html:
    """Name, place in the paper, and how far it is."""
    measured = [measure(view) for view in views]
    row, name = measured[0].experiment, measured[0].name
    others = [f"{n}, {EXPERIMENTS[n].place}" for n in EXPERIMENTS if EXPERIMENTS[n].runs_as == name]
    spent = sum(o.epochs for view in views for o in view.outcomes)
    done = sum(len(runs) for one in measured for runs in one.runs.values())
    tiles = [
        ("runs of full length", f"{done} of {sum(one.plan.trials for one in measured)}"),
        ("epochs trained", f"{spent:,}"),
        ("failed or diverged", str(sum(len(one.lost) for one in measured))),
    ]
    titles = ", ".join(one.title for one in measured)
    return tag(
        "header",
        tag("p", " · ".join(["reproduction", row.place, *others]), class_="kicker"),
        tag("h1", f"{name}: {row.title}"),
        tag("p", titles, class_="verdict"),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b)) for a, b in tiles), class_="tiles"),
    )


def experiment_sections(views: Sequence[View]) -> list[tuple[str, str, Html]]:
    """(anchor, heading, section) of a report over the studies of one experiment."""
    measured = [measure(view) for view in views]
    made: list[tuple[str, str, list[Html]]] = [
        ("run", "What was run", [paragraph(text) for text in notes(measured)])
    ]
    for anchor in measured[0].experiment.shows:
        heading, make = SHOWS[anchor]
        made.append((anchor, heading, make(measured)))
    made.append(("said", "What the paper says of it", sentences(measured)))
    for i, view in enumerate(views):
        heading = "Study facts" if len(views) == 1 else f"Facts of {view.plan.study}"
        made.append((f"facts-{i}", heading, facts(view)))
    return [(a, name, section(a, name, *parts)) for a, name, parts in made if parts]
