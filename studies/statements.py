"""What ours shows beside each sentence of the paper about an experiment.

A check says what was counted and never whether the paper is right: n and shrinking decide that. It
is "" where ours cannot say anything. Those on accuracies read plain means, so the tests ask them
about the paper's own tables too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from studies.measured import Measured, at_budget, budgets_of, gap_over_epochs, mean_mixes
from studies.paper import Statement, paper
from studies.verdict import signed

# network or data set -> arm -> accuracy of each exit in %
Means = Mapping[str, Mapping[str, Sequence[float | None]]]
METHODS = ("baseline", "branchynet", "byot", "dks", "eed", "mate")


def statements_of(name: str) -> list[Statement]:
    """The paper's sentences about an experiment; table4 and fig6 share theirs."""
    return [s for s in paper().statements if s.experiment == name]


def shown_by(check: str, measured: Sequence[Measured]) -> str:
    """A sentence about ours, or "" where nothing can be said yet."""
    if check in ON_MEANS:
        return ON_MEANS[check]({f"{one.title}": one.means() for one in measured})
    said = [(one.title, ON_RUNS[check](one)) for one in measured]
    some = [(title, text) for title, text in said if text]
    if len(some) == 1:
        return some[0][1]
    return " ".join(f"{title}: {text}" for title, text in some)


def _cells(
    means: Means, *keys: str, exit: int | None = None
) -> list[tuple[str, int, dict[str, float]]]:
    """(network, exit, arm -> accuracy) where every one of `keys` has a figure."""
    found = []
    for row, columns in means.items():
        for i in range(max((len(column) for column in columns.values()), default=0)):
            place = i if exit is None or exit >= 0 else i - len(next(iter(columns.values())))
            if exit is not None and place != exit:
                continue
            values = {
                key: value
                for key in METHODS
                if key in columns and (value := columns[key][i]) is not None
            }
            if all(key in values for key in keys) and len(values) > 1:
                found.append((row, i, values))
    return found


def _count(cells: Sequence[object], right: Sequence[bool], text: str) -> str:
    return f"{text} in {sum(right)} of {len(cells)} cells." if cells else ""


def _order(values: Mapping[str, float], *without: str) -> list[str]:
    some = [key for key in values if key not in without]
    return sorted(some, key=lambda key: -values[key])


def mate_best(means: Means) -> str:
    """Where MATE leads the paper's methods, and by how much BranchyNet."""
    cells = _cells(means, "mate")
    text = _count(cells, [_order(v)[0] == "mate" for *_, v in cells], "MATE is the highest")
    parts = []
    for i in sorted({i for _, i, v in cells if "branchynet" in v}):
        over = [v["mate"] - v["branchynet"] for _, j, v in cells if j == i and "branchynet" in v]
        parts.append(f"{signed(float(np.mean(over)))} at exit {i + 1}")
    return f"{text} Points over BranchyNet, mean: {', '.join(parts)}." if parts else text


def byot_last(means: Means) -> str:
    """BYOT's place at the last exit."""
    cells = _cells(means, "byot", exit=-1)
    right = [_order(v)[1] != "byot" for *_, v in cells]
    return _count(cells, right, "At the last exit BYOT is not the second highest")


def dks_second(means: Means) -> str:
    """Exits at which DKS is second somewhere."""
    cells = _cells(means, "dks")
    exits = sorted({i + 1 for _, i, v in cells if _order(v)[1] == "dks"})
    where = ", ".join(map(str, exits)) or "no exit"
    return f"DKS is the second highest at least once at exit: {where}." if cells else ""


def eed_first(means: Means) -> str:
    """EED's place at exit 1."""
    cells = _cells(means, "eed", exit=0)
    return _count(cells, [_order(v)[1] != "eed" for *_, v in cells], "At exit 1 EED is not second")


def shallower_wins(means: Means) -> str:
    """Whether a shallower exit is ahead of a deeper one, by network."""
    found, seen = [], 0
    for row, columns in means.items():
        curves = {k: c for k, c in columns.items() if k in METHODS[1:] and None not in c}
        seen += len(curves)
        count = sum(max(c[:-1]) > c[-1] for c in curves.values() if len(c) > 1)  # type: ignore[type-var,operator]
        if count:
            found.append(f"{count} of {len(curves)} methods on {row}")
    if not seen:
        return ""
    return f"Some shallower exit is ahead of the last with {'; '.join(found) or 'no method'}."


def baseline_worst(means: Means) -> str:
    """The single-exit network beside the multi-exit ones, at the last exit."""
    cells = _cells(means, "baseline", exit=-1)
    right = [_order(v)[-1] == "baseline" for *_, v in cells]
    return _count(cells, right, "At the last exit the baseline is the lowest")


