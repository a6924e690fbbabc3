"""Votes of one size: the certificate against enumeration, the general theorem, and what it refuses."""

from itertools import product

import numpy as np
import pytest
import torch

from lightning_poison.certificates import certify_equal_votes, certify_label_linear
from lightning_poison.errors import UserError


def scores_of(votes: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Class scores of relabellings (R, n): (R, K)."""
    return np.stack([(votes * (labels == c)).sum(1) for c in range(classes)], axis=1)


@pytest.mark.parametrize(("classes", "longest"), [(2, 10), (3, 7), (4, 6)])
@pytest.mark.parametrize("values", [(-1, 1), (0, 1), (-1, 0, 1), (1,), (-1,), (0,)])
def test_no_relabelling_breaks_the_radius_and_the_next_change_levels(
    classes: int, longest: int, values: tuple[int, ...]
) -> None:
    draw = np.random.default_rng([classes, *np.array(values) + 1])
    tight = problems = 0
    for n in range(1, longest):
        every = np.array(list(product(range(classes), repeat=n)))
        for _ in range(20):
            votes, labels = draw.choice(values, n), draw.integers(0, classes, n)
            scores = scores_of(votes, every, classes)
            changes = (every != labels).sum(1)
            own = scores[changes == 0][0].argmax()
            level = changes[np.delete(scores, own, axis=1).max(1) >= scores[:, own]].min()
            broken = changes[scores.argmax(1) != own].min(initial=n + 1)
            certificate = certify_equal_votes(torch.tensor(scores[changes == 0]), n)
            assert certificate.prediction.item() == own
            assert certificate.radius.item() < broken
            assert certificate.radius.item() == max(level - 1, 0)
            tight += certificate.radius.item() == broken - 1
            problems += 1
    # An odd margin has no tie on the way down, and an even one none that counts where c has the higher index.
    assert tight > problems / 3 or values == (0,)


@pytest.mark.parametrize(("classes", "n"), [(2, 7), (3, 6)])
def test_a_radius_is_one_below_the_true_one_exactly_where_the_prediction_wins_the_tie(classes: int, n: int) -> None:
    draw, one_below = np.random.default_rng(n), 0
    every = np.array(list(product(range(classes), repeat=n)))
    for _ in range(150):
        votes, labels = draw.integers(-1, 2, n), draw.integers(0, classes, n)
        scores, changes = scores_of(votes, every, classes), (every != labels).sum(1)
        before = scores[changes == 0][0]
        own = int(before.argmax())
        margins = {rival: int(before[own] - before[rival]) for rival in range(classes) if rival != own}
        least = min(margins.values())
        if least == 0:
            continue
        broken = int(changes[scores.argmax(1) != own].min())
        radius = certify_equal_votes(torch.tensor(before[None]), n).radius.item()
        wins_ties = least % 2 == 0 and all(own < rival for rival, margin in margins.items() if margin == least)
        assert broken - 1 - radius == wins_ties
        one_below += wins_ties
    assert one_below > 10


@pytest.mark.parametrize("margin", range(8))
def test_the_radius_by_hand(margin: int) -> None:
    certificate = certify_equal_votes(torch.tensor([[margin, 0, -3]]), 100)
    assert certificate.radius.tolist() == [[0, 0, 0, 1, 1, 2, 2, 3][margin]]
    assert certificate.prediction.tolist() == [0]


def test_it_agrees_with_the_general_theorem_on_large_problems() -> None:
    stream = torch.Generator().manual_seed(0)
    for classes in (2, 3, 10):
        votes = torch.randint(-1, 2, (50, 700), generator=stream).double()
        labels = (torch.rand(700, generator=stream) ** 3 * classes).long()
        scores = (votes @ torch.nn.functional.one_hot(labels, classes).double()).long()
        one, other = certify_equal_votes(scores, 700), certify_label_linear(votes, labels, classes)
        assert torch.equal(one.prediction, other.prediction)
        assert torch.equal(one.radius, other.radius)


def test_one_class_lasts_and_no_points_are_an_empty_certificate() -> None:
    assert certify_equal_votes(torch.tensor([[-4], [3]]), 9).radius.tolist() == [9, 9]
    assert len(certify_equal_votes(torch.empty(0, 3, dtype=torch.int64), 9)) == 0


def test_among_equals_the_lowest_index_wins_with_radius_zero() -> None:
    certificate = certify_equal_votes(torch.tensor([[1, 4, 4, 4]]), 13)
    assert (certificate.prediction.item(), certificate.radius.item()) == (1, 0)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (torch.ones(2, 3), "scores must be an int64 matrix"),
        (torch.ones(3, dtype=torch.int64), "scores must be an int64 matrix"),
        (torch.empty(2, 0, dtype=torch.int64), "scores must be an int64 matrix"),
        (torch.tensor([[2, 2]]), "at most num_points=3 votes a row, got 4"),
        (torch.tensor([[2, -2]]), "at most num_points=3 votes a row, got 4"),
    ],
)
def test_bad_scores_are_one_clear_line(scores: torch.Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        certify_equal_votes(scores, 3)
