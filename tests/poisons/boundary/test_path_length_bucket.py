from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    Candidates,
    LabelFlips,
    NearestToBoundary,
    NextClass,
    PathLengthBucket,
    RandomOther,
    TrainingSet,
)
from tests.poisons.boundary.walked_by_hand import walked_by_hand
from tests.poisons.golden import check_golden


@pytest.mark.parametrize("edges", ["quantile", "width"])
def test_buckets_of_images_are_those_of_sorted_naive_lengths(digits, edges):
    some = {label: (digits.labels == label).nonzero()[:, 0] for label in (0, 1)}
    selector = PathLengthBucket(classes=[0, 1], num_buckets=4, edges=edges, step=0.05)
    candidates = Candidates.of(digits, NextClass(), 0)
    index = torch.cat(list(some.values())).sort().values
    buckets = dict(zip(index.tolist(), selector.buckets(candidates, index, 0).tolist(), strict=True))
    scores = digits.network(digits.inputs).double()
    for label, rows in some.items():
        lengths = [
            walked_by_hand(digits.network, digits.inputs[row], label, label + 1, 0.05, 200)[0] for row in rows.tolist()
        ]
        margins = (scores[rows, label] - scores[rows, label + 1]).tolist()
        if edges == "quantile":
            order = sorted(range(len(rows)), key=lambda at: (lengths[at], margins[at]))
            places = {at: place for place, at in enumerate(order)}
            expected = [math.floor(4 * places[at] / len(rows)) for at in range(len(rows))]
        else:
            spread = max(lengths) - min(lengths) + 1
            expected = [math.floor(4 * (length - min(lengths)) / spread) for length in lengths]
        assert [buckets[row] for row in rows.tolist()] == expected


def test_buckets_are_shared_out_by_pair_of_classes(vectors):
    candidates = Candidates.of(vectors, RandomOther(), 0)
    selector = PathLengthBucket(num_buckets=3, step=0.25)
    buckets = selector.buckets(candidates, candidates.index, 0)
    for label in range(3):
        for aim in range(3):
            own = buckets[(vectors.labels == label) & (candidates.new_labels == aim)]
            if label != aim:
                sizes = torch.bincount(own, minlength=3)
                assert int(sizes.max() - sizes.min()) <= 1
    untargeted = replace(selector, target="untargeted").buckets(candidates, candidates.index, 0)
    assert all(torch.bincount(untargeted[vectors.labels == label]).tolist() == [10, 10, 10] for label in range(3))


def test_flips_come_from_the_bucket_and_cover_it(digits):
    candidates = Candidates.of(digits, NextClass(), 0)
    selector = PathLengthBucket(per_class=3, classes=[2, 7], bucket=2, num_buckets=4)
    index = torch.isin(digits.labels, torch.tensor([2, 7])).nonzero()[:, 0]
    buckets = selector.buckets(candidates, index, 0)
    inside = set(index[buckets == 2].tolist())
    seen = set()
    for seed in range(60):
        flips = LabelFlips(selector).craft(digits, seed)
        assert flips.old_label.bincount(minlength=10).tolist() == [0, 0, 3, 0, 0, 0, 0, 3, 0, 0]
        assert set(flips.index.tolist()) <= inside
        seen |= set(flips.index.tolist())
    assert seen == inside


def test_points_of_a_bucket_are_drawn_equally_often(digits):
    hits = torch.zeros(digits.num_points)
    selector = PathLengthBucket(count=4, classes=[3], bucket=1, num_buckets=3)
    for seed in range(1000):
        hits[LabelFlips(selector).craft(digits, seed).index] += 1
    drawn = hits[hits > 0]
    expected = 4000 / len(drawn)
    assert (drawn - expected).abs().max() < 5 * expected**0.5


