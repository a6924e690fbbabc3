"""Gaussian noise on the victim's training inputs."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import fill_gaussian
from lightning_poison.victims import Victim


class Listener(nn.Module):
    """Remembers what it was shown in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen, self.evaluated = nn.Linear(36, 3), [], []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        (self.seen if self.training else self.evaluated).append(inputs.clone())
        return self.layer(inputs.flatten(1))


def fit(noise_std: float, seed: int = 0, drawn: int = 0) -> Listener:
    pl.seed_everything(seed, verbose=False)
    images = torch.full((64, 1, 6, 6), 0.5)
    net = Listener()
    torch.rand(drawn)
    data = TensorDataset(images, torch.zeros(64, dtype=torch.int64))
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Victim(net, num_classes=3, noise_std=noise_std), DataLoader(data, 32), DataLoader(data, 32))
    return net


def test_training_inputs_alone_are_noisy() -> None:
    net = fit(0.3)
    noise = torch.stack(net.seen) - 0.5
    assert noise.shape == (4, 32, 1, 6, 6)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.03)
    assert len(noise.flatten().unique()) > 0.9 * noise.numel(), "each epoch and batch has noise of its own"
    assert (torch.stack(net.evaluated) == 0.5).all()


def test_without_noise_inputs_are_as_they_are() -> None:
    assert (torch.stack(fit(0.0).seen) == 0.5).all()


def test_noise_depends_on_the_run_s_seed_and_not_on_what_was_drawn_before() -> None:
    first = torch.stack(fit(0.3).seen)
    assert first.equal(torch.stack(fit(0.3, drawn=17).seen))
    assert not first.equal(torch.stack(fit(0.3, seed=1).seen))


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    fill_gaussian(torch.empty(100), 1.0, 0, "a")
    assert state.equal(torch.get_rng_state())


def test_negative_noise_is_refused() -> None:
    with pytest.raises(UserError, match="noise_std must lie in"):
        Victim(nn.Linear(2, 2), num_classes=2, noise_std=-0.1)
