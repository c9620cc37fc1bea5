"""The pages of the experiments that train nothing: Table 1's FLOPs, and the cost of training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from studies import verdict as v
from studies.cost_figures import costs_figure, footprints_figure
from studies.experiments import Arm, experiment_named
from studies.page import Html, figure, footer, page, paragraph, section, table, tag
from studies.paper import Statement, paper
from studies.statements import statements_of
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from trainers.footprint import Footprint

BESIDE = "branchynet"  # what the others are measured by
Footprints = Mapping[str, Sequence["Footprint"]]


def table1_rows(
    counted: Sequence[tuple[TrialConfig, Sequence[int]]],
) -> list[tuple[str, list[int], tuple[str, ...]]]:
    """Name, our FLOPs by exit, and Table 1's millions as printed, empty where it has no such row.

    Args:
        counted: From `studies.reproduce.counted`.
    """
    rows = []
    for config, flops in counted:
        printed = next(
            (
                row.mflops
                for row in paper().costs
                if (row.side, row.backbone) == (config.image_size, config.backbone)
                and config.dataset in experiment_named("table1").datasets
                and config.width == 1
            ),
            (),
        )
        name = f"{config.backbone}, {config.image_size} pixels, {config.classes} classes"
        rows.append((name, list(flops), printed))
    return rows


def agreement(rows: Sequence[tuple[str, Sequence[int], Sequence[str]]]) -> str:
    """How many cells of Table 1 come out to the printed digit."""
    cells = [
        f"{flops / 1e6:.2f}" == printed
        for _, ours, papers in rows
        for flops, printed in zip(ours, papers, strict=False)
    ]
    if not cells:
        return "None of these is a row of Table 1, so there is nothing to compare."
    return f"{sum(cells)} of {len(cells)} cells of Table 1 come out to the printed digit."


def table1_page(counted: Sequence[tuple[TrialConfig, Sequence[int]]]) -> str:
    """The document about Table 1."""
    rows = table1_rows(counted)
    lines: list[list[object]] = []
    for name, ours, printed in rows:
        for i, flops in enumerate(ours):
            beside = printed[i] if i < len(printed) else ""
            apart = v.signed(flops / 1e6 - float(beside), 4) if beside else ""
            lines.append([tag("span", name), f"exit {i + 1}", f"{flops / 1e6:.4f}", beside, apart])
    head = ["network", "exit", "ours (M)", "paper (M)", f"ours {v.MINUS} paper"]
    plot = costs_figure([(n, ours, [float(x) for x in printed]) for n, ours, printed in rows])
    parts: list[object] = [
        paragraph(agreement(rows), kind="lead"),
        paragraph(
            "Counted for one image and one exit at a time: convolutions by their multiply-"
            "accumulates, Linear by weights and bias, ReLU one an element, pooling by what it "
            "reads; heads of earlier exits do not run. Nothing is trained."
        ),
        figure(plot, "FLOPs of every exit; circles: the paper's Table 1.", wide=True),
        table(head, lines),
    ]
    return _page("table1", "FLOPs", parts)


def ratios(found: Footprints, what: str) -> dict[str, list[float]]:
    """Name -> a cost over BranchyNet's of the same round, one a round; {} where not measured.

    Args:
        found: From `trainers.footprint.footprints`, `branchynet` among them.
        what: A field of `Footprint`.
    """
    beside = [getattr(one, what) for one in found[BESIDE]]
    if not all(beside):
        return {}
    return {
        name: [getattr(one, what) / base for one, base in zip(rounds, beside, strict=True)]
        for name, rounds in found.items()
        if all(getattr(one, what) is not None for one in rounds)
    }


def ratio_text(values: Sequence[float]) -> str:
    """`1.12 (1.08 to 1.15)`: the median over rounds and its range."""
    if not values:
        return "not measured here"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def said(found: Footprints) -> list[tuple[Statement, str]]:
    """The paper's sentences about the cost of training beside what was measured."""
    # resident memory on a CPU is noisy beside small networks; what is saved is counted
    seconds, saved = ratios(found, "seconds"), ratios(found, "saved")
    shown = {"gate_time": "", "mate_dearest": ""}
    if "mate" in found and "mate_gate" in found:
        pairs = zip(seconds["mate_gate"], seconds["mate"], strict=True)
        over = [gate / attention for gate, attention in pairs]
        shown["gate_time"] = f"Gates over attention, time of a step: {ratio_text(over)}."
    if "mate" in found:
        others = [n for n in ("baseline", "branchynet", "byot", "dks", "eed") if n in found]
        middle = [
            {name: statistics.median(cost[name]) for name in (*others, "mate")}
            for cost in (seconds, saved)
        ]
        dearest = [max(cost, key=lambda name: cost[name]) == "mate" for cost in middle]
        shown["mate_dearest"] = (
            f"Over BranchyNet's, time of a step: {ratio_text(seconds['mate'])}; kept for the "
            f"backward pass: {saved['mate'][0]:.3f}. MATE is {'' if dearest[0] else 'not '}the "
            f"slowest of the paper's methods, by medians, and {'' if dearest[1] else 'not '}the "
            "one that keeps most."
        )
    return [(s, shown[s.check] or "nothing") for s in statements_of("cost")]


