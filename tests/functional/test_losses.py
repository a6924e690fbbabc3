import math

import pytest
import torch
import torchattacks

from lightning_poison.errors import UserError
from lightning_poison.functional.losses import LOSSES, cross_entropy, dlr, margin, named_loss


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


def test_dlr_by_hand_its_sign_and_its_least_value(batch):
    scores, labels = batch
    expected = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        rival, third, *_ = sorted((s for k, s in enumerate(row) if k != label), reverse=True)
        expected.append(-(row[label] - rival) / (max(row) - third))
    found = dlr(scores, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert ((found > 0) == (scores.argmax(dim=1) != labels)).all()
    assert found.min() >= -1


def test_dlr_equals_a_peer_until_the_label_is_third(batch):
    scores, labels = batch
    peer = torchattacks.APGD(torch.nn.Linear(1, 1), loss="dlr").dlr_loss
    for place in (0, 1):
        labels = scores.argsort(dim=1, descending=True)[:, place]
        torch.testing.assert_close(dlr(scores, labels), peer(scores, labels), rtol=1e-9, atol=1e-9)
    labels = scores.argsort(dim=1, descending=True)[:, 2]
    torch.testing.assert_close(peer(scores, labels), torch.ones(30, dtype=torch.float64))  # what would be no guide
    assert dlr(scores, labels).std() > 0.1


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e3), (20.0, -7.0)])
def test_dlr_takes_no_heed_of_scale_and_shift(batch, factor, shift):
    scores, labels = batch
    torch.testing.assert_close(dlr(factor * scores + shift, labels), dlr(scores, labels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_dlr_is_finite_where_scores_tie(dtype):
    rows = [[0.0] * 4, [5.0] * 4, [2.0, 2.0, 2.0, 1.0], [2.0, 2.0, 1.0, 1.0], [-3.0, -3.0, -3.0, -9.0]]
    for label in range(4):
        scores = torch.tensor(rows, dtype=dtype, requires_grad=True)
        values = dlr(scores, torch.full((5,), label))
        (gradients,) = torch.autograd.grad(values.sum(), scores)
        assert torch.isfinite(values).all()
        assert torch.isfinite(gradients).all()
        assert not values[:2].any()  # no class wins


def test_descending_dlr_to_a_target_ends_with_the_target(batch):
    scores, targets = batch
    assert (scores.argmax(dim=1) != targets).sum() > 10
    for _ in range(400):
        scores = scores.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(dlr(scores, targets).sum(), scores)
        scores = scores - 0.05 * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-9)
    assert (scores.argmax(dim=1) == targets).all()


def test_dlr_of_two_classes():
    with pytest.raises(UserError, match="dlr needs at least 3 classes, got 2; use margin instead"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))


def test_names():
    assert all(named_loss(name) is loss for name, loss in LOSSES.items())
    with pytest.raises(UserError, match="losses must be one of cross_entropy, margin, dlr, got hinge"):
        named_loss("hinge")