def branchynet_worst(means: Means) -> str:
    """BranchyNet among the multi-exit methods."""
    cells = _cells(means, "branchynet")
    cells = [cell for cell in cells if len(cell[2]) > 1 + ("baseline" in cell[2])]
    right = [_order(v, "baseline")[-1] == "branchynet" for *_, v in cells]
    return _count(cells, right, "BranchyNet is the lowest multi-exit method")


def byot_third(means: Means) -> str:
    """BYOT against MATE at exit 3."""
    cells = _cells(means, "byot", "mate", exit=2)
    parts = [f"{signed(v['byot'] - v['mate'])} on {row}" for row, _, v in cells]
    text = f"BYOT minus MATE at exit 3, points: {', '.join(parts)}." if parts else ""
    return text.replace("-", "\u2212")


def diverse_worse(means: Means) -> str:
    """One α per exit against α = 3."""
    return _against(means, "diverse", "alpha_3", "Diverse α is below α = 3")


def primary_worse(means: Means) -> str:
    """Without diverse teachers against with them."""
    return _against(means, "mate_primary", "mate", "Without diverse teachers it is lower")


def _against(means: Means, one: str, other: str, text: str) -> str:
    pairs = [
        (a, b)
        for columns in means.values()
        for a, b in zip(columns.get(one, ()), columns.get(other, ()), strict=False)
        if a is not None and b is not None
    ]
    if not pairs:
        return ""
    apart = ", ".join(signed(a - b) for a, b in pairs)
    return f"{text} at {sum(a < b for a, b in pairs)} of {len(pairs)} exits (points: {apart})."


