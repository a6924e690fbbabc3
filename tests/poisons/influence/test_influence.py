from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import TensorDataset

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import Candidates, InfluenceScore, LabelFlips, NewClass, NextClass, TrainingSet
from lightning_poison.poisons.influence import whole_network
from lightning_poison.poisons.influence.last_layer import last_layer_tangents
from lightning_poison.poisons.influence.whole_network import Linearised, network_tangents
from lightning_poison.poisons.surrogates import Surrogate, TrainedSurrogate
from tests.poisons.golden import check_golden, golden_data, nearest_mean_network

DAMPING = 0.05


@pytest.fixture(scope="module")
def small() -> TrainingSet:
    """Three overlapping classes in [0, 1]^2 and a linear network, so that its last layer sees the inputs themselves."""
    stream = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 3
    centres = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.7]])
    inputs = (centres[labels] + 0.15 * torch.randn(60, 2, generator=stream)).clamp(0, 1)
    network = nn.Linear(2, 3)
    network.load_state_dict({"weight": centres, "bias": -centres.square().sum(dim=1) / 2})
    return TrainingSet(labels, 3, dataset=TensorDataset(inputs, labels), network=network)


class Refit:
    """The regression of the last layer with a weight on every pair of point and label, by SciPy."""

    def __init__(self, data: TrainingSet, outer: torch.Tensor, num_classes: int):
        features = data.inputs.double()
        scale = float(features.square().mean().sqrt())
        self.features = torch.cat([features, torch.full((len(features), 1), scale)], dim=1)
        self.strength = DAMPING * scale**2
        self.outer, self.labels, self.num_classes = outer, data.labels, num_classes
        kept = torch.ones(len(features), dtype=torch.bool)
        kept[outer] = False
        self.mass = one_hot(data.labels, num_classes).double() * kept[:, None] / int(kept.sum())
        self.start = np.zeros(num_classes * 3)
        self.start = self.weights(self.mass)

    def weights(self, mass):
        def value(flat):
            weights = torch.tensor(flat).view(self.num_classes, -1).requires_grad_()
            log_p = torch.log_softmax(self.features @ weights.T, dim=1)
            loss = -(mass * log_p).sum() + self.strength / 2 * weights.square().sum()
            loss.backward()
            return float(loss.detach()), weights.grad.flatten().numpy()

        return minimize(value, self.start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 500}).x

    def outer_loss(self, mass, moved=None):
        weights = torch.tensor(self.weights(mass)).view(self.num_classes, -1)
        seen = self.features[self.outer]
        if moved is not None:
            seen = torch.cat([moved.double(), seen[:, -1:]], dim=1)
        return float(cross_entropy(seen @ weights.T, self.labels[self.outer]))

    def flipped(self, row, new_label, amount):
        mass = self.mass.clone()
        mass[row, self.labels[row]] -= amount
        mass[row, new_label] += amount
        return mass


@pytest.mark.parametrize("relabel", [NextClass(), NewClass()])
def test_last_layer_is_the_derivative_of_refitted_losses(small, relabel):
    selector = InfluenceScore(outer=10, damping=DAMPING)
    candidates = Candidates.of(small, relabel, 0)
    outer = selector.outer_points(candidates, 0)
    kept = torch.tensor(sorted(set(range(60)) - set(outer.tolist())))
    influence = selector.influence(candidates, kept, 0)
    refit = Refit(small, outer, 3 + isinstance(relabel, NewClass))
    amount = 1e-4
    for row, found in list(zip(kept.tolist(), influence.tolist(), strict=True))[::4]:
        new_label = int(candidates.new_labels[row])
        up, down = (refit.outer_loss(refit.flipped(row, new_label, sign * amount)) for sign in (1, -1))
        # A flip moves the mass 1/n from one label to the other.
        derivative = (up - down) / (2 * amount) / len(kept)
        assert found == pytest.approx(derivative, rel=2e-3, abs=1e-7)


def test_last_layer_predicts_real_flips(small):
    selector = InfluenceScore(outer=10, damping=DAMPING)
    candidates = Candidates.of(small, NextClass(), 0)
    outer = selector.outer_points(candidates, 0)
    kept = torch.tensor(sorted(set(range(60)) - set(outer.tolist())))
    refit = Refit(small, outer, 3)
    clean = refit.outer_loss(refit.mass)
    real = [
        refit.outer_loss(refit.flipped(row, int(candidates.new_labels[row]), 1 / len(kept))) - clean
        for row in kept.tolist()
    ]
    influence = selector.influence(candidates, kept, 0)
    assert spearmanr(real, influence.tolist()).statistic > 0.97
    assert np.abs(np.array(real) - influence.numpy()).max() < 0.3 * np.abs(real).max()


def test_perturbed_outer_points_judge_by_the_loss_where_they_are_moved_to(small):
    attack = PGD(eps=0.1, steps=5)
    selector = InfluenceScore(outer=10, damping=DAMPING, attack=attack)
    candidates = Candidates.of(small, NextClass(), 0)
    outer = selector.outer_points(candidates, 0)
    refit = Refit(small, outer, 3)
    weights = torch.tensor(refit.weights(refit.mass)).view(3, 3)
    judge = nn.Linear(2, 3)
    judge.load_state_dict({"weight": weights[:, :2].float(), "bias": (weights[:, 2] * refit.features[0, 2]).float()})
    moved = attack(judge, small.inputs[outer], small.labels[outer]).examples
    kept = torch.tensor(sorted(set(range(60)) - set(outer.tolist())))[::6]
    influence = selector.influence(candidates, kept, 0)
    natural = replace(selector, attack=None).influence(candidates, kept, 0)
    assert not torch.allclose(influence, natural, rtol=0.05)
    for row, found in zip(kept.tolist(), influence.tolist(), strict=True):
        new_label = int(candidates.new_labels[row])
        up, down = (refit.outer_loss(refit.flipped(row, new_label, sign * 1e-4), moved) for sign in (1, -1))
        assert found == pytest.approx((up - down) / 2e-4 / 50, rel=5e-3, abs=1e-7)


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


