"""The callback under both Lightning Trainers: its numbers are those of the learner, whatever the run looks like."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from certification_runs import TEST, TRAIN, VAL, Data, certification, certified, expected, same, trainer, victim
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_poison.certificates import (
    CertifiedRidge,
    PCAFeatures,
)
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.trainer.positions import draw_positions


def test_fit_measures_the_validation_set_and_test_the_test_set(package: Any) -> None:
    run, model, data = trainer(package, certification()), victim(package), Data()
    run.fit(model, data)
    assert same(certified(run), expected())
    table = list(csv.DictReader((Path(run.log_dir) / "report" / "certificates.csv").open()))
    assert [int(row["index"]) for row in table] == list(range(31))
    assert [int(row["label"]) for row in table] == VAL.tensors[1].tolist()
    right = sum(row["label"] == row["prediction"] and int(row["radius"]) >= 3 for row in table)
    assert right / 31 == pytest.approx(expected()["cert/acc_at_3"])
    run.test(model, data, verbose=False)
    assert same(certified(run), expected(points=TEST))
    assert 0 < expected()["cert/acc_at_8"] < expected()["cert/acc_at_0"]


@pytest.mark.parametrize(("stage", "points"), [("validate", VAL), ("test", TEST)])
def test_without_a_fit_the_data_module_is_asked_for_the_training_set(
    package: Any, stage: str, points: TensorDataset
) -> None:
    run = trainer(package, certification())
    getattr(run, stage)(victim(package), datamodule=Data(), verbose=False)
    assert same(certified(run), expected(points=points))


def test_raw_loaders_suffice_in_fit_and_afterwards(package: Any) -> None:
    run, model = trainer(package, certification()), victim(package)
    run.fit(model, DataLoader(TRAIN, 16, shuffle=True), DataLoader(VAL, 5))
    assert same(certified(run), expected())
    run.test(model, DataLoader(TEST, 5), verbose=False)
    assert same(certified(run), expected(points=TEST))


def test_a_fit_without_validation_data_is_enough_for_a_test_afterwards(package: Any) -> None:
    run, model = trainer(package, certification()), victim(package)
    run.test(model, DataLoader(TEST, 7), verbose=False)
    assert certified(run) == {}
    run.fit(model, DataLoader(TRAIN, 16))
    run.test(model, DataLoader(TEST, 7), verbose=False)
    assert same(certified(run), expected(points=TEST))


def test_evaluation_loaders_alone_are_warned_about(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.warns(UserWarning, match="LabelFlipCertification needs the training data"):
        run.test(victim(package), DataLoader(TEST, 5), verbose=False)
    assert certified(run) == {}


def test_a_fit_without_validation_data_is_warned_about(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.warns(UserWarning, match="LabelFlipCertification needs evaluation data"):
        run.fit(victim(package), DataLoader(TRAIN, 16))
    assert certified(run) == {}


def test_the_learner_gets_the_labels_as_poisoned_and_the_evaluation_stays_clean(package: Any) -> None:
    flipped = TRAIN.tensors[1].clone()
    flipped[:50] = (flipped[:50] + 1) % 3
    poisoned = TensorDataset(TRAIN.tensors[0], flipped)
    run = trainer(package, certification())
    run.fit(victim(package), DataLoader(poisoned, 16), DataLoader(VAL, 5))
    assert same(certified(run), expected(poisoned))
    assert expected(poisoned)["cert/radius_mean"] < expected()["cert/radius_mean"]


def test_training_is_the_same_with_and_without_the_callback(package: Any) -> None:
    weights = []
    for callbacks in ([], [certification(features=PCAFeatures(3), every_n_epochs=1)]):
        model = victim(package)
        trainer(package, *callbacks, max_epochs=3).fit(model, Data())
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_one_computation_serves_every_epoch(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, fits, fit = expected(), [], CertifiedRidge.fit_features

    def counted(self: CertifiedRidge, *arguments: Any) -> CertifiedRidge:
        fits.append(self)
        return fit(self, *arguments)

    monkeypatch.setattr(CertifiedRidge, "fit_features", counted)
    callback = certification(every_n_epochs=1)
    run = trainer(package, callback, max_epochs=3)
    run.fit(victim(package), Data())
    assert len(fits) == 1
    assert same(certified(run), wanted)
    run.test(victim(package), Data(), verbose=False)
    assert len(fits) == 1


def test_changed_labels_are_noticed(package: Any) -> None:
    callback, labels = certification(), TRAIN.tensors[1].clone()
    train = TensorDataset(TRAIN.tensors[0], labels)
    trainer(package, callback).fit(victim(package), DataLoader(train, 16), DataLoader(VAL, 5))
    labels[:50] = (labels[:50] + 1) % 3
    run = trainer(package, callback)
    run.fit(victim(package), DataLoader(train, 16), DataLoader(VAL, 5))
    assert same(certified(run), expected(train))


def test_a_run_that_stops_early_is_measured(package: Any) -> None:
    stop = package.callbacks.EarlyStopping("loss", patience=1, min_delta=1e9)
    run = trainer(package, certification(), stop, max_epochs=50)
    run.fit(victim(package), Data())
    assert run.current_epoch < 10
    assert same(certified(run), expected())


@pytest.mark.parametrize("limits", [{"max_samples": 14}, {"limit_val_batches": 2}])
def test_fewer_points_are_drawn_or_the_first_ones(package: Any, limits: dict[str, int]) -> None:
    mine = {key: value for key, value in limits.items() if key == "max_samples"}
    run = trainer(package, certification(**mine), **{key: limits[key] for key in limits if key not in mine})
    run.fit(victim(package), Data())
    chosen = draw_positions(len(VAL), 14, VAL.tensors[1]) if mine else torch.arange(14)
    assert same(certified(run), expected(points=TensorDataset(*(part[chosen] for part in VAL.tensors))))


def test_the_data_module_may_know_of_more_classes(package: Any) -> None:
    callback = certification()
    trainer(package, callback).fit(victim(package), Data(num_classes=5))
    assert "any of 5 classes" in " ".join(callback.report_sections()[0].text)


def test_a_dry_run_writes_nothing(package: Any) -> None:
    run = trainer(package, certification(features=None, radii=None), fast_dev_run=True)
    run.fit(victim(package), Data())
    assert "cert/acc_at_0" in certified(run)
    assert not list(Path.cwd().rglob("*.csv"))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(TRAIN)


def test_a_stream_cannot_be_certified(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.raises(UserError, match="over a data set with indices, got DataLoader over Stream"):
        run.fit(victim(package), DataLoader(Stream(), 16), DataLoader(VAL, 5))


def test_test_data_of_the_wrapped_data_module_will_do(package: Any, recwarn: pytest.WarningsRecorder) -> None:
    data = PoisonedDataModule(Data())
    data.val_dataloader = None
    run = trainer(package, certification())
    model = victim(package)
    run.fit(model, data)
    run.test(model, data, verbose=False)
    assert not [warning for warning in recwarn if "needs evaluation data" in str(warning.message)]
    assert same(certified(run), expected(points=TEST))
