from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import GumbelFlips, LabelFlips, NewClass, TrainingSet
from lightning_poison.poisons.meta.gumbel_flips import gumbel_softmax, mixed_labels, unrolled_training
from tests.poisons.golden import check_golden, golden_data


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def outer_loss(logits: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """The loss of fixed outer points after training on softly flipped labels."""
    net, stream = network(), torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 4, generator=stream, dtype=torch.float64)
    outer = torch.randn(6, 4, generator=stream, dtype=torch.float64)
    noise = torch.randn(logits.shape, generator=stream, dtype=torch.float64)
    clean = torch.eye(2, dtype=torch.float64)[torch.arange(8) % 2]
    labels = mixed_labels(clean, 1 - clean, gumbel_softmax(logits, noise, 0.7))
    weights = unrolled_training(net, {k: v.detach() for k, v in net.named_parameters()}, inputs, labels, steps, 0.3)
    return nn.functional.cross_entropy(functional_call(net, weights, (outer,)), torch.arange(6) % 2)


@pytest.mark.parametrize("flips", [1, 3])
def test_the_gradient_is_that_of_finite_differences(flips):
    logits = torch.randn(flips, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(outer_loss, (logits,), atol=1e-8, rtol=1e-5)


def test_unrolled_steps_are_sgd():
    net, inputs, labels = network(), torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 2
    start = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    ends = unrolled_training(net, start, inputs, nn.functional.one_hot(labels).double(), 5, 0.3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    assert all(torch.allclose(ends[name], weight) for name, weight in net.named_parameters())


def test_labels_of_the_thesis_for_two_classes():
    labels = torch.tensor([1.0, 0.0, 1.0])
    chosen = torch.tensor([[0.25, 1.0, 0.0]])
    clean = torch.stack([1 - labels, labels], dim=1)
    assert (
        mixed_labels(clean, 1 - clean, chosen)[:, 1].tolist()
        == (labels * (1 - chosen[0]) + (1 - labels) * chosen[0]).tolist()
    )


def test_draws_follow_the_softmax_of_the_logits():
    """The Gumbel-max trick: the largest of h + g falls on i with probability softmax(h)_i."""
    logits = torch.tensor([0.0, 1.0, 2.0])
    uniform = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0))
    chosen = gumbel_softmax(logits, -(-uniform.log()).log(), 0.01).argmax(dim=1)
    assert torch.allclose(chosen.bincount() / 20000, logits.softmax(0), atol=0.01)


def line(count: int = 40) -> TrainingSet:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    inputs = torch.randn(count, 3, generator=stream) + 2 * labels[:, None]
    return TrainingSet(labels, 2, dataset=TensorDataset(inputs, labels))


def test_what_it_finds_hurts_more_than_most():
    """The best single flip of a linear learner, by training it on each: Gumbel's flip is among the better ones."""
    data = line()

    def linear(num_classes: int) -> nn.Module:
        return nn.Linear(3, num_classes)

    found = LabelFlips(GumbelFlips(count=1, net=linear, updates=40, eps=0.0)).craft(data, seed=0).index
    losses = []
    for point in range(40):
        labels = nn.functional.one_hot(
            data.labels.clone()
            .index_fill_(0, torch.tensor([point]), -1)
            .where(torch.arange(40) != point, 1 - data.labels),
            2,
        ).double()
        net = nn.Linear(3, 2).double()
        zero = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
        weights = unrolled_training(net, zero, data.inputs.double(), labels, 30, 0.5)
        losses.append(nn.functional.cross_entropy(functional_call(net, weights, (data.inputs.double(),)), data.labels))
    rank = torch.stack(losses).argsort(descending=True).tolist().index(int(found))
    assert rank < 10


def test_budgets_classes_and_repeatability():
    data = line()
    poison = LabelFlips(GumbelFlips(per_class=3, updates=2, steps=3))
    flips = poison.craft(data, seed=0)
    assert flips.old_label.bincount().tolist() == [3, 3]
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert poison.craft(data, seed=0).same_flips(flips)
    assert torch.equal(state, torch.get_rng_state())
    assert len(LabelFlips(GumbelFlips(count=4, classes=[1], updates=1), NewClass()).craft(data, seed=0)) == 4
    assert len(LabelFlips(GumbelFlips(per_class=0)).craft(data, seed=0)) == 0


def test_it_is_for_small_data():
    with pytest.raises(UserError, match="at most max_points=30, got 40; use MetaFlips"):
        LabelFlips(GumbelFlips(max_points=30)).craft(line(), seed=0)


@pytest.mark.parametrize("lr", [1e3, 1e30, 1e300])
def test_a_training_that_diverges_is_said(lr):
    with pytest.raises(UserError, match=r"lr must be lower, got 1.*: update 1 of GumbelFlips overflows"):
        LabelFlips(GumbelFlips(count=2, updates=1, lr=lr)).craft(line(), seed=0)


def test_golden():
    check_golden("GumbelFlips", LabelFlips(GumbelFlips(per_class=1, updates=8)), golden_data(200))
