"""The exact certificate against enumeration, exact arithmetic and plain sorting."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch

from lightning_poison.certificates import LabelFlipCertificate, certify_label_linear, label_linear
from lightning_poison.errors import UserError


def enumerate_all(weights: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, int, int]:
    """Prediction, fewest changes that bring a rival level, fewest that alter the prediction, over all relabellings."""
    n = len(labels)
    every = np.array(list(product(range(classes), repeat=n)))
    scores = np.stack([(weights * (every == c)).sum(1) for c in range(classes)], 1)
    changes = (every != labels).sum(1)
    own = scores[changes == 0].argmax()
    rivals = np.delete(scores, own, axis=1)
    level = changes[rivals.max(1) >= scores[:, own]]
    broken = changes[scores.argmax(1) != own]
    return int(own), int(level.min(initial=n + 1)), int(broken.min(initial=n + 1))


@pytest.mark.parametrize("kind", ["integers with ties", "reals"])
@pytest.mark.parametrize("seed", range(4))
def test_no_relabelling_breaks_the_radius_and_the_next_change_reaches_a_tie(kind: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    broken_beyond = cases = 0
    for _ in range(400):
        n, classes = int(draw.integers(1, 8)), int(draw.integers(2, 4))
        labels = draw.integers(0, classes, n)
        weights = draw.integers(-3, 5, n).astype(float) if kind != "reals" else draw.normal(0.2, 1, n)
        own, level, broken = enumerate_all(weights, labels, classes)
        certificate = certify_label_linear(torch.tensor(weights[None]), torch.tensor(labels), classes)
        assert certificate.prediction.item() == own
        radius = certificate.radius.item()
        assert radius < broken
        assert radius == max(level - 1, 0)
        cases += 1
        broken_beyond += radius + 1 == broken
    if kind == "reals":  # no ties: the radius is exact, always
        assert broken_beyond == cases
    else:
        assert cases > broken_beyond > cases / 2


def sorted_reference(weights: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, int]:
    """One sort per rival, from the definition of gains by trying every replacement."""
    n = len(labels)
    scores = [float(weights[labels == c].sum()) for c in range(classes)]
    own = int(np.argmax(scores))
    fewest = n + 1
    for rival in range(classes):
        if rival == own:
            continue
        sign = np.array([1.0 if c == own else -1.0 if c == rival else 0.0 for c in range(classes)])
        gains = weights * sign[labels] - (weights[:, None] * sign).min(1)
        total = np.cumsum(np.sort(gains)[::-1])
        reached = np.nonzero(total >= scores[own] - scores[rival])[0]
        fewest = min(fewest, int(reached[0]) + 1 if len(reached) else n + 1)
    return own, max(fewest - 1, 0)


@pytest.mark.parametrize("first_size", [1, 3, 16, 1024])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_selection_equals_plain_sorting(monkeypatch: pytest.MonkeyPatch, first_size: int, classes: int) -> None:
    monkeypatch.setattr(label_linear, "_FIRST_SIZE", first_size)
    draw = np.random.default_rng(first_size * classes)
    radii = []
    for n, shift in [(50, 0.0), (300, 0.5), (2000, 0.1), (2000, -0.5)]:
        labels = draw.integers(0, classes, n)
        weights = (
            draw.normal(shift, 1, (12, n)) * draw.exponential(1, n) + (labels == 0) * np.linspace(-0.5, 8, 12)[:, None]
        )
        expected = [sorted_reference(row, labels, classes) for row in weights]
        certificate = certify_label_linear(torch.tensor(weights).split(5), torch.tensor(labels), classes)
        assert list(zip(certificate.prediction.tolist(), certificate.radius.tolist(), strict=True)) == expected
        radii += certificate.radius.tolist()
    assert min(radii) < 3
    assert max(radii) > 50


def test_a_rival_known_for_certain_leaves_another_one_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores 36, 27, 12. The three heaviest labels are worth nothing to class 1, which beats class 0 by two of its own.

    To class 2 they are worth 9 each, enough for its margin of 24 and more than any other label has: three changes,
    known for certain from these three labels alone. That says nothing about class 1, which needs two other labels.
    """
    weights = torch.tensor([[4.0] * 9 + [9.0] * 3 + [2.0] * 6])
    labels = torch.tensor([0] * 9 + [1] * 3 + [2] * 6)
    for first_size in (3, 18):
        monkeypatch.setattr(label_linear, "_FIRST_SIZE", first_size)
        assert certify_label_linear(weights, labels, 3).radius.tolist() == [1]


