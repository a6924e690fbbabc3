"""Several methods, several callbacks, the baseline beside them, what is said about them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

from lightning_poison.callbacks.label_flip_certification import LabelFlipCertification
from lightning_poison.certificates import (
    CertifiedPoints,
    CertifiedRidge,
    FrozenFeatures,
    MonteCarloSmoothing,
    PartitionAggregation,
    PCAFeatures,
    RawFeatures,
    UndefendedLogistic,
)
from lightning_poison.errors import UserError


def test_several_methods_share_features_and_stand_side_by_side(package: Any) -> None:
    features = CountedFeatures()
    methods = {
        "weak": CertifiedRidge(None, 0.1),
        "strong": CertifiedRidge(None, 5.0),
        "own": CertifiedRidge(PCAFeatures(2)),
    }
    callback = certification(method=methods, features=features, suffix="all", published={"theirs": {0: 0.5, 3: 0.1}})
    run = trainer(package, callback)
    run.fit(victim(package), Data())
    assert features.points == len(TRAIN) + len(VAL)
    found = certified(run)
    assert {key: found[f"{key}_weak_all"] for key in expected()} == pytest.approx(expected(), abs=1e-6)
    assert found["cert/radius_mean_strong_all"] != found["cert/radius_mean_own_all"]
    assert len(list(Path.cwd().rglob("certificates_*_all.csv"))) == 3
    (section,) = callback.report_sections()
    assert section.tables[0].columns == ("r", "weak", "strong", "own")
    assert set(callback.report_notes()) == set(found)


def test_the_undefended_baseline_is_attacked_beside(package: Any) -> None:
    two = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1].clamp(max=1))
    points = TensorDataset(VAL.tensors[0], VAL.tensors[1].clamp(max=1))
    callback = certification(undefended=UndefendedLogistic(), undefended_points=10)
    trainer(package, callback).fit(victim(package), DataLoader(two, 16), DataLoader(points, 5))
    (table,) = Path.cwd().rglob("attacked.csv")
    rows = [[int(cell) for cell in line.split(",")] for line in table.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == list(range(0, 31, 4))
    attacks = UndefendedLogistic().fit_features(*two.tensors).attack(points.tensors[0][::4])
    assert [row[3] + 1 for row in rows] == attacks.flips.tolist()
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
        ({"suffix": "a/b"}, "suffix must be letters, digits and"),
        ({"method": CertifiedRidge}, "method must be a CertifiedLearner, got the class CertifiedRidge; call it"),
        ({"method": [CertifiedRidge()]}, "method must be a CertifiedLearner, got list"),
        ({"features": nn.Identity()}, "features must be a LabelFreeFeatures, got Identity"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelFlipCertification(**arguments)


def test_several_instances_have_their_own_keys_and_files(package: Any) -> None:
    run = trainer(package, certification(), certification(features=PCAFeatures(2), suffix="pca"))
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
    run = trainer(package, certification(suffix="a"), certification(suffix="a"))
    with pytest.raises(UserError, match="2 LabelFlipCertification callbacks have the suffix 'a'; give each its own"):
        run.fit(victim(package), Data())
