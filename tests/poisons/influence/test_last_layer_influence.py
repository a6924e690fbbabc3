from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_poison.attacks import PGD
from lightning_poison.poisons import Candidates, InfluenceScore, NewClass, NextClass
from tests.poisons.influence.refits import DAMPING, Refit


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
