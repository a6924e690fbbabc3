from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP, PoolCNN
from lightning_poison.victims import Victim


def loader(n: int = 10, size: int = 4, classes: int = 3, batch_size: int = 4) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, size, size, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def trainer(**kwargs: object) -> pl.Trainer:
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
        "accelerator": "cpu",
    }
    return pl.Trainer(**{**defaults, **kwargs})


def test_normalisation_is_the_first_layer() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    victim = Victim(net, mean=[0.25], std=[0.5])
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(victim(images), net((images - 0.25) / 0.5))


@pytest.mark.parametrize("net", [PoolCNN, torchvision.models.resnet18, PoolCNN(num_classes=5)])
def test_networks_and_functions_that_make_them(net: object) -> None:
    victim = Victim(net, num_classes=5)
    assert victim.num_classes == 5
    channels = 3 if net is torchvision.models.resnet18 else 1
    assert victim(torch.rand(2, channels, 28, 28)).shape == (2, 5)


def test_contradictions_are_errors() -> None:
    with pytest.raises(UserError, match="num_classes=4 but the network's last linear layer has 3 outputs"):
        Victim(MLP(num_classes=3), num_classes=4)
    with pytest.raises(UserError, match="num_classes is needed"):
        Victim(MLP)
    with pytest.raises(UserError, match="no linear layer"):
        Victim(nn.Flatten())
    with pytest.raises(UserError, match=r"net must make a torch.nn.Module, got int"):
        Victim(lambda num_classes: num_classes, num_classes=3)


def test_epoch_numbers_are_exact() -> None:
    victim = Victim(MLP(num_classes=3, image_size=4, hidden=()))
    data = loader()
    images, labels = data.dataset.tensors
    with torch.no_grad():
        logits = victim(images)
    metrics = trainer().validate(victim, data, verbose=False)[0]
    assert metrics["val/acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert metrics["val/loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert trainer().test(victim, data, verbose=False)[0]["test/acc"] == metrics["val/acc"]


def test_predict_gives_probabilities() -> None:
    victim = Victim(MLP(num_classes=3, image_size=4))
    batches = trainer().predict(victim, loader())
    assert torch.cat(batches).shape == (10, 3)
    assert torch.allclose(torch.cat(batches).sum(1), torch.ones(10))


def test_training_lowers_the_loss_and_steps_the_scheduler() -> None:
    torch.manual_seed(0)
    victim = Victim(
        MLP(num_classes=3, image_size=4),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    )
    runner = trainer(max_epochs=20)
    before = trainer().validate(victim, loader(), verbose=False)[0]["val/loss"]
    runner.fit(victim, loader())
    assert runner.callback_metrics["train/loss"] < before
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**20)


def test_a_label_out_of_range_names_the_row() -> None:
    victim = Victim(MLP(num_classes=2, image_size=4))
    with pytest.raises(UserError, match=r"labels of the batch must lie in \[0, 1\], got 2 at row"):
        trainer().fit(victim, loader(classes=3))


def test_nan_in_the_inputs_names_the_row() -> None:
    data = loader()
    data.dataset.tensors[0][6, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match=r"inputs must be finite, got NaN or infinity in 1 of 4 samples .*row 2"):
        trainer().fit(Victim(MLP(num_classes=3, image_size=4)), data)


def test_a_loss_that_diverges_says_what_to_do() -> None:
    victim = Victim(MLP(num_classes=3, image_size=4), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    with pytest.raises(UserError, match=r"the loss became nan at epoch .* lower the learning rate"):
        trainer(max_epochs=5).fit(victim, loader())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.uint16, torch.uint32])
def test_labels_of_every_integer_type(dtype):
    inputs, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    found = []
    for kind in (torch.int64, dtype):
        torch.manual_seed(0)
        victim = Victim(MLP(3, 1, 8, hidden=(4,)))
        data = DataLoader(TensorDataset(inputs, labels.to(kind)), batch_size=4)
        run = trainer()
        run.fit(victim, data, data)
        found.append({key: float(value) for key, value in run.callback_metrics.items()})
    assert found[0] == found[1]
