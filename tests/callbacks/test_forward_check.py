"""What paths, memorisation, crafted flips and smoothing say of odd modules: noise, logs in forward, a richer step."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from attack_runs import Scorer, data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import FGSM
from lightning_poison.callbacks import (
    AdversarialAccuracy,
    AdversarialPaths,
    CraftFlips,
    PoisonMemorization,
    SmoothingCertification,
)
from lightning_poison.certificates.input_smoothing import InputSmoothing
from lightning_poison.datamodules import PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, LabelFlips, NearestToBoundary

STOCHASTIC = "scores of the same inputs differ from pass to pass"
OTHER = "its forward is right on"


class Learner(Scorer):
    """Its step does more than its forward, its forward draws noise, or logs, as the arguments say."""

    def __init__(self, beside=False, noise=0.0, logs=False):
        super().__init__()
        self.beside, self.noise, self.logs = beside, noise, logs

    def forward(self, inputs):
        scores = super().forward(inputs)
        if self.logs:
            self.log("val/asked", float(len(inputs)), reduce_fx="sum")
        if self.noise:
            scores = scores + self.noise * torch.randn_like(scores)
        return scores * torch.tensor([1.0, 0.2, 0.2, 0.2]) if self.beside else scores

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(Scorer.forward(self, batch[0]), batch[1])

    def validation_step(self, batch, *_):
        scores = self(batch[0]) if self.logs else Scorer.forward(self, batch[0])
        self.log("val_acc", (scores.argmax(1) == batch[1]).float().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-5)


def paths():
    return [AdversarialPaths(max_samples=8, max_steps=3, pictures=False)]


def memorisation():
    return [PoisonMemorization()]


def crafting():
    return [CraftFlips(LabelFlips(NearestToBoundary(per_class=1)))]


def smoothing():
    return [SmoothingCertification(InputSmoothing(sigma=0.1, n=100, n0=10), max_samples=5)]


MEASURING = [paths, memorisation, crafting, smoothing]


def fit(victim, callbacks, folder):
    """The callback that measures, what was logged, and what was said."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    train = data(64)
    if any(isinstance(callback, PoisonMemorization) for callback in callbacks):
        places = torch.arange(0, 64, 8)
        old = train.tensors[1][places]
        train = PoisonedDataset(train, FlipList(places, old, (old + 1) % 4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(victim, DataLoader(train, 16), DataLoader(data(200, seed=1), 64))
    return callbacks[-1], dict(trainer.callback_metrics), [str(warning.message) for warning in caught]


def words_of(callback):
    return " ".join(sentence for section in callback.report_sections() for sentence in section.text)


@pytest.mark.parametrize("callbacks", MEASURING)
def test_both_accuracies_are_named_where_the_step_does_more_than_forward(callbacks, tmp_path):
    callback, logged, said = fit(Learner(beside=True), callbacks(), tmp_path)
    inputs, labels = data(200, seed=1).tensors
    with torch.no_grad():
        share = float((Learner(beside=True)(inputs).argmax(1) == labels).double().mean())
    found = [sentence for sentence in said if OTHER in sentence]
    assert len(found) == 1
    assert f"the module logs val_acc {float(logged['val_acc']):.4g}, but {OTHER} {share:.4g}" in found[0]
    assert abs(float(logged["val_acc"]) - share) > 0.1
    assert OTHER in words_of(callback)


@pytest.mark.parametrize("callbacks", MEASURING)
def test_nothing_is_said_of_an_ordinary_module(callbacks, tmp_path):
    callback, _, said = fit(Learner(), callbacks(), tmp_path)
    assert not [sentence for sentence in said if OTHER in sentence or STOCHASTIC in sentence]
    assert OTHER not in words_of(callback)


def test_one_callback_compares_for_all(tmp_path):
    together = [*paths(), *smoothing(), *memorisation()]
    callback, _, said = fit(Learner(beside=True), together, tmp_path)
    assert sum(OTHER in sentence for sentence in said) == 1
    for one in (together[0], together[1], callback):
        assert OTHER in words_of(one)
    _, _, said = fit(Learner(beside=True), [AdversarialAccuracy(FGSM(0.02)), *paths()], tmp_path)
    assert sum(OTHER in sentence for sentence in said) == 1


def test_evaluation_batches_of_another_kind_cost_nothing(tmp_path):
    class Other(Learner):
        def validation_step(self, batch, *_):
            self.log("val_acc", 0.0)

    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, callbacks=paths(), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Other(), DataLoader(data(64), 16), DataLoader(TensorDataset(torch.rand(20, 5)), 4))
    assert "paths/length_median" in trainer.callback_metrics


@pytest.mark.parametrize("callbacks", [paths, memorisation, crafting])
def test_a_stochastic_victim_is_said(callbacks, tmp_path):
    callback, _, said = fit(Learner(noise=1.0), callbacks(), tmp_path)
    assert sum(STOCHASTIC in sentence for sentence in said) == 1
    assert STOCHASTIC in words_of(callback)


def test_no_certificate_for_what_is_no_function(tmp_path):
    with pytest.raises(UserError, match=f"{STOCHASTIC}|no function to certify"):
        fit(Learner(noise=1.0), smoothing(), tmp_path)

    class OfTheBatch(Learner):
        def forward(self, inputs):
            return super().forward(inputs - inputs.mean(dim=0))

    victim = OfTheBatch()
    with pytest.raises(UserError, match="no function to certify"):
        fit(victim, smoothing(), tmp_path)
    assert victim.trainer.global_step == 0
    with pytest.raises(UserError, match="no function to certify"):
        InputSmoothing(sigma=0.1, n=100).certify(victim, torch.rand(1, 1, 6, 6))


@pytest.mark.parametrize("callbacks", MEASURING)
def test_a_forward_that_logs_is_not_asked_by_us(callbacks, tmp_path):
    _, logged, _ = fit(Learner(logs=True), callbacks(), tmp_path)
    assert float(logged["val/asked"]) == 200
