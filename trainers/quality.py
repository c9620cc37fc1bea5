"""What a reviewer asks of a multi-exit network: is it calibrated, does it overthink, how good could
it be. Pure functions of what each exit said; numpy alone.

M exits, shallow first; n images; K classes. `right` (M, n) says whether an exit's top-1 is the
label.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]
Whole = NDArray[np.integer[Any]]

BINS = 15


def hits(probabilities: Floats, labels: Whole) -> tuple[Flags, Flags]:
    """Whether the label is the most probable class, and whether among the first five.

    Args:
        probabilities: (M, n, K). labels: (n,).

    Returns:
        (M, n) twice.
    """
    classes = probabilities.shape[-1]
    few = min(5, classes)
    best = np.argpartition(probabilities, classes - few, axis=-1)[..., classes - few :]
    return probabilities.argmax(axis=-1) == labels, (best == labels[:, None]).any(axis=-1)


class Reliability(NamedTuple):
    """Confidence against accuracy, in bins of equal width over (0, 1].

    Attributes:
        images: (M, bins), how many fall in each bin.
        confidence, accuracy: (M, bins), means; NaN where a bin is empty.
    """

    images: Whole
    confidence: Floats
    accuracy: Floats


def reliability(confidence: Floats, right: Flags, bins: int = BINS) -> Reliability:
    """The reliability diagram of each exit (Guo et al. 2017): bin b holds ((b - 1)/B, b/B].

    Args:
        confidence: (M, n), the largest softmax value, in (0, 1].
        right: (M, n).
        bins: B.
    """
    exits = len(confidence)
    # The edges are the floats b/B themselves, so that a value on an edge falls below it.
    edges = np.arange(1, bins) / bins
    found = np.searchsorted(edges, confidence.astype(np.float64), side="left")
    place = (found + bins * np.arange(exits)[:, None]).ravel()

    def total(weights: Floats | Flags) -> Floats:
        table = np.zeros(exits * bins)
        np.add.at(table, place, weights.ravel())
        return table.reshape(exits, bins)

    count = total(np.ones_like(right))
    with np.errstate(invalid="ignore"):
        return Reliability(count.astype(np.int64), total(confidence) / count, total(right) / count)


def calibration_error(diagram: Reliability) -> Floats:
    """(M,) expected calibration error: Σ_b |B_b| / n · |accuracy(B_b) - confidence(B_b)|.

    Guo et al. 2017, Eq. 3; with 15 bins of equal width unless the diagram has others.
    """
    gaps = np.nan_to_num(np.abs(diagram.accuracy - diagram.confidence))
    error: Floats = (diagram.images * gaps).sum(axis=1) / diagram.images.sum(axis=1)
    return error


class Overthinking(NamedTuple):
    """Kaya et al. 2019: a right answer that came before the last exit. Shares of all images.

    Attributes:
        destructive: Right at some earlier exit, wrong at the last: thinking on did harm.
        wasteful: Right at some earlier exit and at the last: thinking on was for nothing.
        by_exit: (M,), right at this exit and wrong at the last; 0 at the last.
    """

    destructive: float
    wasteful: float
    by_exit: Floats


def overthinking(right: Flags) -> Overthinking:
    """How much a network loses, or spends for nothing, after an exit was right."""
    early, last = right[:-1].any(axis=0), right[-1]
    return Overthinking(
        destructive=float((early & ~last).mean()),
        wasteful=float((early & last).mean()),
        by_exit=(right & ~last).mean(axis=1),
    )


class Oracle(NamedTuple):
    """A network that is told, at each exit, whether it is right, and leaves at the first that is.

    Attributes:
        accuracy: Share of images that some exit has right; no rule for leaving gets above.
        flops: Mean per image, cascade; an image that no exit has right passes them all.
        shares: (M,), of the images that leave at each exit.
    """

    accuracy: float
    flops: float
    shares: Floats


def oracle(right: Flags, flops: Sequence[float]) -> Oracle:
    """The oracle's accuracy and cost.

    Args:
        right: (M, n).
        flops: M cascade costs.
    """
    some = right.any(axis=0)
    left = np.where(some, right.argmax(axis=0), len(right) - 1)
    shares = np.bincount(left, minlength=len(right)) / right.shape[1]
    return Oracle(float(some.mean()), float(shares @ np.asarray(flops, dtype=np.float64)), shares)


def anytime(accuracy: Sequence[float]) -> Floats:
    """(M,) accuracy when the time is up after exit k and the best exit so far answers."""
    return np.maximum.accumulate(np.asarray(accuracy, dtype=np.float64))


def ensembles(probabilities: Floats, labels: Whole) -> Floats:
    """(M,) accuracy of the mean of the softmaxes of exits 1..k.

    Args:
        probabilities: (M, n, K). labels: (n,).
    """
    total = np.zeros(probabilities.shape[1:], dtype=np.float64)
    found = []
    for row in probabilities:
        total += row
        found.append(float((total.argmax(axis=1) == labels).mean()))
    return np.array(found)
