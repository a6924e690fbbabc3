"""Data modules, models and networks of the user's own, by class path."""

from __future__ import annotations

from pathlib import Path

import pytest

OWN = """
import lightning.pytorch
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset


class Data(pytorch_lightning.LightningDataModule):
    num_classes = 4

    def train_dataloader(self):
        inputs = torch.arange(200.0).reshape(40, 5) / 200
        return DataLoader(TensorDataset(inputs, torch.arange(40) % 4), batch_size=8, shuffle=True)


class Uncounted(Data):
    num_classes = None


class Model(pytorch_lightning.LightningModule):
    def __init__(self, outputs: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(5, outputs)

    def forward(self, inputs):
        return self.layer(inputs)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Sized(Model):
    def __init__(self, num_classes: int):
        super().__init__(num_classes)


class Other(lightning.pytorch.LightningModule):
    pass
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_classes.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))


def arguments(model: str, data: str = "Data", *more: str) -> tuple[str, ...]:
    return (
        "fit",
        f"--data=own_classes.{data}",
        f"--model=own_classes.{model}",
        "--poison.select=RandomPoints",
        "--poison.select.per_class=2",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        *more,
    )


@pytest.mark.parametrize(("model", "data"), [("Model", "Data"), ("Sized", "Data"), ("Model", "Uncounted")])
def test_they_run(run_cli, model: str, data: str) -> None:
    code, out, err = run_cli(*arguments(model, data))
    assert code == 0, err[-2000:]
    assert out.rstrip().endswith("index.html")


def test_a_new_class_reaches_a_model_that_asks_for_num_classes(run_cli) -> None:
    code, _, err = run_cli(*arguments("Sized", "Data", "--poison.relabel=NewClass"))
    assert code == 0, err[-2000:]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            arguments("Model", "Data", "--poison.relabel=NewClass"),
            "flips to class 4 need a model with 5 outputs, got 4",
        ),
        (arguments("Sized", "Uncounted"), "model.num_classes is needed: Uncounted has no attribute num_classes"),
        (arguments("Other"), "own_classes.Other is a LightningModule of lightning.pytorch, and this command runs"),
        (("test", *arguments("Model")[1:]), "Data has no test_dataloader, which test needs"),
    ],
)
def test_what_cannot_run_is_one_line_and_no_folder(refused, tmp_path: Path, given, message: str) -> None:
    assert message in refused(*given)
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_short_names_find_the_networks_of_this_package_first(run_cli) -> None:
    # torchvision.ops has an MLP as well
    code, out, err = run_cli("fit", "--config", "digits.yaml", "--model.net=MLP", "--print_config")
    assert code == 0, err
    assert "class_path: lightning_poison.nets.MLP" in out


def test_null_unsets_a_key_of_several_levels(run_cli) -> None:
    null = ("--poison.select.per_class=null", "--poison.select.fraction=0.1")
    code, out, err = run_cli("fit", "--config", "digits.yaml", *null, "--print_config")
    assert code == 0, err
    assert "per_class: null" in out
    assert "fraction: 0.1" in out
