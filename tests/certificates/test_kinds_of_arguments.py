"""Learners take arrays and lists as they take tensors, and refuse everything else in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedRidge,
    ClusterVotes,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    KMeansClusters,
    LearnerTraining,
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
    UnchangedInputs,
)
from lightning_poison.errors import UserError

INPUTS = torch.randn(24, 2, generator=torch.Generator().manual_seed(0)) + 2.0 * (torch.arange(24) < 12)[:, None]
LABELS = torch.arange(24) // 12
POINTS = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)) + 1.0

LEARNERS: dict[str, Callable[[], CertifiedLearner]] = {
    "ridge": lambda: CertifiedRidge(RawFeatures()),
    "kernel ridge": lambda: KernelRidge(RawFeatures()),
    "kernel votes": lambda: KernelVotes(RawFeatures()),
    "neighbours": lambda: NearestNeighbours(RawFeatures(), 5),
    "similarity": lambda: MeanSimilarity(RawFeatures()),
    "centroid": lambda: NearestCentroid(RawFeatures()),
    "clusters": lambda: ClusterVotes(RawFeatures(), KMeansClusters(2)),
    "signed": lambda: SignedVotes(RawFeatures(), KMeansClusters(2)),
    "signs": lambda: KernelSigns(CertifiedRidge(RawFeatures(), intercept=False)),
    "smoothed": lambda: SmoothedRidge(RawFeatures(), q=0.1),
    "parts": lambda: PartitionAggregation(parts=4, features=RawFeatures()),
    "monte carlo": lambda: MonteCarloSmoothing(
        CertifiedRidge(RawFeatures()), runs=12, alpha=0.3, features=RawFeatures()
    ),
}
every_learner = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS.keys())


def certified(learner: CertifiedLearner, points: Any) -> list[list[int]]:
    certificate = learner.certify(points)
    return [certificate.prediction.tolist(), certificate.radius.tolist()]


@every_learner
def test_arrays_lists_and_batches_are_taken_as_tensors_are(make: Callable[[], CertifiedLearner]) -> None:
    inputs, points = INPUTS.double(), POINTS.double()
    expected = certified(make().fit(inputs, LABELS, 2), points)
    readonly = points.numpy().copy()
    readonly.flags.writeable = False
    for given, labels, asked in [
        (inputs.numpy(), LABELS.numpy(), readonly),
        (inputs.tolist(), LABELS.tolist(), points.tolist()),
        ([inputs[:9].numpy(), inputs[9:].numpy()], LABELS.numpy().astype(np.uint8), iter(points.split(2))),
        (inputs.split(7), tuple(LABELS.tolist()), [points[:3], points[3:].numpy()]),
        (inputs.numpy()[::-1][::-1], LABELS.to(torch.uint16), np.asfortranarray(points.numpy())),
    ]:
        assert certified(make().fit(given, labels, 2), asked) == expected


@every_learner
@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (None, LABELS, r"inputs must be points or batches of points, got NoneType; pass a float tensor \(n, ...\)"),
        ("images", LABELS, "inputs must be points or batches of points, got str;"),
        ({"x": INPUTS}, LABELS, "inputs must be points or batches of points, got dict;"),
        (INPUTS.int(), LABELS, r"inputs must be float tensors, got dtype torch.int32; convert pixels to \[0, 1\]"),
        ([[0, 1]] * 24, LABELS, "inputs must be float tensors, got dtype torch.int64"),
        (INPUTS[:, 0], LABELS, r"inputs must have shape \(n, ...\), got \(24,\); one row is one point"),
        ([[0.5], [0.5, 1.0]], LABELS[:2], "inputs must be an array of numbers, got list .* give all rows one shape"),
        (np.array([["a"]] * 24), LABELS, "inputs must be an array of numbers, got dtype <U1; convert"),
        (list(INPUTS), LABELS, r"inputs must have shape \(n, ...\), got \(2,\)"),
        (iter(INPUTS.split(5)), LABELS, "inputs must be readable twice, got an iterator; pass a tensor or a list of"),
        ([INPUTS[:5], "rest"], LABELS, "inputs must be an array of numbers, got dtype <U4"),
        (INPUTS, LABELS[:20], "inputs must match the labels, got 24 inputs for 20 labels"),
        (INPUTS, LABELS.double().numpy(), "labels must be a vector of integer class numbers, got shape .*float64"),
        (INPUTS, LABELS[:, None], r"labels must be a vector of integer class numbers, got shape \(24, 1\)"),
        (INPUTS, ["a"] * 24, "labels must be an array of numbers, got dtype <U1"),
        (INPUTS, [[0], [1, 0]], "labels must be an array of numbers, got list .*; give all rows one shape"),
        (INPUTS, None, "labels must be an array of numbers, got dtype object"),
        (INPUTS, LABELS > 0, "labels must be a vector of integer class numbers, got .*bool"),
    ],
)
def test_training_points_of_a_wrong_kind(
    make: Callable[[], CertifiedLearner], inputs: Any, labels: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        make().fit(inputs, labels, 2)
    assert "\n" not in str(error.value)


@every_learner
@pytest.mark.parametrize("num_classes", ["2", 0, None, 2.0])
def test_a_number_of_classes_of_a_wrong_kind(make: Callable[[], CertifiedLearner], num_classes: Any) -> None:
    with pytest.raises(UserError, match="num_classes must be an integer of at least 1"):
        make().fit(INPUTS, LABELS, num_classes)


@every_learner
def test_evaluation_points_of_a_wrong_kind(make: Callable[[], CertifiedLearner]) -> None:
    learner = make().fit(INPUTS, LABELS, 2)
    for points, message in [
        (POINTS.int(), "inputs must be float tensors, got dtype torch.int32"),
        (POINTS[0], r"inputs must have shape \(n, ...\), got \(2,\)"),
        (3, "inputs must be points or batches of points, got int"),
        (torch.zeros(4, 3), r"same shape as the training points, got \(3,\) for \(2,\)"),
    ]:
        with pytest.raises(UserError, match=message):
            learner.certify(points)
    with pytest.raises(UserError, match=r"features must be a Tensor such as learner.transform\(inputs\), got ndarray"):
        learner.certify_features(POINTS.numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (
                lambda kind=kind: kind(RawFeatures),
                r"features must be a LabelFreeFeatures such as RawFeatures\(\), got the",
            )
            for kind in (
                CertifiedRidge,
                ClusterVotes,
                KernelRidge,
                KernelVotes,
                MeanSimilarity,
                NearestCentroid,
                NearestNeighbours,
                SignedVotes,
                SmoothedRidge,
            )
        ),
        (lambda: CertifiedRidge("raw"), "features must be a LabelFreeFeatures such as .* got 'raw'"),
        (lambda: PartitionAggregation(features=UnchangedInputs), "features must be .* got the class UnchangedInputs"),
        (lambda: MonteCarloSmoothing(CertifiedRidge(), features=3), "features must be .* got 3"),
        (lambda: SignedVotes(clusters=3), r"clusters must be a Clusters such as KMeansClusters\(3\), got 3"),
        (lambda: ClusterVotes(clusters=KMeansClusters), "clusters must be .* got the class KMeansClusters"),
        (lambda: KernelRidge(kernel=3), r"kernel must be a Kernel such as RBFKernel\(\), got 3"),
        (lambda: KernelVotes(kernel="rbf"), "kernel must be a Kernel such as .* got 'rbf'"),
        (lambda: NearestNeighbours(kernel=RBFKernel), "kernel must be a Kernel such as .* got the class RBFKernel"),
        (lambda: MeanSimilarity(kernel=KMeansClusters(2)), "kernel must be a Kernel such as .* got KMeansClusters"),
        (
            lambda: KernelSigns(CertifiedRidge),
            "method must be a LabelLinearLearner such as .* the class CertifiedRidge",
        ),
        (lambda: KernelSigns(NearestCentroid()), "method must be a LabelLinearLearner such as .* got NearestCentroid"),
        (
            lambda: PartitionAggregation(CertifiedRidge),
            "base must be a TrainingProcedure or a CertifiedLearner, got the",
        ),
        (lambda: PartitionAggregation(cache=3), "cache must be the path of a folder, got 3"),
        (
            lambda: MonteCarloSmoothing(GaussianNB()),
            "procedure must be a TrainingProcedure .* got GaussianNB; make one",
        ),
        (
            lambda: LearnerTraining("ridge"),
            r"learner must be a CertifiedLearner such as CertifiedRidge\(\), got 'ridge'",
        ),
        (lambda: SklearnTraining(GaussianNB), "estimator must be a classifier, got the class GaussianNB; call it"),
        (lambda: SklearnTraining(3), "estimator must have fit and predict, got 3"),
        (lambda: SklearnTraining("sklearn.naive_bayes.GaussianNB", 3), "settings must be a dict such as .* got 3"),
        (lambda: KernelRidge(seed="a"), "seed must be an integer of at least 0"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_when_the_learner_is_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
