"""The paper's figures drawn from ours: the same axes, so that the two can be held side by side.

The paper's own numbers are hollow and grey, and are there only where it prints them. Methods have
one colour and one symbol everywhere; controls of ours are dashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies.drawing import (
    FAINT,
    INK,
    SYMBOLS,
    empty,
    exit_colours,
    faded,
    level,
    plot_text,
    styled,
)
from studies.experiments import Arm
from studies.measured import Measured, Run, gaps, smoothed

# line of arms: colour, symbol
LOOKS = {
    "baseline": ("rgb(128,136,148)", "x"),
    "branchynet": ("rgb(150,110,70)", "circle"),
    "byot": ("rgb(230,165,38)", "square"),
    "dks": ("rgb(18,144,111)", "diamond"),
    "eed": ("rgb(71,140,220)", "triangle-up"),
    "mate": ("rgb(192,57,75)", "star"),
    "mate_gate": ("rgb(71,86,200)", "diamond"),
    "mate_primary": ("rgb(176,74,154)", "cross"),
    "mate_fixed": ("rgb(176,74,154)", "pentagon"),
    "eed_matched": ("rgb(90,175,235)", "hexagon"),
    "diverse": ("rgb(18,144,111)", "pentagon"),
    "alpha_3": ("rgb(192,57,75)", "star"),  # MATE's default
    "alpha_5": ("rgb(230,165,38)", "square"),
    "alpha_10": ("rgb(71,140,220)", "triangle-up"),
    "alpha_30": ("rgb(150,110,70)", "circle"),
    "branchynet_autoaugment": ("rgb(128,136,148)", "square"),
    "mate_autoaugment": ("rgb(71,140,220)", "diamond"),
    "mate_t_squared": ("rgb(18,144,111)", "triangle-up"),
}
NOTHING = "no run of full length yet"
MARGIN = {"l": 56, "r": 16, "t": 72, "b": 48}
ACCURACY = "top-1 accuracy on test (%)"


def look(arm: Arm) -> dict[str, Any]:
    """Line, marker and legend of an arm; a sweep's arms share their line's."""
    colour, symbol = LOOKS.get(arm.line or arm.key, (INK, "circle"))
    return {
        "line": {"color": colour, "width": 2, "dash": "dot" if arm.ours else "solid"},
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "legendgroup": arm.line or arm.key,
    }


def _error(values: Sequence[float | None], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [value or 0 for value in values],
        "color": faded(colour, 0.6),
        "thickness": 1.2,
        "width": 3,
    }


def _panels(titles: Sequence[str], columns: int, **more: Any) -> tuple[go.Figure, int, int]:
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[plot_text(title) for title in titles],
        horizontal_spacing=0.07,
        vertical_spacing=min(0.28, 0.5 / rows),
        **more,
    )
    return figure, rows, columns


def cells_figure(measured: Sequence[Measured]) -> go.Figure:
    """Accuracy by exit, a line an arm and a panel a study (Tables 2, 3 and 6, Fig. 5)."""
    some = [one for one in measured if any(one.runs.values())]
    if not some:
        return empty(NOTHING)
    figure, rows, columns = _panels([one.title for one in some], 3)
    named: set[str] = set()
    for place, one in enumerate(some):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        names = [f"exit {i + 1}" for i in range(one.exits)]
        for arm in one.arms:
            stats = [one.accuracy(arm.key, i) for i in range(one.exits)]
            if not any(stats):
                continue
            style = look(arm)
            figure.add_scatter(
                x=names,
                y=[None if stat is None else round(stat.mean, 3) for stat in stats],
                error_y=_error(
                    [stat.std if stat else None for stat in stats], style["line"]["color"]
                ),
                mode="lines+markers",
                name=plot_text(arm.label),
                showlegend=arm.key not in named,
                hovertemplate=f"{plot_text(arm.label)}, %{{x}}: %{{y:.2f}} %<extra></extra>",
                **{**style, "legendgroup": arm.key},
                **where,
            )
            named.add(arm.key)
            printed = [one.cell(arm, i) for i in range(one.exits)]
            if any(printed):
                figure.add_scatter(
                    x=names,
                    y=[None if p is None else p.mean for p in printed],
                    mode="markers",
                    marker={**style["marker"], "symbol": style["marker"]["symbol"] + "-open"},
                    opacity=0.65,
                    name="hollow: the paper",
                    legendgroup=arm.key,
                    showlegend=False,
                    hovertemplate=f"paper, {arm.label}, %{{x}}: %{{y:.2f}} %<extra></extra>",
                    **where,
                )
    styled(figure, 110 + 330 * rows, showlegend=True, margin=MARGIN, legend=_legend(rows))
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text=ACCURACY, col=1)
    return figure


def _legend(rows: int) -> dict[str, Any]:
    """Above the panels' titles."""
    return {"y": 1 + 0.16 / rows}


