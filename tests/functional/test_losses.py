import math

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.functional.losses import LOSSES, cross_entropy, margin, named_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(30, 4, dtype=torch.float64, generator=generator) * 3
    return scores, torch.randint(4, (30,), generator=generator)


def test_cross_entropy_by_hand(batch):
    scores, labels = batch
    expected = [
        math.log(sum(math.exp(s) for s in row)) - row[label]
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(cross_entropy(scores, labels), torch.tensor(expected, dtype=torch.float64))


def test_margin_by_hand_and_its_sign(batch):
    scores, labels = batch
    expected = [
        max(s for k, s in enumerate(row) if k != label) - row[label]
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    found = margin(scores, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert ((found > 0) == (scores.argmax(dim=1) != labels)).all()


def test_margin_keeps_a_gradient_where_cross_entropy_has_none():
    scores = torch.tensor([[200.0, 0.0, -1.0]], requires_grad=True)
    labels = torch.tensor([0])
    (flat,) = torch.autograd.grad(cross_entropy(scores, labels).sum(), scores)
    (steep,) = torch.autograd.grad(margin(scores, labels).sum(), scores)
    assert not flat.any()
    assert steep.tolist() == [[-1.0, 1.0, 0.0]]


def test_names():
    assert all(named_loss(name) is loss for name, loss in LOSSES.items())
    with pytest.raises(UserError, match="losses must be one of cross_entropy, margin, got hinge"):
        named_loss("hinge")
