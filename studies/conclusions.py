"""What a confirmation says, in sentences: the terminal and the report print the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from studies import verdict as v
from studies.comparison import Difference
from studies.confirmation import Confirmation
from studies.confirmed import Estimate, Judgement, Optimism
from studies.resampling import DRAWS

NOTE = (
    "How to read it: the runs of a seed share a hold-out, so configs are compared seed by seed. "
    "A 95 % interval holds the true value in 95 of 100 such studies, and p is how often luck alone "
    "would show a difference like this where there is none; both allow for how many candidates "
    "were compared. ± is the 95 % interval of a mean by itself, on other seeds. For single exits "
    "it also covers new images, if the runs recorded which images they got right, and is "
    "therefore wider."
)


def unit(c: Confirmation) -> str:
    """` %` of accuracies, nothing of the hypervolume."""
    return "" if c.plan.objective == "hypervolume" else " %"


def points(c: Confirmation) -> str:
    """`, points` of differences of accuracies, nothing of the hypervolume."""
    return ", points" if unit(c) else ""


def number(c: Confirmation, value: float) -> str:
    """A value of the objective without its unit."""
    return f"{value:.2f}" if unit(c) else f"{value:.4f}"


def difference_text(c: Confirmation, value: float) -> str:
    """`0.49 points`, without its sign."""
    return f"{abs(value):.2f} points" if unit(c) else f"{abs(value):.4f}"


def _nil(c: Confirmation, value: float) -> bool:
    """Whether it is printed as zero."""
    return abs(value) < (0.005 if unit(c) else 0.00005)


def signed(c: Confirmation, value: float) -> str:
    """`+0.49`."""
    return v.signed(value, 2 if unit(c) else 4)


def plus_minus(c: Confirmation, value: Estimate) -> str:
    """`94.31 ± 0.22 % (n = 5)`; of one run `94.31 % (n = 1, unconfirmed)`."""
    mean = number(c, value.mean)
    if not math.isfinite(value.half):
        return f"{mean}{unit(c)} ({f'n = {value.n}' if value.n > 1 else v.UNCONFIRMED})"
    return f"{mean} ± {number(c, value.half)}{unit(c)} (n = {value.n})"


def interval(c: Confirmation, low: float, high: float) -> str:
    """`95 % interval −0.20 to +0.62`; of one seed words instead."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "from one seed no interval can be given"
    return f"95 % interval {signed(c, low)} to {signed(c, high)}"


def cell(one: Estimate, digits: int = 2) -> str:
    """`94.31 ± 0.22` of a table; of one run the mean alone."""
    spread = f" ± {one.half:.{digits}f}" if math.isfinite(one.half) else ""
    return f"{one.mean:.{digits}f}{spread}"


def value_cell(c: Confirmation, one: Estimate) -> str:
    """The same, of the objective."""
    return cell(one, 2 if unit(c) else 4)


def said_cell(c: Confirmation, row: int) -> str:
    """What the search said of a row; empty of one that it never ran."""
    said = c.rows[row].said
    return "" if said is None else number(c, (100 if unit(c) else 1) * said)


def p_cell(one: Difference | None) -> str:
    """p of a row; empty where there is nothing to compare, or one seed."""
    return "" if one is None or not math.isfinite(one.low) else v.p_number(one.p)


def ordered(c: Confirmation, judged: Judgement) -> list[int]:
    """The rows as tables show them: who ran furthest first, then by mean."""
    return sorted(range(len(c.rows)), key=lambda row: (-c.rounds[row], -judged.means[row].mean))


def sentences(c: Confirmation) -> list[str]:
    """All of them, the verdict first."""
    every = (headline(c), choice(c), optimism(c), on_front(c), test(c), outdated(c))
    return [text for text in every if text]


def outdated(c: Confirmation) -> str:
    """That the search has found others since."""
    if not c.outdated:
        return ""
    return (
        "The search has gone on since it was confirmed and its best are others now: "
        f"`automate confirm {c.plan.confirms} --fresh` confirms those."
    )


def headline(c: Confirmation) -> str:
    """Whether anything is better than the default."""
    if not c.over:
        return (
            f"The confirmation is not finished ({c.runs} runs so far, {_rounds_done(c)} of "
            f"{len(c.plan.race or ())} rounds): nothing can be said yet."
        )
    judged = c.judged
    if judged is None:
        return f"{_broke(c)}: nothing can be compared."
    names, seeds = [row.name for row in c.rows], c.values.shape[1]
    base, what = names[0], v.objective_name(c.plan.objective)
    where = f"on {seeds} fresh {'seed and hold-out' if seeds == 1 else 'seeds and hold-outs'}"
    better = [one for one in judged.separated if one.difference > 0]
    worse = [one for one in judged.separated if one.difference < 0]
    text = ""
    if better:
        first, *others = better
        text = (
            f"{_upper(names[first.config])} is better than {base} {where}: "
            f"{difference_text(c, first.difference)} of {what} ({_how_sure(c, first)})."
        )
        if others:
            listed = ", ".join(
                f"{names[one.config]} by {difference_text(c, one.difference)}" for one in others
            )
            text += f" So is {listed}."
    elif judged.differences:
        text = _no_difference(c, judged, where)
    if worse:
        listed = ", ".join(
            f"{names[one.config]} by {difference_text(c, one.difference)} ({_how_sure(c, one)})"
            for one in worse
        )
        text += f" Worse than {base}: {listed}."
    if c.failed:
        text += f" {_broke(c)}."
    return (
        text.strip() or f"Only {base} came through the race: there is nothing to compare it with."
    )


