"""Points, fronts, hypervolume and objectives over (FLOPs, accuracy): pure functions.

Two fronts are told apart. The *envelope* over all (trial, exit) shows what is possible, and may
need a different network for each point. What can be *deployed* is one network, so its whole curve
counts: `deployable` gives the trials whose curve no other curve dominates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from search_spaces import Space
from studies.plan import COST_BLIND, FRONT, FRONT_FLOPS, OBJECTIVES, is_front
from trainers.catalog import InputError, unknown
from trainers.config import TrialConfig
from trainers.dynamic import at, checked_cost, read_flops
from trainers.reports import BudgetPoint, ExitPoint

Box = tuple[float, float, float]
BLOCK = 200  # curves that are compared at once


@dataclass(frozen=True)
class FrontPoint:
    """One exit of one trial.

    Attributes:
        trial: Number of the trial.
        exit: 1 = shallowest.
        flops: Per image, this head only (`ExitPoint.flops`).
        accuracy: Top-1, fraction.
    """

    trial: int
    exit: int
    flops: float
    accuracy: float


def curve(trial: int, exits: Iterable[ExitPoint]) -> list[FrontPoint]:
    """The points of one network, shallow first."""
    return [FrontPoint(trial, point.exit, point.flops, point.accuracy) for point in exits]


def front(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    """The points that no other point beats in FLOPs and accuracy, by FLOPs.

    A point beats another if it costs no more and is right no less often, and is better in one of
    the two. Of equal points the first is kept.
    """
    kept: list[FrontPoint] = []
    # sorted() is stable: of equal points the first given comes first
    for point in sorted(points, key=lambda p: (p.flops, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def envelope(curves: Mapping[int, Sequence[FrontPoint]]) -> list[FrontPoint]:
    """The front over every (trial, exit); its points may belong to different networks."""
    return front(point for points in curves.values() for point in points)


def deployable(curves: Mapping[int, Sequence[FrontPoint]]) -> list[int]:
    """Numbers of the trials whose whole curve no other whole curve dominates, in given order.

    On equal columns (the same FLOPs, exit by exit) a curve dominates another if it is at least as
    accurate at each exit and more so at one. On different columns it dominates if each point of the
    other is matched or beaten by one of its points, and not the other way round. Equal curves do
    not dominate each other.
    """
    groups: dict[tuple[float, ...], list[int]] = {}  # FLOPs -> trials with these columns
    for trial, points in curves.items():
        if points:
            groups.setdefault(tuple(point.flops for point in points), []).append(trial)
    kept: dict[tuple[float, ...], tuple[list[int], np.ndarray]] = {}
    for flops, trials in groups.items():
        accuracy = np.array([[point.accuracy for point in curves[trial]] for trial in trials])
        best = undominated(accuracy)
        kept[flops] = [trials[i] for i in best], accuracy[best]
    # Whatever dominates a curve of other columns is matched by an undominated one of its own.
    beaten = {
        trial
        for flops, (trials, accuracy) in kept.items()
        for trial, own in zip(trials, accuracy, strict=True)
        if any(
            _dominates((np.array(others), other), (np.array(flops), own))
            for others, (_, found) in kept.items()
            if others != flops
            for other in found
        )
    }
    whole = {trial for trials, _ in kept.values() for trial in trials} - beaten
    return [trial for trial in curves if trial in whole]


def undominated(accuracy: np.ndarray) -> list[int]:
    """Rows (n, M) than which no other is as good everywhere and better somewhere, rising."""
    order = np.argsort(-accuracy.sum(axis=1), kind="stable")
    found = np.empty(0, dtype=np.int64)
    # What dominates a row has the greater sum, but for rounding: so it comes before, or beside it.
    for first in range(0, len(order), BLOCK):
        some = order[first : first + BLOCK]
        some = some[~_beaten(accuracy[some], accuracy[found])]
        some = some[~_beaten(accuracy[some], accuracy[some])]
        found = np.concatenate([found[~_beaten(accuracy[found], accuracy[some])], some])
    return sorted(found.tolist())


def _beaten(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,), whether another row is as good everywhere and better somewhere."""
    worse = np.zeros((len(rows), len(others)), dtype=bool)
    better = worse.copy()
    for mine, theirs in zip(rows.T, others.T, strict=True):
        worse |= theirs[None] < mine[:, None]
        better |= theirs[None] > mine[:, None]
    return np.asarray(np.any(better & ~worse, axis=1))


