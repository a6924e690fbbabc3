"""What tools of Lightning write on the data module and read from it reaches the data module that is wrapped."""

from __future__ import annotations

import copy
import importlib
import pickle

import pytest
import torch
from poisoned_runs import DATA, POISON, data_of, model_of
from torch.utils.data import DataLoader

from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.datamodules import Digits, PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, NewClass, RandomPoints
from tests.lightning_runs import PACKAGES, trainer_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


def tunable(package, where):
    """A data module whose batch size stands in an attribute, or in the hyperparameters, as in Lightning's templates."""

    class Tunable(package.LightningDataModule):
        def __init__(self, batch_size=2, lr=0.5):
            super().__init__()
            if where == "attribute":
                self.batch_size = batch_size
            else:
                self.save_hyperparameters(logger=where == "logged")

        def train_dataloader(self):
            size = self.batch_size if where == "attribute" else self.hparams.batch_size
            return DataLoader(DATA, batch_size=size, shuffle=True)

        def val_dataloader(self):
            return DataLoader(DATA, batch_size=30)

    return Tunable()


def size_of(data):
    return data.batch_size if "batch_size" in vars(data) else data.hparams.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("wrapped", "where"),
    [("PoisonedDataModule", "attribute"), ("PoisonedDataModule", "hyperparameters"), ("FlipLabels", "attribute")],
)
def test_the_tuner_scales_the_batches_that_are_trained_on(package, where, wrapped, tmp_path):
    inner, model = tunable(package, where), model_of(package)
    sizes = []
    step = model.training_step
    model.training_step = lambda batch, batch_idx: (sizes.append(len(batch[0])), step(batch, batch_idx))[1]
    callbacks = [FlipLabels(POISON, seed=3)] if wrapped == "FlipLabels" else []
    data = inner if callbacks else PoisonedDataModule(inner, POISON, seed=3)
    trainer = trainer_of(package, tmp_path, *callbacks, enable_checkpointing=True)
    tuner = importlib.import_module(f"{package.__name__}.tuner").Tuner(trainer)
    found = tuner.scale_batch_size(model, datamodule=data, max_trials=2, steps_per_trial=1)
    assert sorted(set(sizes)) == [2, 4]
    assert size_of(inner) == found == 4
    model.labels.clear()
    trainer.fit(model, data)
    assert sizes[-1] == 4
    assert sum(label != index % 3 for index, label in model.labels.items()) == 12


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("where", ["hyperparameters", "logged"])
def test_hyperparameters_are_logged_and_kept_as_without_us(package, where, tmp_path):
    loggers = importlib.import_module(f"{package.__name__}.loggers")

    def run(folder, data):
        logger = loggers.CSVLogger(folder, name="", version="")
        trainer = trainer_of(package, folder, logger=logger, max_epochs=1)
        trainer.fit(model_of(package), data)
        trainer.save_checkpoint(folder / "a.ckpt")
        kept = torch.load(folder / "a.ckpt", weights_only=False)
        logged = folder / "hparams.yaml"
        return logged.read_text() if logged.exists() else None, {
            key: value for key, value in kept.items() if key.startswith("datamodule_")
        }

    plain = run(tmp_path / "plain", tunable(package, where))
    poisoned = run(tmp_path / "poisoned", PoisonedDataModule(tunable(package, where), POISON))
    assert poisoned == plain
    assert plain[1]["datamodule_hyper_parameters"] == {"batch_size": 2, "lr": 0.5}
    assert (where == "logged") == ("lr: 0.5" in (plain[0] or ""))


def test_what_is_written_where():
    inner = tunable(PACKAGES[0], "hyperparameters")
    inner.limit = 3
    data = PoisonedDataModule(inner, POISON)
    data.limit = 4
    data.remark = "mine"
    data.val_dataloader = None
    data.hparams.batch_size = 7
    data.hparams["lr"] = 0.25
    assert (inner.limit, inner.hparams.batch_size, inner.hparams["lr"]) == (4, 7, 0.25)
    assert data.limit == 4
    assert data.hparams_initial["batch_size"] == 2
    assert "remark" not in vars(inner)
    assert data.remark == "mine"
    assert "val_dataloader" not in vars(inner)
    digits = PoisonedDataModule(Digits(batch_size=4), POISON)
    for twin in (pickle.loads(pickle.dumps(digits)), copy.deepcopy(digits)):
        twin.batch_size = 5
        assert twin.train_dataloader().batch_size == twin.datamodule.batch_size == 5
    assert digits.batch_size == 4