def exact_radius(weights: list[float], labels: list[int], classes: int, own: int) -> int:
    """The theorem in rational arithmetic."""
    exact = [Fraction(w) for w in weights]
    scores = [sum((w for w, y in zip(exact, labels, strict=True) if y == c), Fraction(0)) for c in range(classes)]
    fewest = len(labels) + 1
    for rival in set(range(classes)) - {own}:
        sign = {own: 1, rival: -1}
        gains = sorted((w * sign.get(y, 0) + abs(w) for w, y in zip(exact, labels, strict=True)), reverse=True)
        left, flips = scores[own] - scores[rival], 0
        while left > 0 and flips < len(gains):
            left -= gains[flips]
            flips += 1
        fewest = min(fewest, flips if left <= 0 else len(labels) + 1)
    return max(fewest - 1, 0)


def test_rounding_never_enlarges_the_radius() -> None:
    """Decimal weights tie on paper but not in float64, either way: the radius must stay below the exact one."""
    draw = np.random.default_rng(0)
    below = near_ties = 0
    for _ in range(3000):
        n, classes = int(draw.integers(3, 40)), int(draw.integers(2, 4))
        weights = (draw.integers(-2, 6, n) / 10 * draw.choice([1.0, 3.0, 1 / 3])).tolist()
        labels = draw.integers(0, classes, n).tolist()
        certificate = certify_label_linear(torch.tensor([weights], dtype=torch.float64), torch.tensor(labels), classes)
        exact = exact_radius(weights, labels, classes, certificate.prediction.item())
        assert certificate.radius.item() <= exact
        assert certificate.radius.item() >= exact - 1
        below += certificate.radius.item() < exact
        naive = sorted_reference(np.array(weights), np.array(labels), classes)[1]
        near_ties += naive > exact
    assert below > 0
    assert near_ties > 0  # the cases are hard: rounding to nearest would have claimed too much


def test_a_tie_counts_against_us() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    certificate = certify_label_linear(torch.ones(1, 4), labels, num_classes=2)
    assert certificate.radius.tolist() == [0]  # one change gives 2 : 2


def test_a_tie_counts_against_us_where_nothing_is_rounded() -> None:
    """Multiples of the smallest number add up exactly and have no slack: only the comparisons decide about ties."""
    smallest, draw, ties = 5e-324, np.random.default_rng(0), 0
    for _ in range(300):
        n, classes = int(draw.integers(2, 8)), int(draw.integers(2, 4))
        weights, labels = draw.integers(-3, 5, n), draw.integers(0, classes, n)
        own, level, broken = enumerate_all(weights, labels, classes)
        given = torch.tensor(weights[None] * smallest, dtype=torch.float64)
        assert float(label_linear.score_slack(given)) == 0
        certificate = certify_label_linear(given, torch.tensor(labels), classes)
        assert (certificate.prediction.item(), certificate.radius.item()) == (own, max(level - 1, 0))
        ties += level < broken
    assert ties > 20
    # The rival of the larger margin is nearer, and what the bounds allow meets its margin exactly.
    weights, labels = torch.tensor([[-4.0, 2.0, -1.0, 2.0]]).double(), torch.tensor([1, 2, 0, 2])
    assert certify_label_linear(weights * smallest, labels, 3).radius.tolist() == [0]


