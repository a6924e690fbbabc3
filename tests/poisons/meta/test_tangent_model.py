from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.functional.kernel_fit import ForcedFit
from lightning_poison.nets import MLP, PoolCNN, default_nets
from lightning_poison.poisons import GumbelFlips, LabelFlips, MetaFlips, TrainingSet
from lightning_poison.poisons.meta.outer_attack import OuterAttack
from lightning_poison.poisons.meta.tangent_model import TangentModel, fresh_surrogate

STREAM = torch.Generator().manual_seed(0)
POINTS = torch.rand(14, 1, 8, 8, generator=STREAM)
OTHERS = torch.rand(5, 1, 8, 8, generator=STREAM)
LABELS = torch.arange(10) % 3
TRAINING = torch.tensor([0, 1, 2, 4, 5, 7, 8, 9, 11, 13])
PAIRS = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]])
ATTACK = OuterAttack(eps=0.05, steps=5, low=0.0, high=1.0)


def pool(num_classes: int) -> nn.Module:
    return PoolCNN(num_classes, 1, 8, width=2, hidden=5)


def smooth(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, num_classes))


def model(net=pool) -> TangentModel:
    return TangentModel(fresh_surrogate(net, 3, POINTS), POINTS, TRAINING, nn.functional.one_hot(LABELS), noise=0.05)


def naive_scores(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Ridge regression on explicit gradients, scaled as the model says."""

    def rows(points: torch.Tensor) -> torch.Tensor:
        out = []
        for point in points:
            scores = network(point[None])
            slopes = torch.autograd.grad(scores[0, 0] - scores[0, 1], list(network.parameters()))
            out.append(torch.cat([slope.flatten() for slope in slopes]).double())
        return torch.stack(out)

    features = rows(POINTS)
    scale = features.square().sum(dim=1).mean().sqrt()
    train = features[TRAINING] / scale
    targets = nn.functional.one_hot(LABELS).double()
    dual = torch.linalg.solve(train @ train.T + 0.05 * torch.eye(10, dtype=torch.float64), targets)
    return rows(inputs) / scale @ train.T @ dual


def test_scores_are_ridge_regression_on_gradients():
    mine = model()
    expected = naive_scores(fresh_surrogate(pool, 3, POINTS), OTHERS)
    assert torch.allclose(mine.fit.scores_at(mine.kernel(OTHERS)), expected, atol=1e-4)


@pytest.mark.parametrize("forced", [[], [3, 11]])
def test_what_is_attacked_is_the_fit(forced):
    """The linearised network with the fit's weights gives the kernel's scores."""
    mine = model()
    fit = ForcedFit(mine.fit)
    for point in forced:
        fit.force(point, torch.eye(3)[point % 3])
    fit.watch(mine.kernel(OTHERS))
    weights = mine._weights(fit.coefficients())
    for label in range(3):
        values = mine._value(OTHERS, {name: weight[label] for name, weight in weights.items()})
        assert torch.allclose(values.double(), fit.outer_scores[:, label], atol=1e-4)


def test_attacks_lower_the_margin_and_stay_in_ball_and_box():
    mine = model()
    fit = ForcedFit(mine.fit)
    moved = mine.attacked(OTHERS, PAIRS, fit.coefficients(), ATTACK)
    assert float((moved - OTHERS).abs().max()) <= 0.05 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1

    def margins(inputs: torch.Tensor) -> torch.Tensor:
        scores = mine.fit.scores_at(mine.kernel(inputs))
        return scores.gather(1, PAIRS[:, :1])[:, 0] - scores.gather(1, PAIRS[:, 1:])[:, 0]

    assert (margins(moved) <= margins(OTHERS) + 1e-6).all()
    assert (margins(moved) < margins(OTHERS) - 1e-3).sum() >= 3


def test_the_slope_is_that_of_finite_differences():
    mine = model(smooth)
    mine._network.double()
    stream = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(weight.shape, generator=stream).double() for name, weight in mine._network.named_parameters()
    }
    point = OTHERS[:1].double().requires_grad_()
    (slope,) = torch.autograd.grad(mine._value(point, weights).sum(), point)
    direction = torch.randn(point.shape, generator=stream).double()
    ends = [mine._value(point.detach() + sign * 1e-5 * direction, weights) for sign in (1, -1)]
    assert torch.allclose((ends[0] - ends[1]) / 2e-5, (slope * direction).sum()[None], rtol=1e-5)


def test_unbounded_inputs_have_no_box():
    attack = OuterAttack(eps=1.0, steps=4, low=-torch.inf, high=torch.inf)
    assert attack.descend(torch.tensor([[3.0]]), lambda x, _: x[:, 0]).tolist() == [[2.0]]


def test_a_linear_value_has_its_exact_minimum():
    slope = torch.randn(7, generator=STREAM)
    inputs = torch.rand(3, 7, generator=STREAM)
    moved = ATTACK.descend(inputs, lambda x, _: x @ slope)
    assert torch.allclose(moved, (inputs - 0.05 * slope.sign()).clamp(0, 1))
    slopes = torch.randn(3, 7, generator=STREAM)  # each its own, whatever the chunks
    moved = [ATTACK.descend(inputs, lambda x, rows: (x * slopes[rows]).sum(dim=1), size) for size in (None, 1, 2)]
    for each in moved:
        assert torch.allclose(each, (inputs - 0.05 * slopes.sign()).clamp(0, 1))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (13,), (1, 5, 7), (2, 9)])
def test_there_are_three_surrogates_for_any_shape(shape):
    networks = [fresh_surrogate(net, 0, torch.rand(2, *shape)) for net in default_nets(torch.Size(shape))]
    assert [network(torch.rand(2, *shape)).shape for network in networks] == [(2, 2)] * 3


def test_fresh_networks_belong_to_their_seed():
    state = torch.get_rng_state()
    first, again, other = (fresh_surrogate(partial(MLP, image_size=8), seed, POINTS) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not first.training


def test_trained_networks_are_no_surrogates():
    trained = MLP(2, image_size=8)
    for rule, data in (
        (MetaFlips(per_class=1, nets=[lambda num_classes: trained]), POINTS),
        (GumbelFlips(per_class=1, updates=1, net=lambda num_classes: trained), POINTS),
    ):
        labels = torch.arange(len(data)) % 2
        training_set = TrainingSet(labels, 2, dataset=list(zip(data, labels.tolist(), strict=True)))
        with pytest.raises(UserError, match="must draw its weights when it is made"):
            LabelFlips(rule).craft(training_set, seed=0)


def test_of_steps_that_overshoot_the_best_counts():
    attack = OuterAttack(eps=1.0, steps=2, low=-torch.inf, high=torch.inf)
    assert attack.descend(torch.tensor([[0.5], [4.0]]), lambda x, _: (x[:, 0] - 0.1).square()).tolist() == [
        [0.5],
        [3.0],
    ]
