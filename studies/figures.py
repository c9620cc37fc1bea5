"""The front and the search, as plotly figures: pure functions of outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from studies import verdict as v
from studies.drawing import (
    BROKEN,
    CHOSEN,
    FAINT,
    INK,
    STOPPED,
    SYMBOLS,
    count_axis,
    describe,
    empty,
    exit_colours,
    faded,
    flops_axis,
    frame,
    hovers_of,
    level,
    line_of,
    plot_text,
    styled,
)
from studies.front import deployable, envelope
from studies.plan import StudyPlan, ranked_by

if TYPE_CHECKING:
    from studies.states import Outcome

NOTHING = "no full-length trial yet"


def front_figure(outcomes: Sequence[Outcome], title: str | None = None) -> go.Figure:
    """FLOPs against accuracy: envelope, deployable networks, the default, and the rest faintly.

    Args:
        outcomes: All trials; those of full length are drawn.
        title: Over the figure, where it stands alone in a small frame.
    """
    figure = go.Figure()
    curves = v.curves(outcomes)
    layout: dict[str, Any] = {
        "margin": {"l": 56, "r": 16, "t": 48, "b": 56},
        "legend": {"traceorder": "normal"},
        "legend2": {"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0, "font": {"size": 12}},
    }
    if title is not None:
        text = {"text": plot_text(title, 120), "x": 0.02, "xanchor": "left", "font": {"size": 16}}
        layout |= {"title": text, "margin": {"l": 56, "r": 16, "t": 88, "b": 56}}
        # lower right, where a front leaves room
        layout["legend2"] = {"x": 1, "xanchor": "right", "y": 0.01, "yanchor": "bottom"}
        layout["legend2"] |= {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 11}}
    if not curves:
        return empty(NOTHING, **layout)
    default, taken = v.reference(outcomes), v.recommended(outcomes)
    best_points, whole = envelope(curves), deployable(curves)
    on_envelope = {(point.trial, point.exit) for point in best_points}
    others = [n for n in whole if taken is not None and n != taken.number]
    if others:
        lines = [line_of(curves[number]) for number in others]
        figure.add_scatter(
            x=[x for line in lines for x in line["x"]],
            y=[y for line in lines for y in line["y"]],
            mode="lines",
            line={"color": CHOSEN, "width": 1},
            opacity=0.5,
            name=f"deployable: {len(others)} more",
            legend="legend2",
            hoverinfo="skip",
        )
    if taken is not None:
        figure.add_scatter(
            **line_of(curves[taken.number]),
            mode="lines",
            line={"color": CHOSEN, "width": 4},
            opacity=0.8,
            name=f"deployable: trial {taken.number}, the one to take",
            legend="legend2",
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[point.flops for point in best_points],
        y=[100 * point.accuracy for point in best_points],
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
        name="envelope: may need a different network for each point",
        legend="legend2",
        hoverinfo="skip",
    )
    hovers = {o.number: hovers_of(o, default) for o in v.finished(outcomes)}
    exits = max(len(points) for points in curves.values())
    for i, colour in enumerate(exit_colours(exits)):
        column = [points[i] for points in curves.values() if len(points) > i]
        # the strongest first: the legend shows the look of the first
        column.sort(key=lambda p: ((p.trial, p.exit) not in on_envelope, p.trial not in whole))
        ahead = [(p.trial, p.exit) in on_envelope for p in column]
        strengths = [
            (1.0, 11) if first else (0.8, 8) if point.trial in whole else (0.3, 6)
            for first, point in zip(ahead, column, strict=True)
        ]
        figure.add_scatter(
            x=[point.flops for point in column],
            y=[100 * point.accuracy for point in column],
            mode="markers",
            marker={
                "color": [faded(colour, opacity) for opacity, _ in strengths],
                "size": [size for _, size in strengths],
                "symbol": SYMBOLS[i % len(SYMBOLS)],
                "line": {"width": 0},
            },
            text=[hovers[point.trial][i] for point in column],
            hovertemplate="%{text}<extra></extra>",
            name=f"exit {i + 1}",
        )
    if default is not None:
        figure.add_scatter(
            **line_of(curves[default.number]),
            mode="lines+markers",
            line={"color": INK, "width": 1.5, "dash": "dash"},
            marker={"symbol": "diamond-open", "size": 13, "color": INK, "line": {"width": 2}},
            text=hovers[default.number],
            hovertemplate="%{text}<extra></extra>",
            name=f"{v.reference_name(default)}: trial {default.number}",
            legend="legend2",
        )
    styled(figure, 580 if title is None else 440, **layout)
    flops_axis(figure, (point.flops for points in curves.values() for point in points))
    low, high = front_frame(outcomes)
    if title is not None:  # room for the legend
        low -= 0.35 * (high - low)
    figure.update_yaxes(title_text="accuracy on validation (%)", range=[low, high])
    return figure


def front_frame(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The front's range in %: the networks worth a look; some points may lie below."""
    curves, default = v.curves(outcomes), v.reference(outcomes)
    shown = [*deployable(curves), *([default.number] if default else [])]
    every = [point.accuracy for points in curves.values() for point in points]
    return frame(every, [point.accuracy for number in shown for point in curves[number]])


