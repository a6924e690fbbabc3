"""Any data module, with some training labels flipped."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from lightning_poison._lightning import LightningDataModule, lightning_packages
from lightning_poison.datamodules.model_outputs import check_input
from lightning_poison.datamodules.train_loader import check_train_loader
from lightning_poison.datamodules.training_flips import TrainingFlips
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.poisons import Poison, PoisonList
from lightning_poison.trainer.runs import RunKeeper

__all__ = ["PoisonedDataModule", "call_with_stage"]

_OPTIONAL_HOOKS = (
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "transfer_batch_to_device",
    "on_before_batch_transfer",
    "on_after_batch_transfer",
)
_NEEDED = {"validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}
_HYPERPARAMETERS = ("_hparams", "_hparams_initial", "_hparams_name", "_log_hyperparams")


class PoisonedDataModule(LightningDataModule):
    """Flips training labels of any LightningDataModule, of ``pytorch_lightning`` or ``lightning``.

    Validation, test and prediction data stay clean, and everything else is the inner data module's: what it does not
    define (a validation loader, a transfer hook) is not defined here either, and what it has is read and written there
    (``batch_size``, as Lightning's Tuner does; its hyperparameters, which are logged and kept as its own). A training
    loader with ``shuffle=True`` is shuffled by seed and epoch instead. The flips are drawn when the training loader is
    first asked for, stand in the checkpoint, win over the arguments on resume, and are written to
    ``LOG_DIR/report/flips.csv``.

    A run that goes on from a checkpoint has the flips and the order of the points of an uninterrupted one, with any
    number of loader workers. Dropout, random augmentation, and loaders that shuffle in another way than
    ``shuffle=True`` draw from the global generators, which no checkpoint holds: they are the uninterrupted run's with
    :class:`~lightning_poison.callbacks.EpochSeed` among the Trainer's callbacks, and other ones without it.

    Args:
        datamodule: the clean data; its training loader is one ``DataLoader`` (it may stand in a list of one) over
            (input, label, ...) items.
        poison: the strategy; None: the clean twin, with the same order of the training points and no flip.
        seed: of the strategy's draws and of the order of the training points.

    Raises:
        UserError: ``datamodule`` is no LightningDataModule, or is poisoned already.

    Example:
        >>> from lightning_poison.datamodules import Digits
        >>> from lightning_poison.poisons import LabelFlips, NewClass, RandomPoints
        >>> data = PoisonedDataModule(Digits(), LabelFlips(RandomPoints(per_class=3), NewClass()), seed=0)
        >>> data.setup("fit")
        >>> len(data.flips), data.num_classes, data.clean_num_classes
        (30, 11, 10)
    """

    def __init__(self, datamodule: Any, poison: Poison | None = None, seed: int = 0) -> None:
        kinds = tuple(package.LightningDataModule for package in lightning_packages())
        if not isinstance(datamodule, kinds) or isinstance(datamodule, PoisonedDataModule):
            raise UserError(
                f"datamodule must be a clean LightningDataModule, got {type(datamodule).__name__}; "
                "wrap data sets and loaders in one, or use PoisonedDataset"
            )
        super().__init__()
        for name in _HYPERPARAMETERS:  # Lightning has begun to keep those of this object
            vars(self).pop(name, None)
        self.datamodule = datamodule
        self.training_flips = TrainingFlips(poison, seed)
        self._keeper = RunKeeper()
        self.prepare_data_per_node = datamodule.prepare_data_per_node
        self.allow_zero_length_dataloader_with_multiple_devices = (
            datamodule.allow_zero_length_dataloader_with_multiple_devices
        )
        for hook in _OPTIONAL_HOOKS:
            # Either Lightning takes None for "not defined", but the other package's placeholder for a definition.
            setattr(self, hook, getattr(datamodule, hook) if _defines(datamodule, hook) else None)
        if declared_classes(datamodule) is not None:
            _ = self.num_classes  # a strategy that does not fit the classes is refused at once

    @property
    def trainer(self) -> Any:
        """The Trainer that the data module is attached to; the inner one is attached to the same."""
        return self.datamodule.trainer

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        if trainer is not None:
            self.datamodule.trainer = trainer

    @property
    def hparams(self) -> Any:
        """The inner data module's hyperparameters; what is written there reaches it."""
        return self.datamodule.hparams

    @property
    def hparams_initial(self) -> Any:
        """The inner data module's hyperparameters as they were saved; loggers take them."""
        return self.datamodule.hparams_initial

    @property
    def poison(self) -> Poison | None:
        """The strategy that was asked for."""
        return self.training_flips.poison

    @property
    def seed(self) -> int:
        """The seed in use; after a resume that of the resumed run."""
        return self.training_flips.seed

    @property
    def clean_num_classes(self) -> int:
        """Number of classes of the clean data: the inner ``num_classes``, else the highest training label plus one."""
        declared = declared_classes(self.datamodule)
        if declared is not None:
            return declared
        return self.training_flips.training_set(self._clean_loader(), None).num_classes

    @property
    def num_classes(self) -> int:
        """Number of classes of the poisoned data: one more than the clean data's where flips go to a new class."""
        return self.training_flips.num_classes_after(self.clean_num_classes)

    @property
    def class_names(self) -> list[str]:
        """The inner data module's names of the classes, and one for a class that the flips add."""
        names = list(self.datamodule.class_names)
        return names + ["new class"] * (self.num_classes - len(names))

    @property
    def flips(self) -> PoisonList:
        """The run's flips; drawn now if the inner data module is set up and no loader was asked for yet."""
        if self.training_flips.flips is None:
            return self.training_flips.draw(self._clean_loader(), declared_classes(self.datamodule))
        return self.training_flips.flips

    def check_model(self, model: Any, try_input: bool = False) -> None:
        """Refuse a model that cannot learn the flipped labels; the inner data module must be set up.

        Args:
            model: a LightningModule.
            try_input: whether the model must take a training input, too.

        Raises:
            UserError: the data cannot be poisoned, or the model does not fit them.
        """
        loader = self._clean_loader()
        if getattr(rank_zero_only, "rank", 0) == 0:  # who draws the flips for all; the others learn them in the run
            self.training_flips.check_model(model, loader, declared_classes(self.datamodule))
        if try_input:
            check_input(model, loader.dataset)

    def has_loader(self, hook: str) -> bool:
        """Whether the inner data module defines a loader hook such as ``"test_dataloader"``."""
        return _defines(self.datamodule, hook)

    def prepare_data(self) -> None:
        """Let the inner data module download."""
        self.datamodule.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set up the inner data module.

        Args:
            stage: as Lightning says; None: the inner ``setup`` is called without one. It need not take any.

        Raises:
            UserError: the stage needs a loader that the inner data module does not define.
        """
        needed = {"validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}.get(
            stage or ""
        )
        if needed is not None and not self.has_loader(needed):
            run = str(getattr(stage, "value", stage))
            owner = type(self.datamodule).__name__
            raise UserError(f"{owner} has no {needed}, which {run} needs; define it, or pass a loader to {run}")
        if self.trainer is not None and self._keeper.begins(self.trainer, str(getattr(stage, "value", stage))):
            self.training_flips.begin_run()
        call_with_stage(self.datamodule.setup, stage)

    def train_dataloader(self) -> Any:
        """The inner training loader, over flipped labels."""
        owner = type(self.datamodule).__name__
        loader = self._loader_as_given()
        return self.training_flips.poisoned_loader(loader, owner, self.trainer, declared_classes(self.datamodule))

    def teardown(self, stage: str | None = None) -> None:
        """Tear down the inner data module."""
        call_with_stage(self.datamodule.teardown, stage)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the inner data module."""
        self.datamodule.on_exception(exception)

    def state_dict(self) -> dict[str, Any]:
        """Seed, flips and the inner data module's state."""
        return {**self.training_flips.state_dict(), "datamodule": self.datamodule.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over seed, flips and inner state of the run that is resumed."""
        self.training_flips.load_state_dict(state_dict)
        if state_dict["datamodule"]:
            self.datamodule.load_state_dict(state_dict["datamodule"])

    def __getattr__(self, name: str) -> Any:
        """What is not defined here is the inner data module's."""
        if name.startswith("__") or "datamodule" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.datamodule, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What is not of this object, but of the inner data module, is written there."""
        own = "datamodule" not in vars(self) or name in vars(self) or hasattr(type(self), name)
        if own or not (name in _HYPERPARAMETERS or _has(self.datamodule, name)):
            super().__setattr__(name, value)
        else:
            setattr(self.datamodule, name, value)

    def _clean_loader(self) -> Any:
        return check_train_loader(self._loader_as_given(), type(self.datamodule).__name__)

    def _loader_as_given(self) -> Any:
        if not _defines(self.datamodule, "train_dataloader"):
            owner = type(self.datamodule).__name__
            raise UserError(f"{owner} has no train_dataloader; there are no training labels to flip")
        return self.datamodule.train_dataloader()


def call_with_stage(hook: Callable[..., Any], stage: str | None) -> None:
    """Call a data module's ``setup`` or ``teardown``, without a stage where it takes none or none is given.

    Example:
        >>> call_with_stage(lambda: print("all"), "fit")
        all
        >>> call_with_stage(lambda stage=None: print(stage), "fit")
        fit
    """
    try:
        takes_none = not inspect.signature(hook).parameters
    except (TypeError, ValueError):  # not written in Python
        takes_none = False
    if takes_none or stage is None:
        hook()
    else:
        hook(stage)


def _has(datamodule: Any, name: str) -> bool:
    try:
        return hasattr(datamodule, name)
    except Exception:  # noqa: BLE001  # a property that fails, as many do before ``setup``
        return True


def _defines(datamodule: Any, hook: str) -> bool:
    """Whether ``datamodule`` defines ``hook`` itself, rather than inheriting Lightning's placeholder."""
    if getattr(datamodule, hook, None) is None:
        return False
    if hook in vars(datamodule):
        return True
    owner = next(base for base in type(datamodule).__mro__ if hook in vars(base))
    return not owner.__module__.startswith(("pytorch_lightning.", "lightning.pytorch."))
