"""Label flips as a callback, for a LightningCLI or a Trainer that is not ours."""

from __future__ import annotations

from typing import Any

from lightning_poison._lightning import Callback
from lightning_poison.datamodules import PoisonedDataModule, TrainingFlips
from lightning_poison.errors import UserError
from lightning_poison.poisons import Poison, PoisonList
from lightning_poison.trainer.folders import note_run, recall_run

__all__ = ["FlipLabels"]

_HOOK = "train_dataloader"


class FlipLabels(Callback):
    """Flips training labels of whatever data module the Trainer has, for the length of ``fit``.

    It does what :class:`~lightning_poison.datamodules.PoisonedDataModule` does, without a change to somebody's code::

        trainer:
          callbacks:
            - class_path: lightning_poison.callbacks.FlipLabels
              init_args:
                poison:
                  class_path: lightning_poison.poisons.LabelFlips
                  init_args:
                    select: {class_path: lightning_poison.poisons.RandomPoints, init_args: {per_class: 10}}

    What a resumed run shares with an uninterrupted one is said there, too.

    A new class (``NewClass``) needs a model with one more output; here nobody can link it to the data.

    Args:
        poison: the strategy; None: no flip, and the same order of the training points as with flips.
        seed: of the strategy's draws and of the order of the training points.

    Raises:
        UserError: (when ``fit`` begins) the Trainer has no data module, or one that flips labels already.
    """

    def __init__(self, poison: Poison | None = None, seed: int = 0) -> None:
        super().__init__()
        self.training_flips = TrainingFlips(poison, seed)
        self._wrapped: Any = None
        self._own_hook: Any = None

    @property
    def flips(self) -> PoisonList | None:
        """The run's flips; None before training data were asked for."""
        return self.training_flips.flips

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand between the Trainer and the data module's training loader."""
        if stage != "fit":
            return
        datamodule = trainer.datamodule
        if datamodule is None:
            raise UserError(
                "FlipLabels cannot flip the labels of loaders passed to fit; pass a data module of the "
                "Trainer's own Lightning package (fit(model, datamodule=...)), or build the loader over "
                "PoisonedDataset(dataset, flips)"
            )
        if isinstance(datamodule, PoisonedDataModule):
            raise UserError("the data module flips labels already; use PoisonedDataModule or FlipLabels, not both")
        self._release()
        self._wrapped, self._own_hook = datamodule, vars(datamodule).get(_HOOK)
        clean_loader = getattr(datamodule, _HOOK)
        owner = type(datamodule).__name__
        num_classes = getattr(datamodule, "num_classes", None)
        declared = num_classes if isinstance(num_classes, int) else None

        def train_dataloader() -> Any:
            return self.training_flips.poisoned_loader(clean_loader(), owner, trainer, declared)

        setattr(datamodule, _HOOK, train_dataloader)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the data module its own training loader back."""
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the data module its own training loader back."""
        self._release()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note whose folder is this run's, for the run that goes on from here."""
        note_run(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        recall_run(trainer, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Seed and flips."""
        return self.training_flips.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over seed and flips of the run that is resumed."""
        self.training_flips.load_state_dict(state_dict)

    def _release(self) -> None:
        if self._wrapped is None:
            return
        if self._own_hook is None:
            delattr(self._wrapped, _HOOK)
        else:
            setattr(self._wrapped, _HOOK, self._own_hook)
        self._wrapped = self._own_hook = None
