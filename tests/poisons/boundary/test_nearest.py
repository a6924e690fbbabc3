from __future__ import annotations

import pytest
import torch

from lightning_poison.poisons import (
    Candidates,
    FarthestFromBoundary,
    LabelFlips,
    NearestToBoundary,
    NextClass,
    PathLengthBucket,
)
from lightning_poison.poisons.boundary import path_lengths
from tests.poisons.boundary.walked_by_hand import by_hand
from tests.poisons.golden import check_golden


def test_nearest_and_farthest(vectors):
    lengths = {
        row: length for row, (length, _) in by_hand(vectors, FarthestFromBoundary(step=0.25), NextClass()).items()
    }
    for label in range(3):
        own = sorted(length for row, length in lengths.items() if int(vectors.labels[row]) == label)
        near = LabelFlips(NearestToBoundary(per_class=4, classes=[label], step=0.25)).craft(vectors, 0)
        far = LabelFlips(FarthestFromBoundary(per_class=4, classes=[label], step=0.25)).craft(vectors, 0)
        assert sorted(lengths[row] for row in near.index.tolist()) == own[:4]
        assert sorted(lengths[row] for row in far.index.tolist()) == own[-4:]


@pytest.mark.parametrize("target", ["relabelled", "untargeted"])
def test_of_equal_lengths_the_surer_point_is_farther(vectors, target):
    selector = FarthestFromBoundary(step=1.0, target=target)
    candidates = Candidates.of(vectors, NextClass(), 0)
    lengths = [length for length, _ in by_hand(vectors, selector, NextClass()).values()]
    scores = vectors.network(vectors.inputs).double()
    own = scores.gather(1, vectors.labels[:, None])[:, 0]
    others = scores.scatter(1, vectors.labels[:, None], -torch.inf)
    rival = others.amax(dim=1) if target == "untargeted" else scores[torch.arange(90), (vectors.labels + 1) % 3]
    margins = (own - rival).tolist()
    order = sorted(range(90), key=lambda row: (lengths[row], margins[row]))
    assert len(set(lengths)) < 20
    assert torch.argsort(selector.scores(candidates, candidates.index, 0)).tolist() == order


def test_a_path_that_ends_at_the_limit_is_nearer_than_one_that_does_not(vectors):
    class Measured(FarthestFromBoundary):
        def distances(self, candidates, index, seed):
            reached = torch.tensor([False, True, True])
            return path_lengths.BoundaryDistances(torch.tensor([8, 8, 7]), reached, torch.tensor([1.0, 5.0, 9.0]))

    scores = Measured().scores(Candidates.of(vectors, NextClass(), 0), torch.arange(3), 0)
    assert torch.argsort(scores).tolist() == [2, 1, 0]


def test_paths_that_do_not_end_are_the_farthest(vectors):
    selector = FarthestFromBoundary(count=5, classes=[0], step=0.5, max_steps=6)
    found = by_hand(vectors, selector, NextClass())
    never = {row for row, (_, reached) in found.items() if not reached and int(vectors.labels[row]) == 0}
    ending = {row for row, (_, reached) in found.items() if reached and int(vectors.labels[row]) == 0}
    assert len(never) >= 5
    assert ending
    assert set(LabelFlips(selector).craft(vectors, 0).index.tolist()) <= never
    widths = PathLengthBucket(count=5, classes=[0], step=0.5, max_steps=6, edges="width", bucket=5)
    index = (vectors.labels == 0).nonzero()[:, 0]
    buckets = widths.buckets(Candidates.of(vectors, NextClass(), 0), index, 0)
    assert all(int(bucket) == 5 for row, bucket in zip(index.tolist(), buckets, strict=True) if row in never)


def test_golden(digits):
    check_golden("NearestToBoundary", LabelFlips(NearestToBoundary(per_class=2)), digits)
    check_golden("FarthestFromBoundary", LabelFlips(FarthestFromBoundary(per_class=2)), digits)
