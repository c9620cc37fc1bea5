"""A parameter against the accuracy of each exit (Figs. 8 to 10), and how much each one matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies import verdict as v
from studies.drawing import (
    CHOSEN,
    INK,
    SYMBOLS,
    describe,
    empty,
    exit_colours,
    frame,
    level,
    plot_text,
    styled,
)
from studies.learning_figures import Reports

if TYPE_CHECKING:
    from studies.states import Outcome

Sample = tuple["Outcome", tuple[float, ...]]
SMOOTH_FROM = 10
BANDWIDTH = 0.12
DASHES = ("solid", "dot", "dash")


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


@dataclass(frozen=True)
class Axis:
    """Where the values of one parameter lie: on a line, on a log line, or in a column each.

    Attributes:
        name: Of the parameter.
        low, high: Its smallest and largest value, if it is a number.
        log: Whether the axis is logarithmic.
        choices: Its values, if it is a choice.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: Sequence[Any], log: bool) -> Axis:
        """The axis that these values need."""
        if not is_numeric(values):
            return cls(name, choices=tuple(dict.fromkeys(map(str, values))))
        low, high = float(min(values)), float(max(values))
        return cls(name, low, high, log and low > 0)

    def places(self, samples: Sequence[Sample]) -> list[float]:
        """x of each sample; within the column of a choice they are spread a little."""
        values = [outcome.params[self.name] for outcome, _ in samples]
        if not self.choices:
            return [float(value) for value in values]
        spread = [0.4 * ((0.618 * outcome.number) % 1 - 0.5) for outcome, _ in samples]
        return [
            self.choices.index(str(value)) + shift
            for value, shift in zip(values, spread, strict=True)
        ]

    def look(self) -> dict[str, Any]:
        """The axis for plotly; a log one has ticks at 0.1, 0.3, 1, 3, ..., or tens alone."""
        if self.choices:
            names = [plot_text(choice, 24) for choice in self.choices]
            ends = [-0.5, len(names) - 0.5]
            return {"tickvals": list(range(len(names))), "ticktext": names, "range": ends}
        if not self.log:
            return {}
        low, high = log10(self.low), log10(self.high)
        look: dict[str, Any] = {"type": "log", "range": [low - 0.08, high + 0.08]}
        if high - low >= 0.6:
            steps = (1, 3) if high - low < 2.2 else (1,)
            exponents = range(floor(low), ceil(high) + 1)
            ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
            look |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
        return look


def full_length(outcomes: Sequence[Outcome], name: str) -> list[Sample]:
    """The finished trials that have the parameter, with the accuracies of their exits."""
    return [
        (outcome, outcome.report.accuracies)
        for outcome in v.finished(outcomes)
        if outcome.report is not None and name in outcome.params
    ]


def at_epoch(outcomes: Sequence[Outcome], reports: Reports, name: str, epoch: int) -> list[Sample]:
    """Every trial that has the parameter and came so far, with its accuracies there."""
    return [
        (outcome, report.accuracies)
        for outcome in outcomes
        if name in outcome.params
        for report in reports.get(outcome.number, ())
        if report.epoch == epoch and report.exits
    ]


def parameter_figure(
    outcomes: Sequence[Outcome],
    reports: Reports,
    name: str,
    log: bool = False,
    rung: int | None = None,
) -> go.Figure:
    """A panel per exit: one parameter against accuracy.

    Above the full-length trials. Below, where trials were stopped early, all of them at the first
    rung: the same epoch, so they compare, but an early one. A second parameter that is a choice of
    two or three (attention or gate, Fig. 10) is told apart by symbol.

    Args:
        outcomes: All trials.
        reports: Their epochs.
        name: The parameter.
        log: Whether its axis is logarithmic, as its distribution is.
        rung: Epoch of the first rung, if there is one.
    """
    done = full_length(outcomes, name)
    rows = {"full length": done}
    if rung is not None:
        early = at_epoch(outcomes, reports, name, rung)
        if len(early) > len(done):
            rows[f"epoch {rung}, all"] = early
    rows = {title: samples for title, samples in rows.items() if samples}
    if not rows:
        return empty("no full-length trial yet")
    every = [sample for samples in rows.values() for sample in samples]
    exits = max(len(accuracies) for _, accuracies in every)
    figure = make_subplots(
        len(rows),
        exits,
        column_titles=[f"exit {i + 1}" for i in range(exits)],
        shared_xaxes=True,
        horizontal_spacing=0.055,
        vertical_spacing=0.07,
    )
    axis = Axis.of(name, [outcome.params[name] for outcome, _ in every], log)
    lines: list[dict[str, Any]] = []
    for row, (title, samples) in enumerate(rows.items(), start=1):
        for i in range(exits):
            _draw_panel(figure, samples, axis, i, exits, {"row": row, "col": i + 1})
        lines += _mark(figure, samples, outcomes, axis, exits, row)
        figure.update_yaxes(title_text=f"accuracy (%), {title}", row=row, col=1)
    grouped = len(_groups(every, name)) > 1
    styled(
        figure,
        116 + 230 * len(rows),
        showlegend=grouped,
        margin={"l": 56, "r": 16, "t": 76 if grouped else 52, "b": 56},
        legend={"y": 1.06 + 0.06 / len(rows)},
        shapes=lines,
    )
    figure.update_xaxes(**axis.look())
    figure.update_xaxes(title_text=plot_text(name, 40), row=len(rows))
    figure.update_yaxes(title_font={"size": 12})
    return figure


