"""The sections of the report about the teachers: how strong they are, and who composes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from studies import verdict as v
from studies.mix_figures import (
    entropy_figure,
    heat_figure,
    learns_mix,
    mix_sentence,
    optimum_sentence,
    row_sums,
)
from studies.page import Html, figure, paragraph, table, tag
from studies.view import View
from trainers.catalog import last_part
from trainers.schemes import matched_kd_weight, scheme_named

if TYPE_CHECKING:
    from studies.states import Outcome


def strength(view: View) -> list[Html]:
    """How hard each scheme pulls: the row sums of W, by scheme."""
    sums: dict[str, list[float]] = {}
    for outcome in v.finished(view.outcomes):
        if outcome.config is not None and scheme_named(outcome.config.scheme).teaches:
            sums.setdefault(last_part(outcome.config.scheme), []).extend(row_sums(outcome.config))
    if not sums:
        return []
    rows = [[Html(name), _span(values)] for name, values in sums.items()]
    m = view.plan.base.exits
    at = ", ".join(f"{matched_kd_weight(a, m):.1f} at α = {a}" for a in (0, 3, 30))
    return [
        tag("h3", "How much of it is plain strength"),
        paragraph(
            "An exit is pulled by kd_weight times the sum of its row of W, which differs by scheme "
            f"(1 for BYOT and EED, {m - 1} for DKS and {m} + α for MATE, with {m} exits). At its "
            "fixed optimum MATE pulls about as hard as EED times λ' = M (1 + α / (M + α)): "
            f"{at}, toward {2 * m}. So α is in part plain strength, and a comparison of schemes "
            "that does not search kd_weight too compares strengths."
        ),
        table(["scheme", "kd_weight × Σ_j W_ij, over its trials and exits"], rows),
    ]


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def mix(view: View) -> list[Html]:
    """The learned mix of the best trials that have one (Fig. 7)."""
    some = [o for o in v.ranked(view.outcomes) if learns_mix(o.config)]
    some = [o for o in some if any(report.mix for report in view.reports.get(o.number, ()))]
    if not some:
        return []
    chosen = some[:1]
    default = v.reference(view.outcomes)
    if default is not None and default in some and default not in chosen:
        chosen.append(default)
    parts: list[Html] = []
    for outcome in chosen:
        parts += _mix_of(outcome, view, default)
    return parts


def _mix_of(outcome: Outcome, view: View, default: Outcome | None) -> list[Html]:
    config, reports = outcome.config, view.reports[outcome.number]
    assert config is not None
    title = f"Trial {outcome.number}: {last_part(config.scheme)}"
    if default is not None and default.number == outcome.number:
        title += f", {v.reference_name(default)}"
    return [
        tag("h3", title),
        paragraph(mix_sentence(reports, config)),
        paragraph(optimum_sentence(config), kind="note"),
        figure(
            heat_figure(reports, config),
            "Who composes each teacher, mean over images, at the epochs that correspond to the "
            "paper's Fig. 7; darker is more. The paper reports larger shares from nearby exits "
            "and larger diagonals for poorer exits. On the right the fixed optimum.",
            wide=True,
        ),
        figure(
            entropy_figure(reports, config),
            "Left: how evenly an image's teachers are mixed; at the dashed line all exits count "
            "the same, at 0 each image picks one exit; dotted, the fixed optimum's. Right: total "
            "variation from the fixed optimum, 0 where the weight network adds nothing to it.",
            wide=True,
        ),
    ]
