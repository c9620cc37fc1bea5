"""What a calibration says, in sentences, a figure and a table, for the terminal and the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies import verdict as v
from studies.calibrating import calibration_of, flags_of
from studies.calibration import SAFE, Calibration, Moment, Outcome, Range
from studies.drawing import CHOSEN, FAINT, INK, exit_colours, faded, styled, upright
from studies.page import Html, figure, paragraph, table
from studies.plan import StudyPlan
from studies.view import View
from trainers.catalog import InputError

ROWS = 12  # of the table in the terminal


def calibration(view: View) -> list[Html]:
    """The section of the report; none of a study that is not made for it."""
    if view.plan.early_stopping or view.plan.experiment:
        return []
    try:
        found = calibration_of(view)
    except InputError as error:
        return [paragraph(str(error))] if view.plan.calibrates else []
    caption = (
        "Above: how far the order of the configs after an epoch agrees with the order at the end "
        "(Kendall's tau: 1 the same, 0 none; the band is its 95 % interval), and in how many of "
        "a hundred searches stopping half of the trials there keeps the best. Below: how far runs "
        "of one config scatter within a search. Dotted: where the learning rate drops."
    )
    head = ["after epoch", "scatter of runs", "tau", "95 % interval", "halving keeps the best"]
    return [
        *(paragraph(line) for line in calibration_lines(found, view.plan)),
        figure(calibration_figure(found, view.plan), caption),
        table(head, [row_of(m, view.plan) for m in shown(found)]),
    ]


def calibration_lines(found: Calibration, plan: StudyPlan) -> list[str]:
    """What was found, a sentence or two a line, for a reader without statistics."""

    def gain(value: float) -> str:
        return v.gain_text(plan.objective, value)

    space = plan.calibrates or plan.space
    end, anywhere = found.moments[-1].spread, found.anywhere
    lines = [
        f"{found.configs} configs of {space}, each with {found.seeds} "
        f"seed{'s' * (found.seeds != 1)}, ran all {found.epochs} epochs; "
        f"{v.objective_name(plan.objective)} on the validation split."
    ]
    if end is not None and anywhere is not None:
        lines.append(
            "Two runs of one config that differ in their seed alone scatter by "
            f"{gain(anywhere.value)} at the end (standard deviation; 95 % interval "
            f"{gain(anywhere.low).split()[0]} to {gain(anywhere.high)}). The trials of a search "
            f"share one seed, which moves all of them alike: within a search it is "
            f"{gain(end.value)} ({gain(end.low).split()[0]} to {gain(end.high)}), and a lead of "
            "less than about three times that, of one run each, is no lead."
        )
    else:
        lines.append(
            "With one seed each it cannot be told what is noise: no tolerance is set, and only "
            "keeping the very best counts as safe."
        )
    if found.again is not None:
        text = f"{_pairs(found.again)} are in the same order at the end of another seed's run: "
        if found.again.low > 0:
            text += "no early look can tell more than that."
        else:
            text += (
                "that cannot be told from luck. A search at this length chooses among noise, so "
                "stopping costs little because there is little to lose; longer runs, more "
                "training images or a wider space would show more."
            )
        lines.append(text)
    lines.append(_when(found))
    lines.append(_use(found, gain))
    return lines


def _pairs(tau: Range) -> str:
    """`84 % of the pairs of configs (75 to 91 %)`: what tau says where nothing is tied."""
    value, low, high = (50 * (1 + part) for part in tau)
    return f"{value:.0f} % of the pairs of configs ({low:.0f} to {high:.0f} %)"


def _when(found: Calibration) -> str:
    """From when on stopping is right, and what is told before."""
    early = found.moments[max(0, found.usual.rule.grace - 1)]
    text = f"After epoch {early.epoch}, {_pairs(early.tau)} are in the order of the end. "
    if found.safe is None:
        return text + (
            "There is no epoch before the end from which on stopping half of the trials keeps the "
            f"best, or one as good within the scatter, in {100 * SAFE:.0f} of 100 searches."
        )
    first = found.moments[found.safe - 1]
    return text + (
        f"From epoch {found.safe} on stopping half of the trials keeps the best, or one as good "
        f"within the scatter, in at least {100 * SAFE:.0f} of 100 searches (there in "
        f"{100 * first.halved.kept:.0f}, with {_pairs(first.tau)} in order)."
    )


def _use(found: Calibration, gain: Any) -> str:
    """What to do, and what it costs."""

    def said(one: Outcome) -> str:
        return (
            f"trains {100 * one.epochs:.0f} % of the epochs, keeps the best in "
            f"{100 * one.kept:.0f} of 100 searches and loses {gain(one.loss)} on average"
        )

    usual = f"What is usual here (grace {found.usual.rule.grace}, eta {found.usual.rule.eta})"
    if not found.stops:
        lead = "Use --no-early-stopping: no rule that was tried is safe."
        return f"{lead} {usual} {said(found.usual)}."
    return f"Use {flags_of(found)}: it {said(found.chosen)}. {usual} {said(found.usual)}."


def shown(found: Calibration, most: int = ROWS) -> list[Moment]:
    """An even choice of the epochs, the first safe one and the first rung among them."""
    wanted = {round(1 + k * (found.epochs - 1) / (most - 1)) for k in range(most)}
    wanted |= {found.safe or 1, found.chosen.rule.grace, *(found.chosen.rule.rungs or ())}
    return [moment for moment in found.moments if moment.epoch in wanted]


def row_of(moment: Moment, plan: StudyPlan) -> list[str]:
    """A line of the table."""
    spread = moment.spread
    return [
        str(moment.epoch),
        "" if spread is None else v.gain_text(plan.objective, spread.value),
        f"{moment.tau.value:.2f}",
        f"{moment.tau.low:.2f} to {moment.tau.high:.2f}",
        f"{100 * moment.halved.kept:.0f} %",
    ]


def calibration_json(found: Calibration) -> dict[str, Any]:
    """The same, for a program."""
    return {
        "configs": found.configs,
        "seeds": found.seeds,
        "epochs": found.epochs,
        "first_safe_epoch": found.safe,
        "flags": flags_of(found),
        "chosen": asdict(found.chosen),
        "usual": asdict(found.usual),
        "spread_anywhere": None if found.anywhere is None else found.anywhere._asdict(),
        "again": None if found.again is None else found.again._asdict(),
        "by_epoch": [
            {
                "epoch": moment.epoch,
                "spread": None if moment.spread is None else moment.spread._asdict(),
                "tau": moment.tau._asdict(),
                "halving_keeps": moment.halved.kept,
                "halving_loses": moment.halved.loss,
            }
            for moment in found.moments
        ],
    }


def calibration_figure(found: Calibration, plan: StudyPlan) -> go.Figure:
    """tau and what halving keeps by epoch, each up to 1; below the scatter of runs."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
    )
    epochs = [moment.epoch for moment in found.moments]
    deep = exit_colours(4)[3]
    _band(figure, epochs, [moment.tau for moment in found.moments], "agreement (tau)", deep, 1)
    figure.add_scatter(
        x=epochs,
        y=[round(moment.halved.kept, 3) for moment in found.moments],
        mode="lines",
        line={"color": CHOSEN, "width": 2, "dash": "dash"},
        hovertemplate="halving after epoch %{x} keeps the best in %{y:.0%}<extra></extra>",
        name="halving keeps the best",
        row=1,
        col=1,
    )
    scale = 1 if plan.objective == "hypervolume" else 100
    spreads = [moment.spread for moment in found.moments if moment.spread is not None]
    if spreads:
        scaled = [Range(*(scale * part for part in spread)) for spread in spreads]
        _band(figure, epochs, scaled, "scatter of runs", exit_colours(4)[1], 2)
    lines = [upright(e, panel, color=FAINT, dash="dot", width=1) for e in plan.base.milestones
             for panel in (1, 2)]  # fmt: skip
    if found.stops:
        rule = found.chosen.rule
        lines += [upright(e, 1, color=CHOSEN, width=1) for e in rule.rungs or (rule.grace,)]
    styled(figure, 460, showlegend=True, shapes=lines)
    figure.update_yaxes(title_text="share, tau", range=[min(-0.02, _lowest(found)), 1.03], row=1)
    figure.update_yaxes(title_text="points", rangemode="tozero", row=2)
    figure.update_xaxes(title_text="epoch", row=2)
    figure.update_xaxes(linecolor=INK, row=1)
    return figure


def _lowest(found: Calibration) -> float:
    return min(moment.tau.low for moment in found.moments)


def _band(
    figure: go.Figure, epochs: list[int], ranges: list[Range], name: str, colour: str, row: int
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
        row=row,
        col=1,
    )