def curves_figure(one: Measured) -> go.Figure:
    """Test accuracy of every exit over training, mean over seeds; each seed faintly (Fig. 3)."""
    arm = next((arm for arm in one.arms if one.runs[arm.key]), None)
    if arm is None:
        return empty(NOTHING)
    figure = go.Figure()
    runs = one.runs[arm.key]
    for i, colour in enumerate(exit_colours(one.exits)):
        lines = _lines(runs, i)
        epochs = [report.epoch for report in runs[0].reports][: lines.shape[1]]
        for line in lines if len(lines) > 1 else ():
            figure.add_scatter(
                x=epochs,
                y=line.round(3).tolist(),
                mode="lines",
                line={"color": colour, "width": 1},
                opacity=0.25,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=epochs,
            y=lines.mean(axis=0).round(3).tolist(),
            mode="lines+markers" if len(epochs) <= 40 else "lines",
            line={"color": colour, "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 5},
            name=f"exit {i + 1}",
            hovertemplate=f"exit {i + 1}, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
        )
    styled(figure, 400, showlegend=True)
    figure.update_xaxes(title_text="epoch", dtick=1 if one.plan.base.epochs <= 12 else None)
    figure.update_yaxes(title_text=ACCURACY)
    return figure


def _lines(runs: Sequence[Run], exit: int) -> np.ndarray:
    """(seeds, epochs) accuracy of an exit in %."""
    lines = [[100 * report.accuracies[exit] for report in run.reports] for run in runs]
    shortest = min(map(len, lines))
    return np.array([line[:shortest] for line in lines])


def gaps_figure(one: Measured) -> go.Figure:
    """Learning gaps over training, a panel an exit from shallow to deep, smoothed (Fig. 6)."""
    found = {arm.key: [gaps(run) for run in one.runs[arm.key]] for arm in one.arms}
    if not any(found.values()):
        return empty(NOTHING)
    figure = make_subplots(
        one.exits,
        1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        subplot_titles=[f"exit {i + 1}" for i in range(one.exits)],
    )
    named: set[str] = set()
    for i in range(one.exits):
        for arm in one.arms:
            lines = [line[:, i] for line in found[arm.key]]
            if not lines or np.isnan(lines[0]).any():
                continue
            shortest = min(map(len, lines))
            mean = np.mean([line[:shortest] for line in lines], axis=0)
            epochs = [r.epoch for r in one.runs[arm.key][0].reports][:shortest]
            style = look(arm)
            figure.add_scatter(
                x=epochs,
                y=smoothed(mean).round(3).tolist(),
                mode="lines+markers" if len(epochs) <= 12 else "lines",
                name=plot_text(arm.label),
                showlegend=arm.key not in named,
                hovertemplate=f"{arm.label}, epoch %{{x}}: %{{y:.2f}} points<extra></extra>",
                row=i + 1,
                col=1,
                **style,
            )
            named.add(arm.key)
    styled(
        figure,
        120 + 170 * one.exits,
        showlegend=True,
        margin=MARGIN,
        legend={"y": 1.06},
        shapes=[level(0, i + 1, color=FAINT, dash="dash", width=1) for i in range(one.exits)],
    )
    figure.update_xaxes(title_text="epoch", row=one.exits)
    figure.update_yaxes(title_text="gap (points)")
    return figure


def sweep_figure(measured: Sequence[Measured], name: str, log: bool) -> go.Figure:
    """Accuracy over a swept setting, a panel an exit, a row a study (Figs. 8 to 10).

    Args:
        measured: The studies.
        name: Of the x axis.
        log: Whether it is logarithmic.
    """
    some = [one for one in measured if any(one.runs.values())]
    if not some:
        return empty(NOTHING)
    columns = max(one.exits for one in some)
    figure = make_subplots(
        len(some),
        columns,
        subplot_titles=[
            f"{plot_text(one.title)}, exit {i + 1}" if len(some) > 1 else f"exit {i + 1}"
            for one in some
            for i in range(columns)
        ],
        horizontal_spacing=0.05,
        vertical_spacing=0.3 / len(some),
    )
    shapes, named = [], set[str]()
    ticks = sorted({arm.x for one in some for arm in one.arms if arm.x is not None})
    for row, one in enumerate(some):
        for i in range(one.exits):
            panel = row * columns + i + 1
            for line in dict.fromkeys(arm.line for arm in one.arms):
                arms = [arm for arm in one.arms if arm.line == line and one.accuracy(arm.key, i)]
                stats = [(arm.x, stat) for arm in arms if (stat := one.accuracy(arm.key, i))]
                if not stats:
                    continue
                label = arms[0].label.partition(", α =")[0].partition(", T =")[0]
                style = look(arms[0])
                colour = style["line"]["color"]
                dash = "dot" if line == "mate_gate" or arms[0].ours else "solid"
                if arms[0].x is None:  # not swept: a level line
                    shapes.append(level(stats[0][1].mean, panel, color=colour, width=1.5))
                    xs, ys, std = [ticks[-1]], [stats[0][1].mean], [stats[0][1].std]
                else:
                    stats.sort(key=lambda pair: pair[0] or 0.0)
                    xs = [x for x, _ in stats if x is not None]
                    ys, std = [s.mean for _, s in stats], [s.std for _, s in stats]
                if line == "mate" and log and 3.0 in xs:
                    three = ys[xs.index(3.0)]
                    shapes.append(level(three, panel, color=colour, dash="dash", width=1))
                figure.add_scatter(
                    x=xs,
                    y=np.round(ys, 3).tolist(),
                    error_y=_error(std, colour),
                    mode="lines+markers",
                    name=plot_text(label),
                    showlegend=line not in named,
                    hovertemplate=f"{label}, {name} %{{x}}: %{{y:.2f}} %<extra></extra>",
                    row=row + 1,
                    col=i + 1,
                    **{**style, "line": {**style["line"], "dash": dash}},
                )
                named.add(line)
    styled(
        figure,
        110 + 300 * len(some),
        showlegend=True,
        margin=MARGIN,
        legend=_legend(len(some)),
        shapes=shapes,
    )
    figure.update_xaxes(
        title_text=name, type="log" if log else "linear", tickvals=ticks,
        ticktext=[f"{x:g}" for x in ticks],
    )  # fmt: skip
    figure.update_yaxes(title_text=ACCURACY, col=1)
    return figure
