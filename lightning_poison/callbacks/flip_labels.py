"""Label flips as a callback, for a LightningCLI or a Trainer that is not ours."""

from __future__ import annotations

from typing import Any

from lightning_poison.callbacks.base import RunState
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.datamodules.training_flips import TrainingFlips
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.poisons import Poison, PoisonList
from lightning_poison.trainer.folders import note_run, recall_run

__all__ = ["FlipLabels"]

_HOOK = "train_dataloader"


class FlipLabels(RunState):
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

    Without a data module it flips the labels of the loader that the model's own ``train_dataloader`` makes. The number
    of classes is the data module's ``num_classes``, else the highest training label plus one: a model's ``num_classes``
    may count a class that the flips add.

    Args:
        poison: the strategy; None: no flip, and the same order of the training points as with flips.
        seed: of the strategy's draws and of the order of the training points.

    Raises:
        UserError: (when ``fit`` begins) loaders were passed to ``fit``, or labels are flipped already.
    """

    def __init__(self, poison: Poison | None = None, seed: int = 0) -> None:
        super().__init__()
        self.training_flips = TrainingFlips(poison, seed)
        self._wrapped: Any = None
        self._hook: Any = None
        self._own_hook: Any = None

    @property
    def flips(self) -> PoisonList | None:
        """The run's flips; None before training data were asked for."""
        return self.training_flips.flips

    def forget(self) -> None:
        """What an earlier run took over from its checkpoint is none of this one's."""
        self.training_flips.begin_run()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand between the Trainer and the training loader of the data module, or of the model."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        source = _source(trainer, pl_module)
        self._release()
        own_hook, clean_loader = vars(source).get(_HOOK), getattr(source, _HOOK)
        owner = type(source).__name__

        def train_dataloader() -> Any:
            loader, declared = clean_loader(), declared_classes(trainer.datamodule)
            return self.training_flips.poisoned_loader(loader, owner, trainer, declared)

        setattr(source, _HOOK, train_dataloader)
        self._wrapped, self._hook, self._own_hook = source, train_dataloader, own_hook

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the training loader back to whose it is."""
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the training loader back to whose it is."""
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
        source, hook, own_hook = self._wrapped, self._hook, self._own_hook
        self._wrapped = self._hook = self._own_hook = None
        if source is None or vars(source).get(_HOOK) is not hook:
            return  # nothing stands there, or what somebody else has put there since
        if own_hook is None:
            del vars(source)[_HOOK]
        else:
            vars(source)[_HOOK] = own_hook


def _source(trainer: Any, pl_module: Any) -> Any:
    """Whose ``train_dataloader`` the Trainer will ask: its data module's, else the model's."""
    datamodule = trainer.datamodule
    if isinstance(datamodule, PoisonedDataModule):
        raise UserError("the data module flips labels already; use PoisonedDataModule or FlipLabels, not both")
    if datamodule is not None:
        return datamodule
    if trainer.fit_loop._data_source.is_module():
        return pl_module
    raise UserError(
        "FlipLabels cannot flip the labels of loaders passed to fit; pass a data module of the Trainer's own Lightning "
        "package (fit(model, datamodule=...)), let the model's train_dataloader make the loader, or build it over "
        "PoisonedDataset(dataset, flips)"
    )
