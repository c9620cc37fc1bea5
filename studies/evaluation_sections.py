"""The page of an evaluation: its figures, and words that say how to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studies import verdict as v
from studies.evaluate import Evaluation, Spread
from studies.evaluation_figures import (
    cost_figure,
    overthinking_figure,
    reliability_figure,
    shares_figure,
)
from studies.page import Html, definitions, figure, footer, page, paragraph, section, table, tag
from studies.page import write as write_page
from trainers import quality
from trainers.catalog import last_part

FILE = "evaluation.html"


def shown(spread: Spread, *place: int) -> str:
    """A fraction in % with its spread: `93.67 ± 0.22 %`."""
    mean, std = float(spread.mean[place]), float(spread.std[place])
    return f"{100 * mean:.2f} ± {100 * std:.2f} %" if spread.n > 1 else f"{100 * mean:.2f} %"


def over_text(n: int) -> str:
    """`n = 1, unconfirmed`, or of what the spread is."""
    return f"mean ± std of n = {n} seeds" if n > 1 else v.UNCONFIRMED


def exit_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head, and a row an exit; without top-5 where that says nothing."""
    columns = {
        "top-1": evaluation.over_runs(lambda run: run.top1),
        "top-5": evaluation.over_runs(lambda run: run.top5),
        "best so far": evaluation.over_runs(lambda run: quality.anytime(run.top1.tolist())),
        "mean of exits": evaluation.over_runs(lambda run: run.ensembles),
        "calibration error": evaluation.errors(),
    }
    if not evaluation.config.tells_top5:
        del columns["top-5"]
    return ["exit", "MFLOPs", "MFLOPs with earlier heads", *columns], [
        [
            str(cost.exit),
            _mega(cost.flops),
            _mega(cost.flops_cascade),
            *(shown(column, i) for column in columns.values()),
        ]
        for i, cost in enumerate(evaluation.costs)
    ]


def budget_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the budget curve; no rows without thresholds."""
    exits, fives = range(len(evaluation.costs)), evaluation.config.tells_top5
    head = ["MFLOPs", "top-1", *["top-5"] * fives, *(f"leave at {i + 1}" for i in exits)]
    read = evaluation.budget(evaluation.budgets)
    if read is None:
        return head, []
    top1, top5, shares = read
    return head, [
        [
            _mega(flops),
            shown(top1, q),
            *[shown(top5, q)] * fives,
            *(f"{100 * shares.mean[q, i]:.1f} %" for i in exits),
        ]
        for q, flops in enumerate(evaluation.budgets)
    ]


def _mega(flops: float) -> str:
    return f"{flops / 1e6:.3f}" if flops < 1e6 else f"{flops / 1e6:.2f}"


def budget_text(evaluation: Evaluation) -> str:
    """Where the thresholds come from, or why there are none."""
    return evaluation.note() or (
        f"Budget: an image leaves at the first exit that is confident enough; the thresholds were "
        f"set on {evaluation.held:,} held-out images that the network was not trained on."
    )


def oracle_text(evaluation: Evaluation) -> str:
    """What the oracle reaches."""
    spread = evaluation.over_runs(lambda run: run.oracle.accuracy)
    cost = evaluation.over_runs(lambda run: run.oracle.flops)
    return (
        f"Oracle: leaving at the first exit that is right would reach {shown(spread)} at "
        f"{v.flops_text(float(cost.mean))}FLOPs per image; no rule for leaving gets above it."
    )


def overthinking_text(evaluation: Evaluation) -> str:
    """What is lost after an exit was right."""
    lost = evaluation.over_runs(lambda run: run.overthinking.destructive)
    spent = evaluation.over_runs(lambda run: run.overthinking.wasteful)
    return (
        f"Overthinking: {shown(lost)} of the images are right at an earlier exit and wrong at the "
        f"last (destructive); {shown(spent)} are right at an earlier exit and at the last "
        "(wasteful)."
    )


def teachers_text(evaluation: Evaluation) -> str:
    """The teachers' accuracies."""
    spread = evaluation.teachers()
    if spread is None:
        if any(run.teachers is None for run in evaluation.runs):
            return "Teachers: this file is older and does not hold their weights."
        return f"Teachers: {last_part(evaluation.config.scheme)} has none."
    listed = ", ".join(shown(spread, j) for j in range(len(spread.mean)))
    return f"Teachers: {listed}."


def write_evaluation(evaluation: Evaluation, path: Path | None = None) -> Path:
    """Writes the page of an evaluation, beside the run unless a path is given.

    Raises:
        InputError: A path that cannot be written.
    """
    path = evaluation.folder / FILE if path is None else path
    write_page(path, evaluation_page(evaluation))
    return path