def _draw_panel(
    figure: go.Figure, samples: Sequence[Sample], axis: Axis, i: int, exits: int,
    place: dict[str, int],
) -> None:  # fmt: skip
    """Points of one exit, a symbol for each group, and their running means."""
    colour = exit_colours(exits)[i]
    groups = _groups(samples, axis.name)
    for j, (group, members) in enumerate(groups.items()):
        members = [sample for sample in members if len(sample[1]) > i]
        symbol = SYMBOLS[j if len(groups) > 1 else i % len(SYMBOLS)]
        figure.add_scatter(
            x=axis.places(members),
            y=[round(100 * accuracies[i], 3) for _, accuracies in members],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.7},
            text=[f"<b>trial {o.number}</b><br>{describe(o)}" for o, _ in members],
            hovertemplate="%{text}<br>%{y:.2f} %<extra></extra>",
            name=group,
            legendgroup=group,
            showlegend=bool(group) and place == {"row": 1, "col": 1},
            **place,
        )
        if not axis.choices and len(members) >= SMOOTH_FROM:
            _add_mean(figure, members, axis, i, {"color": colour, "dash": DASHES[j]}, place)


def _mark(
    figure: go.Figure, samples: Sequence[Sample], outcomes: Sequence[Outcome], axis: Axis,
    exits: int, row: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """A ring around the network to take, and the shapes of the default's dashed lines.

    The ranges are set so that both are seen.
    """
    default, taken = v.reference(outcomes), v.recommended(outcomes)
    by_number = {outcome.number: (outcome, accuracies) for outcome, accuracies in samples}
    lines = []
    for i in range(exits):
        place = {"row": row, "col": i + 1}
        # Networks of a study may differ in how many exits they have.
        deep = {number: sample for number, sample in by_number.items() if len(sample[1]) > i}
        line = deep.get(default.number) if default is not None else None
        ring = deep.get(taken.number) if taken is not None else None
        if line is not None:
            panel = (row - 1) * exits + i + 1
            lines.append(level(100 * line[1][i], panel, color=INK, dash="dash", width=1.2))
        if ring is not None:
            figure.add_scatter(
                x=axis.places([ring]),
                y=[100 * ring[1][i]],
                mode="markers",
                marker={
                    "symbol": "circle-open",
                    "size": 14,
                    "color": CHOSEN,
                    "line": {"width": 2},
                },
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
        kept = [sample[1][i] for sample in (line, ring) if sample is not None]
        if deep:
            seen = [accuracies[i] for _, accuracies in deep.values()]
            figure.update_yaxes(range=frame(seen, kept), **place)
    return lines


def _groups(samples: Sequence[Sample], name: str) -> dict[str, list[Sample]]:
    """The trials by another parameter that is a choice of two or three; else all as one."""
    for other in parameter_names([outcome for outcome, _ in samples]):
        values = [outcome.params.get(other) for outcome, _ in samples]
        kinds = list(dict.fromkeys(str(value) for value in values))
        if other != name and not is_numeric(values) and 2 <= len(kinds) <= 3:
            return {
                plot_text(f"{other} = {group}"): [
                    sample for sample in samples if str(sample[0].params.get(other)) == group
                ]
                for group in sorted(kinds)
            }
    return {"": list(samples)}


def _add_mean(
    figure: go.Figure, members: Sequence[Sample], axis: Axis, i: int, line: dict[str, str],
    place: dict[str, int],
) -> None:  # fmt: skip
    x = np.array(axis.places(members), dtype=np.float64)
    x = np.log10(x) if axis.log else x
    if x.max() == x.min():
        return
    at = np.linspace(x.min(), x.max(), 60)
    y = 100 * np.array([accuracies[i] for _, accuracies in members])
    figure.add_scatter(
        x=(10**at if axis.log else at).round(6).tolist(),
        y=kernel_mean(x, y, at).round(3).tolist(),
        mode="lines",
        line={**line, "width": 2},
        opacity=0.55,
        hoverinfo="skip",
        showlegend=False,
        **place,
    )