def cost_page(
    base: TrialConfig, arms: Sequence[Arm], device: str, threads: int, found: Footprints
) -> str:
    """The document about time and memory of training.

    Args:
        base: Network, data set and batch size.
        arms: What was measured.
        device, threads: On what.
        found: From `studies.reproduce.footprints_of`.
    """
    kinds = {"time of a step": "seconds", "peak memory": "peak", "kept for backward": "saved"}
    labels = {arm.key: arm.label for arm in arms}
    costs = {kind: ratios(found, name) for kind, name in kinds.items()}
    rounds = len(found[BESIDE])
    rows: list[list[object]] = []
    for key, label in labels.items():
        seconds = statistics.median(one.seconds for one in found[key])
        peaks = [one.peak for one in found[key] if one.peak is not None]
        rows.append(
            [
                label,
                f"{1e3 * seconds:.1f} ms",
                ratio_text(costs["time of a step"].get(key, [])),
                f"{statistics.median(peaks) / 1e6:.1f} MB" if peaks else "",
                ratio_text(costs["peak memory"].get(key, [])),
                f"{found[key][0].saved / 1e6:.2f} MB",
                ratio_text(costs["kept for backward"].get(key, [])),
            ]
        )
    head = ["method", "step", "of BranchyNet's", "peak memory", "of BranchyNet's"]
    head += ["kept for backward", "of BranchyNet's"]
    panels = {
        kind: {labels[key]: values for key, values in cost.items()}
        for kind, cost in costs.items()
        if cost
    }
    text = (
        f"{base.backbone}, width {base.width:g}, {base.image_size} pixels, batches of "
        f"{base.batch_size}, {base.precision}, on {device}, {threads} CPU "
        f"{'thread' if threads == 1 else 'threads'}, {rounds} rounds "
        "in which every method takes its turn, forwards and backwards. Ratios are within a round, "
        "so that other load on the machine does not decide: the median, and the range over rounds."
    )
    memory = (
        "Peak memory is CUDA's allocator at its most, or the resident memory of the process on "
        "Linux, above what was held before the network was built; what is kept for the backward "
        "pass is counted exactly, each piece of memory once. The paper prints no figures."
    )
    parts: list[object] = [
        paragraph(text),
        paragraph(memory),
        figure(footprints_figure(panels), "Cost of training over BranchyNet's.", wide=True),
        table(head, rows),
        tag("h3", "What the paper says of it"),
        table(
            ["the paper says", "where", "ours shows"],
            [[f"\u201c{s.text}\u201d", f"Section {s.section}", text] for s, text in said(found)],
        ),
    ]
    return _page("cost", "Time and memory", parts)


def _page(name: str, heading: str, parts: Sequence[object]) -> str:
    row = experiment_named(name)
    header: Html = tag(
        "header",
        tag("p", f"reproduction · {row.place}", class_="kicker"),
        tag("h1", f"{name}: {row.title}"),
    )
    body = section(name, heading, *parts)
    return page(f"{name} · automate", header, [(name, heading)], body, footer())
