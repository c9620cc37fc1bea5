"""Who composes the teachers: the learned mix over epochs (Fig. 7), and how strong the schemes are.

V (M, N) says how much teacher j learns from exit i (Eq. 7). For every sample and temperature the
mix that minimises teacher j's loss is V_ij / Σ_i V_ij: a weight network under no other force tends
there, unless its softmax saturates first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies.drawing import INK, SYMBOLS, empty, exit_colours, level, styled
from studies.learning_figures import thinned
from trainers.catalog import is_path
from trainers.config import TrialConfig
from trainers.reports import EpochReport
from trainers.schemes import scheme_named

SATURATED = 0.25
SHADES = [[0.0, "#f3f5fa"], [0.25, "#c3cdec"], [0.5, "#8496d8"], [0.75, "#4d60bd"], [1, "#22307f"]]


def learns_mix(config: TrialConfig | None) -> bool:
    """Whether a weight network learns who composes the teachers."""
    return config is not None and scheme_named(config.scheme).learned


def fixed_optimum(config: TrialConfig) -> np.ndarray:
    """The mix (N, M) that minimises the teachers' distillation loss: V_ij / Σ_i V_ij for MATE."""
    best = scheme_named(config.scheme).best_mix(config.alpha_teacher_per_exit())
    return np.array(best, dtype=np.float64).reshape(-1, config.exits)


def distance(mix: Sequence[Sequence[float]], optimum: np.ndarray) -> np.ndarray:
    """Total variation of each teacher's mix (N, M) from the optimum: (N,), 0 equal to 1 apart."""
    apart: np.ndarray = 0.5 * np.abs(np.array(mix, dtype=np.float64) - optimum).sum(axis=1)
    return apart


def entropy(mix: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Of each teacher's mix (N, M): (N,), nats."""
    shares = np.array(mix, dtype=np.float64)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    nats: np.ndarray = -(shares * logs).sum(axis=1)
    return nats


def row_sums(config: TrialConfig) -> list[float]:
    """Σ_j W_ij of each exit, times kd_weight: how hard each exit is pulled in all."""
    rows = scheme_named(config.scheme).weights(config.alpha_per_exit())
    return [config.kd_weight * sum(row) for row in rows]


def mix_epochs(epochs: int) -> list[int]:
    """Epochs 1, 11, 51 and 300 of 300, as in Fig. 7, for a run of another length."""
    return sorted({1, max(1, round(11 / 300 * epochs)), max(1, round(51 / 300 * epochs)), epochs})


def _with_mix(reports: Sequence[EpochReport]) -> list[EpochReport]:
    return [report for report in reports if report.mix]


def heat_figure(reports: Sequence[EpochReport], config: TrialConfig) -> go.Figure:
    """Heat maps of the mix, mean over images, at four epochs; the fixed optimum on the right."""
    seen = {report.epoch: report for report in _with_mix(reports)}
    if not seen:
        return empty("no mix yet")
    wanted = mix_epochs(config.epochs)
    nearest = dict.fromkeys(min((abs(e - epoch), e) for e in seen)[1] for epoch in wanted)
    panels: list[tuple[str, Any]] = [(f"epoch {epoch}", seen[epoch].mix) for epoch in nearest]
    panels.append(("fixed optimum", fixed_optimum(config).tolist()))
    figure = make_subplots(
        1, len(panels), subplot_titles=[title for title, _ in panels], horizontal_spacing=0.03
    )
    teachers, exits = len(panels[0][1]), len(panels[0][1][0])
    for i, (title, mix) in enumerate(panels):
        figure.add_heatmap(
            z=np.round(mix, 4).tolist(),
            x=[str(k + 1) for k in range(exits)],
            y=[str(k + 1) for k in range(teachers)],
            zmin=0,
            zmax=1,
            colorscale=SHADES,
            showscale=False,
            xgap=2,
            ygap=2,
            texttemplate="%{z:.2f}" if exits <= 6 else None,
            hovertemplate="teacher %{y} takes %{z:.3f} from exit %{x}<extra>" + title + "</extra>",
            row=1,
            col=i + 1,
        )
    styled(figure, 108 + max(56 * teachers, 80), margin={"l": 56, "r": 16, "t": 52, "b": 48})
    figure.update_xaxes(title_text="from exit", type="category", showgrid=False, ticks="")
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, ticks="", showticklabels=False
    )
    figure.update_yaxes(title_text="teacher", showticklabels=True, col=1)
    return figure


