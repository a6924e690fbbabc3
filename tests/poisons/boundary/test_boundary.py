from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import (
    Candidates,
    FarthestFromBoundary,
    LabelFlips,
    NearestToBoundary,
    NewClass,
    NextClass,
    PathLengthBucket,
    RandomOther,
    ToClass,
    TrainingSet,
)
from lightning_poison.poisons.boundary import distances
from lightning_poison.poisons.surrogates import TrainedSurrogate
from tests.poisons.golden import check_golden, golden_data, nearest_mean_network


class Counted(nn.Module):
    """Counts the images whose gradient is asked for."""

    def __init__(self, net):
        super().__init__()
        self.net, self.gradients = net, 0

    def forward(self, inputs):
        self.gradients += len(inputs) if inputs.requires_grad else 0
        return self.net(inputs)


@pytest.fixture(scope="module")
def digits() -> TrainingSet:
    data = golden_data()
    return replace(data, network=nearest_mean_network(data))


@pytest.fixture
def vectors() -> TrainingSet:
    """Three Gaussian classes in four dimensions, not in [0, 1], and a linear network."""
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(90) % 3
    centres = 6 * torch.eye(3, 4)
    inputs = centres[labels] + torch.randn(90, 4, generator=stream)
    head = nn.Linear(4, 3)
    head.load_state_dict({"weight": centres, "bias": torch.zeros(3)})
    return TrainingSet(labels, 3, dataset=TensorDataset(inputs, labels), network=head)


def walked_by_hand(network, point, label, aim, step, limit):
    """Algorithm 2, one point at a time; untargeted where the aim is -1."""
    point, length = point[None].clone(), 0
    while True:
        scores = network(point)
        prediction = int(scores.argmax())
        if prediction == aim or (aim < 0 and prediction != label):
            return length, True
        if length == limit:
            return length, False
        point = point.detach().requires_grad_()
        wanted = torch.tensor([label if aim < 0 else aim])
        (gradient,) = torch.autograd.grad(cross_entropy(network(point), wanted), point)
        point = (point + (step if aim < 0 else -step) * gradient.sign()).detach()
        length += 1


def by_hand(data, selector, relabel, seed=0):
    """Length and whether it ended, of each eligible point."""
    candidates = Candidates.of(data, relabel, seed)
    found = {}
    for row in candidates.index.tolist():
        label, aim = int(data.labels[row]), int(candidates.new_labels[row])
        aim = -1 if selector.target == "untargeted" or aim >= data.num_classes else aim
        found[row] = walked_by_hand(data.network, data.inputs[row], label, aim, selector.step, selector.max_steps)
    return found


@pytest.mark.parametrize("target", ["relabelled", "untargeted"])
@pytest.mark.parametrize("relabel", [NextClass(), ToClass(1), NewClass(), RandomOther()])
def test_lengths_are_those_of_the_naive_loop(vectors, target, relabel):
    selector = FarthestFromBoundary(target=target, step=0.5, max_steps=12)
    candidates = Candidates.of(vectors, relabel, 0)
    found = selector.distances(candidates, candidates.index, seed=0)
    expected = by_hand(vectors, selector, relabel)
    assert {length for length, _ in expected.values()} != {0}
    for row, length, reached in zip(
        candidates.index.tolist(), found.length.tolist(), found.reached.tolist(), strict=True
    ):
        assert (length, reached) == expected[row]


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
        flips = LabelFlips(selector).flips(digits, seed)
        assert flips.old_label.bincount(minlength=10).tolist() == [0, 0, 3, 0, 0, 0, 0, 3, 0, 0]
        assert set(flips.index.tolist()) <= inside
        seen |= set(flips.index.tolist())
    assert seen == inside


def test_points_of_a_bucket_are_drawn_equally_often(digits):
    hits = torch.zeros(digits.num_points)
    selector = PathLengthBucket(count=4, classes=[3], bucket=1, num_buckets=3)
    for seed in range(1000):
        hits[LabelFlips(selector).flips(digits, seed).index] += 1
    drawn = hits[hits > 0]
    expected = 4000 / len(drawn)
    assert (drawn - expected).abs().max() < 5 * expected**0.5