def evaluation_page(evaluation: Evaluation) -> str:
    """The document."""
    parts = [
        ("cost", "What accuracy costs", _cost(evaluation)),
        ("leaving", "Where images leave", _leaving(evaluation)),
        ("calibration", "Calibration", _calibration(evaluation)),
        ("overthinking", "Overthinking", _overthinking(evaluation)),
        ("teachers", "Teachers", [paragraph(teachers_text(evaluation))]),
        ("facts", "Facts", _facts(evaluation)),
    ]
    parts = [(anchor, name, inside) for anchor, name, inside in parts if inside]
    config = evaluation.config
    n = len(evaluation.runs)
    top1 = evaluation.over_runs(lambda run: run.top1)
    best = int(np.argmax(top1.mean))
    lead = (
        f"The best exit, {best + 1}, is right on {shown(top1, best)} of {evaluation.images:,} "
        f"test images ({over_text(n)}). {oracle_text(evaluation)}"
    )
    named = (last_part(name) for name in (config.dataset, config.backbone, config.scheme))
    kicker = " · ".join(("evaluation", *named))
    header = tag(
        "header",
        tag("p", kicker, class_="kicker"),
        tag("h1", evaluation.folder.name),
        tag("p", lead, class_="verdict"),
    )
    links = [(anchor, name) for anchor, name, _ in parts]
    bodies = [section(anchor, name, *inside) for anchor, name, inside in parts]
    return page(f"{evaluation.folder.name} · automate", header, links, *bodies, footer())


def _cost(evaluation: Evaluation) -> list[Html]:
    caption = (
        "Up and left is better. Points: each exit answering for all images. Step: the time is up "
        "at that cost and the best exit so far answers. Crosses: the mean of the softmaxes of all "
        "exits up to there. Green: each image leaves at the first exit that is confident enough. "
        "Star: the oracle."
    )
    if len(evaluation.runs) > 1:
        caption += " Bars and band: one standard deviation over the seeds."
    return [
        figure(cost_figure(evaluation), caption, wide=True),
        table(*exit_rows(evaluation)),
        paragraph(
            f"Accuracy on {evaluation.images:,} test images, {over_text(len(evaluation.runs))}. "
            "MFLOPs: this exit's head alone, as the paper's Table 1 counts; with earlier heads: "
            "what inference that may stop at any of them pays.",
            kind="note",
        ),
    ]


def _leaving(evaluation: Evaluation) -> list[Html]:
    plot = shares_figure(evaluation)
    if plot is None:
        return [paragraph(budget_text(evaluation))]
    head, rows = budget_rows(evaluation)
    caption = "Share of the test images that leaves at each exit, over the budget."
    return [
        paragraph(budget_text(evaluation)),
        figure(plot, caption, wide=True),
        table(head, rows),
        paragraph(
            "Budgeted batch classification (Huang et al. 2018): for each p of a sweep, thresholds "
            "that let a share p^k / (p + ... + p^M) of the held-out images leave at exit k.",
            kind="note",
        ),
    ]


def _calibration(evaluation: Evaluation) -> list[Html]:
    caption = (
        "Accuracy against confidence, in 15 bins of equal width; bars below the dotted line: the "
        "exit is surer than it is right. Above each panel its expected calibration error "
        "(Guo et al. 2017)."
    )
    return [figure(reliability_figure(evaluation), caption, wide=True)]


def _overthinking(evaluation: Evaluation) -> list[Html]:
    if len(evaluation.costs) == 1:
        return []
    caption = "What becomes, by the last exit, of the images that an earlier exit has right."
    return [
        paragraph(overthinking_text(evaluation)),
        figure(overthinking_figure(evaluation), caption),
        paragraph("Destructive and wasteful as Kaya et al. 2019 have it.", kind="note"),
    ]


def _facts(evaluation: Evaluation) -> list[Html]:
    held = f"{evaluation.held:,}" if evaluation.held else "none"
    own: list[tuple[object, object]] = [
        ("folder", evaluation.folder),
        ("seeds", ", ".join(str(run.seed) for run in evaluation.runs)),
        ("test images, read for this page", f"{evaluation.images:,}"),
        ("held-out images for thresholds", held),
    ]
    fields = evaluation.config.model_dump(exclude={"seed"})
    return [
        definitions(own),
        tag("h3", "Configuration"),
        definitions([(name, "none" if x is None else x) for name, x in fields.items()]),
    ]
