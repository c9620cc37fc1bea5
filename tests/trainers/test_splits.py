"""Which images are trained on and which are held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.splits import DIGITS_FIT, digits_parts, training, whole

TREE = TrialConfig(dataset="./tree", classes=4, image_size=8)
LABELS = np.repeat(np.arange(4), [50, 20, 10, 3])


def counts(labels, index):
    return np.bincount(labels[index], minlength=labels.max() + 1).tolist()


def test_a_share_of_each_class_is_held_out():
    kept, held = training(TREE, LABELS)
    assert counts(LABELS, held) == [5, 2, 1, 1]
    assert sorted([*kept, *held]) == list(range(83))
    assert kept.tolist() == sorted(kept) and held.tolist() == sorted(held)


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.floats(0.01, 0.99),
    st.integers(0, 2**70),
    st.randoms(use_true_random=False),
)
def test_every_class_is_on_both_sides(sizes, share, seed, random):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(labels)
    config = TREE.with_(classes=len(sizes), validation=share, split_seed=seed)
    kept, held = training(config, labels)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for size, out in zip(sizes, counts(labels, held), strict=True):
        assert 1 <= out <= size - 1
        assert abs(out - share * size) <= 1
    again = training(config, labels)
    assert np.array_equal(kept, again[0]) and np.array_equal(held, again[1])


def test_the_seed_chooses():
    one, two = training(TREE, LABELS)[1], training(TREE.with_(split_seed=1), LABELS)[1]
    assert counts(LABELS, one) == counts(LABELS, two)
    assert one.tolist() != two.tolist()


def test_the_split_is_the_same_for_ever():
    """Studies of different versions are of the same images."""
    assert training(TREE, LABELS)[1].tolist() == [2, 4, 15, 35, 49, 56, 67, 71, 81]


def test_the_order_within_a_class_is_random():
    held = [training(TREE.with_(split_seed=seed), LABELS)[1] for seed in range(200)]
    chosen = np.bincount(np.concatenate(held), minlength=83)[:50]
    assert chosen.min() >= 5 and chosen.max() <= 40  # 20 expected of each


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(4, [1, 1, 1, 1]), (8, [2, 2, 2, 2]), (11, [3, 3, 3, 2]), (20, [6, 6, 6, 2]),
     (60, [31, 18, 9, 2]), (74, [45, 18, 9, 2])],
)  # fmt: skip
def test_limit_train_is_as_equal_as_possible(limit, expected):
    kept, held = training(TREE.with_(limit_train=limit), LABELS)
    assert counts(LABELS, kept) == expected
    assert np.array_equal(held, training(TREE, LABELS)[1])
    assert not set(kept) & set(held)


def test_what_is_left_over_goes_to_classes_by_the_seed():
    labels = np.repeat(np.arange(4), 20)
    more = {
        tuple(counts(labels, training(TREE.with_(limit_train=9, split_seed=seed), labels)[0]))
        for seed in range(40)
    }
    assert len(more) == 4 and all(sorted(one) == [2, 2, 2, 3] for one in more)


def test_a_larger_limit_keeps_what_a_smaller_one_had():
    small = set(training(TREE.with_(limit_train=9), LABELS)[0])
    large = set(training(TREE.with_(limit_train=30), LABELS)[0])
    assert small < large < set(training(TREE, LABELS)[0])


def test_limits_that_cannot_be_had():
    with pytest.raises(InputError, match="limit_train is 75, there are 74 .* 9 are held out"):
        training(TREE.with_(limit_train=75), LABELS)
    with pytest.raises(InputError, match="limit_train is 3, .* each of the 4 classes"):
        training(TREE.with_(limit_train=3), LABELS)


def test_a_class_of_one_image():
    labels = np.array([0, 0, 1, 2, 2, 3, 3])
    with pytest.raises(InputError, match="class 'b' has 1 training image, at least 2"):
        training(TREE, labels, "abcd")


def test_digits_are_split_the_same_unless_another_split_is_asked_for():
    labels = np.arange(1797) % 10
    train, test = digits_parts(labels)
    assert (len(train), len(test)) == (897, 900)
    assert sorted([*train, *test]) == list(range(1797))
    assert counts(labels, train[:180]) == [18] * 10
    assert counts(labels, test) == [90] * 10
    for changes in ({}, {"seed": 3}, {"validation": 0.5}):
        kept, held = training(TrialConfig(dataset="digits", **changes), labels[train])
        assert kept.tolist() == list(range(180))
        assert held.tolist() == list(range(180, 897))
    one, two = (training(TrialConfig(split_seed=seed), labels[train]) for seed in (1, 2))
    for kept, held in (one, two):
        assert sorted([*kept, *held]) == list(range(897))
        assert counts(labels[train], kept) == [18] * 10
    # a fifth of the images is trained on: two splits share a fifth of these by chance
    assert len({*one[0].tolist()} & {*two[0].tolist()}) < 90


def test_digits_can_be_limited():
    labels = np.arange(1797) % 10
    labels = labels[digits_parts(labels)[0]]
    kept, held = training(TrialConfig(dataset="digits", limit_train=50), labels)
    assert counts(labels, kept) == [5] * 10
    assert kept.max() < 180 and held.tolist() == list(range(180, 897))
    with pytest.raises(InputError, match="limit_train is 181, there are 180"):
        training(TrialConfig(dataset="digits", limit_train=181), labels)


def test_the_whole_holds_nothing_out():
    assert whole(TREE, LABELS).tolist() == list(range(83))
    few = whole(TREE.with_(limit_train=20), LABELS)
    assert len(few) == 20 and counts(LABELS, few)[3] == 3 and min(counts(LABELS, few)) == 3
    with pytest.raises(InputError, match="limit_train is 90"):
        whole(TREE.with_(limit_train=90), LABELS)


def test_the_whole_of_a_class_of_one_image_is_no_error():
    labels = np.array([0, 0, 1, 2, 3])
    assert len(whole(TREE, labels)) == 5


def test_the_whole_of_the_digits_is_their_fixed_part():
    labels = np.arange(897) % 10
    assert len(whole(TrialConfig(), labels)) == DIGITS_FIT