Curve = tuple[np.ndarray, np.ndarray]


def _dominates(one: Curve, two: Curve) -> bool:
    """Whether a curve beats one of other columns."""
    return _covers(one, two) and not _covers(two, one)


def _covers(one: Curve, two: Curve) -> bool:
    """Whether each point of `two` is matched or beaten by some point of `one`."""
    cheaper = one[0][:, None] <= two[0]
    better = one[1][:, None] >= two[1]
    return bool((cheaper & better).any(axis=0).all())


def hypervolume(points: Iterable[FrontPoint | ExitPoint], box: Box) -> float:
    """Share of a box that the points dominate, over log FLOPs and accuracy.

    Args:
        points: Of one network or of many.
        box: (flops_min, flops_max, accuracy_min), fixed when the study is made; accuracy ends at 1.
            Points cheaper than flops_min count from there, points outside count nothing.

    Returns:
        0 to 1: 1 would be an exit of flops_min FLOPs that is always right.

    Raises:
        InputError: The box has no area.
    """
    flops_min, flops_max, accuracy_min = box
    if not (0 < flops_min < flops_max and 0 <= accuracy_min < 1):
        raise InputError(
            "the hypervolume's box needs 0 < flops_min < flops_max and 0 <= accuracy_min < 1, "
            f"got {box}"
        )
    steps = front(
        FrontPoint(0, point.exit, max(point.flops, flops_min), point.accuracy)
        for point in points
        if point.flops < flops_max and point.accuracy > accuracy_min
    )
    ends = [*(point.flops for point in steps), flops_max][1:]
    area = sum(
        log(end / point.flops) * (point.accuracy - accuracy_min)
        for point, end in zip(steps, ends, strict=True)
    )
    return float(area / (log(flops_max / flops_min) * (1 - accuracy_min)))


def checked_objective(name: str, exits: int) -> str:
    """The objective's name, if there is one of this name for this many exits.

    Raises:
        InputError: Unknown name (known ones and the nearest are listed), or no such exit.
    """
    if name.startswith("exit:"):
        number = name.removeprefix("exit:")
        if not (number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= exits):
            span = "1" if exits == 1 else f"1 to {exits}"
            raise InputError(f"objective 'exit:K' needs K from {span} here, got {number[:40]!r}")
        return f"exit:{int(number)}"
    if name.startswith("budget:"):
        return f"budget:{_plain(read_flops(name.removeprefix('budget:')))}"
    if name == FRONT_FLOPS:  # as a plan stores it
        return name
    if name not in OBJECTIVES or ":" in name:
        raise unknown("objective", name, OBJECTIVES)
    return name


def planned_objective(name: str, base: TrialConfig) -> str:
    """The objective's name as a plan stores it, for networks like the base config's.

    Raises:
        InputError: As `checked_objective`; of `budget:F` an F that the network cannot spend.
    """
    name = checked_objective(name, base.exits)
    if (flops := budget_of(name)) is not None:
        from trainers.costs import costs  # torch

        spent = [cost.flops_cascade for cost in costs(base)]
        checked_cost(flops, spent[0], spent[-1])
    return name


def budget_of(objective: str) -> float | None:
    """F of `budget:F`, FLOPs; None of another objective."""
    if not objective.startswith("budget:"):
        return None
    return read_flops(objective.removeprefix("budget:"))


def _plain(flops: float) -> str:
    """One form of each number, so that 0.15G and 150M are the same objective."""
    return f"{flops / 1e6:.12g}M" if flops >= 1e6 else f"{flops:.12g}"


