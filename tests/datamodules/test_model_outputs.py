from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison._lightning import lightning_packages
from lightning_poison.callbacks import FlipLabels
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.datamodules.model_outputs import check_input, check_outputs
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, LabelFlips, NewClass, RandomPoints, TrainingSet

PACKAGES = lightning_packages()
DATA = TensorDataset(torch.rand(40, 5), torch.arange(40) % 4)


def flips_to_a_new_class() -> FlipList:
    return LabelFlips(RandomPoints(per_class=1), NewClass()).craft(TrainingSet(DATA.tensors[1], 4), seed=0)


def project(package: Any, outputs: int) -> tuple[Any, Any]:
    class Model(package.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, outputs)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Data(package.LightningDataModule):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return DataLoader(DATA, batch_size=8, shuffle=True)

    return Model(), Data()


@pytest.mark.parametrize("package", PACKAGES, ids=[package.__name__ for package in PACKAGES])
@pytest.mark.parametrize("as_callback", [False, True])
@pytest.mark.parametrize("outputs", [4, 5])
def test_a_new_class_needs_an_output(package: Any, as_callback: bool, outputs: int) -> None:
    model, data = project(package, outputs)
    poison = LabelFlips(RandomPoints(per_class=1), NewClass())
    callbacks = [FlipLabels(poison)] if as_callback else []
    trainer = package.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=callbacks
    )
    fit = lambda: trainer.fit(model, datamodule=data if as_callback else PoisonedDataModule(data, poison))  # noqa: E731
    if outputs == 5:
        fit()
    else:
        with pytest.raises(UserError, match=r"class 4 need a model with 5 outputs, got 4 .*num_classes=5"):
            fit()


def test_the_trial_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 5))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    check_outputs(model, DATA, flips_to_a_new_class(), num_classes=4)
    assert torch.equal(random, torch.get_rng_state())
    assert [part.training for part in model] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model", [None, nn.LazyLinear(3), nn.Linear(7, 3), nn.Identity()])
def test_what_cannot_be_tried_is_left_to_the_training(model: Any) -> None:
    if not isinstance(model, nn.Identity):
        check_outputs(model, DATA, flips_to_a_new_class(), num_classes=4)
    check_outputs(model, DATA, FlipList.empty({}), num_classes=4)


def test_inputs_of_another_shape() -> None:
    with pytest.raises(UserError, match=r"the network cannot take inputs of shape \(5,\)"):
        check_input(nn.Linear(7, 3), DATA)
    check_input(nn.Linear(5, 3), DATA)
