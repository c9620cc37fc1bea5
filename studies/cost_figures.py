"""What exits cost and what that buys: Table 1, Table 7's budgets, and training time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies.drawing import INK, empty, plot_text, styled
from studies.experiment_figures import LOOKS, MARGIN, look
from studies.measured import Measured, at_budget, budgets_of


def costs_figure(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> go.Figure:
    """FLOPs of every exit, a line a network; the paper's as hollow markers (Table 1).

    Args:
        rows: Name, our FLOPs by exit, the paper's in millions (empty where it has none).
    """
    if not rows:
        return empty("no network of Table 1")
    figure = go.Figure()
    colours = [colour for colour, _ in LOOKS.values()]
    for place, (name, flops, printed) in enumerate(rows):
        names = [f"exit {i + 1}" for i in range(len(flops))]
        colour = colours[place % len(colours)]
        figure.add_scatter(
            x=names,
            y=[value / 1e6 for value in flops],
            mode="lines+markers",
            line={"color": colour},
            name=plot_text(name),
            legendgroup=name,
            hovertemplate=f"{plot_text(name)}, %{{x}}: %{{y:.4f}} M<extra></extra>",
        )
        figure.add_scatter(
            x=names[: len(printed)],
            y=list(printed),
            mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": INK},
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"paper, {plot_text(name)}, %{{x}}: %{{y:.2f}} M<extra></extra>",
        )
    styled(figure, 400, showlegend=True)
    figure.update_yaxes(title_text="FLOPs per image (millions)", rangemode="tozero")
    return figure


def budget_figure(measured: Sequence[Measured]) -> go.Figure:
    """Top-5 accuracy over mean FLOPs in budget mode, the paper's hollow (Table 7)."""
    some = [one for one in measured if any(r.report.budget for rs in one.runs.values() for r in rs)]
    if not some:
        return empty("no budget curve: thresholds need held-out images")
    figure = make_subplots(1, len(some), subplot_titles=[plot_text(one.title) for one in some])
    for place, one in enumerate(some):
        budgets = budgets_of(one)
        for arm in one.arms:
            style = look(arm)
            stats = [at_budget(one, arm.key, flops) for flops in budgets]
            if not any(stats):
                continue
            figure.add_scatter(
                x=[flops / 1e6 for flops in budgets],
                y=[None if stat is None else round(stat.mean, 3) for stat in stats],
                mode="lines+markers",
                name=plot_text(arm.label),
                showlegend=not place,
                hovertemplate=f"{arm.label}: %{{y:.2f}} % at %{{x:.3g}} M<extra></extra>",
                row=1,
                col=place + 1,
                **style,
            )
            printed = [one.printed(arm, i) for i in range(len(budgets))]
            if any(printed):
                figure.add_scatter(
                    x=[flops / 1e6 for flops in budgets],
                    y=[None if p is None else p.mean for p in printed],
                    mode="markers",
                    marker={**style["marker"], "symbol": f"{style['marker']['symbol']}-open"},
                    legendgroup=style["legendgroup"],
                    showlegend=False,
                    hovertemplate=f"paper, {arm.label}: %{{y:.2f}} %<extra></extra>",
                    row=1,
                    col=place + 1,
                )
    styled(figure, 440, showlegend=True, margin=MARGIN, legend={"y": 1.12})
    figure.update_xaxes(title_text="mean FLOPs per image (millions), earlier heads included")
    figure.update_yaxes(title_text="top-5 accuracy on test (%)", col=1)
    return figure


def footprints_figure(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> go.Figure:
    """Costs of training relative to BranchyNet, a panel a kind of cost.

    Args:
        panels: Kind of cost -> name of the method -> ratios, one a round.
    """
    if not panels:
        return empty("nothing was measured")
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.03,
                           shared_yaxes=True)  # fmt: skip
    for place, ratios in enumerate(panels.values()):
        names = list(ratios)
        middles = [median(values) for values in ratios.values()]
        figure.add_scatter(
            x=middles,
            y=[plot_text(name) for name in names],
            mode="markers",
            marker={"size": 10, "color": LOOKS["mate"][0]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [max(v) - m for v, m in zip(ratios.values(), middles, strict=True)],
                "arrayminus": [m - min(v) for v, m in zip(ratios.values(), middles, strict=True)],
                "thickness": 1.2,
            },
            showlegend=False,
            hovertemplate="%{y}: %{x:.2f} times BranchyNet<extra></extra>",
            row=1,
            col=place + 1,
        )
    styled(figure, 120 + 34 * max(map(len, panels.values())))
    figure.update_xaxes(title_text="times BranchyNet's", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure
