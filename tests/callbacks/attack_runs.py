"""Data, a victim and a Trainer to attack it in."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=generator)
    ways = torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


class Scorer(pl.LightningModule):
    """Right on most points."""

    def __init__(self, outputs=CLASSES, form=None):
        super().__init__()
        ways = torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(9))
        ways = ways + 0.3 * torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(1))
        self.layer, self.form = nn.Linear(36, outputs), form
        with torch.no_grad():
            self.layer.weight.zero_()[:CLASSES] = ways.T
            self.layer.bias.fill_(-9.0)[:CLASSES] = -0.5 * ways.sum(dim=0)

    def forward(self, inputs):
        scores = self.layer(inputs.flatten(1))
        return scores if self.form is None else self.form(scores)

    def validation_step(self, batch, *_):
        pass

    def test_step(self, batch, *_):
        pass


def loader(dataset, batch_size=16):
    return DataLoader(dataset, batch_size)


def make_trainer(*callbacks):
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def validate(dataset, *callbacks, victim=None, **arguments):
    victim = Scorer() if victim is None else victim
    return make_trainer(*callbacks).validate(victim, loader(dataset, **arguments), verbose=False)[0]


def fooled(attack, dataset, targets=None, victim=None):
    return attack(Scorer() if victim is None else victim, *dataset.tensors, targets=targets).fooled


# --- several at once -------------------------------------------------------------------------------------------------
