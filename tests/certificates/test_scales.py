"""Features of any size, 1e-308 to 1e308: the same certificates, or a refusal in one line, and never a larger radius."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations

import pytest
import torch

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedRidge,
    ClusterVotes,
    CosineKernel,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    KMeansClusters,
    LabelFlipCertificate,
    MeanSimilarity,
    MonteCarloSmoothing,
    NearestCentroid,
    NearestNeighbours,
    PartitionAggregation,
    RawFeatures,
    RBFKernel,
    SignedVotes,
    SklearnTraining,
    SmoothedRidge,
    SpectralClusters,
)
from lightning_poison.errors import UserError
from lightning_poison.functional.graphs import nearest_neighbours, spectral_embedding
from lightning_poison.functional.ridge import Ridge
from lightning_poison.functional.scale import unit_of
from lightning_poison.theory import cover_by_balls, linear_risk, lipschitz_estimate, robust_weights

STREAM = torch.Generator().manual_seed(0)
LABELS = torch.arange(8) // 4
INPUTS = torch.randn(8, 2, generator=STREAM).double() * 0.4 + 1.5 * (1 - 2 * LABELS)[:, None]
POINTS = torch.tensor([[1.5, 1.4], [-1.3, -1.2], [0.3, -0.1]]).double()
EXPONENTS = [-1021, -700, -540, -250, -60, 60, 250, 511, 700, 1021]

BY_SCALE: dict[str, Callable[[], CertifiedLearner]] = {
    "ridge": lambda: CertifiedRidge(RawFeatures()),
    "ridge without intercept": lambda: CertifiedRidge(RawFeatures(), intercept=False),
    "ridge along one direction": lambda: CertifiedRidge(RawFeatures(), max_dim=1),
    "centroid": lambda: NearestCentroid(RawFeatures()),
    "k-means": lambda: SignedVotes(RawFeatures(), KMeansClusters(2)),
    "spectral": lambda: ClusterVotes(RawFeatures(), SpectralClusters(2, 2)),
    "transductive": lambda: SignedVotes(RawFeatures(), SpectralClusters(2, 2), transductive=True),
    "signs": lambda: KernelSigns(CertifiedRidge(RawFeatures(), intercept=False)),
    "smoothed": lambda: SmoothedRidge(RawFeatures(), q=0.05),
    "smoothed, 0 and 1": lambda: SmoothedRidge(RawFeatures(), q=0.05, coding="zero_one"),
    "monte carlo": lambda: MonteCarloSmoothing(
        CertifiedRidge(RawFeatures()), runs=9, alpha=0.4, features=RawFeatures()
    ),
}
"""Whose certificates depend on no scale."""

OTHERS: dict[str, Callable[[], CertifiedLearner]] = {
    "kernel ridge": lambda: KernelRidge(RawFeatures(), regularisation=0.1),
    "landmarks": lambda: KernelRidge(RawFeatures(), CosineKernel(), 0.1, landmarks=4),
    "kernel votes": lambda: KernelVotes(RawFeatures(), CosineKernel(centre=True)),
    "votes of a Gaussian": lambda: KernelVotes(RawFeatures(), RBFKernel(1.0)),
    "neighbours": lambda: NearestNeighbours(RawFeatures(), 3),
    "nearest in l2": lambda: NearestNeighbours(RawFeatures(), 3, RBFKernel()),
    "similarity": lambda: MeanSimilarity(RawFeatures(), CosineKernel(centre=True)),
    "similarity of a Gaussian": lambda: MeanSimilarity(RawFeatures(), RBFKernel()),
    "parts": lambda: PartitionAggregation(parts=3, features=RawFeatures()),
    "parts of all kinds": lambda: PartitionAggregation(parts=3, features=RawFeatures(), dealing="clusters"),
    "run-off": lambda: PartitionAggregation(parts=4, features=RawFeatures(), election="run_off"),
    **{name: make for name, make in BY_SCALE.items() if not name.startswith(("smoothed", "monte"))},
}
"""Whose certificates hold for the learner itself, fitted to other labels."""


def certified(
    make: Callable[[], CertifiedLearner], inputs: torch.Tensor, points: torch.Tensor, labels: torch.Tensor = LABELS
) -> LabelFlipCertificate | None:
    """The certificate, or None where it is refused."""
    try:
        return make().fit(inputs, labels, 2).certify(points)
    except UserError as error:
        if "\n" in str(error):
            raise
        return None


# Not of Monte Carlo: its draws belong to points by a hash of their bytes, which are others at another scale.
@pytest.mark.parametrize("name", [name for name in BY_SCALE if not name.startswith("monte")])
def test_what_depends_on_no_scale_is_the_same_at_every_scale(name: str) -> None:
    make = BY_SCALE[name]
    expected = certified(make, INPUTS, POINTS)
    assert expected is not None
    for exponent in EXPONENTS:
        found = certified(make, INPUTS * 2.0**exponent, POINTS * 2.0**exponent)
        assert found is not None
        assert torch.equal(found.prediction, expected.prediction)
        assert torch.equal(found.radius, expected.radius)


def largest_sound_radius(make: Callable[[], CertifiedLearner], inputs: torch.Tensor, points: torch.Tensor) -> int:
    """Refit after one or two changes that a certificate allows; the largest radius there was, -1 if refused."""
    found = certified(make, inputs, points)
    if found is None:
        return -1
    largest = int(found.radius.max())
    for count in range(1, min(largest, 2) + 1):
        for chosen in list(combinations(range(len(LABELS)), count))[:: 1 if count == 1 else 5]:
            changed = LABELS.clone()
            changed[list(chosen)] = 1 - changed[list(chosen)]
            again = certified(make, inputs, points, changed)
            assert again is not None
            kept = found.radius >= count
            assert torch.equal(again.prediction[kept], found.prediction[kept]), chosen
    return largest


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_no_relabelling_within_the_radius_changes_a_prediction_at_any_scale(
    make: Callable[[], CertifiedLearner],
) -> None:
    scales = [2.0**exponent for exponent in (-1021, -540, -60, 0, 60, 511, 1021)]
    assert max(largest_sound_radius(make, INPUTS * scale, POINTS * scale) for scale in scales) > 0
    # points far beyond the training points
    largest_sound_radius(make, INPUTS * 1e-200, POINTS * 1e200)
    largest_sound_radius(make, INPUTS, POINTS * 1e300)


def test_the_strength_that_sees_labels_does_not_crash() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for exponent in EXPONENTS:
            scale = 2.0**exponent
            certified(lambda: SmoothedRidge(RawFeatures(), q=0.05, strength="eq6"), INPUTS * scale, POINTS * scale)


def test_a_classifier_that_does_not_take_the_features_says_so() -> None:
    procedure = SklearnTraining("sklearn.tree.DecisionTreeClassifier")
    learner = MonteCarloSmoothing(procedure, runs=3, alpha=0.4, features=RawFeatures()).fit(INPUTS * 1e100, LABELS, 2)
    with pytest.raises(
        UserError, match=r"estimator must take these features, got DecisionTreeClassifier \(Input X cont"
    ):
        learner.certify(POINTS)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_neighbours_and_their_graph_are_those_of_ordinary_points(exponent: int) -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    expected, order = nearest_neighbours(points, 4)
    found, index = nearest_neighbours(points * 2.0**exponent, 4)
    assert torch.equal(index, order)
    assert torch.allclose(found / 2.0**exponent, expected, rtol=1e-6)
    embedded, other = (spectral_embedding(part, 2, 4).coordinates for part in (points, points * 2.0**exponent))
    assert torch.allclose(embedded, other, atol=1e-5)
    with pytest.raises(UserError, match="queries must be finite"):
        nearest_neighbours(points * 2.0**-900, 4, points * 2.0**900)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_ridge_weights_are_the_same_to_the_last_bit(exponent: int) -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    for intercept in (False, True):
        for rows in (points, points[:2]):
            one, other = (Ridge(part, 0.3, intercept=intercept).weights(part) for part in (rows, rows * 2.0**exponent))
            assert torch.equal(one, other)


def test_the_unit_is_a_power_of_two_that_loses_nothing() -> None:
    for exponent in (-1074, -1022, -500, -201, 201, 500, 1023):
        points = torch.tensor([1.25, -1.75, 0.0]).double() * 2.0**exponent
        unit = unit_of(points)
        assert torch.equal((points * unit) / unit, points)
        assert float((points * unit).abs().max()) < 2
    assert unit_of(torch.tensor([0.0, 2.0**150], dtype=torch.float64)) == 1
    for largest, unit in ((1.0, 1.0), (1.99, 1.0), (2.0, 0.5), (0.99, 2.0), (2.0**150, 2.0**-150)):
        assert unit_of(torch.tensor([-largest, 0.0], dtype=torch.float64), ordinary=0) == unit
    assert unit_of(torch.zeros(3)) == unit_of(torch.empty(0)) == 1


def test_balls_hold_what_lies_in_them_at_every_scale() -> None:
    """Squares of small differences vanish, so that every ball seemed to hold every point."""
    points = torch.arange(40.0).double()[:, None].expand(40, 2) / 64
    labels = torch.zeros(40, dtype=torch.int64)
    expected = cover_by_balls(points, labels, rho=3 / 64, max_balls=5)
    for exponent in EXPONENTS:
        found = cover_by_balls(points * 2.0**exponent, labels, rho=3 / 64 * 2.0**exponent, max_balls=5)
        assert torch.equal(found.in_ball, expected.in_ball)
        assert torch.equal(found.in_union, expected.in_union)


def test_numbers_that_are_not_finite_are_refused_by_the_theorems() -> None:
    class Overflowing(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.stack(
                [inputs[:, 0] * 0, (inputs[:, 0] ** 2).sqrt()], dim=1
            )  # the gradient at 0 is not a number

    with pytest.raises(UserError, match="gradients must be finite"):
        lipschitz_estimate(Overflowing(), torch.zeros(1, 1))
    strengths, huge = torch.tensor([1.0, 0.5]), torch.tensor([1e300, 1e300], dtype=torch.float64)
    assert linear_risk(strengths, huge) == linear_risk(strengths, torch.ones(2))
    for broken in (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.inf])):
        for act in (
            lambda broken=broken: linear_risk(broken, strengths),
            lambda broken=broken: linear_risk(strengths, broken),
            lambda broken=broken: robust_weights(broken, 0.1),
        ):
            with pytest.raises(UserError, match="must be finite"):
                act()
