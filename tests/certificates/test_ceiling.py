"""The ceiling of learners that treat the classes alike, by enumeration of what they could be."""

import itertools

import pytest
import torch

from lightning_poison.certificates import radius_ceiling
from lightning_poison.errors import UserError


def fewest_changes_to_a_conflict(labels: tuple[int, ...], num_classes: int, prediction: int) -> int:
    """Smallest r such that some labels and their mirror image, two classes renamed, both lie within r changes."""

    def distance(other: tuple[int, ...]) -> int:
        return sum(one != two for one, two in zip(labels, other, strict=True))

    best = len(labels) + 1
    for rival in range(num_classes):
        if rival == prediction:
            continue
        renamed = {prediction: rival, rival: prediction}
        for other in itertools.product(range(num_classes), repeat=len(labels)):
            mirror = tuple(renamed.get(label, label) for label in other)
            best = min(best, max(distance(other), distance(mirror)))
    return best


@pytest.mark.parametrize("labels", [(0, 0, 0, 1, 1), (0, 0, 1, 2, 2, 2), (0, 0, 0, 0, 0), (1, 0, 2, 0, 1, 1, 2), (0,)])
def test_it_is_one_below_the_fewest_changes_after_which_the_answers_would_conflict(labels: tuple[int, ...]) -> None:
    expected = [max(fewest_changes_to_a_conflict(labels, 3, prediction) - 1, 0) for prediction in range(3)]
    assert radius_ceiling(torch.arange(3), torch.tensor(labels), 3).tolist() == expected


def test_the_mean_over_mnist_like_counts() -> None:
    counts = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    labels = torch.arange(10).repeat_interleave(counts)
    test_counts = torch.tensor([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    ceiling = radius_ceiling(torch.arange(10).repeat_interleave(test_counts), labels, 10)
    smallest = counts.min()
    by_hand = [(int(n + (smallest if n > smallest else 5842)) + 1) // 2 - 1 for n in counts]
    by_hand[5] = (5421 + 5842 + 1) // 2 - 1
    assert ceiling.double().mean().item() == pytest.approx(
        sum(value * int(share) for value, share in zip(by_hand, test_counts, strict=True)) / 10_000
    )


def test_classes_that_nobody_has_have_the_ceiling_zero() -> None:
    assert radius_ceiling(torch.arange(5), torch.tensor([0, 0, 0]), 5).tolist() == [1, 0, 0, 0, 0]
    assert radius_ceiling(torch.tensor([3, 4]), torch.arange(3), 5).tolist() == [0, 0]


def test_one_class_has_no_rival() -> None:
    assert radius_ceiling(torch.tensor([0]), torch.zeros(4, dtype=torch.int64), 1).tolist() == [4]


def test_a_prediction_that_is_no_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"prediction must lie in \[0, 1\]"):
        radius_ceiling(torch.tensor([2]), torch.tensor([0, 1]), 2)
