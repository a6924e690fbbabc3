from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import InfluenceScore, LabelFlips, TrainingSet
from lightning_poison.poisons.influence import influence_score
from lightning_poison.poisons.influence.influence_score import Linearised, last_layer_tangents, network_tangents
from tests.poisons.influence.refits import DAMPING


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return MLP(3, 2, 1, hidden=(4,)).eval().requires_grad_(False)


def jacobian(network, inputs):
    """d logits / d weights, (n, K, P), float64, by autograd one logit at a time."""
    network = network.double().requires_grad_(True)
    rows = [
        torch.cat(
            [part.flatten() for part in torch.autograd.grad(score, list(network.parameters()), retain_graph=True)]
        )
        for score in network(inputs.double()).flatten()
    ]
    network.float().requires_grad_(False)
    return torch.stack(rows).view(len(inputs), 3, -1)


def dense_tangents(network, inputs, curvature, outer, labels, damping):
    scores = network.double()(inputs.double())
    judged = network(outer.double())
    network.float()
    j_inputs, j_outer = jacobian(network, inputs), jacobian(network, outer)
    p = torch.softmax(scores, dim=1)[curvature]
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    rows = j_inputs[curvature]
    matrix = torch.einsum("nkp,nkl,nlq->pq", rows, inner, rows) / len(curvature)
    matrix += damping * torch.eye(len(matrix), dtype=torch.float64)
    errors = torch.softmax(judged, dim=1) - one_hot(labels, 3)
    gradient = torch.einsum("nk,nkp->p", errors, j_outer) / len(labels)
    return j_inputs @ torch.linalg.solve(matrix, gradient)


def test_network_tangents_are_those_of_the_dense_gauss_newton_matrix(small, network):
    inputs, labels = small.inputs, small.labels
    curvature, rows = torch.arange(0, 40), torch.tensor([3, 50, 7])
    moved = (inputs[40:] + 0.05, labels[40:])
    found = network_tangents(network, inputs, rows, curvature, moved, 0.01, small.progress)
    expected = dense_tangents(network, inputs, curvature, *moved, 0.01)[rows]
    assert torch.allclose(found, expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))


def test_linearised_network_against_finite_differences(small, network):
    linear = Linearised(network)
    direction = torch.randn(linear.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = linear.tangents(small.inputs, direction)
    double = network.double()
    start = nn.utils.parameters_to_vector(double.parameters())
    scores, losses = [], []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(start + sign * 1e-5 * direction, double.parameters())
        scores.append(double(small.inputs.double()))
        losses.append(cross_entropy(scores[-1], small.labels, reduction="sum"))
    nn.utils.vector_to_parameters(start, double.parameters())
    assert torch.allclose(found, (scores[0] - scores[1]) / 2e-5, atol=1e-4)
    double.float()
    slope = float(Linearised(network).loss_gradient(small.inputs, small.labels) @ direction)
    assert slope == pytest.approx(float(losses[0] - losses[1]) / 2e-5, rel=1e-4)


def test_both_ways_agree_on_a_linear_network_at_its_minimum(small):
    """There the Gauss-Newton matrix is the Hessian."""
    scale = float(small.inputs.double().square().mean().sqrt())
    inputs = small.inputs / scale  # so that the constant feature is 1 and the penalties agree
    data = TrainingSet(small.labels, 3, dataset=TensorDataset(inputs, small.labels), network=nn.Linear(2, 3))
    outer = torch.arange(0, 60, 6)
    kept = torch.tensor(sorted(set(range(60)) - set(outer.tolist())))
    seen = []
    by_layer = last_layer_tangents(
        data.network, inputs, small.labels, 3, outer, DAMPING, lambda judge, x, y: seen.append(judge) or x
    )
    fitted = nn.Linear(2, 3)
    fitted.load_state_dict({"weight": seen[0]._other["weight"], "bias": seen[0]._other["bias"]})
    by_network = network_tangents(
        fitted, inputs, torch.arange(60), kept, (inputs[outer], small.labels[outer]), DAMPING, small.progress
    )
    assert torch.allclose(by_layer, by_network, rtol=1e-2, atol=2e-3 * float(by_layer.abs().max()))


def test_an_unsolved_system_is_not_used(small, monkeypatch):
    monkeypatch.setattr(influence_score, "_STEPS", 2)
    with pytest.raises(UserError, match="damping must be larger for this network, got 1e-06, with which 2 steps of"):
        LabelFlips(InfluenceScore(per_class=1, weights="network", damping=1e-6)).craft(small, 0)
