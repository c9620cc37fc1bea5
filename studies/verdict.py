"""What a study says, in sentences: the terminal and the report print the same ones.

Every number here is of one run each on the validation split, and is called so. Only trials that
ran their full length and stayed finite count; what was stopped early is never compared with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.front import FrontPoint, budget_of, curve, deployable
from studies.plan import FRONT_FLOPS, StudyPlan, is_front, ranked_by
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from studies.states import Outcome

MINUS = "\u2212"
UNCONFIRMED = "n = 1, unconfirmed"
WEIGHT_NETWORK = ("mix_width", "mix_scale", "mix_init", "mix_lr")  # settings of MATE's
STATES = {
    "COMPLETE": "complete",
    "PRUNED": "stopped early",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
DIVERGED = "diverged"  # whatever the state of the trial
NAMES = ("complete", "stopped early", DIVERGED, "failed", "running", "waiting")
NOTABLE = 0.001  # a fraction; a smaller lead of a rival is not worth its sentence


def finished(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The trials that ran their full length and have a value: what fronts are made of."""
    return [
        outcome
        for outcome in outcomes
        if outcome.state == "COMPLETE"
        and outcome.value is not None
        and outcome.report is not None
        and outcome.report.exits
        and not outcome.diverged
    ]


def curves(outcomes: Sequence[Outcome]) -> dict[int, list[FrontPoint]]:
    """Trial number -> its points, shallow first; of the finished trials."""
    return {
        outcome.number: curve(outcome.number, outcome.report.exits)
        for outcome in finished(outcomes)
        if outcome.report is not None
    }


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The finished trials, best value first; of equal ones a deployable, then an earlier one."""
    return _ranked(outcomes, set(deployable(curves(outcomes))))


def _ranked(outcomes: Sequence[Outcome], whole: set[int]) -> list[Outcome]:
    return sorted(
        finished(outcomes), key=lambda o: (-(o.value or 0.0), o.number not in whole, o.number)
    )


def recommended_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The finished trials in the order of an export: those whose whole curve none dominates come
    first, then the rest, each by value."""
    whole = set(deployable(curves(outcomes)))
    return sorted(_ranked(outcomes, whole), key=lambda outcome: outcome.number not in whole)


