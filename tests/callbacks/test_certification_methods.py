"""Several methods, several callbacks, the baseline beside them, what is said about them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certification_runs import (
    RADII,
    TRAIN,
    VAL,
    CountedFeatures,
    Data,
    Together,
    certification,
    certified,
    expected,
    same,
    trainer,
    victim,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import FlipLabels
from lightning_poison.callbacks.label_flip_certification import LabelFlipCertification
from lightning_poison.certificates import (
    CertifiedPoints,
    CertifiedRidge,
    FrozenFeatures,
    KMeansClusters,
    MonteCarloSmoothing,
    PartitionAggregation,
    PCAFeatures,
    RawFeatures,
    SignedVotes,
    SmoothedRidge,
    UndefendedLogistic,
)
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, NewClass, NextClass, RandomPoints
from tests.lightning_runs import notes_of


def test_several_methods_share_features_and_stand_side_by_side(package: Any) -> None:
    features = CountedFeatures()
    methods = {
        "weak": CertifiedRidge(None, 0.1),
        "strong": CertifiedRidge(None, 5.0),
        "own": CertifiedRidge(PCAFeatures(2)),
    }
    callback = certification(method=methods, features=features, name="all", published={"theirs": {0: 0.5, 3: 0.1}})
    run = trainer(package, callback)
    run.fit(victim(package), Data())
    assert features.points == len(TRAIN) + len(VAL)
    found = certified(run)
    assert {key: found[f"{key}_weak_all"] for key in expected()} == pytest.approx(expected(), abs=1e-6)
    assert found["cert/radius_mean_strong_all"] != found["cert/radius_mean_own_all"]
    assert len(list(Path.cwd().rglob("certificates_*_all.csv"))) == 3
    (section,) = callback.report_sections()
    assert section.tables[0].columns == ("r", "weak", "strong", "own")
    assert set(notes_of(callback)) == set(found)


def test_any_label_at_all_stands_beside_the_declared_classes(package: Any) -> None:
    features = CountedFeatures()
    methods = {"ridge": CertifiedRidge(None, 0.1), "votes": SignedVotes(None, KMeansClusters(3))}
    callback = certification(method=methods, features=features, any_label=True)
    run = trainer(package, callback)
    run.fit(victim(package), Data(num_classes=3))
    assert features.points == len(TRAIN) + len(VAL)
    found = certified(run)
    inputs, labels = VAL.tensors
    for name, learner in (
        ("ridge", CertifiedRidge(RawFeatures(), 0.1)),
        ("votes", SignedVotes(RawFeatures(), KMeansClusters(3))),
    ):
        for ending, scope in (("", "declared"), ("_any_label", "any")):
            certificate = learner.fit(*TRAIN.tensors, 3, scope=scope).certify(inputs)
            wanted = CertifiedPoints(torch.arange(len(labels)), labels, certificate).values(RADII, f"_{name}{ending}")
            assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-6)
    assert found["cert/radius_mean_votes_any_label"] < found["cert/radius_mean_votes"]
    assert len(list(Path.cwd().rglob("certificates_votes_any_label.csv"))) == 1
    (section,) = callback.report_sections()
    assert section.tables[0].columns == ("r", "ridge", "ridge_any_label", "votes", "votes_any_label")
    assert "ridge, votes: to any of 3 classes; ridge_any_label, votes_any_label: to any label at all" in (
        section.tables[0].caption
    )
    assert "any label at all" in notes_of(callback)["cert/radius_mean_votes_any_label"]
    assert set(notes_of(callback)) == set(found)


def test_a_single_method_against_any_label_needs_no_name(package: Any) -> None:
    run = trainer(package, certification(any_label=True))
    run.fit(victim(package), Data(num_classes=3))
    found = certified(run)
    assert {key: found[key] for key in expected()} == pytest.approx(expected(), abs=1e-6)
    assert "cert/acc_at_3_any_label" in found


def test_what_fits_no_class_more_is_refused_before_the_training(package: Any) -> None:
    two = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1].clamp(max=1))
    callback = certification(method=SmoothedRidge(RawFeatures(), coding="zero_one"), any_label=True)
    with pytest.raises(UserError, match="coding must be signs with more than two classes"):
        trainer(package, callback).fit(victim(package), DataLoader(two, 16), DataLoader(two, 16))


@pytest.mark.parametrize("declared", [np.int64(4), torch.tensor(4), 4])
def test_the_number_of_classes_is_declared_by_the_data_or_by_the_model(package: Any, declared: Any) -> None:
    for owner in ("data", "model"):
        callback, data, model = certification(), Data(), victim(package)
        (data if owner == "data" else model).num_classes = declared
        trainer(package, callback).fit(model, data)
        text = " ".join(callback.report_sections()[0].text)
        assert "to any of 4 classes: labels that are none of these must be refused before training" in text


def test_a_number_of_classes_that_nobody_declares_is_said_to_be_counted(package: Any) -> None:
    wrapped = PoisonedDataModule(Data(), LabelFlips(RandomPoints(count=3), NextClass()))
    for data in (Data(), wrapped):
        callback = certification()
        trainer(package, callback).fit(victim(package), data)
        text = " ".join(callback.report_sections()[0].text)
        assert (
            "to any of 3 classes, which were counted in the labels: whoever fits again must say num_classes=3" in text
        )


def test_labels_beyond_the_declared_classes_are_refused_and_a_class_of_the_flips_is_not(package: Any) -> None:
    with pytest.raises(UserError, match=r"labels must be among the 2 classes that Data declares, got 2; correct"):
        trainer(package, certification()).fit(victim(package), Data(num_classes=2))
    callback, model = certification(), victim(package)
    model.net[3] = nn.Linear(6, 4)
    flips = FlipLabels(LabelFlips(RandomPoints(count=3), NewClass()))
    trainer(package, flips, callback).fit(model, Data(num_classes=3))
    assert "to any of 4 classes: labels" in " ".join(callback.report_sections()[0].text)


def test_the_undefended_baseline_is_attacked_beside(package: Any) -> None:
    two = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1].clamp(max=1))
    points = TensorDataset(VAL.tensors[0], VAL.tensors[1].clamp(max=1))
    callback = certification(undefended=UndefendedLogistic(), undefended_points=10)
    trainer(package, callback).fit(victim(package), DataLoader(two, 16), DataLoader(points, 5))
    (table,) = Path.cwd().rglob("attacked.csv")
    rows = [[int(cell) for cell in line.split(",")] for line in table.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == list(range(0, 31, 4))
    attacks = UndefendedLogistic().fit_features(*two.tensors).attack(points.tensors[0][::4])
    assert [row[3] for row in rows] == attacks.flips.tolist()
    assert callback.report_sections()[0].tables[0].columns[-1] == "undefended, attacked"


def test_a_transductive_method_sees_all_evaluation_points_at_once(package: Any) -> None:
    run = trainer(package, certification(method=Together(RawFeatures(), 0.1)))
    run.fit(victim(package), Data())
    learner = Together(RawFeatures(), 0.1).fit(*TRAIN.tensors, 3)
    inputs, labels = VAL.tensors
    points = CertifiedPoints(torch.arange(len(labels)), labels, learner.certify(inputs))
    assert same(certified(run), points.values(RADII))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": {"a/b": CertifiedRidge()}}, "method names must be letters"),
        ({"method": {}}, "at least one certified learner"),
        ({"radii": [-1]}, "radii must be an integer of at least 0"),
        ({"published": {"x": {10: 97.0}}}, "published accuracy of x must lie in"),
        (
            {"method": {"a": CertifiedRidge(), "a_any_label": CertifiedRidge()}, "any_label": True},
            "must not end in _any_l",
        ),
        ({"name": "a/b"}, "name must be letters, digits and"),
        ({"method": CertifiedRidge}, "method must be a CertifiedLearner, got the class CertifiedRidge; call it"),
        ({"method": [CertifiedRidge()]}, "method must be a CertifiedLearner, got list"),
        ({"features": nn.Identity()}, "features must be a LabelFreeFeatures, got Identity"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelFlipCertification(**arguments)


def test_several_instances_have_their_own_keys_and_files(package: Any) -> None:
    run = trainer(package, certification(), certification(features=PCAFeatures(2), name="pca"))
    run.fit(victim(package), Data())
    assert {"cert/acc_at_3", "cert/acc_at_3_pca", "cert/radius_median_pca"} <= set(certified(run))
    assert (Path(run.log_dir) / "report" / "certificates_pca.csv").is_file()


def test_the_report_says_what_is_and_what_is_not_guaranteed(package: Any) -> None:
    callback = certification(features=FrozenFeatures(nn.Identity()))
    assert callback.report_sections() == []
    run = trainer(package, callback)
    run.fit(victim(package), Data())
    section = callback.report_sections()[0]
    assert "not end-to-end" in " ".join(section.text)
    assert [row[0] for row in section.tables[0].rows] == RADII
    assert section.tables[0].rows[2][1] == f"{certified(run)['cert/acc_at_3']:.2%}"


def test_bad_arguments_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="radii must be an integer of at least 0, got -1"):
        LabelFlipCertification(radii=[-1])
    with pytest.raises(UserError, match="regularisation must lie in"):
        LabelFlipCertification(CertifiedRidge(regularisation=-1.0))
    assert LabelFlipCertification(radii=[5, 2]).radii == [0, 2, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"undefended": UndefendedLogistic()}, "num_classes must be 2 for the undefended baseline, got 3"),
        ({"method": MonteCarloSmoothing(CertifiedRidge(), q=0.7, runs=2)}, "q must be below"),
        ({"method": MonteCarloSmoothing(CertifiedRidge(), runs=2, cache="/proc/none")}, "cannot write /proc/none"),
        ({"method": PartitionAggregation(spread=121)}, "spread must be at most the number of points, got 121 for 120"),
    ],
)
def test_what_cannot_be_certified_is_refused_before_the_training(
    package: Any, arguments: dict[str, Any], message: str
) -> None:
    run = trainer(package, certification(**arguments))
    with pytest.raises(UserError, match=message):
        run.fit(victim(package), Data())
    assert run.global_step == 0


def test_two_callbacks_that_would_write_the_same_are_refused(package: Any) -> None:
    run = trainer(package, certification(name="a"), certification(name="a"))
    with pytest.raises(UserError, match="2 LabelFlipCertification callbacks have the name 'a'; give each its own"):
        run.fit(victim(package), Data())