def test_points_that_judge_are_flipped_last(small):
    selector = InfluenceScore(outer=12, fraction=0.8)
    outer = set(selector.outer_points(Candidates.of(small, NextClass(), 0), 0).tolist())
    assert len(outer) == 12
    assert not outer & set(LabelFlips(selector).flips(small, 0).index.tolist())
    assert len(LabelFlips(InfluenceScore(fraction=1.0)).flips(small, 0)) == 60


def test_outer_points_belong_to_the_flipped_classes_unless_others_are_named(small):
    candidates = Candidates.of(small, NextClass(), 0)
    own = InfluenceScore(classes=[1], outer=3).outer_points(candidates, 0)
    assert small.labels[own].tolist() == [1, 1, 1]
    named = InfluenceScore(classes=[1], outer=1000, outer_classes=[0, 2]).outer_points(candidates, 0)
    assert len(named) == 8
    assert set(small.labels[named].tolist()) <= {0, 2}
    assert not torch.equal(own, InfluenceScore(classes=[1], outer=3).outer_points(candidates, 1))


def test_the_most_influential_points_are_flipped(small):
    selector = InfluenceScore(per_class=3, outer=10)
    candidates = Candidates.of(small, NextClass(), 0)
    influence = selector.influence(candidates, torch.arange(60), 0)
    influence[selector.outer_points(candidates, 0)] = -torch.inf
    flips = LabelFlips(selector).flips(small, 0)
    for label in range(3):
        own = influence.masked_fill(small.labels != label, -torch.inf)
        assert set(flips.index[flips.old_label == label].tolist()) == set(own.topk(3).indices.tolist())


@dataclass(frozen=True)
class Spy(Surrogate):
    """Looks at what a surrogate may be trained on."""

    def network(self, training_set, seed):
        seen.append(training_set)
        return nearest_mean_network(training_set)


seen: list[TrainingSet] = []


def test_a_surrogate_is_trained_without_the_points_that_judge(small):
    data = replace(small, network=None)
    seen.clear()
    selector = InfluenceScore(per_class=2, outer=10, surrogate=Spy())
    LabelFlips(selector).flips(data, 0)
    outer = selector.outer_points(Candidates.of(data, NextClass(), 0), 0)
    kept = [row for row in range(60) if row not in outer.tolist()]
    assert torch.equal(seen[0].inputs, data.inputs[kept])
    assert torch.equal(seen[0].labels, data.labels[kept])


@pytest.mark.parametrize("on", ["last_layer", "network"])
def test_crafted_with_a_network_that_is_trained_now(on):
    data = golden_data(300)
    selector = InfluenceScore(
        per_class=1, on=on, surrogate=TrainedSurrogate(recipe=TrainingRecipe(epochs=30)), attack=PGD(eps=0.05, steps=3)
    )
    state = torch.get_rng_state()
    flips = LabelFlips(selector).flips(data, 0)
    assert flips.old_label.tolist().count(3) == 1
    assert len(flips) == 10
    assert torch.equal(state, torch.get_rng_state())
    assert "PGD(eps=0.05, steps=3" in flips.provenance["strategy"]


class Softened(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return torch.log_softmax(self.network(inputs), dim=1)


def test_what_cannot_be_done_is_said(small):
    with pytest.raises(UserError, match="on=network cannot judge flips to a new class"):
        LabelFlips(InfluenceScore(per_class=1, on="network"), NewClass()).flips(small, 0)
    softened = replace(small, network=Softened(small.network))
    with pytest.raises(UserError, match="must be that of its last linear layer"):
        LabelFlips(InfluenceScore(per_class=1)).flips(softened, 0)
    assert len(LabelFlips(InfluenceScore(per_class=1, on="network")).flips(softened, 0)) == 3
    with pytest.raises(UserError, match=r"outer_classes must lie in \[0, 2\], got 3"):
        LabelFlips(InfluenceScore(per_class=1, outer_classes=[3])).flips(small, 0)
    few = TrainingSet(torch.tensor([0, 1]), 2, dataset=TensorDataset(torch.rand(2, 2), torch.tensor([0, 1])))
    with pytest.raises(UserError, match="influence needs 5 training points of the classes that judge, got 2"):
        LabelFlips(InfluenceScore(per_class=1)).flips(few, 0)
    for arguments, message in (
        ({"on": "head"}, "on must be one of last_layer, network"),
        ({"damping": 0.0}, "damping must lie in"),
        ({"outer": 0}, "outer must be an integer of at least 1"),
        ({"curvature": 0}, "curvature must be an integer of at least 1"),
        ({"outer_classes": [-1]}, "outer_classes must be an integer of at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            InfluenceScore(**arguments)


def test_an_unsolved_system_is_not_used(small, monkeypatch):
    monkeypatch.setattr(whole_network, "_STEPS", 2)
    with pytest.raises(UserError, match="damping must be larger for this network, got 1e-06, with which 2 steps of"):
        LabelFlips(InfluenceScore(per_class=1, on="network", damping=1e-6)).flips(small, 0)


def golden_with_network() -> TrainingSet:
    data = golden_data()
    return replace(data, network=nearest_mean_network(data))


def test_golden():
    check_golden("InfluenceScore", LabelFlips(InfluenceScore(per_class=2)), golden_with_network())
    attack = PGD(eps=0.1, steps=5)
    check_golden("InfluenceScoreAttacked", LabelFlips(InfluenceScore(count=9, attack=attack)), golden_with_network())
