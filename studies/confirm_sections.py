"""The report's part on a confirmation: the verdict, its tables, and the front with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from studies import conclusions as say
from studies import verdict as v
from studies.comparison import Difference
from studies.confirmation import Confirmation
from studies.confirmed import Estimate, Judgement
from studies.drawing import CHOSEN, FAINT, INK, flops_axis, plot_text, styled
from studies.page import Html, figure, paragraph, table, tag

GREYS = ("#4b6cb7", "#a0522d", "#7a5195", "#2f7f86")  # of finalists that are neither


def confirmation_parts(c: Confirmation | None) -> list[Html]:
    """Verdict, tables and figure; nothing without a confirmation."""
    if c is None:
        return []
    first, *rest = say.sentences(c)
    parts = [paragraph(first, kind="lead"), *(paragraph(text) for text in rest)]
    if c.judged is None:
        return parts
    parts += [paragraph(say.NOTE, kind="note"), _raced(c, c.judged)]
    parts.append(
        paragraph(
            f"The marked row is the one to take. {_race(c)} A config leaves the race because its "
            "results were low; testing those same results against the default would be circular.",
            kind="note",
        )
    )
    if c.tested is not None:
        parts += [tag("h3", "On the test images"), _tested(c, c.judged, c.tested)]
    parts += [tag("h3", "The front, with what is not known of it"), *front_parts(c)]
    return parts


def _race(c: Confirmation) -> str:
    race, base = c.plan.race or (), c.plan.base
    return (
        f"Candidates a round beside {c.rows[0].name}: {', '.join(map(str, race))}. "
        f"{v.count_text(c.runs, 'run')} of {v.count_text(base.epochs, 'epoch')}, of a whole "
        f"grid's {len(c.rows) * len(race)}. Seeds {base.seed} to {base.seed + len(race) - 1}, "
        f"hold-outs drawn with the seeds {base.split_seed} to "
        f"{base.split_seed + len(race) - 1}; the search used none of them."
    )


def _raced(c: Confirmation, judged: Judgement) -> Html:
    exits = c.exits.shape[2]
    head = ["config", "runs", f"{v.objective_name(c.plan.objective)}{say.unit(c)}", "expected"]
    head += [f"against {c.rows[0].name}{say.points(c)}", "95 % interval", "p"]
    head += ["the search said"]
    head += [f"exit\u00a0{k + 1} %" for k in range(exits)]
    order, rows = say.ordered(c, judged), []
    for row in order:
        rows.append(
            [
                c.rows[row].name,
                str(c.rounds[row]),
                say.value_cell(c, judged.means[row]),
                say.number(c, judged.expected[row]),
                *_compared(c, judged.difference(row)),
                say.said_cell(c, row),
                *(say.cell(mean) for mean in c.points.means[row]),
            ]
        )
    return table(head, rows, [order.index(judged.chosen)])


def _tested(c: Confirmation, judged: Judgement, tested: Judgement) -> Html:
    exits = c.exits.shape[2]
    head = ["config", "runs", f"{v.objective_name(c.plan.objective)}{say.unit(c)}"]
    head += [f"against {c.rows[0].name}{say.points(c)}", "95 % interval", "p"]
    head += [f"exit\u00a0{k + 1} %" for k in range(exits)]
    rows = [
        [
            c.rows[row].name,
            str(tested.means[place].n),
            say.value_cell(c, tested.means[place]),
            *_compared(c, tested.difference(place)),
            *(say.cell(mean) for mean in c.test_points.means[place]),
        ]
        for place, row in enumerate(judged.finalists)
    ]
    return table(head, rows, [judged.finalists.index(judged.chosen)])


def _compared(c: Confirmation, one: Difference | None) -> list[str]:
    """Difference, interval and p of a row."""
    if one is None:
        return ["", "", ""]
    known = math.isfinite(one.low)
    return [
        say.signed(c, one.difference),
        f"{say.signed(c, one.low)} to {say.signed(c, one.high)}" if known else "",
        say.p_cell(one),
    ]


def front_parts(c: Confirmation) -> list[Html]:
    """The figure, and how probably each point is on the front."""
    judged = c.judged
    assert judged is not None
    exits = c.exits.shape[2]
    drawn = "other seeds and other images" if c.points.images else "other seeds"
    caption = (
        f"Mean accuracy of each exit on fresh hold-outs with its 95 % interval, which allows for "
        f"{drawn}. Where intervals overlap, which of two points is on the front is open."
    )
    parts = [figure(confirmed_figure(c), caption, wide=True)]
    head = ["config", "runs", *(f"exit\u00a0{k + 1}" for k in range(exits))]
    order = say.ordered(c, judged)
    rows = [
        [
            c.rows[row].name,
            str(c.rounds[row]),
            *(say.probability(float(x)) for x in c.points.on_front[row]),
        ]
        for row in order
    ]
    parts.append(table(head, rows, [order.index(judged.chosen)]))
    if say.on_front(c):
        parts.append(
            paragraph("How probably each point is on the front, drawn as above.", kind="note")
        )
    return parts


def confirmed_figure(c: Confirmation) -> go.Figure:
    """FLOPs against mean accuracy of every config that raced, with intervals."""
    judged = c.judged
    assert judged is not None
    made = go.Figure()
    for row in reversed(say.ordered(c, judged)):
        add_row(made, c, judged, row, named=row in judged.finalists)
    gone = [row for row in range(len(c.rows)) if row not in judged.finalists]
    if gone:
        made.add_scatter(x=[None], y=[None], mode="lines", line={"color": FAINT, "width": 1},
                         name=f"left the race: {len(gone)}")  # fmt: skip
    styled(made, 480, showlegend=True, legend={"traceorder": "reversed"})
    flops_axis(made, (float(x) for x in c.flops.reshape(-1)))
    made.update_yaxes(
        title_text="accuracy on fresh hold-outs (%)",
        autorangeoptions={"clipmin": 0, "clipmax": 100},
    )
    return made


def add_finalists(made: go.Figure, c: Confirmation) -> None:
    """The finalists' means and intervals, into the front of the search; its frame grows."""
    if c.judged is None:
        return
    for row in c.judged.finalists:
        add_row(made, c, c.judged, row, named=True, legend="legend2")
    ends = [mean for row in c.judged.finalists for mean in c.points.means[row]]
    low, high = made.layout.yaxis.range or (math.inf, -math.inf)
    made.update_yaxes(
        range=[
            max(0, min(low, *(m.low if math.isfinite(m.low) else m.mean for m in ends))),
            min(100, max(high, *(m.high if math.isfinite(m.high) else m.mean for m in ends))),
        ]
    )


