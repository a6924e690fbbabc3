from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.callbacks import FlipLabels
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP, StrideCNN
from lightning_poison.poisons import LabelFlips, NearestToBoundary, RandomPoints
from lightning_poison.poisons.surrogates import CheckpointSurrogate, TrainedSurrogate
from lightning_poison.victims import Victim
from tests.lightning_runs import trainer_of
from tests.poisons.golden import golden_data

make = partial(MLP, image_size=8, hidden=(16,))


@pytest.fixture(scope="module")
def digits():
    return golden_data()


def fitted(module: LightningModule, digits, folder, callbacks=()):
    data = TensorDataset(digits.inputs, digits.labels)
    trainer = trainer_of(pytorch_lightning, folder, *callbacks, max_epochs=8)
    trainer.fit(module, datamodule=LightningDataModule.from_datasets(data, batch_size=32))
    path = folder / "end.ckpt"
    trainer.save_checkpoint(path)
    return str(path)


def victim(net=make):
    torch.manual_seed(0)
    return Victim(net, num_classes=10, mean=[0.3], std=[0.4], optimizer=partial(torch.optim.Adam, lr=0.01))


class Foreign(LightningModule):
    """Somebody's module, which keeps its network in a part."""

    def __init__(self):
        super().__init__()
        self.teacher, self.model = nn.Linear(3, 3), make(num_classes=10)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_a_victim_is_rebuilt_with_its_normalisation(digits, tmp_path):
    module = victim()
    path = fitted(module, digits, tmp_path)
    network = CheckpointSurrogate(path, make).network(digits, 0)
    assert torch.equal(network(digits.inputs), module.eval()(digits.inputs))
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert CheckpointSurrogate(path, make).network(digits, 1) is network
    assert len(LabelFlips(NearestToBoundary(per_class=1, surrogate=CheckpointSurrogate(path, make))).craft(digits, 0))


def test_the_network_for_the_shape_of_the_inputs_needs_no_name(digits, tmp_path):
    module = victim(partial(StrideCNN, image_size=8))
    path = fitted(module, digits, tmp_path)
    assert torch.equal(CheckpointSurrogate(path).network(digits, 0)(digits.inputs), module.eval()(digits.inputs))


def test_a_part_of_somebodys_module(digits, tmp_path):
    torch.manual_seed(0)
    module = Foreign()
    path = fitted(module, digits, tmp_path)
    found = CheckpointSurrogate(path, make).network(digits, 0)
    assert torch.equal(found(digits.inputs), module.model(digits.inputs))


def test_a_plain_state_dict(digits, tmp_path):
    module = victim()
    fitted(module, digits, tmp_path)
    torch.save(module.net.state_dict(), tmp_path / "plain.pt")
    found = CheckpointSurrogate(str(tmp_path / "plain.pt"), make).network(digits, 0)
    assert torch.equal(found(digits.inputs), module.net(digits.inputs))


def test_a_poisoned_run_is_refused(digits, tmp_path):
    flips = FlipLabels(LabelFlips(RandomPoints(per_class=2)), seed=0)
    path = fitted(victim(), digits, tmp_path, [flips])
    with pytest.raises(UserError, match="was trained with 20 flipped labels; name one of a clean run"):
        CheckpointSurrogate(path, make).network(digits, 0)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_cannot_be_meant(digits, tmp_path, capsys):
    def read(content, net=make):
        torch.save(content, tmp_path / "file.pt")
        CheckpointSurrogate(str(tmp_path / "file.pt"), net).network(digits, 0)

    with pytest.raises(UserError, match=r"there is no checkpoint at nowhere.ckpt; name a file"):
        CheckpointSurrogate("nowhere.ckpt").network(digits, 0)
    (tmp_path / "text.ckpt").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read"):
        CheckpointSurrogate(str(tmp_path / "text.ckpt")).network(digits, 0)
    for text in ("a,b\n1,2\n", "index,old_label,new_label\n0,1,2\n", "", "]", "epoch: 3\n", "\x00\x01", "0", "no"):
        (tmp_path / "text.ckpt").write_text(text)
        with pytest.raises(UserError, match=r"text\.ckpt (cannot be read|must hold a state_dict)"):
            CheckpointSurrogate(str(tmp_path / "text.ckpt")).network(digits, 0)
    with pytest.raises(UserError, match=r"state_dict in .* must hold weights, got list"):
        read({"state_dict": [1]})
    with pytest.raises(UserError, match="path must name a checkpoint, got 3"):
        CheckpointSurrogate(3)
    with pytest.raises(UserError, match="net must make a network when called with num_classes=K, got 'MLP'"):
        TrainedSurrogate("MLP")
    with pytest.raises(UserError, match="cannot be read"):
        read({"state_dict": Evil()})
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(UserError, match="must hold a state_dict, got list"):
        read([1, 2])
    with pytest.raises(UserError, match=r"features.1.weight is \[16, 64\] in the file and \[8, 64\] in the network"):
        read(make(num_classes=10).state_dict(), partial(MLP, image_size=8, hidden=(8,)))
    with pytest.raises(UserError, match=r"head.weight is \[11, 16\] in the file and \[10, 16\] in the network"):
        read(make(num_classes=11).state_dict())
    with pytest.raises(UserError, match=r"features.0.weight is not in the file"):
        read(make(num_classes=10).state_dict(), partial(StrideCNN, image_size=8))
    untrained = make(num_classes=10)
    nn.init.zeros_(untrained.head.weight)
    with pytest.raises(UserError, match="no more than guessing"):
        read(untrained.state_dict())
