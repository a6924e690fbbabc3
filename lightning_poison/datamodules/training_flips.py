"""One run's flips: drawn once, applied to the training loader, kept in the checkpoint, written beside the logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, Sampler

import lightning_poison
from lightning_poison.datamodules.epoch_shuffle import EpochShuffle
from lightning_poison.datamodules.fingerprint import fingerprint
from lightning_poison.datamodules.labels import dataset_labels
from lightning_poison.datamodules.model_outputs import check_outputs
from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset, find_poisoned_dataset
from lightning_poison.datamodules.train_loader import check_train_loader, in_order, plain_shuffle, with_dataset
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_kind
from lightning_poison.functional.progress import show_progress
from lightning_poison.poisons import FlipList, Poison, PoisonList, TrainingSet
from lightning_poison.poisons.description import describe
from lightning_poison.poisons.restoring import restored_poisons
from lightning_poison.trainer.folders import report_folder
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero, shards_weights

__all__ = ["TrainingFlips"]


class TrainingFlips:
    """What :class:`PoisonedDataModule` and :class:`FlipLabels` have in common.

    Args:
        poison: the strategy; None: no label is flipped, and all else is as it would be with flips.
        seed: of the strategy's draws and of the order of the training points.
    """

    def __init__(self, poison: Poison | None, seed: int) -> None:
        check_kind("poison", poison, Poison, "LabelFlips(RandomPoints())", optional=True)
        self.poison = poison
        self.seed = check_integer("seed", seed, minimum=0)
        self.flips: PoisonList | None = None
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
            self._seen = (
                dataset,
                TrainingSet(labels, classes, fingerprint(dataset, labels), dataset, progress=show_progress),
            )
        return self._seen[1]

    def draw(self, dataset: Any, num_classes: int | None, trainer: Any = None) -> PoisonList:
        """The run's flips: the restored ones after a resume, else drawn now and remembered.

        Args:
            dataset: the clean data.
            num_classes: of the clean data; None: the highest label plus one.
            trainer: of a run, whose rank zero draws for all ranks: flips that a network chose depend on the last bits
                of sums, which differ between machines. None: this process draws for itself.

        Raises:
            UserError: the strategy does not fit the data, the restored flips belong to other data, or the ranks do not
                see the same data.
        """
        if trainer is None or trainer.world_size == 1:
            self.flips = self._drawn(self.training_set(dataset, num_classes))
            return self.flips
        _check_ranks(trainer, lambda: self.training_set(dataset, num_classes))
        drawn = from_rank_zero(trainer, lambda: self._drawn(self.training_set(dataset, num_classes)).state_dict())
        self.flips, self._restored = restored_poisons(drawn), False
        return self.flips

    def _drawn(self, training_set: TrainingSet) -> PoisonList:
        num_classes_after = self.num_classes_after(training_set.num_classes)
        flips = self.flips
        if flips is None:
            flips = (
                FlipList.empty(self._clean_provenance(training_set))
                if self.poison is None
                else self.poison.craft(training_set, self.seed)
            )
        elif self._restored:
            self._compare_strategies(flips, num_classes_after)
            self._restored = False
        return flips.check(training_set, num_classes_after)

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
        flips = self.draw(clean.dataset, num_classes, trainer)
        if trainer is not None:
            if not shards_weights(trainer):
                self.check_model(getattr(trainer, "lightning_module", None), clean.dataset, num_classes)
            self._write(trainer, flips)
        poisoned = PoisonedDataset(clean.dataset, flips)
        sampler: Sampler[int] | None = None
        if plain_shuffle(clean):
            count = len(poisoned) - flips.num_added
            sampler = EpochShuffle(count, self.seed, trainer, **_ranks(trainer), added=flips.num_added)
        elif flips.num_added:
            sampler = in_order(clean, poisoned)
        return with_dataset(clean, poisoned, sampler)

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
            self.flips = restored_poisons(state["flips"])
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

    def _compare_strategies(self, flips: PoisonList, num_classes_after: int) -> None:
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
    def _write(trainer: Any, flips: PoisonList) -> None:
        def write() -> None:
            folder = report_folder(trainer)
            if folder is not None:
                flips.write(folder / flips.file_name)

        from_rank_zero(trainer, write)


def _check_ranks(trainer: Any, training_set: Callable[[], TrainingSet]) -> None:
    fingerprints = from_all_ranks(trainer, lambda: training_set().fingerprint)
    for rank, other in enumerate(fingerprints):
        if other != fingerprints[0]:
            raise UserError(
                f"every rank must see the same training set, got fingerprint {other} on rank {rank} and "
                f"{fingerprints[0]} on rank 0; make the order of the training points the same in every process"
            )


def _ranks(trainer: Any) -> dict[str, int]:
    if trainer is None or trainer.world_size == 1:
        return {}
    connector = getattr(trainer, "_accelerator_connector", None)
    if not getattr(connector, "use_distributed_sampler", True):
        return {}
    dealt = trainer.distributed_sampler_kwargs
    return {} if dealt is None else {"num_replicas": dealt["num_replicas"], "rank": dealt["rank"]}
