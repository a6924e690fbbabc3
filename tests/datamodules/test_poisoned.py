from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from lightning_poison.datamodules import Digits, PoisonedDataModule, PoisonedDataset, find_poisoned_dataset
from lightning_poison.datamodules.epoch_shuffle import EpochShuffle
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, FromFile, LabelFlips, NewClass, NextClass, RandomPoints, ToClass

PACKAGES = [pytorch_lightning, lightning.pytorch]
STREAM = torch.Generator().manual_seed(0)
DATA = TensorDataset(torch.rand(60, 4, generator=STREAM), torch.arange(60) % 3, torch.arange(60))
POISON = LabelFlips(RandomPoints(per_class=4), NextClass())


def model_of(package: Any, num_classes: int = 3) -> Any:
    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            stream = torch.Generator().manual_seed(1)
            self.net = nn.Linear(4, num_classes)
            with torch.no_grad():
                self.net.weight.uniform_(-1, 1, generator=stream)
                self.net.bias.zero_()
            self.seen: dict[int, list[int]] = {}
            self.labels: dict[int, int] = {}

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, batch_idx):
            inputs, labels, index = batch
            self.seen[self.current_epoch] = self.seen.get(self.current_epoch, []) + index.tolist()
            self.labels |= dict(zip(index.tolist(), labels.tolist(), strict=True))
            return cross_entropy(self(inputs), labels)

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Model()


def data_of(package: Any, loader: Any = None, **hooks: Any) -> Any:
    def train_dataloader(self):
        return DataLoader(DATA, batch_size=8, shuffle=True) if loader is None else loader()

    names = {"train_dataloader": train_dataloader, **hooks}
    return type("MyData", (package.LightningDataModule,), {"__module__": __name__, **names})()


def trainer_of(package: Any, folder: Any, **arguments: Any) -> Any:
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return package.Trainer(**{**settings, **arguments})


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|logging interval|no `val_dataloader`).*"
        )
        yield


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


def test_fast_dev_run_writes_nothing(tmp_path):
    data = PoisonedDataModule(data_of(pytorch_lightning), POISON)
    trainer_of(pytorch_lightning, tmp_path, fast_dev_run=True).fit(model_of(pytorch_lightning), data)
    assert len(data.flips) == 12
    assert not list(tmp_path.rglob("*.csv"))


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
    assert (declared.num_classes, declared.clean_num_classes, declared.image_shape) == (11, 10, (1, 8, 8))
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
        (lambda: [DataLoader(DATA)], "must return one torch DataLoader, got list"),
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
    loader = lambda: DataLoader(DATA, batch_size=8, shuffle=True)  # noqa: E731
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
