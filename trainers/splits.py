"""Which training images a run is trained on and which are held out: seeded, stratified, pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.catalog import DATASETS, InputError
from trainers.config import TrialConfig
from trainers.folders import Labels

Index = NDArray[np.int64]

DIGITS_SEED = 1797  # any number, but for ever the same one
DIGITS_FIT, DIGITS_TEST = DATASETS["digits"].train, DATASETS["digits"].test
DIGITS_TRAIN = 1797 - DIGITS_TEST  # trained on or validated with


def _ranks(labels: Labels, rng: np.random.RandomState) -> Index:
    """(n,): the place of each image, from 0, in a random order of its class."""
    order = np.lexsort((rng.random_sample(len(labels)), labels))
    ordered = labels[order]
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks


def _rng(seed: int) -> np.random.RandomState:
    """RandomState's stream is frozen for good; Generator's may change with NumPy's version.

    SeedSequence takes seeds of any length.
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


def training(
    config: TrialConfig, labels: Labels, classes: Sequence[str] = ()
) -> tuple[Index, Index]:
    """The training images of a run and its hold-out.

    From each class the share `validation` is held out, at least one image and never all. Of what
    is left `limit_train` keeps N, as equal per class as possible. With the same seed a larger
    share, or a larger N of the same share, keeps what the smaller one had. Of the digits the
    first 180 of `digits_parts` are trained on, whatever the share, and with another `split_seed`
    than 0 as many drawn anew from all that are no test images.

    Args:
        config: dataset, validation, limit_train and split_seed are read.
        labels: (n,), of the whole training split.
        classes: Their names, for messages.

    Returns:
        Two sorted index arrays that share no image.

    Raises:
        InputError: A class too small to be held out from; an N that cannot be had.
    """
    rng = _rng(config.split_seed)
    ranks = _ranks(labels, rng)
    if config.dataset == "digits" and not config.split_seed:
        kept, held = np.arange(DIGITS_FIT), np.arange(DIGITS_FIT, len(labels))
    elif config.dataset == "digits":
        is_kept = ranks < DIGITS_FIT // config.classes
        kept, held = np.flatnonzero(is_kept), np.flatnonzero(~is_kept)
    else:
        counts = np.bincount(labels, minlength=config.classes)
        if counts.min() < 2:
            place = int(counts.argmin())
            name = repr(classes[place]) if classes else f"number {place}"
            raise InputError(
                f"{config.dataset!r}: class {name} has {counts[place]} training image, at least 2 "
                "are needed: one to train on and one to hold out"
            )
        shares = np.clip(np.floor(config.validation * counts + 0.5), 1, counts - 1)
        is_held = ranks < shares[labels]
        kept, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    return _limited(config, labels, kept, rng), held


def whole(config: TrialConfig, labels: Labels) -> Index:
    """All training images, or `limit_train` of them: nothing is held out.

    Of the digits the fixed ones that are always trained on.

    Args:
        config: dataset, limit_train and split_seed are read.
        labels: (n,), of the whole training split.

    Returns:
        A sorted index array.

    Raises:
        InputError: An N that cannot be had.
    """
    kept = np.arange(DIGITS_FIT if config.dataset == "digits" else len(labels))
    return _limited(config, labels, kept, _rng(config.split_seed))


def _limited(config: TrialConfig, labels: Labels, kept: Index, rng: np.random.RandomState) -> Index:
    """N of the kept images: the first of every class, then the second of every class, ..."""
    limit = config.limit_train
    if limit is None:
        return kept
    if limit > len(kept):
        raise InputError(
            f"limit_train is {limit}, there are {len(kept)} training images "
            f"(of {len(labels)}, {len(labels) - len(kept)} are held out)"
        )
    if limit < config.classes:
        raise InputError(
            f"limit_train is {limit}, at least one image of each of the {config.classes} classes "
            "is needed"
        )
    places = _ranks(labels[kept], rng)
    tie = rng.permutation(config.classes)  # which classes have one more is left to the seed
    return np.sort(kept[np.lexsort((tie[labels[kept]], places))[:limit]])


def digits_parts(labels: Labels) -> tuple[Index, Index]:
    """The fixed parts of the digits: 897 to train with, their 180 to train on first, 900 to test.

    The same whatever the config says, so that test figures of different studies are of the same
    images.
    """
    ranks = _ranks(labels, _rng(DIGITS_SEED))
    fit, test = DIGITS_FIT // 10, DIGITS_TEST // 10
    place = np.where(ranks < fit, 0, np.where(ranks < fit + test, 2, 1))
    parts = [np.flatnonzero(place == part) for part in range(3)]
    return np.concatenate(parts[:2]), parts[2]
