"""One run's flips: drawn once, applied to the training loader, kept in the checkpoint, written beside the logs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset

import lightning_poison
from lightning_poison.datamodules.labels import dataset_labels, fingerprint
from lightning_poison.datamodules.model_outputs import check_outputs
from lightning_poison.datamodules.poisoned_dataset import PoisonedDataset, ReadingCount, find_poisoned_dataset
from lightning_poison.datamodules.train_loader import (
    EpochShuffle,
    as_given,
    check_train_loader,
    in_order,
    plain_shuffle,
    watch_arrival,
    with_dataset,
)
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_kind
from lightning_poison.functional.progress import show_progress
from lightning_poison.poisons import FlipList, Poison, PoisonList, TrainingSet
from lightning_poison.poisons.description import describe
from lightning_poison.poisons.from_file import restored_poisons
from lightning_poison.trainer.folders import report_folder
from lightning_poison.trainer.positions import trained_positions, without_repeats
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
        self.seed = self._own_seed = check_integer("seed", seed, minimum=0)
        self.flips: PoisonList | None = None
        self._restored = False
        self._previewed = self._from_checkpoint = False
        self._said: str | None = None
        self._seen: tuple[Any, Tensor, TrainingSet] | None = None

    def begin_run(self) -> None:
        """What an earlier run took over from its checkpoint is none of a new one's; other data get other flips."""
        if self._from_checkpoint:
            self.flips, self.seed = None, self._own_seed
        self._from_checkpoint = self._restored = False
        self._previewed = True

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data."""
        return num_classes if self.poison is None else self.poison.num_classes_after(num_classes)

    def training_set(self, loader: DataLoader[Any], num_classes: int | None, trainer: Any = None) -> TrainingSet:
        """The clean labels and the fingerprint of the points that a loader yields, read once.

        Args:
            loader: over a map-style data set.
            num_classes: None: the highest label plus one.
            trainer: of a run, which may train on a part of the points; None: outside of a run.

        Raises:
            UserError: the labels cannot be read, nobody can tell which points are trained on, or the data set is
                poisoned already.
        """
        dataset = loader.dataset
        if find_poisoned_dataset(dataset) is not None:
            raise UserError("the training set is poisoned already; use one PoisonedDataModule or FlipLabels, not two")
        positions = _trained_on(loader, trainer)
        whole = len(positions) == len(dataset)  # type: ignore[arg-type]  # map-style
        if self._seen is None or self._seen[0] is not dataset or not self._seen[1].equal(positions):
            labels = dataset_labels(dataset)[positions]
            found = TrainingSet(
                labels,
                num_classes if num_classes is not None else int(labels.max()) + 1,
                fingerprint(dataset, labels, None if whole else positions),
                dataset if whole else Subset(dataset, positions.tolist()),
                progress=show_progress,
                positions=None if whole else positions,
            )
            self._seen = (dataset, positions, found)
        return self._seen[2]

    def draw(self, loader: DataLoader[Any], num_classes: int | None, trainer: Any = None) -> PoisonList:
        """The run's flips: the restored ones after a resume, else drawn now and remembered.

        Args:
            loader: over the clean data.
            num_classes: of the clean data; None: the highest label plus one.
            trainer: of a run, whose rank zero draws for all ranks: flips that a network chose depend on the last bits
                of sums, which differ between machines. None: this process draws for itself.

        Raises:
            UserError: the strategy does not fit the data, the restored flips belong to other data, or the ranks do not
                see the same data.
        """
        if trainer is None or trainer.world_size == 1:
            self.flips = self._drawn(self.training_set(loader, num_classes, trainer), trainer is not None)
            return self.flips
        _check_ranks(trainer, lambda: self.training_set(loader, num_classes, trainer))
        training_set = self.training_set(loader, num_classes, trainer)
        drawn = from_rank_zero(trainer, lambda: self._drawn(training_set, in_run=True).state_dict())
        self.flips, self._restored = restored_poisons(drawn), False
        return self.flips

    def _drawn(self, training_set: TrainingSet, in_run: bool) -> PoisonList:
        num_classes_after = self.num_classes_after(training_set.num_classes)
        flips = self.flips
        if flips is not None and self._previewed and flips.provenance["fingerprint"] != training_set.fingerprint:
            flips = None  # drawn outside of the run, which trains on other points of the data
        if flips is None:
            self._previewed = not in_run
            flips = (
                FlipList.empty(self._clean_provenance(training_set))
                if self.poison is None
                else self.poison.craft(training_set, self.seed)
            )
        elif self._restored:
            self._compare_strategies(flips, num_classes_after)
            self._restored = False
        return flips.check(training_set, num_classes_after)

    def poisoned_loader(self, loader: Any, owner: str, trainer: Any, num_classes: int | None) -> Any:
        """The training loader over the flipped labels, in a list of one where ``loader`` is such a list.

        Args:
            loader: what ``owner``'s ``train_dataloader`` returned.
            owner: name of the data module.
            trainer: the running Trainer, or None outside a run.
            num_classes: of the clean data; None: the highest label plus one.

        Raises:
            UserError: the loader or its data cannot be poisoned.
        """
        clean = check_train_loader(loader, owner)
        flips = self.draw(clean, num_classes, trainer)
        if trainer is not None:
            if not shards_weights(trainer):
                self.check_model(getattr(trainer, "lightning_module", None), clean, num_classes, trainer)
            self._write(trainer, flips)
        self._remark(flips)
        poisoned = PoisonedDataset(clean.dataset, flips, ReadingCount(clean.num_workers))
        sampler: Sampler[int] | None = None
        if plain_shuffle(clean):
            count = len(poisoned) - flips.num_added
            sampler = EpochShuffle(count, self.seed, trainer, **_ranks(trainer), added=flips.num_added)
        elif flips.num_added:
            sampler = in_order(clean, poisoned)
        rebuilt = with_dataset(clean, poisoned, sampler)
        if trainer is not None and poisoned.reading is not None and len(flips):
            watch_arrival(trainer, rebuilt, poisoned.reading)
        return as_given(loader, rebuilt)

    def check_model(self, model: Any, loader: DataLoader[Any], num_classes: int | None, trainer: Any = None) -> None:
        """Refuse a model without an output for a class that the flips add.

        Raises:
            UserError: the model has too few outputs.
        """
        flips = self.flips if trainer is not None and self.flips is not None else self.draw(loader, num_classes)
        training_set = self.training_set(loader, num_classes, trainer)
        check_outputs(model, loader.dataset, flips, training_set.num_classes)

    def state_dict(self) -> dict[str, Any]:
        """Seed and flips, as tensors and plain Python."""
        return {"seed": self.seed, "flips": None if self.flips is None else self.flips.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the seed and the flips of the run that is resumed."""
        self.seed, self._from_checkpoint = int(state["seed"]), True
        if state["flips"] is not None:
            self.flips = restored_poisons(state["flips"])
            self._restored, self._previewed = True, False

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

    def _remark(self, flips: PoisonList) -> None:
        """Say once what is odd about the flips."""
        remark = flips.provenance.get("remark")
        if remark is not None and remark != self._said:
            self._said = remark
            rank_zero_warn(remark)

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