def recommended(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The network to take: the best value among those that no other whole curve dominates."""
    return next(iter(recommended_first(outcomes)), None)


def is_paper_default(config: TrialConfig) -> bool:
    """Whether the distillation is what we call the paper's default: MATE with α = 3 and T = 3, its
    equations as they are printed, and our defaults for the weight network, which it leaves open."""
    default = TrialConfig.model_fields
    return (
        config.scheme == "mate"
        and set(config.alpha_per_exit()) == {3.0}
        and set(config.alpha_teacher_per_exit()) == {3.0}
        and set(config.temperatures or (config.temperature,)) == {3.0}
        and set(config.exit_weights or (1.0,)) == {1.0}
        and not config.attached
        and config.kd_weight == 1.0
        and (config.t_squared, config.kl, config.ramp_up) == (False, "forward", 0)
        and all(getattr(config, name) == default[name].default for name in WEIGHT_NETWORK)
    )


def reference(outcomes: Sequence[Outcome]) -> Outcome | None:
    """What the others are measured by: the finished run of the paper's default.

    Where the study's fixed settings differ from the paper's, the first of its starting points.
    """
    starts = sorted((o for o in finished(outcomes) if o.start), key=lambda o: o.number)
    papers = [o for o in starts if o.config is not None and is_paper_default(o.config)]
    return next(iter(papers or starts), None)


def reference_name(outcome: Outcome) -> str:
    """`the paper's default`, or `the starting point` where it is not the paper's."""
    papers = outcome.config is not None and is_paper_default(outcome.config)
    return "the paper's default" if papers else "the starting point"


def network_text(config: TrialConfig) -> str:
    """`vgg16`, `vgg16, width 0.25`; of a user's file its name alone."""
    name = Path(config.backbone).name
    return name if config.width == 1 else f"{name}, width {config.width:.3g}"


def percent(fraction: float) -> str:
    """`93.41 %`."""
    return f"{100 * fraction:.2f} %"


def points(difference: float) -> str:
    """A difference of two fractions, without its sign: `0.81 points`."""
    return f"{abs(100 * difference):.2f} points"


def signed(value: float, digits: int = 2) -> str:
    """`+0.59`, `−0.10` with a minus sign that is as wide as the plus; zero has none."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def failures_text(failed: Sequence[Outcome], most: int = 3) -> str:
    """Why trials failed, once for all that failed alike: `trials 3 and 5: REASON; trial 7: ...`."""
    alike: dict[str, list[int]] = {}
    for outcome in failed:
        alike.setdefault(outcome.reason or "unknown", []).append(outcome.number)
    texts = []
    for reason, numbers in list(alike.items())[:most]:
        *some, last = map(str, numbers)
        listed = f"trials {', '.join(some)} and {last}" if some else f"trial {last}"
        texts.append(f"{listed}: {reason}")
    left = sum(map(len, list(alike.values())[most:]))
    return "; ".join(texts) + (f"; and {left} more" if left else "")


def count_text(number: float, noun: str) -> str:
    """`1 epoch`, `1,200 epochs`, `2 studies`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


def p_number(p: float) -> str:
    """`< 0.001`, `0.032`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_text(p: float) -> str:
    """`p < 0.001`, `p = 0.032`."""
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def flops_text(flops: float) -> str:
    """`99.19 M`, as Table 1 prints it; below a million `102.4 k`."""
    return f"{flops / 1e6:.2f} M" if flops >= 1e6 else f"{flops / 1e3:.1f} k"


def number_text(value: Any) -> str:
    """Three digits of a float, anything else as it is; never longer than 60 characters."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def setting(params: Mapping[str, Any]) -> str:
    """`alpha_1 = 30.2, alpha_2 = 3`."""
    return ", ".join(f"{name[:60]} = {number_text(value)}" for name, value in params.items())


def objective_name(objective: str) -> str:
    """What is maximised, as a noun; of a front what its trials are ordered by."""
    objective = ranked_by(objective)
    if objective.startswith("exit:"):
        return f"accuracy of exit {objective.removeprefix('exit:')}"
    if (flops := budget_of(objective)) is not None:
        return f"accuracy of dynamic inference at {flops_text(flops)}FLOPs"
    return {
        "anytime": "anytime accuracy",
        "mean": "mean accuracy",
        "last": "accuracy of the last exit",
    }.get(objective, objective)


def value_text(objective: str, value: float) -> str:
    """The objective's value: a percentage, but a plain number for the hypervolume."""
    return f"{value:.4f}" if ranked_by(objective) == "hypervolume" else percent(value)


def gain_text(objective: str, gain: float) -> str:
    """A difference of two values, without its sign."""
    return f"{abs(gain):.4f}" if ranked_by(objective) == "hypervolume" else points(gain)


def tolerance_text(plan: StudyPlan) -> str:
    """The tolerance of a plan's rungs: of the objective, of a front of each exit's accuracy."""
    if is_front(plan.objective):
        return points(plan.tolerance)
    return gain_text(plan.objective, plan.tolerance)


def state_name(state: str, diverged: bool) -> str:
    """Of a trial, in words: a diverged one has no state of its own."""
    return DIVERGED if diverged else STATES[state]


def counted(names: Iterable[str]) -> str:
    """`12 complete, 16 stopped early, 2 waiting`, of the names of states."""
    counts = Counter(names)
    some = [f"{counts[name]} {name}" for name in NAMES if counts[name]]
    return ", ".join(some) or "no trial"


def states_text(outcomes: Sequence[Outcome]) -> str:
    """What became of the trials: `12 complete, 16 stopped early, 2 waiting`."""
    return counted(state_name(outcome.state, outcome.diverged) for outcome in outcomes)


def whole_front(outcomes: Sequence[Outcome], plan: StudyPlan) -> str:
    """Which networks a search for the front has left, and that its order is of another number.

    Empty of a search that maximised one number, or with nothing to compare.
    """
    every = curves(outcomes)
    if not is_front(plan.objective) or len(every) < 2:
        return ""
    whole = deployable(every)
    listed = ", ".join(map(str, whole[:10])) + (" and more" if len(whole) > 10 else "")
    trials = f"trial {listed}" if len(whole) == 1 else f"trials {listed}"
    also = " and the FLOPs" if plan.objective == FRONT_FLOPS else ""
    name = objective_name(plan.objective)
    verb = "is" if len(whole) == 1 else "are"
    return (
        f" The search compared each exit{also} by itself: {len(whole)} of {len(every)} full-length "
        f"networks ({trials}) {verb} beaten as a whole by no other; {name} only puts them in order."
    )


def verdict(outcomes: Sequence[Outcome], plan: StudyPlan) -> str:
    """The study in a sentence or two, with what it does not prove."""
    from studies.states import ENDED  # optuna, which figures of no study do without

    order = ranked(outcomes)
    if not order:
        if outcomes and all(outcome.diverged for outcome in outcomes):
            number = len(outcomes)
            every = "The only trial" if number == 1 else f"Every one of {number:,} trials"
            return (
                f"{every} diverged (its loss was not finite): nothing can be said. Lower lr, or "
                "the strength of the distillation."
            )
        return (
            f"No trial has run its full length ({states_text(outcomes)}): nothing can be said yet."
        )
    best, base, count = order[0], reference(outcomes), len(order)
    done = sum(outcome.state in ENDED for outcome in outcomes)
    left = plan.trials - done
    lead = f"So far ({done} of {count_text(plan.trials, 'trial')} done), " if left > 0 else ""
    what = objective_name(plan.objective)
    value = value_text(plan.objective, best.value or 0.0)

    def sentence(text: str) -> str:
        text = lead + text if lead else text[0].upper() + text[1:]
        return text + whole_front(outcomes, plan)

    if base is not None and best.number == base.number:
        name = reference_name(base)
        if count == 1:
            return sentence(
                f"only {name} has run its full length ({what} {value} on the validation split; "
                f"{UNCONFIRMED}), so there is nothing to compare it with."
            )
        beaten = f"none of the {count - 1} other trials that ran their full length beats"
        if count == 2:
            beaten = "the other full-length trial does not beat"
        return sentence(
            f"{beaten} {name} (trial {base.number}: {what} {value} on the validation split; "
            f"{UNCONFIRMED}: one run each proves nothing)."
        )
    chosen = f"trial {best.number}" + (f" ({setting(best.params)})" if best.params else "")
    if count == 1:
        return sentence(
            f"{chosen} alone has run its full length ({what} {value} on the validation split; "
            f"{UNCONFIRMED}), so there is nothing to compare it with."
        )
    if base is None or base.value is None:
        over = "with no full-length run of the paper's default beside it"
    else:
        gain = (best.value or 0.0) - base.value
        against = f"{reference_name(base)} ({value_text(plan.objective, base.value)})"
        over = (
            f"{gain_text(plan.objective, gain)} over {against}" if gain else f"level with {against}"
        )
    return sentence(
        f"{chosen} has the best {what} of {count} full-length trials, {value} on the validation "
        f"split, {over}; {UNCONFIRMED}: one run each proves nothing, and the best of {count} is "
        "partly luck."
    )


def recommendation(outcomes: Sequence[Outcome], plan: StudyPlan) -> str:
    """Which one network to take, and why; its strongest rivals per exit are named."""
    take = recommended(outcomes)
    if take is None or take.report is None or take.value is None:
        return "There is no network to take: no trial has run its full length."
    all_curves = curves(outcomes)
    whole = deployable(all_curves)
    base = reference(outcomes)
    title = f"trial {take.number}"
    if base is not None and base.number == take.number:
        title += f", {reference_name(base)}"
    value = value_text(plan.objective, take.value)
    what = objective_name(plan.objective)
    if len(all_curves) == 1:
        why = f"it is the only full-length network ({what} {value})."
    elif len(whole) == 1:
        why = (
            f"of the {len(all_curves)} full-length networks it is the only one that no other beats "
            f"as a whole ({what} {value})."
        )
    else:
        some = f"{len(whole)} of the {len(all_curves)} full-length networks are not"
        if len(whole) == len(all_curves):
            some = f"none of the {len(whole)} full-length networks is"
        why = (
            f"{some} beaten as a whole by another, and it has the highest {what} of them ({value})."
        )
    exits = "; ".join(
        f"exit {point.exit} {percent(point.accuracy)} at {flops_text(point.flops)}FLOPs"
        for point in take.report.exits
    )
    text = f"Take {title}: {why} {exits[0].upper()}{exits[1:]}."
    rivals = _rivals(take.number, {number: all_curves[number] for number in whole})
    if rivals:
        text += f" If one exit matters more than the others: {'; '.join(rivals)}."
    return text + f" Accuracies are of the validation split, {UNCONFIRMED}."


def _rivals(number: int, whole: Mapping[int, Sequence[FrontPoint]]) -> list[str]:
    """Per exit of the taken network, the deployable network that is most accurate there."""
    found = []
    for own in whole[number]:
        same = [p for points in whole.values() for p in points if p.exit == own.exit]
        other = max((p for p in same if p.flops <= own.flops), key=lambda p: (p.accuracy, -p.trial))
        if other.accuracy - own.accuracy >= NOTABLE:
            gain = points(other.accuracy - own.accuracy)
            found.append(f"trial {other.trial} is {gain} better at exit {own.exit}")
    return found
