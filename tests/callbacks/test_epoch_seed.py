from __future__ import annotations

import random
import warnings
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_poison._lightning import Callback
from lightning_poison.callbacks import EpochSeed
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.poisons import LabelFlips, RandomPoints
from tests.lightning_runs import PACKAGES, model_of, small_weights, trainer_of

LOOP = SimpleNamespace(epoch_loop=SimpleNamespace(restarting=False))


def draws(callback: EpochSeed, epoch: int, rank: int = 0) -> tuple[float, float, float]:
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, fit_loop=LOOP)
    callback.on_train_epoch_start(trainer, None)
    numpy_draw = float(np.random.rand())  # noqa: NPY002  # the global state is what is tested
    return random.random(), numpy_draw, float(torch.rand(()))


def test_draws_depend_on_seed_epoch_and_rank_alone() -> None:
    first = draws(EpochSeed(3), 5)
    torch.rand(100)
    assert draws(EpochSeed(3), 5) == first
    for other in (draws(EpochSeed(4), 5), draws(EpochSeed(3), 6), draws(EpochSeed(3), 5, rank=1)):
        assert all(one != two for one, two in zip(first, other, strict=True))


def test_the_seed_of_the_first_run_wins() -> None:
    resumed = EpochSeed(99)
    resumed.load_state_dict(EpochSeed(3).state_dict())
    assert draws(resumed, 5) == draws(EpochSeed(3), 5)


# --- killed and resumed -----------------------------------------------------------------------------------------------

INPUTS = torch.rand(24, 4, generator=torch.Generator().manual_seed(0))
BATCHES = 3
EPOCHS = 3


class KilledError(Exception):
    pass


class Augmented(Dataset[Any]):
    """Each generator that an augmentation may draw from, in whatever process reads."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(4) + random.random() + np.random.rand()  # noqa: NPY002  # see above
        return INPUTS[index] + 0.1 * noise.float(), index % 3, index


class Kill(Callback):
    """At the second batch of an epoch."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise KilledError


def data_module(package: Any, poisoned: bool, validates: bool, **loader: Any) -> Any:
    class Data(package.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(Augmented(), batch_size=8, shuffle=True, **loader)

        if validates:

            def val_dataloader(self) -> Any:
                return DataLoader(Augmented(), batch_size=8, shuffle=True)

    return PoisonedDataModule(Data(), LabelFlips(RandomPoints(per_class=1)), seed=1) if poisoned else Data()


def fit(
    package: Any,
    folder: Any,
    data: Any,
    state: int,
    *callbacks: Any,
    seeded: bool = True,
    killed_in: int | None = None,
    ckpt_path: Any = None,
    **arguments: Any,
) -> Any:
    net = nn.Sequential(small_weights(nn.Linear(4, 8)), nn.Dropout(0.5), small_weights(nn.Linear(8, 3)))
    model = model_of(package, net, lr=0.5)
    model.validation_step = lambda batch, batch_idx: None
    model.on_train_start = lambda: model.seen.append([])  # Lightning may leave out the first start of an epoch
    torch.manual_seed(state)
    random.seed(state)
    seeds = [EpochSeed(3)] if seeded else []
    trainer = trainer_of(
        package,
        folder,
        *seeds,
        Kill(killed_in),
        *callbacks,
        max_epochs=EPOCHS,
        enable_checkpointing=bool(callbacks),
        **arguments,
    )
    with suppress(KilledError):
        trainer.fit(model, data, ckpt_path=ckpt_path)
    model.seen = [epoch for epoch in model.seen if epoch]
    return model


def kept(package: Any, folder: Any, when: str) -> Any:
    """A checkpoint at each end of an epoch, in one of three hooks."""
    often = {"every_n_train_steps": BATCHES} if when == "last batch" else {"save_on_train_epoch_end": when == "epoch"}
    return package.callbacks.ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **often)


@cache
def uninterrupted(package: Any, poisoned: bool, validates: bool, workers: int) -> Any:
    return fit(package, ".", data_module(package, poisoned, validates, num_workers=workers), 1)


CASES = [
    ("epoch", False, True),
    ("epoch", True, False),
    ("validation", True, True),
    ("validation", True, False),
    ("last batch", False, True),
    ("last batch", False, False),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("when", "validates", "poisoned"), CASES)
def test_a_killed_and_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(
    tmp_path, when, validates, poisoned, workers
):
    package = PACKAGES[(workers // 2 + poisoned) % len(PACKAGES)]
    whole = uninterrupted(package, poisoned, validates, workers)
    settings = package, poisoned, validates
    killed = fit(
        package,
        tmp_path,
        data_module(*settings, num_workers=workers),
        1,
        kept(package, tmp_path, when),
        killed_in=1,
    )
    assert len(killed.seen) == 2
    checkpoint = tmp_path / f"step={BATCHES}.ckpt"
    resumed = fit(package, tmp_path, data_module(*settings, num_workers=workers), 99, ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[1:]
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("when", ["epoch", "validation", "last batch"])
def test_poisoned_data_alone_keep_their_order_and_nothing_else(tmp_path, when, workers):
    def run(state: int, *callbacks: Any, **arguments: Any) -> Any:
        data = data_module(pytorch_lightning, True, when == "validation", num_workers=workers)
        return fit(pytorch_lightning, tmp_path, data, state, *callbacks, seeded=False, **arguments)

    whole = run(1)
    run(2, kept(pytorch_lightning, tmp_path, when), killed_in=1)
    resumed = run(99, ckpt_path=tmp_path / f"step={BATCHES}.ckpt")
    order = [[row[-1] for row in epoch] for epoch in whole.seen]
    assert [[row[-1] for row in epoch] for epoch in resumed.seen] == order[1:]
    assert resumed.seen != whole.seen[1:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_after_an_epoch_that_was_resumed_in_its_middle_all_is_as_before(tmp_path, workers):
    def data() -> Any:
        return data_module(pytorch_lightning, True, False, num_workers=workers)

    whole = uninterrupted(pytorch_lightning, True, False, workers)
    middle = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=BATCHES + 1)
    fit(pytorch_lightning, tmp_path, data(), 1, middle, killed_in=1)
    checkpoint = tmp_path / f"step={BATCHES + 1}.ckpt"
    resumed = [fit(pytorch_lightning, tmp_path, data(), state, ckpt_path=checkpoint).seen for state in (99, 100)]
    assert resumed[0] == resumed[1]
    assert resumed[0][-1] == whole.seen[2]
    assert resumed[0][0] == whole.seen[1][:16]  # the epoch's data anew, as many batches as were left


@pytest.mark.parametrize(
    ("loader", "kept"),
    [
        ({"num_workers": 1, "persistent_workers": True}, "persistent_workers=True, which keeps"),
        ({"generator": torch.Generator()}, "a generator of its own"),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_resumed_exactly_is_told(tmp_path, loader, kept):
    def data() -> Any:
        return data_module(pytorch_lightning, True, False, **loader)

    ends = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(pytorch_lightning, tmp_path, data(), 1, ends, killed_in=1)
        assert not [one for one in caught if "other random numbers" in str(one.message)]
        fit(pytorch_lightning, tmp_path, data(), 1, ckpt_path=tmp_path / f"step={BATCHES}.ckpt")
    said = [str(one.message) for one in caught if "other random numbers" in str(one.message)]
    assert len(said) == (kept is not None)
    assert all(kept in message for message in said)
