"""One run's flips: drawn once, applied to the training loader, kept in the checkpoint, written beside the logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

import lightning_poison
from lightning_poison.datamodules.epoch_shuffle import EpochShuffle
from lightning_poison.datamodules.fingerprint import fingerprint
from lightning_poison.datamodules.labels import dataset_labels
from lightning_poison.datamodules.model_outputs import check_outputs
from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset, find_poisoned_dataset
from lightning_poison.datamodules.run_folder import report_folder
from lightning_poison.datamodules.train_loader import check_train_loader, plain_shuffle, with_dataset
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.poisons import FlipList, Poison, TrainingSet
from lightning_poison.poisons.description import describe

__all__ = ["TrainingFlips"]


class TrainingFlips:
    """What :class:`PoisonedDataModule` and :class:`FlipLabels` have in common.

    Args:
        poison: the strategy; None: no label is flipped, and all else is as it would be with flips.
        seed: of the strategy's draws and of the order of the training points.
    """

    def __init__(self, poison: Poison | None, seed: int) -> None:
        if poison is not None and not isinstance(poison, Poison):
            raise UserError(f"poison must be a Poison such as LabelFlips(RandomPoints()), got {poison!r}")
        self.poison = poison
        self.seed = check_integer("seed", seed, minimum=0)
        self.flips: FlipList | None = None
        self._restored = False
        self._seen: tuple[Any, TrainingSet] | None = None

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data."""
        return num_classes if self.poison is None else self.poison.num_classes_after(num_classes)

    def training_set(self, dataset: Any, num_classes: int | None) -> TrainingSet:
        """The clean labels and the fingerprint of ``dataset``, read once.

        Args:
            dataset: map-style data set.
            num_classes: None: the highest label plus one.

        Raises:
            UserError: the labels cannot be read, or the data set is poisoned already.
        """
        if find_poisoned_dataset(dataset) is not None:
            raise UserError("the training set is poisoned already; use one PoisonedDataModule or FlipLabels, not two")
        if self._seen is None or self._seen[0] is not dataset:
            labels = dataset_labels(dataset)
            classes = num_classes if num_classes is not None else int(labels.max()) + 1
            self._seen = dataset, TrainingSet(labels, classes, fingerprint(dataset, labels), dataset)
        return self._seen[1]

    def draw(self, dataset: Any, num_classes: int | None) -> FlipList:
        """The run's flips: the restored ones after a resume, else drawn now and remembered.

        Raises:
            UserError: the strategy does not fit the data, or the restored flips belong to other data.
        """
        training_set = self.training_set(dataset, num_classes)
        num_classes_after = self.num_classes_after(training_set.num_classes)
        if self.flips is None:
            self.flips = (
                FlipList.empty(self._clean_provenance(training_set))
                if self.poison is None
                else self.poison.flips(training_set, self.seed)
            )
        elif self._restored:
            self._compare_strategies(self.flips, num_classes_after)
            self._restored = False
        return self.flips.check(training_set, num_classes_after)

    def poisoned_loader(self, loader: Any, owner: str, trainer: Any, num_classes: int | None) -> DataLoader[Any]:
        """The training loader over the flipped labels.

        Args:
            loader: what ``owner``'s ``train_dataloader`` returned.
            owner: name of the data module.
            trainer: the running Trainer, or None outside a run.
            num_classes: of the clean data; None: the highest label plus one.

        Raises:
            UserError: the loader or its data cannot be poisoned.
        """
        clean = check_train_loader(loader, owner)
        flips = self.draw(clean.dataset, num_classes)
        if trainer is not None:
            self._check_ranks(trainer, flips)
            if not _shards_weights(trainer):
                self.check_model(getattr(trainer, "lightning_module", None), clean.dataset, num_classes)
            self._write(trainer, flips)
        sampler = None
        if plain_shuffle(clean):
            sampler = EpochShuffle(len(clean.dataset), self.seed, trainer, **_ranks(trainer))  # type: ignore[arg-type]
        return with_dataset(clean, PoisonedDataset(clean.dataset, flips), sampler)

    def check_model(self, model: Any, dataset: Any, num_classes: int | None) -> None:
        """Refuse a model without an output for a class that the flips add.

        Raises:
            UserError: the model has too few outputs.
        """
        flips = self.draw(dataset, num_classes)
        check_outputs(model, dataset, flips, self.training_set(dataset, num_classes).num_classes)

    def state_dict(self) -> dict[str, Any]:
        """Seed and flips, as tensors and plain Python."""
        return {"seed": self.seed, "flips": None if self.flips is None else self.flips.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the seed and the flips of the run that is resumed."""
        self.seed = int(state["seed"])
        if state["flips"] is not None:
            self.flips = FlipList.from_state_dict(state["flips"])
            self._restored = True

    def _clean_provenance(self, training_set: TrainingSet) -> dict[str, Any]:
        return {
            "strategy": None,
            "seed": self.seed,
            "fingerprint": training_set.fingerprint,
            "num_points": training_set.num_points,
            "num_classes": training_set.num_classes,
            "num_classes_after": training_set.num_classes,
            "package_version": lightning_poison.__version__,
        }

    def _compare_strategies(self, flips: FlipList, num_classes_after: int) -> None:
        was, now = flips.provenance.get("strategy"), None if self.poison is None else describe(self.poison)
        recorded = flips.provenance.get("num_classes_after", num_classes_after)
        if recorded != num_classes_after:
            raise UserError(
                f"the checkpoint was trained with poison {was} ({recorded} classes), got poison {now} "
                f"({num_classes_after} classes); resume with the same poison, or train anew without ckpt_path"
            )
        if was != now:
            rank_zero_warn(
                f"The run is resumed with the checkpoint's flips ({was}); poison {now} is not used. "
                "To use it, train anew without ckpt_path."
            )

    @staticmethod
    def _check_ranks(trainer: Any, flips: FlipList) -> None:
        if trainer.world_size == 1:
            return
        mine = flips.provenance.get("fingerprint")
        first = trainer.strategy.broadcast(mine)
        if mine != first:
            raise UserError(
                f"every rank must see the same training set, got fingerprint {mine} on rank {trainer.global_rank} "
                f"and {first} on rank 0; make the order of the training points the same in every process"
            )

    @staticmethod
    def _write(trainer: Any, flips: FlipList) -> None:
        folder = report_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            flips.write(folder / "flips.csv")


def _shards_weights(trainer: Any) -> bool:
    return type(trainer.strategy).__name__.startswith(("FSDP", "DeepSpeed", "ModelParallel"))


def _ranks(trainer: Any) -> dict[str, int]:
    if trainer is None or trainer.world_size == 1:
        return {}
    connector = getattr(trainer, "_accelerator_connector", None)
    if not getattr(connector, "use_distributed_sampler", True):
        return {}
    dealt = trainer.distributed_sampler_kwargs
    return {} if dealt is None else {"num_replicas": dealt["num_replicas"], "rank": dealt["rank"]}
