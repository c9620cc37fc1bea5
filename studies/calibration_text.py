"""What a calibration says, in sentences, a table and JSON, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from studies import verdict as v
from studies.calibrating import Findings
from studies.calibration import SAFE, Calibration, Moment, Range
from studies.halving import Outcome
from studies.plan import FRONT_FLOPS, StudyPlan, is_front

ROWS = 12  # of the table in the terminal


def head_of(plan: StudyPlan) -> list[str]:
    """Of the table."""
    if is_front(plan.objective):
        return ["after epoch", "largest scatter", "least tau", "95 % interval", "kept of the front"]
    return ["after epoch", "scatter of runs", "tau", "95 % interval", "halving keeps the best"]


def table_title(findings: Findings) -> str:
    """Over the table, with whose accuracies these are where two networks could be meant."""
    title = "The order of the configs against that of the end"
    if findings.averages:
        return f"{title} (moving average of the weights, --ema {findings.ema:g})"
    return title if findings.averaged is None else f"{title} (plain weights)"


def calibration_lines(findings: Findings, plan: StudyPlan) -> list[str]:
    """What was found, a sentence or two a line, for a reader without statistics."""
    space, found = plan.calibrates or plan.space, findings.best
    what = v.objective_name(plan.objective)
    if is_front(plan.objective):
        also = ", and its FLOPs," if plan.objective == FRONT_FLOPS else ""
        what = f"the accuracy of each exit{also}"
    if findings.averages:
        what += f" of a moving average of the weights (--ema {findings.ema:g})"
    elif findings.averaged is not None:
        what += " of the plain weights"
    lines = [
        f"{found.configs} configs of {space}, each with "
        f"{v.count_text(found.seeds, 'seed')}, ran all {found.epochs} epochs; "
        f"{what} on the validation split.{_left_out(found, plan)}",
        _scatter(found, plan),
    ]
    if found.again is not None:
        text = f"{_pairs(found.again)} are in the same order at the end of another seed's run"
        text += _where(plan)
        if found.again.low > 0:
            text += ": no early look can tell more than that."
        else:
            text += (
                ": that cannot be told from luck. A search at this length chooses among noise, so "
                "stopping costs little because there is little to lose; longer runs, more "
                "training images or a wider space would show more."
            )
        lines.append(text)
    lines.append(_when(found, plan))
    lines.append(_use(findings, plan))
    if findings.other is not None:
        lines.append(_instead(findings, plan))
    return lines


def _left_out(found: Calibration, plan: StudyPlan) -> str:
    """That some trials are not among those compared; empty where all are."""
    left = plan.trials - found.configs * found.seeds
    if left <= 0:
        return ""
    return (
        f" {left} of the {plan.trials} trials are left out: they failed, have not ended or repeat "
        "another, or their config or seed lacks more runs than the others'."
    )


def _gain(plan: StudyPlan, value: float) -> str:
    """A difference: of the objective, of a front of accuracy."""
    return v.points(value) if is_front(plan.objective) else v.gain_text(plan.objective, value)


def _scatter(found: Calibration, plan: StudyPlan) -> str:
    """How far runs of one config scatter, and what is therefore no lead."""
    ends, largest = found.moments[-1].spreads, found.moments[-1].spread
    if largest is None:
        return (
            "With one seed each it cannot be told what is noise: no tolerance is set, and only "
            "keeping the very best counts as safe."
        )

    def bounds(range_: Range) -> str:
        return f"{_gain(plan, range_.low).split()[0]} to {_gain(plan, range_.high)}"

    if len(ends) == 1:
        (anywhere,) = found.anywhere
        apart = (
            f"{_gain(plan, anywhere.value)} at the end (standard deviation; 95 % interval "
            f"{bounds(anywhere)})"
        )
        within = f"{_gain(plan, largest.value)} ({bounds(largest)})"
    else:
        apart = f"{_listed(found.anywhere, plan)} at the end (standard deviation)"
        within = f"{_listed(ends, plan)} (95 % interval of the largest: {bounds(largest)})"
    return (
        f"Two runs of one config that differ in their seed alone scatter by {apart}. The trials of "
        f"a search share one seed, which moves all of them alike: within a search it is {within}, "
        "and a lead of less than about three times that, of one run each, is no lead."
    )


def _listed(ranges: tuple[Range, ...], plan: StudyPlan) -> str:
    """`0.61, 0.55 and 0.50 points at exits 1 to 3`."""
    *first, last = (_gain(plan, range_.value) for range_ in ranges)
    plain = ", ".join(text.split()[0] for text in first)
    return f"{plain} and {last} at exits 1 to {len(ranges)}"


def _pairs(tau: Range) -> str:
    """`84 % of the pairs of configs (75 to 91 %)`: what tau says where nothing is tied."""
    value, low, high = (50 * (1 + part) for part in tau)
    return f"{value:.0f} % of the pairs of configs ({low:.0f} to {high:.0f} %)"


def _where(plan: StudyPlan) -> str:
    """Which of several orders is meant."""
    return ", at the exit where that is least sure" if is_front(plan.objective) else ""


def _when(found: Calibration, plan: StudyPlan) -> str:
    """From when on stopping is right, and what is told before."""
    early = found.moments[max(0, found.usual.rule.grace - 1)]
    where = _where(plan)
    text = f"After epoch {early.epoch}, {_pairs(early.tau)} are in the order of the end{where}. "
    if is_front(plan.objective):
        act = "stopping what another beats as a whole and what is in the better half at no exit"
        keeps, there = "keeps", ""
        of = "networks that no other beats at the end, or one as good at every exit within noise"
    else:
        act, there = "stopping half of the trials", "in "
        keeps, of = "keeps the best, or one as good within the scatter, in", "searches"
    if found.safe is None:
        return (
            f"{text}There is no epoch before the end from which on {act} {keeps} "
            f"{100 * SAFE:.0f} of 100 {of} and the order of the configs is more than luck (tau's "
            "interval above 0)."
        )
    first = found.moments[found.safe - 1]
    return (
        f"{text}From epoch {found.safe} on {act} {keeps} at least {100 * SAFE:.0f} of 100 {of} "
        f"(there {there}{100 * first.halved.kept:.0f}, with {_pairs(first.tau)} in order{where})."
    )


def _said(plan: StudyPlan) -> Callable[[Outcome], str]:
    """What a rule costs and keeps, in words."""

    def said(one: Outcome) -> str:
        text = f"trains {100 * one.epochs:.0f} % of the epochs"
        kept = f"{100 * one.kept:.0f} of 100"
        if is_front(plan.objective):
            return (
                f"{text} and keeps {kept} networks of the final front, or one as good; the nearest "
                f"that is kept is {_gain(plan, one.loss)} behind at its worst exit, on average"
            )
        return (
            f"{text}, keeps the best in {kept} searches and loses {_gain(plan, one.loss)} on "
            "average"
        )

    return said


def _use(findings: Findings, plan: StudyPlan) -> str:
    """What to do, and what it costs."""
    found, said = findings.best, _said(plan)
    usual = f"What is usual here (grace {found.usual.rule.grace}, eta {found.usual.rule.eta})"
    if not found.stops:
        lead = f"Use {findings.flags}: no rule that was tried is safe."
        return f"{lead} {usual} {said(found.usual)}."
    text = f"Use {findings.flags}: it {said(found.chosen)}. {usual} {said(found.usual)}"
    first, cheaper = found.usual.rule.grace, found.usual.epochs <= found.chosen.epochs
    if cheaper and first <= len(found.moments) and found.moments[first - 1].tau.low <= 0:
        text += (
            f", but after epoch {first} the order of configs cannot be told from luck, so that "
            "another search need not keep as much"
        )
    return f"{text}."


def _instead(findings: Findings, plan: StudyPlan) -> str:
    """What scoring the other network would come to, and what the average does to the end."""
    other, change = findings.other, findings.change
    assert other is not None and change is not None
    name = "the plain weights" if findings.averages else "a moving average of the weights"
    text = f"Scored by {name} instead, "
    if other.stops:
        text += f"{findings.other_flags} {_said(plan)(other.chosen)}."
    else:
        text += "no rule that was tried is safe."
    digits, scale, unit = (4, 1, "") if plan.objective == "hypervolume" else (2, 100, " points")
    value, low, high = (v.signed(round(scale * part, digits) + 0.0, digits) for part in change)
    return (
        f"{text} The average changes the end by {value}{unit} (95 % interval {low} to {high}) and "
        "takes one more scoring an epoch."
    )


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
        "" if spread is None else _gain(plan, spread.value),
        _tau(moment.tau.value),
        f"{_tau(moment.tau.low)} to {_tau(moment.tau.high)}",
        f"{100 * moment.halved.kept:.0f} %",
    ]


def _tau(value: float) -> str:
    """`0.52`, `−0.30`."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", v.MINUS)