def progress_figure(outcomes: Sequence[Outcome], plan: StudyPlan) -> go.Figure:
    """The objective of each full-length trial in the order of the search, and the best so far."""
    done = sorted(v.finished(outcomes), key=lambda outcome: outcome.number)
    is_share = ranked_by(plan.objective) == "hypervolume"
    factor = 1 if is_share else 100
    values = [factor * (outcome.value or 0.0) for outcome in done]
    figure = go.Figure()
    if not done:
        return empty(NOTHING)
    figure.add_scatter(
        x=[outcome.number for outcome in done],
        y=np.maximum.accumulate(values).tolist(),
        mode="lines",
        line={"color": CHOSEN, "width": 2, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[outcome.number for outcome in done],
        y=values,
        mode="markers",
        marker={"color": exit_colours(4)[3], "size": 7, "opacity": 0.75},
        text=[f"<b>trial {o.number}</b><br>{describe(o)}" for o in done],
        hovertemplate="%{text}<br>%{y:.2f}<extra></extra>",
        name="full-length trial",
    )
    default = v.reference(outcomes)
    if default is not None and default.value is not None:
        figure.add_hline(
            y=factor * default.value,
            line={"color": INK, "dash": "dash", "width": 1.5},
            annotation={"text": v.reference_name(default), "font": {"size": 12}},
        )
    unit = "" if is_share else " (%)"
    styled(figure, 340, showlegend=True)
    count_axis(figure, len(outcomes))
    low, high = frame([value / 100 for value in values], [values[0] / 100])
    if not is_share:
        figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title_text=v.objective_name(plan.objective) + unit)
    return figure


def kind(outcome: Outcome) -> str:
    """What became of a trial, in words."""
    if outcome.state == "PRUNED":
        return v.state_name(outcome.state, outcome.diverged)
    return {"COMPLETE": "full length", "FAIL": "failed"}.get(outcome.state, "not finished")


def epochs_figure(outcomes: Sequence[Outcome], rungs: Sequence[int]) -> go.Figure:
    """Epochs that each trial took, by what became of it; the rungs are dotted.

    Args:
        outcomes: All trials.
        rungs: Epochs at which a trial may be stopped.
    """
    figure = go.Figure()
    colours = {
        "full length": CHOSEN,
        "stopped early": STOPPED,
        "diverged": BROKEN,
        "failed": "#7b2d26",
        "not finished": FAINT,
    }
    for name, colour in colours.items():
        some = [o for o in outcomes if kind(o) == name]
        if some:
            figure.add_bar(
                x=[o.number for o in some],
                y=[o.epochs for o in some],
                width=0.85,
                marker={"color": colour, "line": {"width": 0}},
                text=[
                    f"<b>trial {o.number}</b>: {name} after {o.epochs} epochs<br>{describe(o)}"
                    for o in some
                ],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
                name=name,
            )
    lines = [level(epoch, color=INK, dash="dot", width=1) for epoch in rungs]
    styled(figure, 320, showlegend=True, shapes=lines)
    count_axis(figure, len(outcomes))
    figure.update_yaxes(title_text="epochs", rangemode="tozero")
    return figure


def importance_figure(importances: Mapping[str, float]) -> go.Figure:
    """Share of the objective's variance that each parameter explains, largest on top."""
    if not importances:
        return empty("too few full-length trials")
    order = sorted(importances.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[round(share, 4) for _, share in order],
        y=[plot_text(name, 40) for name, _ in order],
        orientation="h",
        marker={"color": exit_colours(4)[3]},
        text=[f"{share:.2f}" for _, share in order],
        textposition="auto",
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    styled(figure, 110 + 32 * len(order), bargap=0.3)
    figure.update_xaxes(title_text="share of the variance explained", range=[0, 1])
    figure.update_yaxes(showgrid=False, linecolor=FAINT)
    return figure
