"""A thousand real points: refitted after r changes of labels the prediction stays, after r + 1 it does not."""

from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from lightning_poison.certificates import certify_label_linear, optimal_label_flips
from lightning_poison.certificates.features import PCAFeatures
from lightning_poison.functional.ridge import Ridge

POINTS = 1000


@pytest.mark.data
@pytest.mark.slow
def test_a_thousand_refits_at_r_and_at_one_more(mnist_root: Path) -> None:
    (images, labels), (tests, answers) = (_mnist(mnist_root, train) for train in (True, False))
    features = PCAFeatures(40).fit(images)
    ridge, points = Ridge(features.transform(images), 0.3), features.transform(tests)
    certificate = certify_label_linear(ridge.weights(points), labels, 10)
    assert (certificate.prediction == answers).double().mean() > 0.75
    exact = 0
    for row in range(POINTS):
        point, own, radius = points[row : row + 1], certificate.prediction[row], int(certificate.radius[row])
        flips = optimal_label_flips(ridge.weights(point)[0], labels, 10)
        assert flips is not None
        assert len(flips) > radius
        exact += len(flips) == radius + 1
        changed = flips.apply(labels)
        assert ridge.scores(point, changed, 10).argmax() == flips.new_prediction != own
        spared = flips.index[: len(flips) - radius]
        changed[spared] = labels[spared]
        assert ridge.scores(point, changed, 10).argmax() == own
    assert exact == POINTS  # no ties among real numbers
    assert certificate.radius.double().mean() > 20


def _mnist(root: Path, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    data = MNIST(root, train=train)
    count = 6_000 if train else POINTS
    return data.data[:count].float().div(255).flatten(1), data.targets[:count].long()
