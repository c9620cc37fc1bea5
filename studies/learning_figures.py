"""Accuracy over epochs: the exits of one network (Fig. 3), and each exit over all trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies import verdict as v
from studies.drawing import (
    FAINT,
    INK,
    STOPPED,
    SYMBOLS,
    describe,
    empty,
    exit_colours,
    styled,
    upright,
)
from studies.front import deployable
from trainers.reports import EpochReport

if TYPE_CHECKING:
    from studies.states import Outcome

Reports = Mapping[int, Sequence[EpochReport]]
Line = tuple[list[int], list[float]]
MOST_CURVES, MOST_EPOCHS = 60, 75


def thinned(reports: Sequence[EpochReport], most: int = MOST_EPOCHS) -> list[EpochReport]:
    """At most so many of the reports that have accuracies, evenly, first and last kept."""
    full = [report for report in reports if report.exits]
    if len(full) <= most:
        return full
    places = np.unique(np.linspace(0, len(full) - 1, most).round().astype(int))
    return [full[place] for place in places]


def accuracy_line(reports: Sequence[EpochReport], exit_index: int) -> Line:
    """Epochs, and the accuracy in % of one exit (from 0)."""
    some = [report for report in thinned(reports) if len(report.exits) > exit_index]
    return [r.epoch for r in some], [round(100 * r.exits[exit_index].accuracy, 3) for r in some]


def chosen_trials(outcomes: Sequence[Outcome], most: int = MOST_CURVES) -> list[int]:
    """Numbers of the trials whose curves are drawn: all, or the best, the default, the networks
    that none beats, and an even choice of the others."""
    begun = sorted(outcome.number for outcome in outcomes if outcome.epochs)
    if len(begun) <= most:
        return begun
    first = [o for o in (v.recommended(outcomes), v.reference(outcomes)) if o is not None]
    kept = dict.fromkeys([o.number for o in first] + deployable(v.curves(outcomes))[: most // 4])
    others = [number for number in begun if number not in kept]
    places = np.linspace(0, len(others) - 1, most - len(kept)).round().astype(int)
    return sorted([*kept, *(others[place] for place in np.unique(places))])


def exits_figure(reports: Sequence[EpochReport]) -> go.Figure:
    """Accuracy of each exit of one network over its epochs (the paper's Fig. 3)."""
    figure = go.Figure()
    seen = thinned(reports, 300)
    if not seen:
        return empty("no epoch yet")
    exits = len(seen[-1].exits)
    for i, colour in enumerate(exit_colours(exits)):
        epochs, accuracy = accuracy_line(seen, i)
        figure.add_scatter(
            x=epochs,
            y=accuracy,
            mode="lines+markers" if len(epochs) <= 40 else "lines",
            line={"color": colour, "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 5},
            hovertemplate=f"exit {i + 1}, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
            name=f"exit {i + 1}",
        )
    styled(figure, 380, showlegend=True)
    figure.update_xaxes(title_text="epoch", dtick=1 if seen[-1].epoch <= 12 else None)
    figure.update_yaxes(title_text="accuracy on validation (%)")
    return figure


def _joined(lines: Sequence[Line]) -> dict[str, list[float | None]]:
    """Many lines as one trace, which draws far faster than a trace each."""
    x: list[float | None] = []
    y: list[float | None] = []
    for epochs, accuracy in lines:
        x += [*epochs, None]
        y += [*accuracy, None]
    return {"x": x, "y": y}


def _up_to(line: Line, epoch: int) -> Line:
    """The line as far as an epoch."""
    count = sum(x <= epoch for x in line[0])
    return line[0][:count], line[1][:count]


def _from(line: Line, epoch: int) -> Line:
    """The line from the last point up to an epoch on."""
    count = max(0, sum(x <= epoch for x in line[0]) - 1)
    return line[0][count:], line[1][count:]


def learning_figure(
    outcomes: Sequence[Outcome], reports: Reports, rungs: Sequence[int]
) -> go.Figure:
    """A panel per exit: the network to take, the default, full-length and stopped trials."""
    shown = set(chosen_trials(outcomes))
    exits = max((len(r.exits) for n in shown for r in reports.get(n, ())), default=0)
    if not exits:
        return empty("no epoch yet")
    columns = min(exits, 4)
    rows = -(-exits // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[f"exit {i + 1}" for i in range(exits)],
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.16,
    )
    done = {outcome.number for outcome in v.finished(outcomes)}
    taken, default = v.recommended(outcomes), v.reference(outcomes)
    texts = {o.number: describe(o) for o in outcomes}
    stopped = [o.number for o in outcomes if o.state == "PRUNED" and o.number in shown]
    ran_on = {o.number: o.run_on for o in outcomes if o.run_on is not None and o.number in shown}
    dotted = {"color": STOPPED, "width": 1, "dash": "dot"}
    for i, colour in enumerate(exit_colours(exits)):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        whole = {number: accuracy_line(reports.get(number, ()), i) for number in shown}
        lines = {n: whole[n] if n not in ran_on else _up_to(whole[n], ran_on[n]) for n in shown}

        def add(
            numbers: list[int],
            name: str,
            line: dict[str, object],
            opacity: float,
            lines: dict[int, Line] = lines,
            place: dict[str, int] = place,
        ) -> None:
            some = [lines[number] for number in numbers if lines[number][0]]
            if some:
                figure.add_scatter(
                    **_joined(some), mode="lines", line=line, opacity=opacity, name=name,
                    legendgroup=name, showlegend=place == {"row": 1, "col": 1},
                    hoverinfo="skip", **place,
                )  # fmt: skip

        full = [number for number in sorted(done & shown)]
        going = [number for number in sorted(shown - done) if number not in stopped]
        add(stopped, "stopped early (× where)", {"color": STOPPED, "width": 1}, 0.5)
        after = {number: _from(whole[number], ran_on[number]) for number in ran_on}
        add(list(after), "ran on outside the search", dotted, 0.8, lines=after)
        add(going, "not finished", {"color": FAINT, "width": 1}, 0.7)
        add(full, "full length", {"color": colour, "width": 1}, 0.35)
        ends = [(number, lines[number]) for number in stopped if lines[number][0]]
        figure.add_scatter(
            x=[line[0][-1] for _, line in ends],
            y=[line[1][-1] for _, line in ends],
            mode="markers",
            marker={"symbol": "x-thin", "size": 5, "line": {"color": STOPPED, "width": 1.2}},
            text=[f"<b>trial {number}</b>, stopped<br>{texts[number]}" for number, _ in ends],
            hovertemplate="%{text}<br>%{y:.2f} % at epoch %{x}<extra></extra>",
            showlegend=False,
            **place,
        )
        if default is not None:
            line = {"color": INK, "width": 2, "dash": "dash"}
            add([default.number], v.reference_name(default), line, 1.0)
        if taken is not None:
            add([taken.number], f"trial {taken.number}", {"color": colour, "width": 3}, 1.0)
    styled(
        figure,
        90 + 300 * rows,
        showlegend=True,
        margin={"l": 56, "r": 16, "t": 72, "b": 48},
        legend={"y": 1.1 if rows == 1 else 1.06},
        shapes=[
            upright(epoch, panel, color=FAINT, dash="dot", width=1)
            for panel in range(1, exits + 1)
            for epoch in rungs
        ],
    )
    figure.update_xaxes(title_text="epoch", row=rows)
    figure.update_yaxes(title_text="accuracy on validation (%)", col=1)
    return figure
