"""Budgeted batch classification: which exit answers for which image, at a mean cost in FLOPs.

Huang et al. 2018 (MSDNet), as the paper's Section 4.7.6 uses it: an image leaves at the first exit
that is confident enough; the thresholds are set on held-out images so that a wanted share of them
leaves at each exit. All functions are vectorised over images and over the sweep; numpy alone.

M exits, shallow first; n images; P values of p. An image's confidence at an exit is the largest
value of the exit's softmax.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.catalog import InputError
from trainers.reports import BudgetPoint

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]
Whole = NDArray[np.integer[Any]]

FIRST_P = 0.005
STORED, FINE = 38, 200  # values of p: in a report, which the storage keeps; in an evaluation
ROUNDED = 5e-5  # what `flops_text` may take from a number
NOISE = 1e-9  # 9 * (1 / 3) is 3, whatever the floats say


class Curve(NamedTuple):
    """What a network reaches at each mean cost, by rising cost.

    Attributes:
        flops: (P,), mean per image, cascade: the heads that an image passes are paid for.
        top1, top5: (P,), fractions.
        shares: (P, M), of the images that leave at each exit.
    """

    flops: Floats
    top1: Floats
    top5: Floats
    shares: Floats


def sweep(count: int) -> Floats:
    """(count,) values of p from 0.005 to 200, even in p / (1 + p): one end as fine as the other."""
    first = FIRST_P / (1 + FIRST_P)
    place = np.linspace(first, 1 - first, count)
    return place / (1 - place)


def thresholds(confidence: Floats, values: Floats) -> Floats:
    """T_k of each p, on images that were held out.

    With q_k = p^k / Σ_j p^j, T_k is the confidence of the floor(n q_k)-th most confident of the
    images that have not left before exit k; these and all others as confident leave there. It is
    +inf where floor(n q_k) = 0 or fewer are left, and T_M = -inf.

    Args:
        confidence: (M, n). values: (P,), p > 0.

    Returns:
        (P, M).
    """
    exits, n = confidence.shape
    powers = values[:, None] ** np.arange(1, exits + 1)
    wanted = np.floor(n * powers / powers.sum(axis=1, keepdims=True) + NOISE).astype(np.int64)
    found = np.full((len(values), exits), np.inf)
    found[:, -1] = -np.inf
    here = np.ones((len(values), n), dtype=bool)
    for k in range(exits - 1 if n else 0):
        order = np.argsort(-confidence[k], kind="stable")
        ranked = np.cumsum(here[:, order], axis=1, dtype=np.int32)
        place = (ranked >= wanted[:, k, None]).argmax(axis=1)
        some = (wanted[:, k] > 0) & (ranked[:, -1] >= wanted[:, k])
        found[some, k] = confidence[k, order[place[some]]]
        here &= ~(confidence[k] >= found[:, k, None])
    return found


def leaving(confidence: Floats, limits: Floats) -> Whole:
    """The exit of each image, from 0: the first whose confidence is at least its threshold.

    Args:
        confidence: (M, n). limits: (P, M), from `thresholds`.

    Returns:
        (P, n).
    """
    goes = confidence[None] >= limits[:, :, None]
    goes[:, -1] = True  # whatever is left, were its confidence not a number
    first: Whole = goes.argmax(axis=1)
    return first


def limits_within(confidence: Floats, flops: Sequence[float], most: float) -> Floats:
    """The thresholds of one network for a budget: the dearest of the sweep that keep within it.

    Args:
        confidence: (M, n), of held-out images.
        flops: M cascade costs.
        most: FLOPs, mean per held-out image; from the first exit's cost, where all leave there, to
            the last one's.

    Returns:
        (M,).

    Raises:
        InputError: A budget that the network cannot spend.
    """
    most = checked_cost(most, flops[0], flops[-1])
    ends = np.full((2, len(confidence)), np.inf)
    ends[0], ends[1, -1] = -np.inf, -np.inf
    limits = np.concatenate((ends, thresholds(confidence, sweep(FINE))))
    spent = np.asarray(flops, dtype=np.float64)[leaving(confidence, limits)].mean(axis=1)
    found: Floats = limits[np.where(spent <= most * (1 + NOISE), spent, -np.inf).argmax()]
    # Each is one image's own confidence, which in another batch or on another device is not the
    # same to the last bit: half-way to the next lower one no image is on the edge.
    for k in np.flatnonzero(np.isfinite(found)):
        lower = confidence[k][confidence[k] < found[k]]
        found[k] = (found[k] + lower.max(initial=0.0)) / 2
    return found


def measured(left: Whole, top1: Flags, top5: Flags, flops: Sequence[float]) -> Curve:
    """The curve of images whose exits are known.

    Its ends, all at the first exit and all at the last, are always on it, so that it spans whatever
    the network can spend. Points of equal cost are one, their mean.

    Args:
        left: (P, n), from `leaving`.
        top1, top5: (M, n), whether an exit is right.
        flops: M cascade costs.
    """
    exits, n = top1.shape
    ends = np.zeros((2, n), dtype=left.dtype)
    ends[1] = exits - 1
    left = np.concatenate((ends, left))
    counts = np.stack([(left == k).sum(axis=1) for k in range(exits)], axis=1)
    scores = [np.take_along_axis(right, left, axis=0).mean(axis=1) for right in (top1, top5)]
    # whole numbers until here, so that equal costs are equal floats
    spent = counts @ np.asarray(flops, dtype=np.float64) / n
    table = np.column_stack((spent, *scores, counts / n))
    cost, place = np.unique(table[:, 0], return_inverse=True)
    sums = np.zeros((len(cost), table.shape[1] - 1))
    np.add.at(sums, place, table[:, 1:])
    means = sums / np.bincount(place)[:, None]
    return Curve(cost, means[:, 0], means[:, 1], means[:, 2:])


def calibrated(
    held: Floats,
    confidence: Floats,
    top1: Flags,
    top5: Flags,
    flops: Sequence[float],
    count: int = STORED,
) -> Curve:
    """The curve of some images under thresholds from others.

    Args:
        held: (M, m), confidence of the held-out images; none of them was trained on.
        confidence, top1, top5: (M, n), of the images that are scored.
        flops: M cascade costs.
        count: Values of p.
    """
    return measured(leaving(confidence, thresholds(held, sweep(count))), top1, top5, flops)


def cross_fitted(
    confidence: Floats,
    top1: Flags,
    top5: Flags,
    labels: Whole,
    flops: Sequence[float],
    count: int = STORED,
) -> Curve:
    """The curve of held-out images alone: each half under thresholds from the other half.

    So no image is scored under thresholds that it helped to set, and all are scored. The halves are
    fixed by the labels: every other image of each class.

    Args:
        confidence, top1, top5: (M, n).
        labels: (n,).
        flops, count: As in `calibrated`.
    """
    second = np.zeros(len(labels), dtype=bool)
    second[np.argsort(labels, kind="stable")[1::2]] = True
    values = sweep(count)
    left = np.zeros((count, len(labels)), dtype=np.int64)
    for half in (second, ~second):
        left[:, half] = leaving(confidence[:, half], thresholds(confidence[:, ~half], values))
    return measured(left, top1, top5, flops)


def along(curve: Curve, flops: Sequence[float] | Floats) -> Curve:
    """The curve at other mean costs, on the straight lines between its points; see `at`.

    Args:
        curve: Of P points.
        flops: Q costs within those of the curve.
    """
    wanted = np.asarray(flops, dtype=np.float64)
    table = (curve.top1, curve.top5, *curve.shares.T)
    top1, top5, *shares = (np.interp(wanted, curve.flops, column) for column in table)
    return Curve(wanted, top1, top5, np.column_stack(shares))


def points(curve: Curve) -> tuple[BudgetPoint, ...]:
    """The curve as a record, rounded to what its images can tell, so that reports stay small."""
    return tuple(
        BudgetPoint(round(flops), round(top1, 6), round(top5, 6))
        for flops, top1, top5 in zip(
            curve.flops.tolist(), curve.top1.tolist(), curve.top5.tolist(), strict=True
        )
    )


def at(
    curve: Sequence[BudgetPoint], flops: float, score: Literal["top1", "top5"] = "top1"
) -> float:
    """Accuracy at a mean cost, on the straight line between the nearest points of the curve.

    (That line is itself reached: by drawing lots between the two settings, image by image.)

    Args:
        curve: By rising cost, e.g. `EpochReport.budget`.
        flops: Mean per image, cascade.
        score: Which accuracy.

    Returns:
        A fraction.

    Raises:
        InputError: An empty curve, or a cost that the network cannot have.
    """
    if not curve:
        raise InputError(
            "there is no budget curve: thresholds need held-out images, and this epoch had none"
        )
    costs = [point.flops for point in curve]
    checked_cost(flops, costs[0], costs[-1])
    return float(np.interp(flops, costs, [getattr(point, score) for point in curve]))


def checked_cost(flops: float, low: float, high: float) -> float:
    """The mean cost, if a network that costs `low` to `high` can have it. Raises InputError.

    The ends may be given as `flops_text` writes them.
    """
    if not low * (1 - ROUNDED) <= flops <= high * (1 + ROUNDED):
        raise InputError(
            f"a budget of {flops_text(flops)} FLOPs per image cannot be spent: this network's "
            f"exits cost from {flops_text(low)} (exit 1) to {flops_text(high)} (the last one, "
            "earlier heads included)"
        )
    return min(max(flops, low), high)


def flops_text(flops: float) -> str:
    """`99.19M`, `48.2k`: as `--budgets` takes it."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= factor:
            return f"{flops / factor:.5g}{unit}"
    return f"{flops:.5g}"


def read_flops(text: str) -> float:
    """FLOPs from `150M`, `1.2G`, `48k` or a plain number, `1.5e8`.

    Raises:
        InputError: Anything else, or not above 0.
    """
    factor = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:])
    try:
        value = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise InputError(
            f"FLOPs need a number above 0 as in 150M, 1.2G or 1.5e8, got {text[:40]!r}"
        )
    return value