def test_a_point_that_changes_its_bucket_leaves_the_other_lots_alone(digits):
    """Last-bit differences between machines may move a point; the rest of the draw is to stay."""
    selector = PathLengthBucket(count=8, classes=[3], bucket=0, num_buckets=3)
    chosen = set(LabelFlips(selector).flips(digits, 0).index.tolist())

    class Moved(PathLengthBucket):
        def buckets(self, candidates, index, seed):
            buckets = super().buckets(candidates, index, seed)
            rows = (buckets == 0).nonzero()[:, 0]
            buckets[rows[0]] = 1
            return buckets

    moved = set(LabelFlips(Moved(count=8, classes=[3], bucket=0, num_buckets=3)).flips(digits, 0).index.tolist())
    assert len(chosen & moved) >= 7


def test_lengths_are_computed_once_for_all_buckets_and_only_for_classes_asked_for(digits):
    network = Counted(nearest_mean_network(digits))
    data = replace(digits, network=network)
    for selector in PathLengthBucket.sweep(3, per_class=2, classes=[4]).values():
        LabelFlips(selector).flips(data, 0)
        first = network.gradients
    candidates = Candidates.of(data, NextClass(), 0)
    members = (data.labels == 4).nonzero()[:, 0]
    found = PathLengthBucket(classes=[4]).distances(candidates, members, 0)
    # one gradient a step, one more where the path was found to have ended (the engine asks for it at once)
    steps = int(found.length.sum())
    assert steps <= first <= steps + len(members)
    LabelFlips(NearestToBoundary(per_class=1, classes=[4])).flips(data, 1)
    assert network.gradients == first
    LabelFlips(NearestToBoundary(per_class=1, classes=[5])).flips(data, 1)
    assert network.gradients > first


def test_other_targets_are_not_mistaken_for_known_ones(vectors):
    for relabel in (ToClass(0), ToClass(1), ToClass(2), ToClass(0)):
        candidates = Candidates.of(vectors, relabel, 0)
        selector = FarthestFromBoundary(step=0.5, max_steps=40)
        found = selector.distances(candidates, candidates.index, 0)
        expected = [length for length, _ in by_hand(vectors, selector, relabel).values()]
        assert found.length.tolist() == expected


def test_nearest_and_farthest(vectors):
    lengths = {
        row: length for row, (length, _) in by_hand(vectors, FarthestFromBoundary(step=0.25), NextClass()).items()
    }
    for label in range(3):
        own = sorted(length for row, length in lengths.items() if int(vectors.labels[row]) == label)
        near = LabelFlips(NearestToBoundary(per_class=4, classes=[label], step=0.25)).flips(vectors, 0)
        far = LabelFlips(FarthestFromBoundary(per_class=4, classes=[label], step=0.25)).flips(vectors, 0)
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
            return distances.BoundaryDistances(torch.tensor([8, 8, 7]), reached, torch.tensor([1.0, 5.0, 9.0]))

    scores = Measured().scores(Candidates.of(vectors, NextClass(), 0), torch.arange(3), 0)
    assert torch.argsort(scores).tolist() == [2, 1, 0]


def test_paths_that_do_not_end_are_the_farthest(vectors):
    selector = FarthestFromBoundary(count=5, classes=[0], step=0.5, max_steps=6)
    found = by_hand(vectors, selector, NextClass())
    never = {row for row, (_, reached) in found.items() if not reached and int(vectors.labels[row]) == 0}
    ending = {row for row, (_, reached) in found.items() if reached and int(vectors.labels[row]) == 0}
    assert len(never) >= 5
    assert ending
    assert set(LabelFlips(selector).flips(vectors, 0).index.tolist()) <= never
    widths = PathLengthBucket(count=5, classes=[0], step=0.5, max_steps=6, edges="width", bucket=5)
    index = (vectors.labels == 0).nonzero()[:, 0]
    buckets = widths.buckets(Candidates.of(vectors, NextClass(), 0), index, 0)
    assert all(int(bucket) == 5 for row, bucket in zip(index.tolist(), buckets, strict=True) if row in never)


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
        LabelFlips(PathLengthBucket(per_class=6, bucket=1, step=0.25)).flips(vectors, 0)
    with pytest.raises(
        UserError, match=r"is empty for class 0, but 1 must be drawn .* take edges=quantile, fewer buckets"
    ):
        LabelFlips(PathLengthBucket(per_class=1, bucket=1, num_buckets=999, step=0.5, edges="width")).flips(vectors, 0)
    with pytest.raises(UserError, match="holds 15 points of all classes together, but 16"):
        LabelFlips(PathLengthBucket(count=16, bucket=1, step=0.25)).flips(vectors, 0)
    with pytest.raises(
        UserError, match=r"no adversarial path of class 0 ends within 1 steps of 0\.001; raise max_steps"
    ):
        LabelFlips(PathLengthBucket(count=3, max_steps=1, step=0.001)).flips(vectors, 0)
    with pytest.raises(UserError, match="at most the size of every class"):
        LabelFlips(PathLengthBucket(per_class=31)).flips(vectors, 0)
    with pytest.raises(UserError, match=r"clip keeps paths within \[0, 1\], but the inputs lie in"):
        LabelFlips(NearestToBoundary(clip=True)).flips(vectors, 0)


