"""A parameter against the accuracy of each exit (Figs. 8 to 10), and how much each one matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies import verdict as v
from studies.drawing import (
    CHOSEN,
    FAINT,
    INK,
    STOPPED,
    SYMBOLS,
    describe,
    exit_colours,
    frame,
    nothing,
    plot_text,
    styled,
)

if TYPE_CHECKING:
    from studies.states import Outcome

SMOOTH_FROM = 10
BANDWIDTH = 0.12


def parameter_names(outcomes: Sequence[Outcome]) -> list[str]:
    """The study's parameters, in the order in which its trials name them."""
    return list(dict.fromkeys(name for outcome in outcomes for name in outcome.params))


def is_numeric(values: Sequence[object]) -> bool:
    """Whether a parameter is a number, not a choice among names."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)


def kernel_mean(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Mean of y around each place, with Gaussian weights; the width is a share of x's range."""
    width = BANDWIDTH * (x.max() - x.min())
    weights = np.exp(-0.5 * ((at[:, None] - x) / width) ** 2)
    smooth: np.ndarray = weights @ y / weights.sum(axis=1)
    return smooth


def parameter_figure(outcomes: Sequence[Outcome], name: str, log: bool = False) -> go.Figure:
    """A panel per exit: one parameter against accuracy, of the full-length trials.

    Where early stopping ended a trial, a cross lies on the floor: its accuracy is of an earlier
    epoch and not comparable. A second parameter that is a choice of two or three (attention or
    gate, Fig. 10) is told apart by symbol.

    Args:
        outcomes: All trials.
        name: The parameter.
        log: Whether its axis is logarithmic, as its distribution is.
    """
    done = [outcome for outcome in v.finished(outcomes) if name in outcome.params]
    if not done:
        return styled(go.Figure(), 160, annotations=[nothing("no full-length trial yet")])
    exits = max(len(o.report.exits) for o in done if o.report is not None)
    figure = make_subplots(
        1, exits, subplot_titles=[f"exit {i + 1}" for i in range(exits)], horizontal_spacing=0.055
    )
    numeric = is_numeric([outcome.params[name] for outcome in done])
    log = log and numeric and all(o.params[name] > 0 for o in done)
    groups = _groups(done, name)
    stopped = [o for o in outcomes if o.state == "PRUNED" and name in o.params]
    default, taken = v.reference(outcomes), v.recommended(outcomes)
    for i, colour in enumerate(exit_colours(exits)):
        place = {"row": 1, "col": i + 1}
        every = [_accuracy(o, i) for o in done]
        important = [_accuracy(o, i) for o in (default, taken) if o is not None]
        low, high = frame(every, [value / 100 for value in important])
        for j, (group, members) in enumerate(groups.items()):
            y = [_accuracy(o, i) for o in members]
            figure.add_scatter(
                x=_places(members, name, numeric),
                y=[100 * value for value in y],
                mode="markers",
                marker={"color": colour, "size": 7, "opacity": 0.7,
                        "symbol": SYMBOLS[(i + j if len(groups) == 1 else j) % len(SYMBOLS)]},
                text=[f"<b>trial {o.number}</b><br>{describe(o)}" for o in members],
                hovertemplate="%{text}<br>%{y:.2f} %<extra></extra>",
                name=group,
                legendgroup=group,
                showlegend=bool(group) and i == 0,
                **place,
            )  # fmt: skip
            if numeric and len(members) >= SMOOTH_FROM:
                dash = ("solid", "dot", "dash")[j]
                _add_mean(figure, members, name, i, log, {"color": colour, "dash": dash}, place)
        figure.add_scatter(
            x=_places(stopped, name, numeric),
            y=[low] * len(stopped),
            mode="markers",
            marker={"symbol": "x-thin", "size": 7, "line": {"color": STOPPED, "width": 1.5}},
            text=[f"<b>trial {o.number}</b>, stopped<br>{describe(o)}" for o in stopped],
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
            showlegend=False,
            **place,
        )
        if default is not None:
            line = {"color": INK, "dash": "dash", "width": 1.2}
            figure.add_hline(y=100 * _accuracy(default, i), line=line, **place)
        if taken is not None and name in taken.params:
            figure.add_scatter(
                x=_places([taken], name, numeric),
                y=[100 * _accuracy(taken, i)],
                mode="markers",
                marker={"symbol": "circle-open", "size": 14, "line": {"color": CHOSEN, "width": 2}},
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
        figure.update_yaxes(range=[low, high], **place)
    styled(figure, 300, showlegend=len(groups) > 1, margin={"l": 56, "r": 16, "t": 56, "b": 56})
    figure.update_layout(legend={"y": 1.14})
    figure.update_xaxes(title_text=plot_text(name, 40), type="log" if log else None)
    if not numeric:
        figure.update_xaxes(type="category", tickangle=-40)
    figure.update_yaxes(title_text="accuracy (%)", col=1)
    return figure


def _groups(done: Sequence[Outcome], name: str) -> dict[str, list[Outcome]]:
    """The trials by another parameter that is a choice of two or three; else all as one."""
    for other in parameter_names(done):
        values = [outcome.params.get(other) for outcome in done]
        kinds = list(dict.fromkeys(str(value) for value in values))
        if other != name and not is_numeric(values) and 2 <= len(kinds) <= 3:
            return {
                plot_text(f"{other} = {group}"): [
                    o for o in done if str(o.params.get(other)) == group
                ]
                for group in kinds
            }
    return {"": list(done)}


def _accuracy(outcome: Outcome, i: int) -> float:
    report = outcome.report
    return report.exits[i].accuracy if report is not None and len(report.exits) > i else 0.0


def _places(outcomes: Sequence[Outcome], name: str, numeric: bool) -> list[Any]:
    values = [outcome.params[name] for outcome in outcomes]
    return values if numeric else [plot_text(value, 24) for value in values]


def _add_mean(
    figure: go.Figure, members: Sequence[Outcome], name: str, i: int, log: bool,
    line: dict[str, str], place: dict[str, int],
) -> None:  # fmt: skip
    x = np.array([outcome.params[name] for outcome in members], dtype=np.float64)
    x = np.log10(x) if log else x
    if x.max() == x.min():
        return
    at = np.linspace(x.min(), x.max(), 60)
    y = 100 * np.array([_accuracy(outcome, i) for outcome in members])
    figure.add_scatter(
        x=(10**at if log else at).round(6).tolist(),
        y=kernel_mean(x, y, at).round(3).tolist(),
        mode="lines",
        line={**line, "width": 2},
        opacity=0.55,
        hoverinfo="skip",
        showlegend=False,
        **place,
    )


def importance_figure(importances: Mapping[str, float]) -> go.Figure:
    """Share of the objective's variance that each parameter explains, largest on top."""
    if not importances:
        return styled(go.Figure(), 160, annotations=[nothing("too few full-length trials")])
    order = sorted(importances.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[share for _, share in order],
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
