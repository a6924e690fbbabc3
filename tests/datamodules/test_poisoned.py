"""Poisoned data in a Trainer of either package."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import pytorch_lightning
import torch
from poisoned_runs import DATA, POISON, data_of, model_of
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from lightning_poison.datamodules import Digits, PoisonedDataModule, PoisonedDataset
from lightning_poison.datamodules.train_loader import EpochShuffle
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, FromFile, LabelFlips, NewClass, RandomPoints, ToClass
from tests.lightning_runs import PACKAGES, trainer_of


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("inner_package", PACKAGES)
def test_fit_sees_exactly_the_flipped_labels(package, inner_package, tmp_path):
    data = PoisonedDataModule(data_of(inner_package), POISON, seed=3)
    model = model_of(package)
    trainer_of(package, tmp_path).fit(model, data)
    clean = DATA.tensors[1]
    assert model.labels == dict(enumerate(data.flips.apply(clean).tolist()))
    assert sum(model.labels[index] != int(clean[index]) for index in range(60)) == 12
    assert [sorted(model.seen[epoch]) for epoch in range(2)] == [list(range(60))] * 2
    assert model.seen[0] != model.seen[1]
    written = FlipList.read(tmp_path / "report" / "flips.csv")
    assert written.same_flips(data.flips)
    assert written.provenance["seed"] == 3
    assert clean.tolist() == [index % 3 for index in range(60)]


def test_the_clean_twin_sees_the_same_order(tmp_path):
    orders = []
    for poison in (POISON, None):
        data, model = PoisonedDataModule(data_of(pytorch_lightning), poison, seed=3), model_of(pytorch_lightning)
        trainer_of(pytorch_lightning, tmp_path).fit(model, data)
        orders.append(model.seen)
    assert orders[0] == orders[1]
    assert len(data.flips) == 0
    assert model.labels == dict(enumerate(DATA.tensors[1].tolist()))
    assert data.flips.provenance["strategy"] is None


def test_fast_dev_run_writes_nothing(tmp_path):
    data = PoisonedDataModule(data_of(pytorch_lightning), POISON)
    trainer_of(pytorch_lightning, tmp_path, fast_dev_run=True).fit(model_of(pytorch_lightning), data)
    assert len(data.flips) == 12
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_data_modules_made_from_datasets(tmp_path):
    inner = pytorch_lightning.LightningDataModule.from_datasets(DATA, val_dataset=DATA, batch_size=8)
    data, model = PoisonedDataModule(inner, POISON), model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path)
    trainer.fit(model, data)
    assert "val/loss" in trainer.callback_metrics
    assert len(data.flips) == 12
    assert model.labels == dict(enumerate(data.flips.apply(DATA.tensors[1]).tolist()))


def test_number_of_classes():
    declared = PoisonedDataModule(Digits(), LabelFlips(RandomPoints(), NewClass()))
    assert (declared.num_classes, declared.clean_num_classes, declared.input_shape) == (11, 10, (1, 8, 8))
    assert declared.class_names == [*map(str, range(10)), "new class"]
    assert PoisonedDataModule(Digits()).num_classes == 10
    derived = PoisonedDataModule(data_of(pytorch_lightning), LabelFlips(RandomPoints(), NewClass()))
    derived.setup("fit")
    assert (derived.num_classes, derived.clean_num_classes) == (4, 3)
    assert getattr(derived, "class_names", None) is None
    unready = PoisonedDataModule(data_of(pytorch_lightning, lambda: DataLoader(unready.datamodule.absent)))
    assert getattr(unready, "num_classes", None) is None


def test_a_poison_that_does_not_fit_is_refused_at_construction():
    with pytest.raises(UserError, match=r"ToClass.label must lie in \[0, 9\], got 10"):
        PoisonedDataModule(Digits(), LabelFlips(RandomPoints(), ToClass(10)))
    with pytest.raises(UserError, match="there is no flip list"):
        PoisonedDataModule(Digits(), LabelFlips(FromFile("none.csv")))
    with pytest.raises(UserError, match="datamodule must be a clean LightningDataModule, got TensorDataset"):
        PoisonedDataModule(DATA, POISON)
    with pytest.raises(UserError, match="got PoisonedDataModule"):
        PoisonedDataModule(PoisonedDataModule(Digits()), POISON)
    with pytest.raises(UserError, match="poison must be a Poison"):
        PoisonedDataModule(Digits(), RandomPoints())
    with pytest.raises(UserError, match="seed must be an integer of at least 0"):
        PoisonedDataModule(Digits(), POISON, seed=-1)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: [DataLoader(DATA)] * 2, "must return one torch DataLoader, got a list of 2"),
        (list, "must return one torch DataLoader, got a list of 0"),
        (lambda: [None], "must return one torch DataLoader, got None"),
        (lambda: None, "got None"),
        (lambda: pytorch_lightning.utilities.CombinedLoader({"a": DataLoader(DATA)}), "got CombinedLoader"),
        (lambda: DataLoader(PoisonedDataset(DATA, FlipList.empty())), "is poisoned already"),
        (lambda: DataLoader(TensorDataset(torch.rand(3))), "must be .input, label"),
    ],
)
def test_training_data_that_cannot_be_poisoned(loader, message):
    with pytest.raises(UserError, match=message):
        PoisonedDataModule(data_of(pytorch_lightning, loader), POISON).train_dataloader()


def test_samplers():
    def sampler_of(loader):
        poisoned = PoisonedDataModule(data_of(pytorch_lightning, lambda: loader), POISON).train_dataloader()
        assert isinstance(poisoned.dataset, PoisonedDataset)
        return poisoned.batch_sampler.sampler

    weighted = WeightedRandomSampler([1.0] * 60, 30)
    assert isinstance(sampler_of(DataLoader(DATA, shuffle=True)), EpochShuffle)
    raw = BatchSampler(RandomSampler(DATA), 4, drop_last=False)
    assert isinstance(sampler_of(DataLoader(DATA, batch_sampler=raw)), EpochShuffle)
    assert sampler_of(DataLoader(DATA, sampler=weighted)) is weighted
    plain = DataLoader(DATA)
    assert sampler_of(plain) is plain.sampler


@pytest.mark.parametrize("overfit", [False, True])
def test_lightning_may_rebuild_the_loader(overfit, tmp_path):
    def loader():
        return DataLoader(DATA, batch_size=8, shuffle=True)

    data, model = PoisonedDataModule(data_of(pytorch_lightning, loader), POISON), model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path, overfit_batches=1.0 if overfit else 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, data)
    assert model.labels == dict(enumerate(data.flips.apply(DATA.tensors[1]).tolist()))
    assert (model.seen[0] == list(range(60))) is overfit


def test_flips_are_the_same_in_every_reloaded_epoch(tmp_path):
    data, model = PoisonedDataModule(data_of(pytorch_lightning), POISON), model_of(pytorch_lightning)
    trainer_of(pytorch_lightning, tmp_path, reload_dataloaders_every_n_epochs=1, max_epochs=3).fit(model, data)
    assert len(model.seen) == 3
    assert sum(model.labels[index] != index % 3 for index in range(60)) == 12


def test_outside_of_a_trainer():
    data = PoisonedDataModule(Digits(), LabelFlips(RandomPoints(per_class=2)), seed=5)
    data.setup("fit")
    flips = data.flips
    labels = torch.cat([labels for _, labels in data.train_dataloader()])
    assert len(labels) == 1293
    assert data.flips is flips
    other = PoisonedDataModule(Digits(), LabelFlips(RandomPoints(per_class=2)), seed=6)
    assert not other.flips.same_flips(flips)


def test_copies():
    data = PoisonedDataModule(Digits(), POISON, seed=4)
    for twin in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert twin.seed == 4
        assert twin.flips.same_flips(data.flips)
        assert twin.val_dataloader.__self__ is twin.datamodule


@pytest.mark.parametrize("kind", ["wrapped", "callback"])
def test_flips_to_classes_that_nobody_has_are_told_once(kind, tmp_path):
    from lightning_poison.callbacks.flip_labels import FlipLabels
    from lightning_poison.report.run_sections import flips_section

    gaps = TensorDataset(DATA.tensors[0], torch.tensor([0, 5, 7])[DATA.tensors[1]], DATA.tensors[2])
    poison = LabelFlips(RandomPoints(count=30))
    inner = data_of(pytorch_lightning, lambda: DataLoader(gaps, batch_size=20, shuffle=True))
    callback = FlipLabels(poison)
    data = inner if kind == "callback" else PoisonedDataModule(inner, poison)
    arguments = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    trainer = trainer_of(pytorch_lightning, tmp_path, *([callback] if data is inner else []), **arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model_of(pytorch_lightning, 8), data)
    told = [str(each.message) for each in caught if "which no training point has" in str(each.message)]
    assert len(told) == 1
    assert told[0].startswith("flips lead to classes 1 and 6, which no training point has: the labels are 0, 5, 7; ")
    flips = FlipList.read(tmp_path / "report" / "flips.csv")
    assert flips.provenance["remark"] == told[0]
    assert f"Note: {told[0]}." in flips_section(flips).text


def test_labels_that_count_from_one_are_recognised():
    from_one = TensorDataset(DATA.tensors[0], DATA.tensors[1] + 1)
    inner = data_of(pytorch_lightning, lambda: DataLoader(from_one, batch_size=20), num_classes=3)
    with pytest.raises(UserError, match=r"labels must lie in \[0, 2\], got 3 at row 2; they seem to count from 1"):
        PoisonedDataModule(inner, LabelFlips(RandomPoints(count=3))).train_dataloader()
    inner = data_of(pytorch_lightning, lambda: DataLoader(from_one, batch_size=20))
    with pytest.warns(UserWarning, match="the labels seem to count from 1: they are 1 to 3, none is 0, of 4 classes"):
        PoisonedDataModule(inner, LabelFlips(RandomPoints(count=3))).train_dataloader()