def test_a_budget_of_nothing_needs_no_network():
    data = TrainingSet(torch.arange(20) % 2, 2)
    assert len(LabelFlips(PathLengthBucket(count=0)).flips(data, 0)) == 0
    assert len(LabelFlips(NearestToBoundary(per_class=0)).flips(data, 0)) == 0


def test_clipped_paths_stay_in_the_box_and_are_no_shorter(digits):
    candidates = Candidates.of(digits, NextClass(), 0)
    index = torch.arange(100)
    free = NearestToBoundary().distances(candidates, index, 0)
    kept = NearestToBoundary(clip=True).distances(candidates, index, 0)
    assert bool((kept.length >= free.length).all())
    assert bool((kept.length > free.length).any())


def test_the_network_is_left_as_it_was(vectors):
    network = vectors.network.train()
    flags = [weight.requires_grad for weight in network.parameters()]
    state = torch.get_rng_state()
    LabelFlips(PathLengthBucket(per_class=2, step=0.25)).flips(vectors, 0)
    assert network.training
    assert [weight.requires_grad for weight in network.parameters()] == flags
    assert torch.equal(state, torch.get_rng_state())


def test_parts_of_a_large_set_give_the_same(vectors, monkeypatch):
    candidates = Candidates.of(vectors, NextClass(), 0)
    selector = FarthestFromBoundary(step=0.25)
    whole = selector.distances(candidates, candidates.index, 0)
    monkeypatch.setattr(distances, "_parts", lambda rows, inputs: torch.split(rows, 7) if len(rows) else ())
    again = replace(vectors, network=vectors.network)  # nothing is remembered
    parts = selector.distances(Candidates.of(again, NextClass(), 0), candidates.index, 0)
    assert torch.equal(whole.length, parts.length)
    assert torch.equal(whole.reached, parts.reached)


def test_a_network_is_trained_where_none_came_along():
    data, surrogate = golden_data(300), TrainedSurrogate(recipe=TrainingRecipe(epochs=30))
    flips = LabelFlips(PathLengthBucket(per_class=2, classes=[0, 1], step=0.05, surrogate=surrogate)).flips(data, 0)
    assert flips.old_label.tolist().count(0) == flips.old_label.tolist().count(1) == 2


def test_an_untrained_surrogate_is_refused():
    data = golden_data(300)
    network = MLP(10, 1, 8, hidden=())
    nn.init.zeros_(network.head.weight)
    with pytest.raises(UserError, match="no more than guessing"):
        LabelFlips(PathLengthBucket(per_class=1)).flips(replace(data, network=network), 0)


def test_golden(digits):
    check_golden("PathLengthBucket", LabelFlips(PathLengthBucket(per_class=2, bucket=3, step=0.02)), digits)
    check_golden("PathLengthBucketWidth", LabelFlips(PathLengthBucket(count=9, bucket=2, edges="width")), digits)
    check_golden("NearestToBoundary", LabelFlips(NearestToBoundary(per_class=2)), digits)
    check_golden("FarthestFromBoundary", LabelFlips(FarthestFromBoundary(per_class=2)), digits)


def test_what_cannot_work_is_refused_before_paths_are_followed(vectors):
    data = TrainingSet(vectors.labels, 3)  # labels alone
    with pytest.raises(UserError, match="bucket 1 holds 5 points of class 0, but 6 must"):
        LabelFlips(PathLengthBucket(per_class=6, bucket=1)).check(data, 0)
    LabelFlips(PathLengthBucket(per_class=5, bucket=1)).check(data, 0)
    LabelFlips(PathLengthBucket(per_class=6, bucket=1, edges="width")).check(data, 0)
    with pytest.raises(UserError, match="at most the size of every class"):
        LabelFlips(PathLengthBucket(per_class=60)).check(data, 0)
