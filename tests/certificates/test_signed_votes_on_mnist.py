"""Signed votes on the real MNIST, ones against sevens: the published row, and attacks at r and r + 1."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_poison.certificates import (
    HOGFeatures,
    SignedVotes,
    SpectralClusters,
    optimal_label_flips,
    radius_ceiling,
)
from lightning_poison.datamodules import MNIST


def ones_and_sevens(root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = MNIST(str(root), classes=[1, 7], val_split=0, download=False)
    parts = []
    for part in (data.load_training(), data.load_test()):
        kept = ((part.targets == 1) | (part.targets == 7)).nonzero()[:, 0]
        parts += [part.data[kept].float() / 255, (part.targets[kept] == 7).long()]
    return parts[0], parts[1], parts[2], parts[3]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("transductive", [False, True])
def test_ones_against_sevens(mnist_root: Path, transductive: bool) -> None:
    inputs, labels, points, truth = ones_and_sevens(mnist_root)
    assert (len(inputs), len(points)) == (13007, 2163)
    learner = SignedVotes(HOGFeatures(), SpectralClusters(2), transductive).fit(inputs.split(1000), labels, 2)
    features, order = learner.transform(points), learner.order
    certificate = learner.certify_features(features)
    right = certificate.prediction == truth
    assert (right & (certificate.radius >= 5952)).double().mean() >= 0.99
    assert (certificate.radius <= radius_ceiling(certificate.prediction, labels, 2)).all()
    # Points of one cluster share weights, hence the attack: one of each cluster stands for all.
    weights, cluster = learner.weights(features).unique(dim=0, return_inverse=True)
    for number in range(len(weights)):
        row = int((cluster == number).nonzero()[0])
        members = cluster == number
        assert certificate.radius[members].unique().numel() == 1
        flips = optimal_label_flips(weights[number], labels, 2)
        assert flips is not None
        assert int(certificate.radius[row]) + 1 <= len(flips) <= int(certificate.radius[row]) + 2
        broken = learner.fit_features(learner._features, flips.apply(labels)[order], 2).certify_features(features)
        assert (broken.prediction[members] == flips.new_prediction).all()
        fewer = flips.apply(labels)
        spared = flips.index[: len(flips) - int(certificate.radius[row])]
        fewer[spared] = labels[spared]
        kept = learner.fit_features(learner._features, fewer[order], 2).certify_features(features)
        assert torch.equal(kept.prediction[members], certificate.prediction[members])
        learner.fit_features(learner._features, labels[order], 2)