def test_a_weight_against_its_class_is_worth_changing() -> None:
    """Class 1 is voted down by a heavy point; taking that label away is the cheapest attack."""
    certificate = certify_label_linear(torch.tensor([[1.0, 1.0, 1.0, 0.5, -10.0]]), torch.tensor([0, 0, 0, 1, 1]), 2)
    assert certificate.prediction.tolist() == [0]
    assert certificate.radius.tolist() == [0]


def test_a_class_without_points_is_a_rival_all_the_same() -> None:
    labels = torch.zeros(9, dtype=torch.int64)
    assert certify_label_linear(torch.ones(1, 9), labels, num_classes=2).radius.tolist() == [4]
    assert certify_label_linear(torch.ones(1, 9), labels, num_classes=5).radius.tolist() == [4]


def test_with_one_class_nothing_can_change() -> None:
    certificate = certify_label_linear(torch.tensor([[1.0, -1.0, 0.0]]), torch.zeros(3, dtype=torch.int64), 1)
    assert (certificate.prediction.tolist(), certificate.radius.tolist()) == ([0], [3])


def test_points_without_any_vote_have_no_radius() -> None:
    certificate = certify_label_linear(torch.zeros(2, 6), torch.tensor([1, 1, 1, 0, 2, 2]), 3)
    assert (certificate.prediction.tolist(), certificate.radius.tolist()) == ([0, 0], [0, 0])


def test_order_of_training_points_and_float32_do_not_matter() -> None:
    stream = torch.Generator().manual_seed(0)
    weights, labels = torch.randn(20, 100, generator=stream), torch.randint(4, (100,), generator=stream)
    order = torch.randperm(100, generator=stream)
    one, other = (
        certify_label_linear(weights, labels, 4),
        certify_label_linear(weights[:, order].double(), labels[order].int(), 4),
    )
    assert torch.equal(one.radius, other.radius)
    assert torch.equal(one.prediction, other.prediction)


def test_no_points_give_an_empty_certificate() -> None:
    for weights in (torch.empty(0, 3), []):
        certificate = certify_label_linear(weights, torch.tensor([0, 1, 1]), 2)
        assert isinstance(certificate, LabelFlipCertificate)
        assert len(certificate) == 0


@pytest.mark.parametrize(
    ("weights", "labels", "classes", "words"),
    [
        (torch.ones(1, 3), torch.tensor([0, 1, 2]), 2, "labels must lie in"),
        (torch.ones(1, 3), torch.tensor([0, 1]), 2, "weights must be a float matrix"),
        (torch.ones(3), torch.tensor([0, 1, 1]), 2, "weights must be a float matrix"),
        (torch.ones(1, 3, dtype=torch.int64), torch.tensor([0, 1, 1]), 2, "weights must be a float matrix"),
        (torch.tensor([[1.0, float("nan"), 1.0]]), torch.tensor([0, 1, 1]), 2, "weights must be finite"),
        (torch.tensor([[1.0, float("inf"), 1.0]]), torch.tensor([0, 1, 1]), 2, "weights must be finite"),
        (torch.ones(1, 3), torch.tensor([0, 0, 0]), 0, "num_classes must be an integer of at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(weights: torch.Tensor, labels: torch.Tensor, classes: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        certify_label_linear(weights, labels, classes)


@pytest.mark.parametrize("labels", [[1, 0], [1, 0, 2]])
def test_weights_whose_gains_overflow_are_refused(labels: list[int]) -> None:
    weights = torch.tensor([[-1e308, 0.1e308, 0.0]], dtype=torch.float64)[:, : len(labels)]
    with pytest.raises(UserError, match="huge"):
        certify_label_linear(weights, torch.tensor(labels), 3)
    # changing the label of the first point alone is enough
    assert certify_label_linear(weights * 1e-3, torch.tensor(labels), 3).radius.tolist() == [0]


def test_no_training_labels_are_refused() -> None:
    with pytest.raises(UserError, match="at least one training label"):
        certify_label_linear(torch.zeros(2, 0), torch.zeros(0, dtype=torch.int64), 3)
