"""A trained run in figures: what accuracy costs, where images leave, calibration, overthinking."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies import verdict as v
from studies.drawing import (
    BROKEN,
    CHOSEN,
    FAINT,
    INK,
    SYMBOLS,
    exit_colours,
    faded,
    flops_axis,
    styled,
)
from studies.evaluate import Evaluation, Spread
from trainers import quality

COST = "mean FLOPs per image, earlier heads included"
BUDGET, ENSEMBLE = CHOSEN, "#8a6d3b"


def _bars(spread: Spread, colour: str, *place: int) -> dict[str, object]:
    """Error bars of one standard deviation, in %; none of a single run."""
    array = np.atleast_1d(100 * spread.std[place])
    return {"array": array, "visible": spread.n > 1, "thickness": 1.2, "color": colour}


def cost_figure(evaluation: Evaluation) -> go.Figure:
    """Accuracy against cost: the exits, alone, in time, together, within a budget; the oracle."""
    figure = go.Figure()
    flops = [cost.flops_cascade for cost in evaluation.costs]
    top1 = evaluation.over_runs(lambda run: run.top1)
    best = evaluation.over_runs(lambda run: quality.anytime(run.top1.tolist()))
    joint = evaluation.over_runs(lambda run: run.ensembles)
    oracle = evaluation.over_runs(lambda run: (run.oracle.flops, run.oracle.accuracy))
    figure.add_scatter(
        x=flops,
        y=100 * best.mean,
        mode="lines",
        line={"color": FAINT, "width": 2, "shape": "hv"},
        hoverinfo="skip",
        name="anytime: the best exit so far",
    )
    grid = evaluation.grid()
    curve = evaluation.budget(grid)
    if curve is not None:
        mean, std = 100 * curve[0].mean, np.nan_to_num(100 * curve[0].std)
        if curve[0].n > 1:
            figure.add_scatter(
                x=[*grid, *grid[::-1]],
                y=[*(mean + std), *(mean - std)[::-1]],
                fill="toself",
                fillcolor="rgba(18,144,111,0.15)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=grid,
            y=mean,
            mode="lines",
            line={"color": BUDGET, "width": 3},
            hovertemplate="budget %{x:.4s}FLOPs: %{y:.2f} %<extra></extra>",
            name="budget: each image leaves when confident",
        )
    figure.add_scatter(
        x=flops,
        y=100 * joint.mean,
        error_y=_bars(joint, ENSEMBLE),
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"color": ENSEMBLE, "width": 2}},
        hovertemplate="mean of exits 1 to here: %{y:.2f} %<extra></extra>",
        name="mean of the exits up to here",
    )
    for i, colour in enumerate(exit_colours(len(flops))):
        figure.add_scatter(
            x=[flops[i]],
            y=[100 * top1.mean[i]],
            error_y=_bars(top1, colour, i),
            mode="markers",
            marker={"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 11},
            hovertemplate=f"exit {i + 1}: %{{y:.2f}} % at {v.flops_text(flops[i])}FLOPs"
            "<extra></extra>",
            name=f"exit {i + 1}",
        )
    figure.add_scatter(
        x=[oracle.mean[0]],
        y=[100 * oracle.mean[1]],
        mode="markers",
        marker={"color": INK, "symbol": "star-open", "size": 13},
        hovertemplate="oracle: %{y:.2f} % at %{x:.4s}FLOPs<extra></extra>",
        name="oracle: the first exit that is right",
    )
    styled(figure, 480, showlegend=True, margin={"l": 56, "r": 16, "t": 84, "b": 48})
    flops_axis(figure, flops)
    figure.update_xaxes(title_text=f"{COST} (log scale)")
    figure.update_yaxes(title_text="top-1 accuracy on test (%)")
    return figure


def shares_figure(evaluation: Evaluation) -> go.Figure | None:
    """The share of images that leaves at each exit, over the budget; None without thresholds."""
    grid = evaluation.grid()
    curve = evaluation.budget(grid)
    if curve is None:
        return None
    figure = go.Figure()
    for i, colour in enumerate(exit_colours(len(evaluation.costs))):
        figure.add_scatter(
            x=grid,
            y=100 * curve[2].mean[:, i],
            mode="lines",
            stackgroup="one",
            line={"color": colour, "width": 1},
            fillcolor=faded(colour, 0.55),
            hovertemplate=f"exit {i + 1}: %{{y:.1f}} % at %{{x:.4s}}FLOPs<extra></extra>",
            name=f"exit {i + 1}",
        )
    styled(figure, 360, showlegend=True)
    figure.update_xaxes(title_text=COST, range=[grid[0], grid[-1]], tickformat=".3s")
    figure.update_yaxes(title_text="share of the images (%)", range=[0, 100])
    return figure


def reliability_figure(evaluation: Evaluation) -> go.Figure:
    """Accuracy against confidence, a panel an exit, all runs pooled; below the line: too sure."""
    exits = len(evaluation.costs)
    columns = min(exits, 5)
    rows = math.ceil(exits / columns)
    errors = evaluation.errors()
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[f"exit {i + 1}: {v.percent(errors.mean[i])}" for i in range(exits)],
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.2,
    )
    diagrams = [run.reliability for run in evaluation.runs]
    count = np.sum([diagram.images for diagram in diagrams], axis=0)
    hits = np.sum([np.nan_to_num(d.accuracy) * d.images for d in diagrams], axis=0)
    sure = np.sum([np.nan_to_num(d.confidence) * d.images for d in diagrams], axis=0)
    bins = count.shape[1]
    middle = (np.arange(bins) + 0.5) / bins
    for i, colour in enumerate(exit_colours(exits)):
        some = count[i] > 0
        place = {"row": i // columns + 1, "col": i % columns + 1}
        figure.add_scatter(
            x=[0, 1], y=[0, 100], mode="lines", line={"color": INK, "dash": "dot", "width": 2},
            hoverinfo="skip", showlegend=False, **place,
        )  # fmt: skip
        figure.add_bar(
            x=middle[some],
            y=100 * hits[i, some] / count[i, some],
            width=0.92 / bins,
            marker={"color": faded(colour, 0.75)},
            customdata=np.column_stack(
                (100 * sure[i, some] / count[i, some], count[i, some] / len(diagrams))
            ),
            hovertemplate="accuracy %{y:.1f} %, confidence %{customdata[0]:.1f} %, "
            "%{customdata[1]:.0f} images<extra></extra>",
            showlegend=False,
            **place,
        )
    styled(figure, 80 + 280 * rows, margin={"l": 56, "r": 16, "t": 64, "b": 48})
    figure.update_xaxes(range=[0, 1], tickvals=[0.2, 0.5, 0.8], ticktext=["20", "50", "80"])
    figure.update_xaxes(title_text="confidence (%)", row=rows)
    figure.update_yaxes(range=[0, 100])
    figure.update_yaxes(title_text="accuracy (%)", col=1)
    return figure


def overthinking_figure(evaluation: Evaluation) -> go.Figure:
    """Of the images that an exit has right: what becomes of them by the last exit."""
    figure = go.Figure()
    lost = evaluation.over_runs(lambda run: run.overthinking.by_exit[:-1])
    kept = evaluation.over_runs(lambda run: run.top1[:-1] - run.overthinking.by_exit[:-1])
    names = [f"exit {i + 1}" for i in range(len(lost.mean))]
    for name, spread, colour, place in (
        ("right here and at the last exit", kept, faded("rgb(18,144,111)", 0.7), "inside"),
        ("right here, wrong at the last exit (destructive)", lost, BROKEN, "outside"),
    ):
        figure.add_bar(
            x=names,
            y=100 * spread.mean,
            marker={"color": colour},
            text=[f"{100 * share:.1f} %" for share in spread.mean],
            textposition=place,
            insidetextfont={"color": "#ffffff"},
            hovertemplate="%{x}: %{y:.2f} % of the images<extra></extra>",
            name=name,
        )
    styled(figure, 340, barmode="stack", showlegend=True)
    figure.update_yaxes(title_text="share of the images (%)", range=[0, 108])
    return figure