def _trained_on(loader: DataLoader[Any], trainer: Any) -> Tensor:
    """The points that a run trains on, of a loader that it has not dealt to its ranks yet: shape (m,), int64, rising.

    Every rank must ask, where there are several.
    """
    if trainer is None:
        return trained_positions(loader)
    ranks = trainer.world_size if _deals(trainer) else 1
    batches = _max_batches(loader, trainer, ranks)
    if trainer.overfit_batches:  # Lightning turns shuffling off
        size = (loader.batch_size or 1) * ranks
        return torch.arange(int(min(batches * size, len(loader.dataset))))  # type: ignore[arg-type]  # map-style
    mine = trained_positions(loader, batches, ranks)
    if trainer.world_size == 1 or _deals(trainer):
        return mine
    return without_repeats(torch.cat(from_all_ranks(trainer, lambda: mine)))


def _max_batches(loader: DataLoader[Any], trainer: Any, ranks: int) -> float:
    """How many batches of an epoch each rank trains on."""
    limit = trainer.limit_train_batches
    if limit is None or (limit == 1.0 and isinstance(limit, float)):
        return float("inf")
    if isinstance(limit, int):
        return limit
    try:
        batches = len(loader)
    except TypeError:  # of somebody's own, without a length
        return float("inf")
    return int(math.ceil(batches / ranks) * limit)


def _deals(trainer: Any) -> bool:
    """Whether Lightning deals the points of a loader to the ranks."""
    return bool(getattr(getattr(trainer, "_accelerator_connector", None), "use_distributed_sampler", True))


def _ranks(trainer: Any) -> dict[str, int]:
    if trainer is None or trainer.world_size == 1 or not _deals(trainer):
        return {}
    dealt = trainer.distributed_sampler_kwargs
    return {} if dealt is None else {"num_replicas": dealt["num_replicas"], "rank": dealt["rank"]}
