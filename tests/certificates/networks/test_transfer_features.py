"""Features learnt on other classes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler

from lightning_poison.certificates import CertifiedRidge
from lightning_poison.certificates.networks import TransferFeatures
from lightning_poison.datamodules import Digits
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP

OTHERS = [0, 2, 3, 4, 5, 6, 8, 9]


def net(num_classes: int) -> nn.Module:
    return MLP(num_classes, 1, 8, hidden=(40,))


def points(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    data = Digits(classes=[1, 7], val_split=0)
    part = data.load_test() if test else data.load_training()
    index = ((part.targets == 1) | (part.targets == 7)).nonzero()[:, 0]
    return part.data[index].float() / 16, (part.targets[index] == 7).long()


def test_they_separate_classes_that_the_network_never_saw() -> None:
    features = TransferFeatures(Digits(classes=OTHERS, val_split=0), dim=10, epochs=4, net=net)
    before = torch.get_rng_state()
    learner = CertifiedRidge(features, 0.1).fit(*points(test=False), 2)
    inputs, labels = points(test=True)
    certificate = learner.certify(inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert (certificate.prediction == labels).double().mean() > 0.93
    assert features.transform(inputs).shape == (len(inputs), 10)
    text = learner.guarantee()
    assert "end-to-end, as long as nobody changes the labels of the other data that" in text
    assert "a network trained on other data (Digits classes 0, 2, 3, 4, 5, 6, 8, 9; seed 0)" in text


def test_the_seed_decides_and_labels_of_the_certified_points_do_not_matter() -> None:
    def made(seed: int) -> torch.Tensor:
        features = TransferFeatures(Digits(classes=OTHERS, max_samples=200), dim=4, epochs=1, seed=seed, net=net)
        return features.fit(points(test=False)[0].split(50)).transform(points(test=True)[0])

    assert torch.equal(made(0), made(0))
    assert not torch.allclose(made(0).abs(), made(1).abs(), atol=1e-3)


def test_it_is_trained_once_however_often_it_is_fitted() -> None:
    features = TransferFeatures(Digits(classes=OTHERS, max_samples=100), dim=4, epochs=1, net=net)
    inputs = points(test=False)[0]
    features.fit(inputs)
    trained = features._net
    features.fit(inputs[:50])
    assert features._net is trained
    assert trained is not None
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_only_what_the_source_trains_on_is_learnt_from() -> None:
    class Half(Digits):
        def train_dataloader(self):
            dataset = super().train_dataloader().dataset
            return DataLoader(dataset, 32, sampler=SubsetRandomSampler(range(0, len(dataset), 2)))

    class Alone(Digits):
        def train_dataloader(self):
            dataset = super().train_dataloader().dataset
            return DataLoader(Subset(dataset, range(0, len(dataset), 2)), 32)

    inputs, _ = points(test=False)
    half, alone = (
        TransferFeatures(kind(classes=OTHERS, max_samples=300), dim=4, epochs=1, net=net).fit(inputs).transform(inputs)
        for kind in (Half, Alone)
    )
    assert half.equal(alone)


def test_the_certified_points_must_not_be_the_sources() -> None:
    features = TransferFeatures(Digits(classes=[1, 7, 3], val_split=0), dim=4, epochs=1, net=net)
    with pytest.raises(UserError, match="source must not hold the training points that are certified"):
        features.fit(points(test=False)[0])


def test_bad_input_is_one_clear_line() -> None:
    source = Digits(classes=OTHERS, max_samples=50)
    with pytest.raises(UserError, match="must be fitted before transform"):
        TransferFeatures(source).transform(points(test=True)[0])
    with pytest.raises(UserError, match="epochs must be an integer of at least 1"):
        TransferFeatures(source, epochs=0)

    def without_head(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, num_classes, 8), nn.Flatten())

    with pytest.raises(UserError, match="net must end in a linear layer"):
        TransferFeatures(source, epochs=1, net=without_head).fit(points(test=False)[0])


def test_a_network_for_other_inputs_is_refused() -> None:
    features = TransferFeatures(Digits(classes=OTHERS, val_split=0))
    with pytest.raises(UserError, match=r"net of TransferFeatures: the network cannot take inputs of shape \(1"):
        features.fit(points(test=False)[0])


def test_a_network_that_has_been_trained_already_is_refused() -> None:
    source = Digits(classes=OTHERS, max_samples=50)
    trained = net(8)
    with pytest.raises(UserError, match="net must make a network when called with num_classes=K, got a network that"):
        TransferFeatures(source, net=trained)
    for made in (lambda num_classes: trained, lambda num_classes: copy.deepcopy(trained)):
        with pytest.raises(UserError, match=r"net must make a new, untrained network, got .*label_free=True"):
            TransferFeatures(source, epochs=1, net=made).fit(points(test=False)[0])
