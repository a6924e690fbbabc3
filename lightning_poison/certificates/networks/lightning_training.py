"""Any LightningModule as something that is trained again and again."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_poison._lightning import lightning_packages
from lightning_poison.attacks.model import eval_mode
from lightning_poison.certificates.retraining import TrainingProcedure
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.fresh_networks import check_maker, weight_that_is_not_drawn
from lightning_poison.functional.random_streams import generator, kept_random_state

__all__ = ["LightningTraining"]

_BATCH = 1000


class LightningTraining(TrainingProcedure):
    """Trains a fresh LightningModule with a Trainer of its package, quietly, and keeps its weights.

    The module is used as it is: its ``training_step`` gets batches (inputs, labels), its ``forward`` gives the logits.
    Initial weights and the order of the batches follow the run's seed. Where starting weights do not, as those of a
    pretrained part, a guarantee is end to end only with ``label_free=True``.

    Args:
        module: makes a new LightningModule whenever it is called.
        epochs: of each training.
        batch_size: of the training batches.
        accelerator: what Lightning trains on. On a CPU a run is the same whenever it is repeated; elsewhere it need not
            be, and partition aggregation is then no proof.
        label_free: promise that no certified label went into starting weights that are not drawn from the seed.

    Raises:
        UserError: what ``module`` makes is no LightningModule, or its logits do not fit.

    Example:
        >>> from lightning_poison.nets import MLP
        >>> from lightning_poison.victims import Victim
        >>> procedure = LightningTraining(lambda: Victim(MLP, num_classes=2), epochs=1)
        >>> procedure.describe()
        'Victim, 1 epoch'
    """

    def __init__(
        self,
        module: Callable[[], nn.Module],
        epochs: int = 5,
        batch_size: int = 128,
        accelerator: str = "cpu",
        label_free: bool = False,
    ) -> None:
        check_maker(module, "module")
        self.module = module
        self.label_free = bool(label_free)
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.accelerator = accelerator

    @property
    def end_to_end(self) -> bool:  # type: ignore[override]  # a constant elsewhere, found out here
        """Whether no certified label is in the starting weights: they are drawn from the seed, or promised."""
        return self.label_free or weight_that_is_not_drawn(lambda: self._made()[0]) is None

    def premises(self) -> tuple[str, ...]:
        """That the promise is kept, where there is one."""
        return ("the starting weights of the trainings have seen none of these labels",) if self.label_free else ()

    @property
    def repeatable(self) -> bool:  # type: ignore[override]  # likewise
        """Whether a training comes out the same to the last bit whenever it is repeated."""
        return self.accelerator == "cpu"

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> dict[str, Tensor]:
        """Weights after training, on the CPU."""
        module, package = self._made()
        with kept_random_state():
            _check_new(module, self._made()[0])
        _check_logits(_logits(module, inputs[:1]), 1, num_classes)
        data = TensorDataset(inputs, labels)
        order = RandomSampler(data, generator=generator(seed, "batches"))
        loader = DataLoader(data, batch_size=None, sampler=BatchSampler(order, self.batch_size, drop_last=False))
        with _quiet():
            trainer = package.Trainer(
                max_epochs=self.epochs,
                accelerator=self.accelerator,
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            trainer.fit(module, loader)
        return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        """Logits (m, K) in eval mode, on the CPU."""
        module, _ = self._made()
        module.load_state_dict(model)
        logits = torch.cat([_logits(module, part) for part in torch.split(inputs, _BATCH)])
        return _check_logits(logits, len(inputs), num_classes)

    def describe(self) -> str:
        """The module's class and the epochs."""
        with kept_random_state():
            name = type(self._made()[0]).__name__
        return f"{name}, {self.epochs} epoch{'' if self.epochs == 1 else 's'}"

    def _made(self) -> tuple[nn.Module, Any]:
        """A fresh module and the package whose Trainer takes it."""
        module = self.module()
        for package in lightning_packages():
            if isinstance(module, package.LightningModule):
                return module, package
        raise UserError(f"module must make a LightningModule when called, got {type(module).__name__}")


def _check_new(module: nn.Module, other: nn.Module) -> None:
    """Refuse two modules that share weights: each run would go on where the last one ended, with its labels."""
    held = {id(weight) for weight in other.parameters()}
    shared = next((name for name, weight in module.named_parameters() if id(weight) in held), None)
    if shared is not None:
        raise UserError(
            f"module must make a new module whenever it is called, got {shared} of one {type(module).__name__} twice; "
            "make the network inside the function"
        )


def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), eval_mode(module):
        logits: Tensor = module(inputs)
    return logits


def _check_logits(logits: Tensor, count: int, num_classes: int) -> Tensor:
    if logits.shape != (count, num_classes):
        got = f"shape {tuple(logits.shape)}"
        raise UserError(f"module must give logits ({count}, {num_classes}), got {got}; set its num_classes")
    return logits


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks about devices and loaders, which would be repeated for each of many trainings."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")]
    loggers += [logging.getLogger(f"{logger.name}.utilities.rank_zero") for logger in loggers]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