def last_worst_early(one: Measured) -> str:
    """In which epochs before the first drop of the lr the last exit is the lowest."""
    runs = one.runs.get("branchynet", ())
    early = max(1, one.plan.base.epochs // 2)
    seen = [r for run in runs for r in run.reports if r.epoch <= early and len(r.exits) > 1]
    if not seen:
        return ""
    worst = sum(r.accuracies[-1] < min(r.accuracies[:-1]) for r in seen)
    return f"The last exit is the lowest in {worst} of the {len(seen)} epochs up to {early}."


def byot_gap_third(one: Measured) -> str:
    """BYOT's mean gap at exit 3."""
    gap = gap_over_epochs(one.runs.get("byot", ()), 2) if one.exits > 2 else None
    text = f"BYOT's mean gap at exit 3 is {signed(gap[0].mean)} points." if gap else ""
    return text.replace("-", "\u2212")


def mate_steadiest(one: Measured) -> str:
    """At how many exits MATE's gap varies least over epochs."""
    found = []
    for i in range(one.exits):
        spread = {}
        for key in METHODS:
            gap = gap_over_epochs(one.runs.get(key, ()), i)
            if gap is not None:
                spread[key] = gap[1].mean
        if "mate" in spread and len(spread) > 1:
            found.append(min(spread, key=lambda key: spread[key]) == "mate")
    return f"MATE's gap varies least at {sum(found)} of {len(found)} exits." if found else ""


def mix_nearby(one: Measured) -> str:
    """How much of a teacher comes from its own exit and those beside it."""
    mixes = mean_mixes(one.runs.get("mate", ()))
    if not mixes or len(mixes[-1].mix) < 3:
        return ""
    mix = np.array(mixes[-1].mix)
    own = float(np.diag(mix).mean())
    beside = float(np.concatenate([np.diag(mix, 1), np.diag(mix, -1)]).mean())
    far = mix[np.abs(np.subtract.outer(range(len(mix)), range(len(mix)))) > 1].mean()
    return (
        f"At epoch {mixes[-1].epoch} a teacher takes {own:.2f} from its own exit, {beside:.2f} "
        f"from one beside it and {far:.2f} from one further away, on average."
    )


def mix_poor_own(one: Measured) -> str:
    """The diagonal of the mix beside the exits' accuracies, after the last epoch."""
    mixes = mean_mixes(one.runs.get("mate", ()))
    columns = one.means().get("mate")
    if not mixes or not columns:
        return ""
    own = ", ".join(f"{x:.2f}" for x in np.diag(np.array(mixes[-1].mix)))
    accuracy = ", ".join("" if x is None else f"{x:.1f}" for x in columns)
    return f"Own shares of exits 1 to {one.exits}: {own}; their accuracies: {accuracy} %."


def mix_first_epoch(one: Measured) -> str:
    """The diagonal of the mix at epoch 1."""
    mixes = mean_mixes(one.runs.get("mate", ()))
    if not mixes:
        return ""
    first, last = (np.diag(np.array(m.mix)) for m in (mixes[0], mixes[-1]))
    texts = [", ".join(f"{x:.2f}" for x in diagonal) for diagonal in (first, last)]
    return (
        f"Own shares at epoch {mixes[0].epoch}: {texts[0]}; at epoch {mixes[-1].epoch}: {texts[1]}."
    )


def _by_alpha(one: Measured, line: str = "mate") -> list[tuple[float, list[float]]]:
    means = one.means()
    found = []
    for arm in one.arms:
        values = means.get(arm.key)
        if arm.line == line and arm.x is not None and values and None not in values:
            found.append((arm.x, [value for value in values if value is not None]))
    return sorted(found)


def _best_alphas(one: Measured, line: str = "mate") -> list[float]:
    sweep = _by_alpha(one, line)
    if len(sweep) < 2:
        return []
    return [max(sweep, key=lambda point: point[1][i])[0] for i in range(one.exits)]


def alpha_three(one: Measured) -> str:
    """How far α = 3 stands below the best α."""
    sweep = dict(_by_alpha(one))
    if 3.0 not in sweep or len(sweep) < 2:
        return ""
    behind = [max(v[i] for v in sweep.values()) - sweep[3.0][i] for i in range(one.exits)]
    return f"α = 3 is {', '.join(f'{x:.2f}' for x in behind)} points below the best of the sweep."


def alpha_ends(one: Measured) -> str:
    """Whether both ends of the sweep are below its best."""
    best = _best_alphas(one)
    if not best:
        return ""
    ends = [point[0] for point in (_by_alpha(one)[0], _by_alpha(one)[-1])]
    inside = sum(alpha not in ends for alpha in best)
    return f"The best α lies inside the range tried at {inside} of {len(best)} exits."


def alpha_best(one: Measured) -> str:
    """The best α of each exit."""
    best = _best_alphas(one)
    listed = ", ".join(f"{alpha:g}" for alpha in best)
    return f"Best α of exits 1 to {one.exits}, picked on test: {listed}." if best else ""


def mate_best_each_t(one: Measured) -> str:
    """At how many (T, exit) MATE leads."""
    means, right, count = one.means(), 0, 0
    for t in sorted({arm.x for arm in one.arms if arm.x is not None}):
        arms = {a.line: means.get(a.key) for a in one.arms if a.x == t and not a.ours}
        others = [values for line, values in arms.items() if line != "mate" and values]
        own = arms.get("mate")
        for i, value in enumerate(own or ()):
            rivals = [x for values in others if (x := values[i]) is not None]
            if value is not None and rivals:
                count, right = count + 1, right + (value > max(rivals))
    return f"MATE leads at {right} of {count} pairs of T and exit." if count else ""


def gate_level(one: Measured) -> str:
    """The best of gates minus the best of attention, by exit."""
    sweeps = [_by_alpha(one, line) for line in ("mate", "mate_gate")]
    if not all(sweeps):
        return ""
    best = [[max(v[i] for _, v in sweep) for i in range(one.exits)] for sweep in sweeps]
    apart = ", ".join(signed(g - a) for a, g in zip(*best, strict=True))
    return f"Best with gates minus best with attention, points: {apart}.".replace("-", "\u2212")


def gate_alpha(one: Measured) -> str:
    """Where each of the two networks has its best α."""
    both = [_best_alphas(one, line) for line in ("mate", "mate_gate")]
    if not all(both):
        return ""
    lower = sum(a < g for a, g in zip(*both, strict=True))
    return f"The best α of attention is the lower one at {lower} of {one.exits} exits."


def budget_best(one: Measured) -> str:
    """At how many budgets MATE's top-5 accuracy leads the paper's methods."""
    right = []
    for flops in budgets_of(one):
        stats = {key: at_budget(one, key, flops) for key in METHODS}
        values = {key: stat.mean for key, stat in stats.items() if stat is not None}
        if "mate" in values and len(values) > 1:
            right.append(_order(values)[0] == "mate")
    return f"MATE leads at {sum(right)} of {len(right)} budgets." if right else ""


ON_MEANS: dict[str, Callable[[Means], str]] = {
    function.__name__: function
    for function in (
        mate_best, byot_last, dks_second, eed_first, shallower_wins, baseline_worst,
        branchynet_worst, byot_third, diverse_worse, primary_worse,
    )
}  # fmt: skip
ON_RUNS: dict[str, Callable[[Measured], str]] = {
    function.__name__: function
    for function in (
        last_worst_early, byot_gap_third, mate_steadiest, mix_nearby, mix_poor_own,
        mix_first_epoch, alpha_three, alpha_ends, alpha_best, mate_best_each_t, gate_level,
        gate_alpha, budget_best,
    )
}  # fmt: skip
