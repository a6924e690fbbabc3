from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList
from tests.datamodules.poisoned_runs import DATA, POISON, data_of, model_of
from tests.lightning_runs import PACKAGES, trainer_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
]


def parts(package: Any, folder: Any, epochs: int = 2, callbacks: Any = ()) -> tuple[Any, Any, Any]:
    return trainer_of(package, folder, *callbacks, max_epochs=epochs), model_of(package), data_of(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_it_does_what_the_poisoned_data_module_does(package, tmp_path):
    callback = FlipLabels(POISON, seed=3)
    trainer, model, data = parts(package, tmp_path, callbacks=[callback])
    trainer.fit(model, data)
    assert model.labels == dict(enumerate(callback.flips.apply(DATA.tensors[1]).tolist()))
    assert len(callback.flips) == 12
    assert FlipList.read(tmp_path / "report" / "flips.csv").same_flips(callback.flips)
    trainer, reference, data = parts(package, tmp_path)
    trainer.fit(reference, PoisonedDataModule(data, POISON, seed=3))
    assert (reference.labels, reference.seen) == (model.labels, model.seen)


@pytest.mark.parametrize("failing", [False, True])
def test_the_data_module_gets_its_loader_back(failing, tmp_path):
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])
    if failing:
        model.training_step = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            trainer.fit(model, data)
    else:
        trainer.fit(model, data)
    assert "train_dataloader" not in vars(data)
    assert data.train_dataloader().dataset is DATA


def test_data_modules_made_from_datasets(tmp_path):
    data = pytorch_lightning.LightningDataModule.from_datasets(DATA, batch_size=8)
    own = data.train_dataloader
    trainer, model, _ = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])
    with pytest.warns(UserWarning, match="pin_memory"):
        trainer.fit(model, data)
    assert data.train_dataloader is own
    assert sum(label != index % 3 for index, label in model.labels.items()) == 12


@pytest.mark.parametrize("package", PACKAGES)
def test_a_resumed_run_equals_an_uninterrupted_one(package, tmp_path):
    def fit(seed, epochs, ckpt_path=None):
        trainer, model, data = parts(package, tmp_path, epochs, callbacks=[FlipLabels(POISON, seed)])
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return trainer, model

    _, whole = fit(1, 4)
    trainer, _ = fit(1, 2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(99, 4, tmp_path / "half.ckpt")
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (2, 3)}
    assert torch.equal(resumed.net.weight, whole.net.weight)


def test_what_it_cannot_flip(tmp_path):
    trainer, model, _ = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])
    with pytest.raises(UserError, match=r"cannot flip the labels of loaders passed to fit; .*PoisonedDataset"):
        trainer.fit(model, DataLoader(DATA, batch_size=8))
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])
    with pytest.raises(UserError, match="the data module flips labels already"):
        trainer.fit(model, PoisonedDataModule(data, POISON))
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])
    data.train_dataloader = lambda: [DataLoader(DATA)] * 2
    with pytest.raises(UserError, match=r"MyData\.train_dataloader must return one torch DataLoader, got a list of 2"):
        trainer.fit(model, data)


def with_own_loader(package, loader):
    model = model_of(package)
    type(model).train_dataloader = lambda self: loader()
    type(model).num_classes = 17  # of its outputs, whatever the data have
    return model


@pytest.mark.parametrize("package", PACKAGES)
def test_the_loader_of_a_model(package, tmp_path):
    callback, model = FlipLabels(POISON, seed=3), with_own_loader(package, lambda: DataLoader(DATA, 8, shuffle=True))
    trainer_of(package, tmp_path, callback).fit(model)
    assert model.labels == dict(enumerate(callback.flips.apply(DATA.tensors[1]).tolist()))
    assert callback.flips.provenance["num_classes"] == 3
    assert "train_dataloader" not in vars(model)
    assert model.train_dataloader().dataset is DATA
    trainer, reference, data = parts(package, tmp_path)
    trainer.fit(reference, PoisonedDataModule(data, POISON, seed=3))
    assert reference.seen == model.seen


@pytest.mark.parametrize("package", PACKAGES)
def test_the_loader_of_a_model_when_the_run_is_resumed(package, tmp_path):
    def fit(seed, epochs, ckpt_path=None):
        model = with_own_loader(package, lambda: DataLoader(DATA, 8, shuffle=True))
        trainer = trainer_of(package, tmp_path, FlipLabels(POISON, seed), max_epochs=epochs)
        trainer.fit(model, ckpt_path=ckpt_path)
        return trainer, model

    _, whole = fit(1, 3)
    trainer, _ = fit(1, 2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(99, 3, tmp_path / "half.ckpt")
    assert resumed.seen == {2: whole.seen[2]}
    assert torch.equal(resumed.net.weight, whole.net.weight)


@pytest.mark.parametrize("where", ["setup", "train_dataloader", "training_step", "hook_taken_away"])
def test_the_users_own_error_is_told(where, tmp_path):
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])

    def fails(*_, **__):
        raise ZeroDivisionError("the user's own")

    if where == "setup":
        type(data).train_dataloader = property(fails)
    elif where == "train_dataloader":
        type(data).train_dataloader = fails
    elif where == "training_step":
        model.training_step = fails
    else:

        def training_step(batch, batch_idx):
            del data.train_dataloader
            fails()

        model.training_step = training_step
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        trainer.fit(model, data)
    assert "train_dataloader" not in vars(data)


def test_what_somebody_else_has_put_there_since_stays(tmp_path):
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels(POISON)])

    def other():
        return DataLoader(DATA, batch_size=30)

    model.on_train_start = lambda: setattr(data, "train_dataloader", other)
    trainer.fit(model, data)
    assert data.train_dataloader is other


def test_without_a_poison_nothing_is_flipped(tmp_path):
    trainer, model, data = parts(pytorch_lightning, tmp_path, callbacks=[FlipLabels()])
    trainer.fit(model, data)
    assert model.labels == dict(enumerate(DATA.tensors[1].tolist()))
