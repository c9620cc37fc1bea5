"""Calibration, overthinking, the oracle and ensembles against loops over images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import quality


@st.composite
def answers(draw):
    """(probabilities (M, n, K), labels (n,)) of a network that is right now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    exits, n, k = draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(2, 12))
    labels = rng.integers(0, k, n)
    logits = rng.normal(0, draw(st.sampled_from([0.5, 5.0])), (exits, n, k))
    logits += draw(st.sampled_from([0.0, 2.0])) * np.eye(k)[labels]
    weights = np.exp(logits)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32), labels


@settings(max_examples=60, deadline=None)
@given(answers())
def test_hits_are_the_first_and_the_first_five(network):
    probabilities, labels = network
    top1, top5 = quality.hits(probabilities, labels)
    for i, rows in enumerate(probabilities):
        for j, row in enumerate(rows):
            order = sorted(range(len(row)), key=lambda c: -row[c])
            assert top1[i, j] == (order[0] == labels[j])
            assert top5[i, j] == (labels[j] in order[:5])


@settings(max_examples=60, deadline=None)
@given(answers())
def test_the_calibration_error_is_that_of_a_loop_over_bins(network):
    probabilities, labels = network
    confidence = probabilities.max(axis=-1)
    right, _ = quality.hits(probabilities, labels)
    errors = quality.calibration_error(quality.reliability(confidence, right))
    n, bins = len(labels), 15
    for i in range(len(confidence)):
        expected = 0.0
        for b in range(bins):
            low, high = b / bins, (b + 1) / bins
            mine = [j for j in range(n) if low < float(confidence[i, j]) <= high]
            if mine:
                accuracy = sum(bool(right[i, j]) for j in mine) / len(mine)
                sure = sum(float(confidence[i, j]) for j in mine) / len(mine)
                expected += len(mine) / n * abs(accuracy - sure)
        assert errors[i] == pytest.approx(expected, abs=1e-9)


def test_a_bin_holds_its_upper_edge_and_not_its_lower():
    confidence = np.array([[1 / 15, 2 / 15, 0.0666, 1.0, 0.9333]])
    diagram = quality.reliability(confidence, np.ones((1, 5), dtype=bool))
    assert diagram.images[0, [0, 1, 13, 14]].tolist() == [2, 1, 1, 1]
    assert np.isnan(diagram.accuracy[0, 5])


def test_perfect_and_hopeless_calibration():
    sure = np.ones((1, 8))
    for right, error in ((np.ones((1, 8), bool), 0.0), (np.zeros((1, 8), bool), 1.0)):
        assert quality.calibration_error(quality.reliability(sure, right)).tolist() == [error]


@settings(max_examples=60, deadline=None)
@given(answers())
def test_overthinking_and_the_oracle_are_those_of_a_loop(network):
    probabilities, labels = network
    right, _ = quality.hits(probabilities, labels)
    exits, n = right.shape
    flops = [10 * (i + 1) ** 2 for i in range(exits)]
    destructive = wasteful = hits = spent = 0
    by_exit, shares = [0] * exits, [0] * exits
    for j in range(n):
        column = [bool(right[i, j]) for i in range(exits)]
        if any(column[:-1]):
            destructive += not column[-1]
            wasteful += column[-1]
        for i in range(exits):
            by_exit[i] += column[i] and not column[-1]
        first = column.index(True) if any(column) else exits - 1
        hits += any(column)
        spent += flops[first]
        shares[first] += 1
    found = quality.overthinking(right)
    assert found.destructive == pytest.approx(destructive / n)
    assert found.wasteful == pytest.approx(wasteful / n)
    assert (found.by_exit * n).tolist() == pytest.approx(by_exit)
    oracle = quality.oracle(right, flops)
    assert oracle.accuracy == pytest.approx(hits / n)
    assert oracle.flops == pytest.approx(spent / n)
    assert (oracle.shares * n).tolist() == pytest.approx(shares)
    assert oracle.accuracy >= right.mean(axis=1).max() - 1e-12


@settings(max_examples=60, deadline=None)
@given(answers())
def test_ensembles_answer_by_the_mean_of_the_softmaxes_so_far(network):
    probabilities, labels = network
    found = quality.ensembles(probabilities, labels)
    assert found[0] == pytest.approx(quality.hits(probabilities, labels)[0][0].mean())
    for k in range(len(probabilities)):
        mean = np.mean(probabilities[: k + 1].astype(np.float64), axis=0)
        assert found[k] == pytest.approx((mean.argmax(axis=1) == labels).mean())


def test_the_best_exit_so_far():
    assert quality.anytime([0.5, 0.7, 0.6]).tolist() == [0.5, 0.7, 0.7]
