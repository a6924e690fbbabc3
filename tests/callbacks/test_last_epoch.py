"""However a fit ends, the weights that it leaves are measured, in the precision and on the batches of the Trainer."""

import csv

import lightning.pytorch as unified
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import PGD, adversarial_paths
from lightning_poison.callbacks import AdversarialAccuracy, AdversarialPaths, LabelFlipCertification, PoisonMemorization
from lightning_poison.certificates import CertifiedRidge, FrozenFeatures, RawFeatures
from lightning_poison.datamodules import PoisonedDataset
from lightning_poison.poisons import FlipList
from tests.lightning_runs import notes_of

ATTACK = PGD(eps=0.05, steps=3)


def points(count, seed):
    inputs = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    ways = torch.randn(36, 3, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


TRAIN, VAL = points(48, 0), points(29, 1)


def make_victim(package=pl, constants=False):
    class Victim(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 3))

        def forward(self, inputs):
            return self.net(inputs + torch.zeros(1, 1, 1, 1) if constants else inputs)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    return Victim()


def run(victim, *callbacks, package=pl, train=TRAIN, val=None, **arguments):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, **quiet, **arguments}
    trainer = package.Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(victim, DataLoader(train, 16), DataLoader(VAL, 8) if val is None else val)
    return trainer


def stop_in(package, epoch):
    class Stop(package.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == epoch

    return Stop()


@pytest.mark.parametrize("package", [pl, unified])
@pytest.mark.parametrize("every_n_epochs", [None, 2])
@pytest.mark.parametrize(
    ("arguments", "stopped", "last"),
    [
        ({}, None, 2),
        ({"max_epochs": 50}, 2, 2),
        ({"max_epochs": -1, "max_steps": 7}, None, 2),
        ({"check_val_every_n_epoch": 2}, None, 2),
        ({"val_check_interval": 2}, None, 2),
    ],
)
def test_the_weights_that_a_fit_leaves_are_measured(package, every_n_epochs, arguments, stopped, last):
    victim = make_victim(package)
    poisoned = PoisonedDataset(
        TRAIN, FlipList(torch.tensor([3]), TRAIN.tensors[1][3:4], (TRAIN.tensors[1][3:4] + 1) % 3)
    )
    accuracy = AdversarialAccuracy(ATTACK, every_n_epochs=every_n_epochs)
    paths = AdversarialPaths(every_n_epochs=every_n_epochs, max_steps=30)
    fitted = PoisonMemorization(every_n_epochs=every_n_epochs)
    callbacks = [] if stopped is None else [stop_in(package, stopped)]
    trainer = run(victim, accuracy, paths, fitted, *callbacks, package=package, train=poisoned, **arguments)
    withstood = (~ATTACK(victim, *VAL.tensors).fooled).double().mean().item()
    lengths = adversarial_paths(victim, *TRAIN.tensors, max_steps=30).length.double()
    predictions = victim.eval()(TRAIN.tensors[0][3:4]).argmax(1)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert metrics["val/adv_acc"] == pytest.approx(withstood)
    assert metrics["paths/length_mean"] == pytest.approx(lengths.mean().item())
    assert metrics["poison/clean"] == float(predictions == TRAIN.tensors[1][3:4])
    assert accuracy.history[-1].epoch == paths.history[-1]["epoch"] == fitted.history[-1]["epoch"] == last
    assert len({entry.epoch for entry in accuracy.history}) == len(paths.history) == len(fitted.history)
    assert trainer.training or not trainer.validating


def test_nothing_is_measured_again_where_the_last_epoch_was():
    accuracy, paths = AdversarialAccuracy(ATTACK), AdversarialPaths(every_n_epochs=1, max_steps=5)
    run(make_victim(), accuracy, paths)
    assert [entry.epoch for entry in accuracy.history] == [entry["epoch"] for entry in paths.history] == [0, 1, 2]


def test_without_validation_data_nothing_is_measured():
    accuracy = AdversarialAccuracy(ATTACK)
    trainer = run(make_victim(), accuracy, limit_val_batches=0)
    assert accuracy.history == []
    assert "val/adv_acc" not in trainer.callback_metrics


def test_a_limit_of_validation_batches_holds_when_the_fit_has_ended():
    accuracy = AdversarialAccuracy(ATTACK, every_n_epochs=None)
    run(make_victim(), accuracy, stop_in(pl, 1), limit_val_batches=2)
    assert [entry.samples for entry in accuracy.history] == [16]


def test_the_log_names_the_epoch_of_a_measurement_after_the_end(tmp_path):
    accuracy = AdversarialAccuracy(ATTACK, every_n_epochs=None)
    run(make_victim(), accuracy, stop_in(pl, 1), logger=pl.loggers.CSVLogger(tmp_path))
    (file,) = tmp_path.rglob("metrics.csv")
    rows = [row for row in csv.DictReader(file.read_text().splitlines()) if row["val/adv_acc"]]
    assert [int(row["epoch"]) for row in rows] == [1]


def test_a_second_fit_of_as_many_steps_is_measured_as_well():
    accuracy = AdversarialAccuracy(ATTACK, every_n_epochs=None)
    for _ in range(2):
        run(make_victim(), accuracy, stop_in(pl, 1))
        assert [entry.epoch for entry in accuracy.history] == [1], "of this run, and not of the one before"


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_the_victim_is_measured_in_its_precision(precision):
    accuracy = AdversarialAccuracy(ATTACK)
    paths = AdversarialPaths(every_n_epochs=1, max_steps=20)
    trainer = run(make_victim(constants=True), accuracy, paths, precision=precision)
    entry = accuracy.history[-1]
    assert entry.samples == len(VAL)
    assert entry.correct / entry.samples == pytest.approx(float(trainer.callback_metrics["val/acc"]), abs=1e-6)
    assert 0 < entry.withstood <= entry.correct


@pytest.mark.parametrize("package", [pl, unified])
def test_a_data_module_without_training_data_is_warned_about(package):
    class Evaluation(package.LightningDataModule):
        def val_dataloader(self):
            return DataLoader(VAL, 8)

    trainer = package.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[LabelFlipCertification(CertifiedRidge(RawFeatures()))],
    )
    with pytest.warns(UserWarning, match="needs the training data"):
        trainer.validate(make_victim(package), Evaluation(), verbose=False)
    assert set(trainer.callback_metrics) == {"val/acc"}


