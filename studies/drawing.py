"""The look that all figures share: colours, symbols, axes, ranges, and texts made safe.

Exits have one colour and one symbol everywhere, from amber (shallow) to blue (deep); the palette is
told apart under the three common colour-blindnesses, and the symbols do without colour. Everything
that a user can name passes `plot_text`, because plotly reads a little HTML in texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from studies import verdict as v
from studies.front import FrontPoint

if TYPE_CHECKING:
    from studies.states import Outcome

ANCHORS = ((230, 165, 38), (226, 109, 90), (176, 74, 154), (71, 86, 200))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "cross")
INK, FAINT, GRID = "#6f7782", "rgba(128,136,148,0.45)", "rgba(128,136,148,0.20)"
CHOSEN, STOPPED, BROKEN = "#12906f", "#a9907a", "#c0392b"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def exit_colours(exits: int) -> list[str]:
    """One colour an exit, shallow first."""
    places = np.linspace(0, len(ANCHORS) - 1, exits) if exits > 1 else np.array([3.0])
    channels = np.array(ANCHORS, dtype=np.float64).T
    table = [np.interp(places, range(len(ANCHORS)), channel) for channel in channels]
    return [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in zip(*table, strict=True)]


def faded(colour: str, opacity: float) -> str:
    """The colour of `exit_colours`, see-through."""
    return colour.replace("rgb(", "rgba(").replace(")", f",{opacity:g})")


def plot_text(text: object, most: int = 60) -> str:
    """Text of a user's, safe inside a plotly text; long ones are cut."""
    line = str(text)
    return escape(line if len(line) <= most else line[: most - 3] + "...", quote=False)


AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "showline": True,
    "linecolor": FAINT,
    "ticks": "outside",
    "tickcolor": FAINT,
    "automargin": True,
}
# Transparent, so that light and dark pages both work.
LOOK = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": INK},
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": FAINT, "activecolor": INK},
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "x": 0,
            "font": {"size": 12},
        },
        "xaxis": AXIS,
        "yaxis": AXIS,
    }
)


def styled(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The figure with the look that all share."""
    margin = {"l": 56, "r": 16, "t": 40, "b": 48}
    figure.update_layout(**{"template": LOOK, "height": height, "margin": margin, **layout})
    return figure


def level(y: float, panel: int = 1, **line: Any) -> dict[str, Any]:
    """A level line across a panel, counted from 1 in reading order, as a shape of a layout."""
    n = "" if panel == 1 else str(panel)
    return {
        "type": "line",
        "xref": f"x{n} domain",
        "yref": f"y{n}",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "line": line,
    }


def upright(x: float, panel: int = 1, **line: Any) -> dict[str, Any]:
    """An upright line through a panel, as `level`."""
    n = "" if panel == 1 else str(panel)
    return {
        "type": "line",
        "xref": f"x{n}",
        "yref": f"y{n} domain",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "line": line,
    }


def frame(values: Iterable[float], important: Iterable[float] = ()) -> tuple[float, float]:
    """A range in % that shows the upper part well, and all that is important.

    A search tries settings that fail; on a range with all of them the good ones would lie on one
    line. What falls below is seen after a double click.
    """
    percents = np.array([100 * value for value in values])
    top, bottom = percents.max(), percents.min()
    floor = max(bottom, top - 4 * max(top - float(np.median(percents)), 0.5))
    low = min([floor, *(100 * value for value in important)])
    margin = max(0.06 * (top - low), 0.2)
    return low - margin, top + margin


def describe(outcome: Outcome) -> str:
    """What was tried, one parameter a line, for hovers."""
    params: Mapping[str, Any] = outcome.params
    if not params and outcome.config is not None:
        params = {"scheme": outcome.config.scheme, "alpha": outcome.config.alpha}
    lines = [f"{plot_text(n)} = {plot_text(v.number_text(x))}" for n, x in params.items()]
    return "<br>".join(lines[:12] + (["..."] if len(lines) > 12 else []))


def hovers_of(outcome: Outcome, default: Outcome | None) -> list[str]:
    report = outcome.report
    assert report is not None
    name = f"trial {outcome.number}"
    if default is not None and outcome.number == default.number:
        name += f", {v.reference_name(default)}"
    return [
        f"<b>{name}, exit {point.exit}</b><br>{v.percent(point.accuracy)} at "
        f"{v.flops_text(point.flops)}FLOPs (with the earlier heads "
        f"{v.flops_text(point.flops_cascade)})<br>{describe(outcome)}"
        for point in report.exits
    ]


def flops_axis(figure: go.Figure, flops: Iterable[float]) -> None:
    """A log axis with a tick at each column of the study, or at 1, 2, 5, 10, ..."""
    columns = sorted(set(flops))
    title = "FLOPs per image up to this exit (log scale)"
    low, high = np.log10(max(columns[0], 1)), np.log10(max(columns[-1], 1))
    margin = 0.06 * (high - low) + 0.02
    figure.update_xaxes(type="log", range=[low - margin, high + margin], title_text=title)
    if len(columns) > 6:
        columns = [d * 10.0**e for e in range(int(low), int(high) + 1) for d in (1, 2, 5)]
    figure.update_xaxes(tickvals=columns, ticktext=[_tick(column) for column in columns])


def _tick(flops: float) -> str:
    """`99 M`: short, so that close columns do not overlap."""
    return f"{flops / 1e6:.3g} M" if flops >= 1e6 else f"{flops / 1e3:.3g} k"


def line_of(points: Sequence[FrontPoint]) -> dict[str, list[float | None]]:
    """x and y of a network's line, with a gap behind it."""
    return {
        "x": [*(point.flops for point in points), None],
        "y": [*(100 * point.accuracy for point in points), None],
    }


def empty(text: str, **layout: Any) -> go.Figure:
    """A figure that has nothing to show yet, and says so."""
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    note = {"text": text, "font": {"size": 15}, **place}
    figure = styled(go.Figure(), 160, **{**layout, "annotations": [note]})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def count_axis(figure: go.Figure, count: int) -> None:
    """An x axis of trial numbers, at least ten wide."""
    step = {"dtick": 1} if count <= 20 else {}
    figure.update_xaxes(title_text="trial", range=[-0.7, max(count, 10) - 0.3], **step)
