"""The optimal attack: refitting after it changes the prediction, refitting one change earlier does not."""

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_poison.certificates import certify_label_linear, optimal_label_flips
from lightning_poison.errors import UserError
from lightning_poison.functional.ridge import Ridge


def random_problem(seed: int) -> tuple[Ridge, torch.Tensor, torch.Tensor, int]:
    stream = torch.Generator().manual_seed(seed)
    classes = 2 + seed % 3
    labels = torch.randint(classes, (40 + seed % 17,), generator=stream)
    centres = torch.randn(classes, 6, generator=stream) * 2
    features = centres[labels] + torch.randn(len(labels), 6, generator=stream)
    return Ridge(features, 0.3), labels, features[:3] + 0.1, classes


def refitted(ridge: Ridge, points: torch.Tensor, labels: torch.Tensor, classes: int) -> list[int]:
    return ridge.scores(points, labels, classes).argmax(1).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_refitted_ridge_keeps_its_prediction_after_r_changes_and_loses_it_after_one_more(seed: int) -> None:
    ridge, labels, points, classes = random_problem(seed)
    certificate = certify_label_linear(ridge.weights(points), labels, classes)
    for point, prediction, radius in zip(points.split(1), certificate.prediction, certificate.radius, strict=True):
        assert refitted(ridge, point, labels, classes) == [prediction]
        flips = optimal_label_flips(ridge.weights(point)[0], labels, classes)
        assert flips is not None
        assert len(flips) == radius + 1
        assert torch.equal(labels[flips.index], flips.old_label)
        assert (flips.new_label != flips.old_label).all()
        assert refitted(ridge, point, flips.apply(labels), classes) == [flips.new_prediction] != [prediction]
        for spared in range(len(flips)):  # any r of the r + 1 are too few
            fewer = flips.apply(labels)
            fewer[flips.index[spared]] = flips.old_label[spared]
            assert refitted(ridge, point, fewer, classes) == [prediction]


def test_no_random_relabelling_within_the_radius_changes_a_refitted_prediction() -> None:
    digits = load_digits()
    features, labels = torch.tensor(digits.data / 16), torch.tensor(digits.target)
    ridge, points = Ridge(features[:600], 1.0), features[600:640]
    certificate = certify_label_linear(ridge.weights(points), labels[:600], 10)
    stream = torch.Generator().manual_seed(0)
    for point, prediction, radius in zip(points.split(1), certificate.prediction, certificate.radius, strict=True):
        for _ in range(5):
            changed = labels[:600].clone()
            chosen = torch.randperm(600, generator=stream)[: int(radius)]
            changed[chosen] = torch.randint(10, (int(radius),), generator=stream)
            assert refitted(ridge, point, changed, 10) == [prediction]
    assert certificate.radius.max() > 10


def test_where_the_prediction_wins_a_tie_the_attack_needs_one_more() -> None:
    weights, labels = torch.ones(5), torch.tensor([0, 0, 0, 1, 2])
    # Level with class 1 after one change, which class 0 wins as the lower index; a second one settles it.
    assert certify_label_linear(weights[None], labels, 3).radius.tolist() == [0]
    flips = optimal_label_flips(weights, labels, 3)
    assert flips is not None
    assert len(flips) == 2 or flips.new_prediction != 0
    assert torch.bincount(flips.apply(labels)).argmax() == flips.new_prediction != 0


def test_where_the_rival_wins_a_tie_the_tie_is_enough() -> None:
    flips = optimal_label_flips(torch.ones(4), torch.tensor([1, 1, 1, 0]), 2)
    assert flips is not None
    assert (len(flips), flips.prediction, flips.new_prediction) == (1, 1, 0)


def test_a_weight_against_the_rival_is_given_to_the_prediction() -> None:
    flips = optimal_label_flips(torch.tensor([1.0, 1.0, 0.5, -10.0]), torch.tensor([0, 0, 1, 1]), 2)
    assert flips is not None
    assert (flips.index.tolist(), flips.old_label.tolist(), flips.new_label.tolist()) == ([3], [1], [0])


@pytest.mark.parametrize(("weights", "classes"), [([1.0, 2.0], 1), ([0.0, 0.0], 2)])
def test_none_where_no_relabelling_alters_the_prediction(weights: list[float], classes: int) -> None:
    assert optimal_label_flips(torch.tensor(weights), torch.zeros(2, dtype=torch.int64), classes) is None


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="weights must be a float vector"):
        optimal_label_flips(torch.ones(1, 2), torch.tensor([0, 1]), 2)
    with pytest.raises(UserError, match="weights must be finite"):
        optimal_label_flips(torch.tensor([1.0, float("nan")]), torch.tensor([0, 1]), 2)
    with pytest.raises(UserError, match="labels must lie in"):
        optimal_label_flips(torch.ones(2), torch.tensor([0, 2]), 2)