def add_row(
    made: go.Figure, c: Confirmation, judged: Judgement, row: int, *, named: bool, **more: str
) -> None:
    """One config's exits as points with error bars, a little beside each other."""
    colour, dash = _look(judged, row)
    means: Sequence[Estimate] = c.points.means[row]
    aside = 1 + 0.006 * (row - len(c.rows) / 2)
    known = all(math.isfinite(mean.half) for mean in means)
    name = plot_text(c.rows[row].name)
    bars = {"type": "data", "array": [mean.half for mean in means], "thickness": 1.5, "width": 4}
    hovers = [
        f"<b>{name}, exit {k + 1}</b><br>{say.cell(mean)} % (n = {mean.n})<br>on the front with "
        f"probability {say.probability(float(c.points.on_front[row][k])) or 'unknown'}"
        for k, mean in enumerate(means)
    ]
    made.add_scatter(
        x=[float(flops) * aside for flops in c.flops[row]],
        y=[mean.mean for mean in means],
        error_y=bars if known else None,
        mode="lines+markers",
        line={"color": colour, "width": 2 if named else 1, "dash": dash},
        marker={"color": colour, "size": 7 if named else 4},
        text=hovers,
        hovertemplate="%{text}<extra></extra>",
        name=f"confirmed: {name}, n = {c.rounds[row]}",
        showlegend=named,
        **more,
    )


def _look(judged: Judgement, row: int) -> tuple[str, str]:
    if row == judged.chosen:
        return CHOSEN, "solid"
    if row == 0:
        return INK, "dash"
    if row not in judged.finalists:
        return FAINT, "solid"
    return GREYS[judged.finalists.index(row) % len(GREYS)], "solid"
