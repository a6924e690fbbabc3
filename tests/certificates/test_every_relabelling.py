"""Every relabelling of random small problems: no certificate is ever too large, and most are exactly tight.

Weights are integers, so that scores, ties and margins are exact. ``-s`` shows the counts.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from lightning_poison.certificates import certify_equal_votes, certify_label_linear

KINDS = ("votes", "few values", "distinct", "one heavy", "all alike")


def draw_weights(draw: np.random.Generator, kind: str, problems: int, n: int) -> np.ndarray:
    """(problems, n) integers."""
    if kind == "votes":
        return draw.integers(-1, 2, (problems, n))
    if kind == "few values":
        return draw.integers(-3, 6, (problems, n))
    if kind == "distinct":
        return draw.integers(-900, 1000, (problems, n))
    if kind == "one heavy":
        weights = draw.integers(-2, 3, (problems, n))
        weights[:, 0] = draw.integers(-2 * n, 2 * n + 1, problems)
        return weights
    return np.ones((problems, n), dtype=np.int64)


def enumerate_all(weights: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, fewest changes that bring a rival level, and that alter the prediction; n + 1: none do.

    Relabellings are built point by point: the scores of all K^i labellings of the first i points, then of i + 1.
    """
    problems, n = weights.shape
    scores = np.zeros((problems, classes, 1), dtype=np.int16)
    changes = np.zeros((problems, 1), dtype=np.int8)
    for i in range(n):
        branches, counts = [], []
        for label in range(classes):
            branch = scores.copy()
            branch[:, label] += weights[:, i, None].astype(np.int16)
            branches.append(branch)
            counts.append(changes + (labels[:, i, None] != label).astype(np.int8))
        scores, changes = np.concatenate(branches, axis=2), np.concatenate(counts, axis=1)
    unchanged = (changes == 0).argmax(1)
    before = np.take_along_axis(scores, unchanged[:, None, None], axis=2)[:, :, 0]
    own = before.argmax(1)
    own_score = np.take_along_axis(scores, own[:, None, None], axis=1)
    level = np.zeros_like(changes, dtype=bool)
    broken = np.zeros_like(level)
    for label in range(classes):
        rival = (own != label)[:, None]
        reaches = (scores[:, label] >= own_score[:, 0]) & rival
        level |= reaches
        # the lowest index wins among equals
        broken |= reaches & ((label < own)[:, None] | (scores[:, label] > own_score[:, 0]))
    never = np.int8(n + 1)
    return own, np.where(level, changes, never).min(1), np.where(broken, changes, never).min(1)


def check(classes: int, n: int, problems: int, seed: int) -> np.ndarray:
    """Certify and enumerate; returns the number of problems, of exactly tight ones, and of those with no tie."""
    draw = np.random.default_rng([seed, classes, n])
    counts = np.zeros(3, dtype=np.int64)
    size = max(min(problems, 400_000 // classes**n), 1)
    for first in range(0, problems, size):
        kind = KINDS[first // size % len(KINDS)]
        count = min(size, problems - first)
        labels = draw.integers(0, classes, (1, n)).repeat(count, 0)  # certified in one call, so labels are shared
        weights = draw_weights(draw, kind, count, n)
        own, level, broken = enumerate_all(weights, labels, classes)
        votes, answer = torch.tensor(weights, dtype=torch.float64), torch.tensor(labels[0])
        certificate = certify_label_linear(votes, answer, classes)
        radius = certificate.radius.numpy()
        np.testing.assert_array_equal(certificate.prediction.numpy(), own)
        assert (radius < broken).all()
        np.testing.assert_array_equal(radius, np.maximum(level - 1, 0))
        if np.abs(weights).max() <= 1:
            counted = certify_equal_votes(votes.long() @ one_hot(answer, classes), n)
            np.testing.assert_array_equal(counted.prediction.numpy(), own)
            np.testing.assert_array_equal(counted.radius.numpy(), radius)
        no_tie = level == broken
        assert (radius + 1 == broken)[no_tie & (level > 0)].all()
        counts += [count, (radius + 1 == broken).sum(), no_tie.sum()]
    return counts


def test_thousands_of_small_problems() -> None:
    counts = sum(check(classes, n, 100, 0) for classes, longest in ((2, 8), (3, 6), (4, 5)) for n in range(1, longest))
    assert counts[0] == 1600
    assert counts[1] > counts[0] / 2


@pytest.mark.slow
def test_a_hundred_thousand_problems() -> None:
    plan = [(1, n, 100) for n in range(1, 13)]
    plan += [(2, n, 4000) for n in range(1, 13)]
    plan += [(3, n, 4000) for n in range(1, 9)] + [(3, 9, 300), (3, 10, 100), (3, 11, 40), (3, 12, 15)]
    plan += [(4, n, 4000) for n in range(1, 7)] + [(4, 7, 400), (4, 8, 100), (4, 9, 40), (4, 10, 12), (4, 11, 5)]
    plan += [(4, 12, 2)]
    counts = sum(check(classes, n, problems, 1) for classes, n, problems in plan)
    print(f"\n{counts[0]:,} problems, 0 violations; radius + 1 changes alter the prediction in {counts[1]:,}")
    assert counts[0] >= 100_000
    assert counts[1] > counts[0] / 2