def _broke(c: Confirmation) -> str:
    runs = "1 run broke" if c.failed == 1 else f"{c.failed} runs broke"
    if not c.lost:
        return f"{runs} and left a gap"
    return f"{runs}; nothing is known of {', '.join(row.name for row in c.lost)}"


def _no_difference(c: Confirmation, judged: Judgement, where: str) -> str:
    names = [row.name for row in c.rows]
    first = max(judged.differences, key=lambda one: one.difference)
    name, base = names[first.config], names[0]
    text = (
        f"No difference at this budget: {where} no candidate is reliably better than {base}. "
    )  # fmt: skip
    if not math.isfinite(first.low):
        return f"{text}With one seed a config nothing can be told apart; give more, e.g. --seeds 5."
    if _nil(c, first.difference):
        text += f"The nearest, {name}, is equal to it"
        sure = _nil(c, first.low) and _nil(c, first.high)
        text += "." if sure else f" ({interval(c, first.low, first.high)})."
    elif first.difference > 0:
        text += (
            f"The largest lead is {name}'s, {difference_text(c, first.difference)} "
            f"({interval(c, first.low, first.high)}), which may be luck."
        )
        if first.seeds_needed is not None:
            text += (
                f" If it is real, about {first.seeds_needed} seeds a config would show it "
                "(4 times in 5)."
            )
    else:
        text += f"None of those that ran every round is ahead of it; the nearest is {name}, "
        text += f"{difference_text(c, first.difference)} behind "
        text += f"({interval(c, first.low, first.high)})."
    if judged.detectable is not None and not _nil(c, judged.detectable):
        seeds = c.values.shape[1]
        text += (
            f" At this scatter ({difference_text(c, judged.sigma)} from run to run) {seeds} seeds "
            f"find a difference of {difference_text(c, judged.detectable)} 4 times in 5, and "
            "smaller ones less often."
        )
    return text


def _how_sure(c: Confirmation, one: Difference) -> str:
    return (
        f"{interval(c, one.low, one.high)}, {v.p_text(one.p)}, corrected for "
        f"{len(c.rows) - 1} comparison{'s' * (len(c.rows) > 2)}"
    )


def choice(c: Confirmation) -> str:
    """Which config to take: the simplest within one standard error of the best."""
    judged = c.judged
    if judged is None:
        return ""
    names = [row.name for row in c.rows]
    chosen, best = judged.chosen, judged.best
    text = f"Take {names[chosen]}: "
    if not math.isfinite(judged.means[best].half):
        text += "with one seed nothing can be told apart, so the simplest config is taken."
    elif chosen != best:
        text += (
            f"it is the simplest config whose mean lies within one standard error of the best one "
            f"({names[best]})."
        )
    elif chosen == 0:
        text += "it has the best mean, and nothing is simpler."
    elif len(judged.within) > 1:
        text += "it has the best mean, and what comes within one standard error is no simpler."
    else:
        text += "it has the best mean, and no simpler config comes within one standard error of it."
    found = judged.difference(chosen)
    if found is not None and not found.separated:
        text += f" That it is better than {names[0]} is not proven."
    mean, drawn = judged.means[chosen], judged.expected[chosen]
    text += f" {_upper(v.objective_name(c.plan.objective))}: {plus_minus(c, mean)}"
    if not _nil(c, mean.mean - drawn):
        away = difference_text(c, mean.mean - drawn)
        why = f"{away} less, as the best of several is partly luck"
        if drawn > mean.mean:  # it is not the best: luck is no reason
            why = f"{away} more, as part of what sets it below the others is chance"
        text += f"; of new runs expect {number(c, drawn)}{unit(c)}, {why}"
    return f"{text}."