class Uneven:
    """Batches of any sizes, which no attribute announces."""

    def __iter__(self):
        return iter([range(7), range(7, 9), range(9, 28), range(28, 29)])

    def __len__(self):
        return 4


def test_batches_of_any_sizes_count_every_sample_once(tmp_path):
    loader = DataLoader(VAL, batch_sampler=Uneven())
    certification = LabelFlipCertification(CertifiedRidge(RawFeatures()), radii=[0, 1])
    accuracy = AdversarialAccuracy(ATTACK, max_samples=20)
    run(make_victim(), certification, accuracy, val=loader, logger=True, default_root_dir=tmp_path, max_epochs=2)
    (file,) = tmp_path.rglob("certificates.csv")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [int(row["index"]) for row in rows] == list(range(29))
    assert [int(row["label"]) for row in rows] == VAL.tensors[1].tolist()
    assert [entry.samples for entry in accuracy.history] == [20, 20]


def test_a_stochastic_victim_leaves_the_training_as_it_is():
    class Noisy(nn.Module):
        def forward(self, inputs):
            return inputs + 0.1 * torch.randn_like(inputs)

    def weights(*callbacks):
        victim = make_victim()
        victim.net.insert(0, Noisy())
        run(victim, *callbacks)
        return torch.cat([parameter.detach().flatten() for parameter in victim.parameters()])

    measured = weights(AdversarialAccuracy(ATTACK), AdversarialPaths(every_n_epochs=1, max_steps=5))
    assert measured.equal(weights())


def test_points_pass_the_transfer_hooks_of_the_module():
    class Scaled(type(make_victim())):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] / 2, *batch[1:]

    torch.manual_seed(0)
    victim, paths = Scaled(), AdversarialPaths(max_steps=30)
    run(victim, paths, max_epochs=1)
    inputs, labels = TRAIN.tensors
    expected = adversarial_paths(victim, inputs / 2, labels, max_steps=30).length.double().mean().item()
    assert paths.history[-1]["paths/length_mean"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (RawFeatures(), "end-to-end; ridge regression (relative strength 0.05) on raw inputs"),
        (
            FrozenFeatures(nn.Flatten()),
            "not end-to-end, the head only; ridge regression (relative strength 0.05) on a frozen Flatten",
        ),
    ],
)
def test_every_certified_number_has_its_guarantee_beside_it(features, words):
    certification = LabelFlipCertification(CertifiedRidge(features), radii=[0, 3], name="a")
    assert notes_of(certification) == {}
    trainer = run(make_victim(), certification, max_epochs=1)
    logged = {key for key in trainer.callback_metrics if key.startswith("cert/")}
    assert notes_of(certification) == dict.fromkeys(logged, f"proved; {words}, not the victim")
    assert len(logged) == 4
