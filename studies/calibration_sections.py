"""The report's part about a calibration: its sentences, its table and a figure."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies.calibrating import calibration_of
from studies.calibration import Calibration, Range
from studies.calibration_text import calibration_lines, head_of, row_of, shown, table_title
from studies.drawing import CHOSEN, FAINT, INK, exit_colours, faded, styled, upright
from studies.page import Html, figure, paragraph, table
from studies.plan import StudyPlan, is_front
from studies.view import View
from trainers.catalog import InputError


def calibration(view: View) -> list[Html]:
    """The section of the report; none of a study that is not made for it."""
    if view.plan.early_stopping or view.plan.experiment:
        return []
    try:
        found = calibration_of(view)
    except InputError as error:
        return [paragraph(str(error))] if view.plan.calibrates else []
    keeps = "in how many of a hundred searches stopping half of the trials there keeps the best"
    if is_front(view.plan.objective):
        keeps = "how many of a hundred networks of the final front a rung there keeps"
    caption = (
        "Above: how far the order of the configs after an epoch agrees with the order at the end "
        "(Kendall's tau: 1 the same, 0 none; the band is its 95 % interval), and "
        f"{keeps}. Below: how far runs of one config scatter within a search. Dotted: "
        "where the learning rate drops."
    )
    return [
        *(paragraph(line) for line in calibration_lines(found, view.plan)),
        figure(calibration_figure(found.best, view.plan), caption),
        paragraph(f"{table_title(found)}:", kind="note"),
        table(head_of(view.plan), [row_of(m, view.plan) for m in shown(found.best)]),
    ]


def calibration_figure(found: Calibration, plan: StudyPlan) -> go.Figure:
    """tau and what halving keeps by epoch, each up to 1; below the scatter of runs."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
    )
    epochs = [moment.epoch for moment in found.moments]
    sides, front = len(found.moments[0].taus), is_front(plan.objective)
    upper, lower = [exit_colours(4)[3]], [exit_colours(4)[1]]
    if front:
        upper = lower = exit_colours(sides)
    for side, colour in enumerate(upper):
        name = f"agreement (tau), exit {side + 1}" if front else "agreement (tau)"
        _band(figure, epochs, [moment.taus[side] for moment in found.moments], name, colour, 1)
    keeps = "a rung keeps of the front" if front else "halving keeps the best"
    share = "a rung after epoch %{x} keeps %{y:.0%} of the final front<extra></extra>"
    if not front:
        share = "halving after epoch %{x} keeps the best in %{y:.0%}<extra></extra>"
    figure.add_scatter(
        x=epochs,
        y=[round(moment.halved.kept, 3) for moment in found.moments],
        mode="lines",
        line={"color": CHOSEN, "width": 2, "dash": "dash"},
        hovertemplate=share,
        name=keeps,
        row=1,
        col=1,
    )
    scale = 1 if plan.objective == "hypervolume" else 100
    for side, colour in enumerate(lower if found.anywhere else []):
        name = f"scatter of runs, exit {side + 1}" if front else "scatter of runs"
        spreads = [moment.spreads[side] for moment in found.moments]
        scaled = [Range(*(scale * part for part in spread)) for spread in spreads]
        _band(figure, epochs, scaled, name, colour, 2, legend=not front)
    lines = [upright(e, panel, color=FAINT, dash="dot", width=1) for e in plan.base.milestones
             for panel in (1, 2)]  # fmt: skip
    if found.stops:
        rule = found.chosen.rule
        lines += [upright(e, 1, color=CHOSEN, width=1) for e in rule.rungs or (rule.grace,)]
    styled(figure, 460, showlegend=True, shapes=lines)
    figure.update_yaxes(title_text="share, tau", range=[min(-0.02, _lowest(found)), 1.03], row=1)
    unit = "hypervolume" if scale == 1 else "points"
    figure.update_yaxes(title_text=unit, rangemode="tozero", row=2)
    figure.update_xaxes(title_text="epoch", row=2)
    figure.update_xaxes(linecolor=INK, row=1)
    return figure


def _lowest(found: Calibration) -> float:
    return min(moment.tau.low for moment in found.moments)


def _band(
    figure: go.Figure,
    epochs: list[int],
    ranges: list[Range],
    name: str,
    colour: str,
    row: int,
    legend: bool = True,
) -> None:
    """A line with its 95 % interval as a band."""
    figure.add_scatter(
        x=[*epochs, *reversed(epochs)],
        y=[*(round(r.high, 4) for r in ranges), *(round(r.low, 4) for r in reversed(ranges))],
        fill="toself",
        fillcolor=faded(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=1,
    )
    figure.add_scatter(
        x=epochs,
        y=[round(r.value, 4) for r in ranges],
        mode="lines+markers" if len(epochs) <= 40 else "lines",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        hovertemplate=f"{name} after epoch %{{x}}: %{{y:.2f}}<extra></extra>",
        name=name,
        showlegend=legend,
        row=row,
        col=1,
    )