def objective_for(space: Space, asked: str | None, exits: int) -> str:
    """What a search of a space maximises: what was asked for, else the space's own, else anytime.

    Raises:
        InputError: As `checked_objective`; or an objective that does not see what networks cost,
            in a space in which they differ.
    """
    name = checked_objective(asked or space.objective or "anytime", exits)
    if is_front(name):
        return FRONT if space.corners is None else FRONT_FLOPS
    if space.corners is not None and name.partition(":")[0] in COST_BLIND:
        raise InputError(
            f"space {space.name} has networks of different cost, which objective {name} does not "
            "see: take --objective hypervolume or front"
        )
    return name


def metrics(objective: str, exits: int) -> dict[str, bool]:
    """What a search compares: name -> whether more of it is better, else less.

    Args:
        objective: As a plan stores it.
        exits: Of the network; of the deepest, where a front's networks differ.
    """
    if not is_front(objective):
        return {objective: True}
    found = {f"accuracy of exit {number}": True for number in range(1, exits + 1)}
    return found | ({"FLOPs of the last exit": False} if objective == FRONT_FLOPS else {})


def vector(objective: str, exits: Sequence[ExitPoint], columns: int) -> tuple[float, ...]:
    """What a front compares of one network at one epoch, in the order of `metrics`.

    Args:
        objective: `front` or `front+flops`.
        exits: The network's exits, shallow first, at least one.
        columns: How many accuracies. A network with fewer exits answers with its last one where
            others go deeper.
    """
    accuracy = [point.accuracy for point in exits]
    accuracy += accuracy[-1:] * (columns - len(exits))
    cost = [float(exits[-1].flops)] if objective == FRONT_FLOPS else []
    return (*accuracy, *cost)


def checked_budgets(budgets: Sequence[float], exits: int) -> tuple[float, ...]:
    """The weights of the exits in `anytime`, as given.

    Raises:
        InputError: Not one per exit, negative or not finite, or all zero.
    """
    if len(budgets) != exits:
        raise InputError(f"budgets need {exits} values, one per exit, got {len(budgets)}")
    if not all(0 <= weight < float("inf") for weight in budgets) or not sum(budgets) > 0:
        raise InputError(f"budgets need values of 0 or more, not all 0, got {list(budgets)}")
    return tuple(float(weight) for weight in budgets)


def objective(
    name: str,
    exits: Sequence[ExitPoint],
    budgets: Sequence[float] | None = None,
    box: Box | None = None,
    dynamic: Sequence[BudgetPoint] = (),
) -> float:
    """What a search maximises, of one network at one epoch.

    Args:
        name: anytime (Σ_k π_k max of acc_j over the exits j that cost no more than k: an exit that
            a cheaper one beats is not paid for), mean, last, exit:K, budget:F, or hypervolume.
        exits: The network's exits, shallow first, at least one.
        budgets: π up to a factor, one per exit; None is equal weights. Only anytime reads it.
        box: Only hypervolume reads it.
        dynamic: The network's budget curve (`EpochReport.budget`); only budget:F reads it. A
            network that costs less than F at its last exit is taken there; one that costs more at
            its first cannot answer within F and gets 0 (a space may vary the backbone).

    Returns:
        A fraction from 0 to 1; higher is better.

    Raises:
        InputError: As `checked_objective`, `checked_budgets` and `hypervolume`; budget:F without a
            curve.
    """
    if not exits:
        raise InputError("an objective needs at least one exit")
    name = checked_objective(name, len(exits))
    flops = np.array([point.flops for point in exits], dtype=np.float64)
    accuracy = np.array([point.accuracy for point in exits], dtype=np.float64)
    if name == "anytime":
        weights = np.ones(len(exits))
        if budgets is not None:
            weights = np.array(checked_budgets(budgets, len(exits)))
        affordable = flops <= flops[:, None]
        best = np.where(affordable, accuracy, 0.0).max(axis=1)
        return float(weights @ best / weights.sum())
    if name == "mean":
        return float(accuracy.mean())
    if name == "last":
        return float(accuracy[-1])
    if name == "hypervolume":
        if box is None:
            raise InputError("the hypervolume objective needs its box")
        return hypervolume(exits, box)
    if (most := budget_of(name)) is not None:
        spent = [point.flops_cascade for point in exits]
        return at(dynamic, min(most, spent[-1])) if most >= spent[0] else 0.0
    return float(accuracy[int(name.removeprefix("exit:")) - 1])
