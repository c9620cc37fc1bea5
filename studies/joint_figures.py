"""Several studies on one front: what all of them together make possible, and what can be deployed.

Studies of different networks share the front; that their accuracies compare is for the caller to
know (the same data, hold-out and length).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from studies import verdict as v
from studies.drawing import (
    FAINT,
    INK,
    SYMBOLS,
    empty,
    exit_colours,
    flops_axis,
    frame,
    hovers_of,
    line_of,
    plot_text,
    styled,
)
from studies.figures import NOTHING
from studies.front import FrontPoint, deployable, front
from studies.plan import StudyPlan

if TYPE_CHECKING:
    from studies.states import Outcome


def joint_figure(
    studies: Sequence[tuple[StudyPlan, Sequence[Outcome]]], together: bool = True
) -> go.Figure:
    """The network to take of each study, and one front over all of them.

    Args:
        studies: Plans and their trials; those of full length are drawn.
        together: Whether their accuracies compare. If not, there is no front over all.
    """
    figure = go.Figure()
    colours = exit_colours(max(len(studies), 2))
    every = [v.curves(outcomes) for _, outcomes in studies]
    taken = [v.recommended(outcomes) for _, outcomes in studies]
    drawn = [point for curves in every for points in curves.values() for point in points]
    if not drawn:
        return empty(NOTHING)
    if together:
        best = joint_envelope([outcomes for _, outcomes in studies])
        figure.add_scatter(
            x=[point.flops for _, point in best],
            y=[100 * point.accuracy for _, point in best],
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
            name="envelope of all studies: may need a different network for each point",
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[point.flops for point in drawn],
            y=[100 * point.accuracy for point in drawn],
            mode="markers",
            marker={"color": FAINT, "size": 5},
            name="exits of all full-length trials",
            hoverinfo="skip",
        )
    whole = joint_deployable([outcomes for _, outcomes in studies]) if together else set()
    for i, ((plan, outcomes), outcome) in enumerate(zip(studies, taken, strict=True)):
        if outcome is None:
            continue
        name = f"{plot_text(plan.study, 100)}: trial {outcome.number}"
        if together and (i, outcome.number) not in whole:
            name += ", beaten by another study's network"
        figure.add_scatter(
            **line_of(every[i][outcome.number]),
            mode="lines+markers",
            line={"color": colours[i]},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9},
            text=hovers_of(outcome, v.reference(outcomes)),
            hovertemplate="%{text}<extra></extra>",
            name=name,
        )
    legend = {"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0, "font": {"size": 12}}
    styled(figure, 520, legend=legend, showlegend=True)
    flops_axis(figure, (point.flops for point in drawn))
    shown = [
        point.accuracy
        for curves, outcome in zip(every, taken, strict=True)
        if outcome is not None
        for point in curves[outcome.number]
    ]
    figure.update_yaxes(
        title_text="accuracy on validation (%)",
        range=frame((point.accuracy for point in drawn), shown),
    )
    return figure


def _joined(studies: Sequence[Sequence[Outcome]]) -> dict[tuple[int, int], list[FrontPoint]]:
    return {
        (place, number): points
        for place, outcomes in enumerate(studies)
        for number, points in v.curves(outcomes).items()
    }


def joint_envelope(studies: Sequence[Sequence[Outcome]]) -> list[tuple[int, FrontPoint]]:
    """(place of the study, point) of the front over every exit of every full-length trial."""
    # Trials of different studies have the same numbers: here they are counted through.
    joined = [
        (place, replace(point, trial=index))
        for index, ((place, _), points) in enumerate(_joined(studies).items())
        for point in points
    ]
    places = {point: place for place, point in reversed(joined)}
    return [(places[point], point) for point in front(point for _, point in joined)]


def joint_deployable(studies: Sequence[Sequence[Outcome]]) -> set[tuple[int, int]]:
    """(place of the study, trial) of the networks that no other of any study beats as a whole."""
    joined = _joined(studies)
    keys = list(joined)
    return {keys[index] for index in deployable(dict(enumerate(joined.values())))}