def test_setup_without_a_stage():
    calls = []

    class NoStage(PACKAGES[0].LightningDataModule):
        def setup(self):
            calls.append("setup")

        def teardown(self):
            calls.append("teardown")

    data = PoisonedDataModule(NoStage(), POISON)
    data.setup("fit")
    data.setup()
    data.teardown("fit")
    assert calls == ["setup", "setup", "teardown"]
    seen = []
    stages = data_of(PACKAGES[0], setup=lambda self, stage=None: seen.append(stage))
    PoisonedDataModule(stages, POISON).setup()
    PoisonedDataModule(stages, POISON).setup("fit")
    assert seen == [None, "fit"]
    digits = Digits(max_samples=50)
    digits.setup()
    assert len(digits.train_dataloader().dataset) == 50
    assert len(digits.test_dataloader().dataset) == 360


@pytest.mark.parametrize("package", PACKAGES)
def test_a_data_module_whose_setup_takes_no_stage_trains(package, tmp_path):
    inner = data_of(package, setup=lambda self: None, teardown=lambda self: None)
    model = model_of(package)
    trainer_of(package, tmp_path).fit(model, PoisonedDataModule(inner, POISON))
    assert sum(label != index % 3 for index, label in model.labels.items()) == 12


@pytest.mark.parametrize("number", [torch.tensor(10), torch.tensor(10).numpy(), torch.tensor(10).numpy()[()]])
@pytest.mark.parametrize("wrapped", ["PoisonedDataModule", "FlipLabels"])
def test_a_declared_number_of_classes_of_any_integer_kind(number, wrapped, tmp_path):
    """The labels are 0 to 2, ten classes are declared: the new one is number 10."""
    poison, model = LabelFlips(RandomPoints(count=4), NewClass()), model_of(PACKAGES[0], 11)
    inner = data_of(PACKAGES[0], num_classes=number)
    callback = FlipLabels(poison)
    data = inner if wrapped == "FlipLabels" else PoisonedDataModule(inner, poison)
    trainer_of(PACKAGES[0], tmp_path, *([callback] if data is inner else [])).fit(model, data)
    flips = callback.flips if data is inner else data.flips
    assert flips.new_label.tolist() == [10] * 4
    assert sorted(set(model.labels.values())) == [0, 1, 2, 10]
    if data is not inner:
        assert (data.clean_num_classes, data.num_classes) == (10, 11)
        assert type(data.clean_num_classes) is int


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("wrapped", ["PoisonedDataModule", "FlipLabels"])
def test_a_number_of_classes_that_is_known_after_setup_only(package, wrapped, tmp_path):
    class Late(package.LightningDataModule):
        names = None

        @property
        def num_classes(self):
            if self.names is None:
                raise RuntimeError("call setup first")
            return len(self.names)

        def setup(self, stage):
            self.names = list("abcde")

        def train_dataloader(self):
            return DataLoader(DATA, batch_size=8)

    poison, inner, model = LabelFlips(RandomPoints(count=4), NewClass()), Late(), model_of(package, 6)
    callback = FlipLabels(poison)
    data = inner if wrapped == "FlipLabels" else PoisonedDataModule(inner, poison)
    trainer_of(package, tmp_path, *([callback] if data is inner else [])).fit(model, data)
    assert sorted(set(model.labels.values())) == [0, 1, 2, 5]


def test_a_users_mistake_in_the_number_of_classes_is_told():
    def fails(self):
        raise UserError("there is no folder x")

    with pytest.raises(UserError, match="there is no folder x"):
        PoisonedDataModule(data_of(PACKAGES[0], num_classes=property(fails)), POISON)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("wrapped", ["PoisonedDataModule", "FlipLabels"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_one_loader_in_a_list_stays_in_a_list(package, wrapped, kind, tmp_path):
    inner = data_of(package, lambda: kind([DataLoader(DATA, batch_size=8, shuffle=True)]))
    model, shapes = model_of(package), set()
    step = model.training_step

    def training_step(batch, batch_idx):
        shapes.add((type(batch), len(batch)))
        return step(batch[0], batch_idx)

    model.training_step = training_step
    callback = FlipLabels(POISON)
    data = inner if wrapped == "FlipLabels" else PoisonedDataModule(inner, POISON)
    trainer_of(package, tmp_path, *([callback] if data is inner else [])).fit(model, data)
    assert shapes == {(kind, 1)}
    flips = callback.flips if data is inner else data.flips
    assert model.labels == dict(enumerate(flips.apply(DATA.tensors[1]).tolist()))