def entropy_figure(reports: Sequence[EpochReport], config: TrialConfig) -> go.Figure:
    """Entropy of the mix over epochs (ln M = uniform), and its distance from the optimum."""
    seen = thinned(_with_mix(reports), 200)
    if not seen:
        return empty("no mix yet")
    figure = make_subplots(
        1,
        2,
        subplot_titles=["entropy of an image's mix (nats)", "distance from the fixed optimum"],
        horizontal_spacing=0.1,
    )
    epochs = [report.epoch for report in seen]
    optimum = fixed_optimum(config)
    teachers, exits = len(seen[-1].mix), len(seen[-1].mix[0])
    colours = exit_colours(teachers)
    distances = np.array([distance(report.mix, optimum) for report in seen])
    for j in range(teachers):
        look: dict[str, Any] = {
            "mode": "lines+markers" if len(epochs) <= 40 else "lines",
            "line": {"color": colours[j], "width": 2},
            "marker": {"symbol": SYMBOLS[j % len(SYMBOLS)], "size": 5},
            "name": f"teacher {j + 1}",
            "legendgroup": str(j),
            "hovertemplate": f"teacher {j + 1}, epoch %{{x}}: %{{y:.3f}}<extra></extra>",
            "row": 1,
        }
        with_entropy = [report for report in seen if len(report.mix_entropy) > j]
        figure.add_scatter(
            x=[report.epoch for report in with_entropy],
            y=[round(report.mix_entropy[j], 4) for report in with_entropy],
            col=1,
            **look,
        )
        y = distances[:, j].round(4).tolist()
        figure.add_scatter(x=epochs, y=y, col=2, showlegend=False, **look)
    nats = entropy(optimum)
    lines = [level(log(exits), color=INK, dash="dash", width=1.2)]
    lines += [level(nats[j], color=colours[j], dash="dot", width=1) for j in range(teachers)]
    uniform = {"text": f"ln {exits}: uniform", "x": 1, "y": log(exits), "showarrow": False}
    uniform |= {"xref": "x domain", "xanchor": "right", "yanchor": "top", "font": {"size": 12}}
    figure.add_annotation(uniform)
    styled(
        figure,
        340,
        showlegend=True,
        margin={"l": 56, "r": 16, "t": 72, "b": 48},
        legend={"y": 1.12},
        shapes=lines,
    )
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(range=[0, 1.08 * log(exits) if exits > 1 else 1], col=1)
    return figure


def mix_sentence(reports: Sequence[EpochReport], config: TrialConfig) -> str:
    """What the learned mix came to at its last epoch, in words."""
    seen = _with_mix(reports)
    if not seen:
        return "No mix has been reported yet."
    last = seen[-1]
    apart = float(distance(last.mix, fixed_optimum(config)).mean())
    text = (
        f"At epoch {last.epoch} the mix lies {apart:.2f} from its fixed optimum (0 equal, 1 apart)"
    )
    most = log(len(last.mix[0]))
    if not last.mix_entropy or most == 0:
        return text + "."
    share = float(np.mean(last.mix_entropy)) / most
    best = float(entropy(fixed_optimum(config)).mean()) / most
    text += (
        f"; an image's mix has {100 * share:.0f} % of the entropy of the uniform one (the "
        f"optimum {100 * best:.0f} %)"
    )
    if share < SATURATED * best:
        text += (
            ": it is saturated, each image picks little more than one exit, and the weight network "
            "hardly learns any more (the scale of its scores is the setting mix_scale)"
        )
    return text + "."


def optimum_sentence(config: TrialConfig) -> str:
    """Where a weight network under no other force tends."""
    if config.scheme == "one":
        return (
            "ONE has one teacher for all exits, so the mix that minimises its distillation alone "
            "is the uniform one, which is EED; only the teacher's own cross-entropy keeps its gate "
            "away from there."
        )
    if config.scheme == "okddip":
        return (
            "Of OKDDip's teachers each is learned from by one exit, so the mix that minimises its "
            "distillation alone takes each peer for itself and leaves it nothing to learn; the "
            "last exit's teacher is the peers' mean and is not learned."
        )
    own = ", ".join(f"{share:.2f}" for share in np.diag(fixed_optimum(config)))
    best = "V_ij / Σ_i V_ij" if scheme_named(config.scheme).best is None else "its scheme's own"
    text = (
        f"For every image and temperature, the mix that minimises teacher j's loss is {best} (own "
        f"shares here: {own}). A weight network under no other "
        "force tends there, unless its softmax saturates first"
    )
    if is_path(config.scheme):  # a user's, of which there is no such control
        return f"{text}."
    return f"{text}; the scheme mate_fixed is that mix with nothing learned."
