"""Flips that are announced are trained on, whatever kind of loader reads them; or the run fails at once."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from own_loaders import EchoingLoader, HidingLoader, InfiniteLoader, TensorLoader, WrappingLoader
from poisoned_runs import DATA, POISON, data_of, model_of
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.datamodules import PoisonedDataModule, PoisonedDataset, dataset_labels
from lightning_poison.datamodules.poisoned_dataset import ReadingCount
from lightning_poison.datamodules.train_loader import with_dataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList
from tests.lightning_runs import PACKAGES, trainer_of

WORKERS = [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}]


def fit(package, folder, loader, wrapped, poison=POISON, epochs=2, **arguments):
    inner, model, callback = data_of(package, loader), model_of(package), FlipLabels(poison)
    data = inner if wrapped == "FlipLabels" else PoisonedDataModule(inner, poison)
    trainer = trainer_of(package, folder, *([callback] if data is inner else []), max_epochs=epochs, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.fit(model, data)
        finally:
            names = [type(each).__name__ for each in trainer.callbacks]
            assert "_Arrival" not in names
    return model, callback if data is inner else data


def assert_all_flips_arrived(model, owner):
    assert len(owner.flips) == 12
    assert model.labels == dict(enumerate(owner.flips.apply(DATA.tensors[1]).tolist()))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("wrapped", ["PoisonedDataModule", "FlipLabels"])
@pytest.mark.parametrize("kind", [DataLoader, InfiniteLoader, WrappingLoader, EchoingLoader])
def test_loaders_that_can_be_rebuilt(package, wrapped, kind, tmp_path):
    assert_all_flips_arrived(*fit(package, tmp_path, lambda: kind(DATA, batch_size=8, shuffle=True), wrapped))


@pytest.mark.parametrize("workers", WORKERS[1:])
@pytest.mark.parametrize("kind", [DataLoader, InfiniteLoader, WrappingLoader])
def test_with_workers(kind, workers, tmp_path):
    model, owner = fit(PACKAGES[0], tmp_path, lambda: kind(DATA, batch_size=8, **workers), "PoisonedDataModule")
    assert_all_flips_arrived(model, owner)


@pytest.mark.slow
def test_workers_that_are_spawned(tmp_path):
    poisoned = PoisonedDataset(DATA, FlipList([0], [0], [2]), ReadingCount(1))
    loader = DataLoader(poisoned, batch_size=30, num_workers=1, multiprocessing_context="spawn")
    assert sum(len(batch[0]) for batch in loader) == 60
    assert poisoned.reading.total == 60


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("wrapped", ["PoisonedDataModule", "FlipLabels"])
@pytest.mark.parametrize("kind", [TensorLoader, HidingLoader])
def test_loaders_that_keep_the_clean_data_are_found_out_at_the_first_batch(package, wrapped, kind, tmp_path):
    with pytest.raises(UserError, match=rf"{kind.__name__} must read the items of its data set, got 1 training batch"):
        fit(package, tmp_path, lambda: kind(DATA, batch_size=8), wrapped)


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_they_are_found_out_with_workers(workers, tmp_path):
    loader = HidingLoader(DATA, batch_size=8, **workers)
    with pytest.raises(UserError, match="HidingLoader must read the items of its data set"):
        fit(PACKAGES[0], tmp_path, lambda: loader, "FlipLabels")
    loader.kept["iterator"]._shutdown_workers()


def test_a_few_items_that_others_read_only_delay_it(tmp_path):
    class Curious(PACKAGES[0].Callback):
        def on_train_start(self, trainer, pl_module):
            _ = [trainer.train_dataloader.dataset[index] for index in range(3)]
            dataset_labels(trainer.train_dataloader.dataset)  # counts for nothing

    inner, model = data_of(PACKAGES[0], lambda: TensorLoader(DATA, batch_size=8)), model_of(PACKAGES[0])
    trainer = trainer_of(PACKAGES[0], tmp_path, Curious())
    with pytest.raises(UserError, match="got 4 training batches and 3 items read"):
        trainer.fit(model, PoisonedDataModule(inner, POISON))


def test_without_flips_nothing_is_watched(tmp_path):
    model, _ = fit(PACKAGES[0], tmp_path, lambda: TensorLoader(DATA, batch_size=8), "FlipLabels", poison=None)
    assert model.labels == dict(enumerate(DATA.tensors[1].tolist()))


def test_a_run_after_one_that_failed_is_not_watched_for_it(tmp_path):
    inner, model = data_of(PACKAGES[0], lambda: TensorLoader(DATA, batch_size=8)), model_of(PACKAGES[0])
    trainer = trainer_of(PACKAGES[0], tmp_path)
    with pytest.raises(UserError, match="TensorLoader"):
        trainer.fit(model, PoisonedDataModule(inner, POISON))
    trainer.fit(model, inner)
    assert model.labels == dict(enumerate(DATA.tensors[1].tolist()))


def test_reloaded_loaders_are_watched_anew(tmp_path):
    kinds = iter([DataLoader, TensorLoader])
    inner, model = data_of(PACKAGES[0], lambda: next(kinds)(DATA, batch_size=8)), model_of(PACKAGES[0])
    data = PoisonedDataModule(inner, POISON)
    trainer = trainer_of(PACKAGES[0], tmp_path, reload_dataloaders_every_n_epochs=1)
    with pytest.raises(UserError, match="TensorLoader must read"):
        trainer.fit(model, data)
    assert len(model.seen) == 2


def test_what_is_counted():
    poisoned = PoisonedDataset(DATA, FlipList([0], [0], [2]), ReadingCount(2))
    assert poisoned[0][1] == 2
    assert poisoned.reading.total == 1
    assert dataset_labels(poisoned).tolist()[:2] == [2, 1]
    assert poisoned.reading.total == 1
    for twin in (copy.deepcopy(poisoned), copy.copy(poisoned)):
        _ = twin[1]
    assert poisoned.reading.total == 3
    assert pickle.loads(pickle.dumps(poisoned)).reading.total == 3
    assert PoisonedDataset(DATA, FlipList.empty()).reading is None


def test_an_iterator_of_ones_own_is_made_anew_and_the_old_one_left_alone():
    loader = InfiniteLoader(TensorDataset(torch.arange(6)), batch_size=2, num_workers=1, persistent_workers=True)
    new = with_dataset(loader, TensorDataset(torch.arange(6) + 10))
    assert [batch[0].tolist() for _ in range(2) for batch in new] == [[10, 11], [12, 13], [14, 15]] * 2
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert new.iterator is new._iterator


def test_a_loader_that_knows_itself():
    loader = WrappingLoader(TensorDataset(torch.arange(4)), batch_size=2)
    loader.inside.owner = loader
    new = with_dataset(loader, TensorDataset(torch.arange(4) + 10))
    assert [batch[0].tolist() for batch in new] == [[10, 11], [12, 13]]
    assert new.inside.owner is new
    assert loader.inside.dataset is loader.dataset
