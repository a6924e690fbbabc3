"""LightningModules of either package as training procedures: repeatable, silent, with images in their shape."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_poison._lightning import lightning_packages
from lightning_poison.certificates import UnchangedInputs
from lightning_poison.certificates.networks import LightningTraining
from lightning_poison.certificates.partitions import PartitionAggregation
from lightning_poison.certificates.retraining import MonteCarloSmoothing, NoisyLabels, train_all
from lightning_poison.errors import UserError
from lightning_poison.nets import StrideCNN
from lightning_poison.victims import Victim

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)
NET = functools.partial(StrideCNN, image_size=8)


def victim() -> Victim:
    return Victim(NET, num_classes=10, optimizer=functools.partial(torch.optim.Adam, lr=5e-3))


def linear(package: Any, outputs: int = 10) -> Any:
    class Linear(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, outputs))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            assert inputs.shape[1:] == (1, 8, 8)
            return self.net(inputs)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            assert not hasattr(self, "seen") or self.training
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    return Linear


@pytest.mark.parametrize("package", lightning_packages(), ids=lambda package: package.__name__)
def test_modules_of_either_package_learn_repeatably_and_in_silence(
    package: Any, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    procedure = LightningTraining(linear(package), epochs=8, batch_size=32)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    sets = NoisyLabels(LABELS[:600], 10, 0.05, 2)
    one, two = (train_all(procedure, IMAGES[:600], sets, 10) for _ in range(2))
    first, second = one.scores(IMAGES[600:900])
    again = next(two.scores(IMAGES[600:900]))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert (first.argmax(1) == LABELS[600:900]).double().mean() > 0.8
    assert torch.equal(torch.get_rng_state(), state)
    output = capfd.readouterr()
    assert output.out + output.err == ""
    assert not [warning for warning in recwarn if "lightning" in warning.filename]
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_two_workers_equal_one_and_the_cache_too(tmp_path: Path) -> None:
    sets = NoisyLabels(LABELS[:200], 10, 0.05, 3)
    scores = [
        torch.stack(
            list(
                train_all(LightningTraining(victim, epochs=1), IMAGES[:200], sets, 10, jobs=jobs, cache=cache).scores(
                    IMAGES[:50]
                )
            )
        )
        for jobs, cache in ((1, None), (2, tmp_path), (1, tmp_path))
    ]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


@pytest.mark.slow
def test_networks_vote_and_are_smoothed() -> None:
    train, evaluate = slice(0, 600), slice(1200, 1500)
    procedure = LightningTraining(victim, epochs=8, batch_size=32)
    smoothing = MonteCarloSmoothing(procedure, q=0.02, runs=8, alpha=0.05)
    certificate = smoothing.fit(IMAGES[train], LABELS[train], 10).certify(IMAGES[evaluate])
    right = certificate.prediction == LABELS[evaluate]
    assert (right & (certificate.radius >= 0)).double().mean() > 0.7
    aggregation = PartitionAggregation(procedure, parts=3, features=UnchangedInputs(), election="run_off")
    certificate = aggregation.fit(IMAGES[train], LABELS[train], 10).certify(IMAGES[evaluate])
    right = certificate.prediction == LABELS[evaluate]
    assert right.double().mean() > 0.7
    assert certificate.radius.max() == 1
    assert "Victim, 8 epochs" in aggregation.describe()


def test_the_fingerprint_is_of_the_settings() -> None:
    one = LightningTraining(victim, epochs=2)
    before = one.fingerprint()
    one.describe()
    assert one.fingerprint() == before == LightningTraining(victim, epochs=2).fingerprint()
    assert LightningTraining(victim, epochs=3).fingerprint() != before


def test_starting_weights_that_the_seed_does_not_decide_are_said() -> None:
    trained = NET(num_classes=10)

    def pretrained() -> Victim:
        return Victim(copy.deepcopy(trained), num_classes=10)

    assert LightningTraining(victim).end_to_end
    assert not LightningTraining(pretrained).end_to_end
    assert LightningTraining(pretrained, label_free=True).end_to_end
    assert PartitionAggregation(LightningTraining(pretrained)).reach == "not end-to-end, the head only"
    assert LightningTraining(victim).repeatable
    assert not LightningTraining(victim, accelerator="auto").repeatable


def test_runs_do_not_go_on_from_each_others_weights() -> None:
    shared = NET(num_classes=10)
    procedure = LightningTraining(lambda: Victim(shared, num_classes=10), epochs=1)
    with pytest.raises(UserError, match=r"module must make a new module whenever it is called, got net\..* twice"):
        procedure.train(IMAGES[:20], LABELS[:20], 10, seed=0)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match="module must make a LightningModule when called, got Linear"):
        LightningTraining(lambda: nn.Linear(2, 2)).describe()
    package = lightning_packages()[0]
    procedure = LightningTraining(linear(package, outputs=7), epochs=1)
    with pytest.raises(UserError, match=r"module must give logits \(1, 10\), got shape \(1, 7\); set its num_classes"):
        procedure.train(IMAGES[:20], LABELS[:20] % 7, 10, seed=0)
    model = procedure.train(IMAGES[:20], LABELS[:20] % 7, 7, seed=0)
    with pytest.raises(UserError, match=r"module must give logits \(5, 10\), got shape \(5, 7\); set its num_classes"):
        procedure.scores(model, IMAGES[:5], 10)
    with pytest.raises(UserError, match=r"got a Victim; pass lambda: Victim\(...\)"):
        LightningTraining(victim())
    with pytest.raises(UserError, match="epochs must be an integer of at least 1"):
        LightningTraining(victim, epochs=0)
