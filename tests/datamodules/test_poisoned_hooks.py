"""The hooks of the data module that is wrapped."""

from __future__ import annotations

import pytest
from poisoned_runs import DATA, POISON, data_of, model_of
from torch.utils.data import DataLoader

from lightning_poison.datamodules import PoisonedDataModule, find_poisoned_dataset
from lightning_poison.errors import UserError
from tests.lightning_runs import PACKAGES, trainer_of


@pytest.mark.parametrize("package", PACKAGES)
def test_hooks_that_the_inner_lacks_are_lacking(package, tmp_path):
    data = PoisonedDataModule(data_of(package), POISON)
    assert not data.has_loader("val_dataloader")
    with pytest.raises(UserError, match="MyData has no val_dataloader, which validate needs"):
        trainer_of(package, tmp_path).validate(model_of(package), data)
    bare = package.LightningDataModule()
    with pytest.raises(UserError, match="LightningDataModule has no train_dataloader"):
        PoisonedDataModule(bare, POISON).train_dataloader()


@pytest.mark.parametrize("package", PACKAGES)
def test_hooks_that_the_inner_has_are_called(package, tmp_path):
    calls = []

    def hook(name, result=None):
        return lambda self, *arguments, **keywords: (calls.append(name), result)[1]

    def transfer(self, batch, dataloader_idx):
        calls.append("on_after_batch_transfer")
        return batch

    data = PoisonedDataModule(
        data_of(
            package,
            prepare_data=hook("prepare_data"),
            setup=hook("setup"),
            teardown=hook("teardown"),
            val_dataloader=hook("val_dataloader", DataLoader(DATA, batch_size=8)),
            state_dict=hook("state_dict", {"count": 1}),
            load_state_dict=hook("load_state_dict"),
            on_after_batch_transfer=transfer,
        ),
        POISON,
    )
    trainer = trainer_of(package, tmp_path, max_epochs=1)
    trainer.fit(model_of(package), data)
    assert data.datamodule.trainer is trainer is data.trainer
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer_of(package, tmp_path).fit(model_of(package), data, ckpt_path=tmp_path / "a.ckpt")
    assert calls[:2] == ["prepare_data", "setup"]
    assert set(calls) == {
        *("prepare_data", "setup", "teardown", "val_dataloader", "state_dict", "load_state_dict"),
        "on_after_batch_transfer",
    }
    assert find_poisoned_dataset(trainer.val_dataloaders.dataset) is None


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`")
def test_a_transfer_hook_of_the_model_is_not_shadowed(package, tmp_path):
    model = model_of(package)
    moved = []
    type(model).on_after_batch_transfer = lambda self, batch, dataloader_idx: (moved.append(1), batch)[1]
    trainer_of(package, tmp_path).fit(model, PoisonedDataModule(data_of(package), POISON))
    assert moved