def test_a_point_that_changes_its_bucket_leaves_the_other_lots_alone(digits):
    """Last-bit differences between machines may move a point; the rest of the draw is to stay."""
    selector = PathLengthBucket(count=8, classes=[3], bucket=0, num_buckets=3)
    chosen = set(LabelFlips(selector).craft(digits, 0).index.tolist())

    class Moved(PathLengthBucket):
        def buckets(self, candidates, index, seed):
            buckets = super().buckets(candidates, index, seed)
            rows = (buckets == 0).nonzero()[:, 0]
            buckets[rows[0]] = 1
            return buckets

    moved = set(LabelFlips(Moved(count=8, classes=[3], bucket=0, num_buckets=3)).craft(digits, 0).index.tolist())
    assert len(chosen & moved) >= 7


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: PathLengthBucket(bucket=6),
            r"bucket must lie in \[0, 5\], got 6; there are 6 buckets, numbered from 0",
        ),
        (lambda: PathLengthBucket(bucket=-1), "bucket must be an integer of at least 0"),
        (lambda: PathLengthBucket(num_buckets=0), "num_buckets must be an integer of at least 1"),
        (lambda: PathLengthBucket(edges="even"), "edges must be one of quantile, width"),
        (lambda: PathLengthBucket(target="next"), "target must be one of relabelled, untargeted"),
        (lambda: PathLengthBucket(step=0.0), "step must lie in"),
        (lambda: PathLengthBucket(step=3), "for 3 grey levels of 255 write 3/255"),
        (lambda: PathLengthBucket(max_steps=0), "max_steps must be an integer of at least 1"),
        (lambda: PathLengthBucket.sweep(0), "num_buckets must be an integer of at least 1"),
    ],
)
def test_arguments_that_cannot_be_meant(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_buckets_that_hold_too_few_points_are_named_with_their_sizes(vectors):
    with pytest.raises(
        UserError, match=r"bucket 1 holds 5 points of class 0, but 6 must .* hold 5, 5, 5, 5, 5, 5 points"
    ):
        LabelFlips(PathLengthBucket(per_class=6, bucket=1, step=0.25)).craft(vectors, 0)
    with pytest.raises(
        UserError, match=r"is empty for class 0, but 1 must be drawn .* take edges=quantile, fewer buckets"
    ):
        LabelFlips(PathLengthBucket(per_class=1, bucket=1, num_buckets=999, step=0.5, edges="width")).craft(vectors, 0)
    with pytest.raises(UserError, match="holds 15 points of all classes together, but 16"):
        LabelFlips(PathLengthBucket(count=16, bucket=1, step=0.25)).craft(vectors, 0)
    with pytest.raises(
        UserError, match=r"no adversarial path of class 0 ends within 1 steps of 0\.001; raise max_steps"
    ):
        LabelFlips(PathLengthBucket(count=3, max_steps=1, step=0.001)).craft(vectors, 0)
    with pytest.raises(UserError, match="at most the size of every class"):
        LabelFlips(PathLengthBucket(per_class=31)).craft(vectors, 0)
    with pytest.raises(UserError, match=r"clip keeps paths within \[0, 1\], but the inputs lie in"):
        LabelFlips(NearestToBoundary(clip=True)).craft(vectors, 0)


def test_many_buckets_are_not_listed_one_by_one(vectors):
    with pytest.raises(UserError, match=r"the 1000 buckets hold \d+ to \d+ points: take") as caught:
        LabelFlips(PathLengthBucket(per_class=6, num_buckets=1000)).craft(vectors, 0)
    assert len(str(caught.value)) < 200


def test_what_cannot_work_is_refused_before_paths_are_followed(vectors):
    data = TrainingSet(vectors.labels, 3)  # labels alone
    with pytest.raises(UserError, match="bucket 1 holds 5 points of class 0, but 6 must"):
        LabelFlips(PathLengthBucket(per_class=6, bucket=1)).check(data, 0)
    LabelFlips(PathLengthBucket(per_class=5, bucket=1)).check(data, 0)
    LabelFlips(PathLengthBucket(per_class=6, bucket=1, edges="width")).check(data, 0)
    with pytest.raises(UserError, match="at most the size of every class"):
        LabelFlips(PathLengthBucket(per_class=60)).check(data, 0)


def test_golden(digits):
    check_golden("PathLengthBucket", LabelFlips(PathLengthBucket(per_class=2, bucket=3, step=0.02)), digits)
    check_golden("PathLengthBucketWidth", LabelFlips(PathLengthBucket(count=9, bucket=2, edges="width")), digits)