def calibration_json(findings: Findings) -> dict[str, Any]:
    """The same, for a program."""
    found, other, change = findings.best, findings.other, findings.change
    return {
        "configs": found.configs,
        "seeds": found.seeds,
        "epochs": found.epochs,
        "first_safe_epoch": found.safe,
        "flags": findings.flags,
        "chosen": asdict(found.chosen),
        "usual": asdict(found.usual),
        "averaged": findings.averages,
        "other_flags": findings.other_flags or None,
        "other_chosen": None if other is None else asdict(other.chosen),
        "average_changes_the_end": None if change is None else change._asdict(),
        "spread_anywhere": max(found.anywhere)._asdict() if found.anywhere else None,
        "again": None if found.again is None else found.again._asdict(),
        "by_epoch": [
            {
                "epoch": moment.epoch,
                "spread": None if moment.spread is None else moment.spread._asdict(),
                "tau": moment.tau._asdict(),
                "halving_keeps": moment.halved.kept,
                "halving_loses": moment.halved.loss,
                **_exits(moment),
            }
            for moment in found.moments
        ],
    }


def _exits(moment: Moment) -> dict[str, Any]:
    """Of a front, what each exit says; the first is the shallowest."""
    if len(moment.taus) == 1:
        return {}
    return {
        "spread_of_exits": [spread._asdict() for spread in moment.spreads],
        "tau_of_exits": [tau._asdict() for tau in moment.taus],
    }
