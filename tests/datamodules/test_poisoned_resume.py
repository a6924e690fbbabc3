"""Poisoned data after an interruption, and in a checkpoint."""

from __future__ import annotations

import pytest
import pytorch_lightning
import torch
from poisoned_runs import DATA, POISON, data_of, model_of
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, NewClass, RandomPoints
from tests.lightning_runs import PACKAGES, trainer_of


@pytest.mark.parametrize("package", PACKAGES)
def test_a_resumed_run_equals_an_uninterrupted_one(package, tmp_path):
    def fit(seed, epochs, ckpt_path=None, poison=POISON):
        package.seed_everything(seed, verbose=False)
        data, model = PoisonedDataModule(data_of(package), poison, seed=seed), model_of(package)
        trainer = trainer_of(package, tmp_path, max_epochs=epochs)
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return data, model, trainer

    whole_data, whole, _ = fit(seed=1, epochs=4)
    _, _, trainer = fit(seed=1, epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    data, resumed, _ = fit(seed=99, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert data.flips.same_flips(whole_data.flips)
    assert data.seed == 1
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (2, 3)}
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.warns(UserWarning, match=r"resumed with the checkpoint's flips .LabelFlips.*poison .*per_class=1\)"):
        other, _, _ = fit(1, 4, tmp_path / "half.ckpt", LabelFlips(RandomPoints(per_class=1)))
    assert other.flips.same_flips(whole_data.flips)
    with pytest.raises(UserError, match=r"was trained with poison LabelFlips.* \(3 classes\), got poison .*4 classes"):
        fit(1, 4, tmp_path / "half.ckpt", LabelFlips(RandomPoints(), NewClass()))


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_run_killed_within_an_epoch_goes_on_with_its_order(tmp_path):
    class KilledError(Exception):
        pass

    class Kill(pytorch_lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                raise KilledError

    def parts(**arguments):
        data, model = PoisonedDataModule(data_of(pytorch_lightning), POISON, seed=1), model_of(pytorch_lightning)
        return model, data, trainer_of(pytorch_lightning, tmp_path, max_epochs=3, **arguments)

    whole, data, trainer = parts()
    trainer.fit(whole, data)
    model, data, trainer = parts(callbacks=[Kill()])
    with pytest.raises(KilledError):
        trainer.fit(model, data)
    resumed, data, trainer = parts()
    trainer.fit(resumed, data, ckpt_path=tmp_path / "middle.ckpt")
    assert resumed.seen[2] == whole.seen[2]
    assert resumed.seen[1][:8] == whole.seen[1][:8]  # Lightning begins the epoch anew


def test_a_checkpoint_for_other_data_is_refused(tmp_path):
    data, model = PoisonedDataModule(data_of(pytorch_lightning), POISON), model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    others = TensorDataset(torch.rand(60, 4), DATA.tensors[1], DATA.tensors[2])
    changed = data_of(pytorch_lightning, lambda: DataLoader(others, batch_size=8))
    trainer = trainer_of(pytorch_lightning, tmp_path, max_epochs=3)
    with pytest.raises(UserError, match="drawn for other data"):
        trainer.fit(model, PoisonedDataModule(changed, POISON), ckpt_path=tmp_path / "first.ckpt")


def test_validation_with_a_checkpoint_leaves_training_data_alone(tmp_path):
    hooks = {"val_dataloader": lambda self: DataLoader(DATA, batch_size=8)}
    data, model = PoisonedDataModule(data_of(pytorch_lightning, **hooks), POISON), model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    expected = trainer.callback_metrics["val/loss"]

    def fail():
        raise AssertionError

    fresh = PoisonedDataModule(data_of(pytorch_lightning, fail, **hooks), POISON)
    trainer = trainer_of(pytorch_lightning, tmp_path / "other")
    trainer.validate(model, fresh, ckpt_path=tmp_path / "first.ckpt", verbose=False)
    assert trainer.callback_metrics["val/loss"] == expected
    assert not (tmp_path / "other" / "report").exists()
