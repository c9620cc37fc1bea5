"""The front and the search, as plotly figures: pure functions of outcomes."""

from __future__ import annotations

from collections.abc import Sequence
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
    describe,
    exit_colours,
    flops_axis,
    frame,
    hovers_of,
    line_of,
    nothing,
    plot_text,
    styled,
)
from studies.front import deployable, envelope
from studies.plan import StudyPlan

if TYPE_CHECKING:
    from studies.states import Outcome


def front_figure(outcomes: Sequence[Outcome], plan: StudyPlan) -> go.Figure:
    """FLOPs against accuracy: envelope, deployable networks, the default, and the rest faintly."""
    figure = go.Figure()
    curves = v.curves(outcomes)
    title = {"text": f"Front of {plot_text(plan.study, 100)}", "x": 0, "xanchor": "left"}
    layout: dict[str, Any] = {"title": title, "margin": {"l": 56, "r": 16, "t": 116, "b": 56}}
    if not curves:
        return styled(figure, 200, title=title, annotations=[nothing("no full-length trial yet")])
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
            name=f"deployable: {len(others)} more networks that none beats as a whole"
            if len(others) > 1
            else "deployable: 1 more network that none beats as a whole",
            hoverinfo="skip",
        )
    if taken is not None:
        figure.add_scatter(
            **line_of(curves[taken.number]),
            mode="lines",
            line={"color": CHOSEN, "width": 4},
            opacity=0.8,
            name=f"deployable, the one to take: trial {taken.number}",
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[point.flops for point in best_points],
        y=[100 * point.accuracy for point in best_points],
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
        name="envelope (may need a different network for each point)",
        hoverinfo="skip",
    )
    hovers = {o.number: hovers_of(o, default) for o in v.finished(outcomes)}
    exits = max(len(points) for points in curves.values())
    for i, colour in enumerate(exit_colours(exits)):
        column = [points[i] for points in curves.values() if len(points) > i]
        ahead = [(p.trial, p.exit) in on_envelope for p in column]
        kept = [p.trial in whole for p in column]
        figure.add_scatter(
            x=[point.flops for point in column],
            y=[100 * point.accuracy for point in column],
            mode="markers",
            marker={
                "color": colour,
                "symbol": SYMBOLS[i % len(SYMBOLS)],
                "size": [11 if a else 8 if k else 6 for a, k in zip(ahead, kept, strict=True)],
                "opacity": [
                    1 if a else 0.8 if k else 0.3 for a, k in zip(ahead, kept, strict=True)
                ],
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
        )
    shown = [*whole, *([default.number] if default else [])]
    every = [point.accuracy for points in curves.values() for point in points]
    important = [point.accuracy for number in shown for point in curves[number]]
    styled(figure, 560, **layout)
    flops_axis(figure, (point.flops for points in curves.values() for point in points))
    figure.update_yaxes(title_text="accuracy on validation (%)", range=frame(every, important))
    return figure


def joint_figure(studies: Sequence[tuple[StudyPlan, Sequence[Outcome]]]) -> go.Figure:
    """The network to take of each study, in one plot."""
    figure = go.Figure()
    colours = exit_colours(max(len(studies), 2))
    drawn = []
    for i, (plan, outcomes) in enumerate(studies):
        taken = v.recommended(outcomes)
        if taken is None:
            continue
        points = v.curves(outcomes)[taken.number]
        drawn += points
        figure.add_scatter(
            **line_of(points),
            mode="lines+markers",
            line={"color": colours[i]},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9},
            text=hovers_of(taken, v.reference(outcomes)),
            hovertemplate="%{text}<extra></extra>",
            name=f"{plot_text(plan.study, 100)}: trial {taken.number}",
        )
    if not drawn:
        return styled(figure, 200, annotations=[nothing("no full-length trial yet")])
    styled(figure, 460, margin={"l": 56, "r": 16, "t": 80, "b": 56}, showlegend=True)
    flops_axis(figure, (point.flops for point in drawn))
    figure.update_yaxes(
        title_text="accuracy on validation (%)", range=frame(point.accuracy for point in drawn)
    )
    return figure


def progress_figure(outcomes: Sequence[Outcome], plan: StudyPlan) -> go.Figure:
    """The objective of each full-length trial in the order of the search, and the best so far."""
    done = sorted(v.finished(outcomes), key=lambda outcome: outcome.number)
    factor = 1 if plan.objective == "hypervolume" else 100
    values = [factor * (outcome.value or 0.0) for outcome in done]
    figure = go.Figure()
    if not done:
        return styled(figure, 200, annotations=[nothing("no full-length trial yet")])
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
    unit = "" if plan.objective == "hypervolume" else " (%)"
    styled(figure, 340, showlegend=True)
    figure.update_xaxes(title_text="trial")
    low, high = frame([value / 100 for value in values], [values[0] / 100])
    if plan.objective != "hypervolume":
        figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title_text=v.objective_name(plan.objective) + unit)
    return figure


def kind(outcome: Outcome) -> str:
    """What became of a trial, in words."""
    if outcome.state == "PRUNED":
        return "diverged" if outcome.diverged else "stopped early"
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
                marker={"color": colour, "line": {"width": 0}},
                text=[
                    f"<b>trial {o.number}</b>: {name} after {o.epochs} epochs<br>{describe(o)}"
                    for o in some
                ],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
                name=name,
            )
    for epoch in rungs:
        figure.add_hline(y=epoch, line={"color": INK, "dash": "dot", "width": 1})
    styled(figure, 320, showlegend=True, bargap=0.15)
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text="epochs", rangemode="tozero")
    return figure