def optimism(c: Confirmation) -> str:
    """What the search promised minus what was confirmed."""
    judged = c.judged
    if judged is None or judged.naive is None or judged.naive.row is None:
        return ""
    one, name = judged.naive, c.rows[judged.naive.row].name
    text = (
        f"The search's best, {name}: it promised {number(c, one.said)}{unit(c)} (one run), on "
        f"fresh seeds it has {plus_minus(c, one.confirmed)}. {_too_much(c, one)}"
    )
    if judged.average is not None and len(c.rows) > 2:
        average = judged.average
        text += (
            f" Over all {len(c.rows) - 1} candidates it promised {_by(c, average)} "
            f"({_gap_interval(c, average)})."
        )
    if judged.default is not None and one.row != 0:
        text += (
            f" Of {c.rows[0].name}, which nobody chose for its value, it promised "
            f"{_by(c, judged.default)}: that much its own seed and hold-out did, and what is more "
            "is the luck of choosing."
        )
    return text


def _too_much(c: Confirmation, one: Optimism) -> str:
    sure = math.isfinite(one.low) and (one.low > 0 or one.high < 0)
    text = f"So it promised {_by(c, one)} ({_gap_interval(c, one)})"
    if not math.isfinite(one.low):
        return f"{text}, which may be chance."
    return f"{text}." if sure else f"{text}, which chance explains."


def _by(c: Confirmation, one: Optimism) -> str:
    way = "too much" if one.gap >= 0 else "too little"
    return f"{difference_text(c, one.gap)} {way}"


def _gap_interval(c: Confirmation, one: Optimism) -> str:
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return "from one seed no interval can be given"
    low, high = (one.low, one.high) if one.gap >= 0 else (-one.high, -one.low)
    return f"95 % interval {signed(c, low)} to {signed(c, high)}"


def on_front(c: Confirmation) -> str:
    """Who is on the front of accuracy and FLOPs, exit by exit, and how that is known."""
    if c.judged is None or np.isnan(c.points.on_front).any():
        return ""
    shares = c.points.on_front
    listed = "; ".join(
        f"exit {k + 1} {_likeliest(c, shares[:, k])} ({probability(float(shares[:, k].max()))})"
        for k in range(shares.shape[1])
    )
    text = (
        f"Most probably on the front: {listed}. A point is on it if no other one, of this network "
        "or another, is as cheap and more accurate, or cheaper and as accurate; in "
        f"{DRAWS:,} draws of "
    )
    if c.points.images:
        return f"{text}other seeds and other images that is so as often as the percentage says."
    return (
        f"{text}other seeds that is so as often as the percentage says. Other images were not "
        "drawn: which ones each run had right was not kept when these ran, so it is less sure."
    )


def _likeliest(c: Confirmation, shares: np.ndarray) -> str:
    """The row with the highest share, and how many others have the same one."""
    first, *others = np.flatnonzero(shares == shares.max())
    more = f" and {len(others)} other{'s' * (len(others) > 1)}, each" if others else ""
    return f"{c.rows[first].name}{more}"


def probability(share: float) -> str:
    """`62 %`, `< 1 %`; nothing of one that is not known."""
    if math.isnan(share):
        return ""
    return "< 1 %" if share < 0.01 else "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def test(c: Confirmation) -> str:
    """The finalists on the test split, and that nothing was chosen by it."""
    judged, tested = c.judged, c.tested
    if judged is None or not c.over:
        return ""
    if tested is None:
        broken = bool((c.test_values == c.test_values).any())
        return "A finalist has no test figures: its runs diverged or broke." if broken else ""
    names = [c.rows[row].name for row in judged.finalists]
    listed = "; ".join(
        f"{name}: {plus_minus(c, mean)}" for name, mean in zip(names, tested.means, strict=True)
    )
    text = f"Test images, {readings(c.readings)}, and nothing was chosen by them: {listed}."
    if len(c.readings) > 1:
        text += (
            " Seeds were added after a first look at them: whoever adds seeds until they look good "
            "does choose by them."
        )
    differences = [
        f"{names[one.config]} {signed(c, one.difference)} "
        f"({interval(c, one.low, one.high)}"
        f"{f', {v.p_text(one.p)}' if math.isfinite(one.low) else ''})"
        for one in tested.differences
    ]
    if differences:
        text += f" Against {names[0]}: {'; '.join(differences)}."
    called = {c.rows[one.config].name for one in judged.separated if one.difference > 0}
    behind = [names[one.config] for one in tested.differences if one.difference < 0]
    unborne = [name for name in behind if name in called]
    if unborne:
        text += f" They do not bear out that {' and '.join(unborne)} is better."
    return text


def readings(after: Sequence[int]) -> str:
    """`read once, after the race, for the finalists alone`, or how often and when."""
    if len(after) < 2:
        return "read once, after the race, for the finalists alone"
    *first, last = (f"{seeds} seed{'s' * (seeds > 1)}" for seeds in after)
    return (
        f"read {len(after)} times, after {', '.join(first)} and {last}, each network once, for "
        "those that were the finalists then"
    )


def _rounds_done(c: Confirmation) -> int:
    """Rounds in which nothing is left to run."""
    return c.ended // len(c.plan.finalists or ())


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
