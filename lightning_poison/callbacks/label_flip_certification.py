"""How many changed training labels each prediction of a certified learner withstands."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_poison.callbacks.base import Measurement, report_folder
from lightning_poison.callbacks.certification_data import EvaluationPoints, TrainingInputs
from lightning_poison.callbacks.evaluation import first_of
from lightning_poison.callbacks.progress import progress
from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    CertifiedRidge,
    certification_section,
    default_radii,
)
from lightning_poison.datamodules.labels import dataset_labels
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.report import Section

__all__ = ["LabelFlipCertification"]

_FAST_DEV_POINTS = 1000


class LabelFlipCertification(Measurement):
    """Certify a learner against label flips, beside the victim.

    The learner is fitted to the training set as poisoned and evaluated on the validation set at the end of ``fit``
    (and in ``validate``) and on the test set in ``test``. Its certificates say
    nothing about the victim: they show what the same data
    allow a learner that flips cannot mislead, and the report says so next to every number. Only the first evaluation
    loader is used; samples that a distributed sampler repeats count once.

    Logs ``cert/acc_at_R`` for each radius R (the share of points classified as their clean label whatever R training
    labels are changed), ``cert/acc_at_0`` (natural accuracy), ``cert/radius_median`` and ``cert/radius_mean`` (in
    labels); writes ``certificates.csv`` (index, label, prediction, radius) to the report folder. The numbers do not
    depend on the epoch: they are computed once for each pair of training and evaluation set.

    The training set must be map-style. In ``test`` and ``validate`` without a ``fit`` before, it comes from the data
    module; with loaders alone nothing can be certified, which a warning says. With random augmentation the learner is
    trained on one fixed draw of it.

    Args:
        method: the certified learner; None: ridge regression on random convolutions, which suits images and vectors
            of any size, with exact certificates.
        radii: numbers R of changed labels to report; None: 0, 1, 2, 5, 10, ... up to the size of a class, above which
            no fair learner gets.
        max_samples: certify at most so many evaluation points (the first ones); None: all.
        every_n_epochs: log after every n-th epoch of ``fit`` and after the last one; None: after the last only.
        suffix: ends the keys and the file name, to tell several instances apart.

    Raises:
        UserError: a radius is negative.

    Example:
        >>> LabelFlipCertification(CertifiedRidge(regularisation=1.0), radii=[0, 100]).radii
        [0, 100]
    """

    def __init__(
        self,
        method: CertifiedLearner | None = None,
        radii: list[int] | None = None,
        max_samples: int | None = None,
        every_n_epochs: int | None = None,
        suffix: str = "",
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.method = method if method is not None else CertifiedRidge()
        for radius in radii or []:
            check_integer("radii", radius, minimum=0, remedy="a radius counts changed labels")
        self.radii = None if radii is None else sorted({0, *radii})
        self.suffix = f"_{suffix}" if suffix else ""
        self._training: _Training | None = None
        self._measured: _Measured | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Nothing is measured yet."""
        super().on_fit_start(trainer, pl_module)
        self._measured = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the validation set, after the epoch's own validation."""
        if self.is_due(trainer):
            self.log_values(trainer, pl_module, self._measure(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now if the last epoch came unannounced: early stopping decides after every other callback."""
        if self._measured is None:
            self.log_at_end(trainer, self._measure(trainer))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the validation set in ``validate``."""
        if trainer.state.fn == "validate":
            self.log_values(trainer, pl_module, self._measure(trainer))

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the test set."""
        self.log_values(trainer, pl_module, self._measure(trainer))

    def report_sections(self) -> list[Section]:
        """Guarantee, table and curve of the last measurement."""
        if (measured := self._measured) is None:
            return []
        return [certification_section(measured.points, measured.training.learner, measured.radii)]

    def report_notes(self) -> dict[str, str]:
        """For each logged key, what the number is about and how far it reaches."""
        if (measured := self._measured) is None:
            return {}
        note = measured.training.learner.note()
        return dict.fromkeys(measured.points.values(measured.radii, self.suffix), note)

    def _measure(self, trainer: Any) -> dict[str, float]:
        """The values to log, empty where there is nothing to certify with; writes the table."""
        loader = first_of(trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders)
        max_batches = first_of(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
        if loader is None or not max_batches:
            rank_zero_warn("LabelFlipCertification needs evaluation data, got none; pass a validation loader")
            return {}
        source = _training_loader(trainer)
        if source is None and self._training is None:
            rank_zero_warn(
                "LabelFlipCertification needs the training data, got evaluation loaders only; pass a data module "
                "that has a train_dataloader, or fit first with the same Trainer"
            )
            return {}
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            kept_random_state(seed=0),
        ):  # the same augmentation on every rank
            training = self._prepare(trainer, source)
            measured = self._measured
            if measured is None or not measured.is_of(training, loader.dataset, max_batches):
                points = self._certify(trainer, training, loader, max_batches)
                radii = self.radii or default_radii(training.labels)
                measured = self._measured = _Measured(training, loader.dataset, max_batches, points, radii)
        folder = report_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            write_atomically(folder / f"certificates{self.suffix}.csv", measured.points.csv())
        return measured.points.values(measured.radii, self.suffix)

    def _prepare(self, trainer: Any, loader: Any) -> _Training:
        """The fitted learner; a new one only for a new training set or new labels."""
        if self._training is not None and (loader is None or self._training.is_of(loader.dataset)):
            return self._training
        dataset = loader.dataset
        count = min(len(dataset), _FAST_DEV_POINTS) if trainer.fast_dev_run else len(dataset)
        labels = dataset_labels(dataset)
        declared = getattr(trainer.datamodule, "num_classes", None)
        num_classes = max(int(labels.max()) + 1, declared if isinstance(declared, int) else 0)
        learner = self.method
        with progress(trainer, "certificate: training features", count) as advance:
            learner.fit(TrainingInputs(loader, count), labels[:count], num_classes, advance)
        self._training = _Training(dataset, labels, learner)
        return self._training

    def _certify(self, trainer: Any, training: _Training, loader: Any, max_batches: int) -> CertifiedPoints:
        """Certify this rank's share of the evaluation points, then join the shares of all ranks."""
        share: CertifiedPoints | str
        try:
            share = self._certify_share(trainer, training, loader, max_batches)
        except UserError as error:
            share = str(error)  # the others wait for this rank in the exchange; they must hear of it
        shares = _from_all_ranks(trainer, share)
        for other in shares:
            if isinstance(other, str):
                raise UserError(other)
        return CertifiedPoints.merge([other for other in shares if isinstance(other, CertifiedPoints)])

    def _certify_share(self, trainer: Any, training: _Training, loader: Any, max_batches: int) -> CertifiedPoints:
        points = EvaluationPoints(trainer, loader, max_batches, self.max_samples)
        features = training.learner.transform(points)
        with progress(trainer, "certificate: evaluation points", len(features)) as advance:
            certificate = training.learner.certify_features(features, advance)
        return CertifiedPoints(*points.index_and_labels(), certificate)


@dataclass(frozen=True)
class _Training:
    """A training set and the learner fitted to it."""

    dataset: Any
    labels: Tensor
    learner: CertifiedLearner

    def is_of(self, dataset: Any) -> bool:
        """Whether the learner is the one of this data set with its present labels."""
        return dataset is self.dataset and torch.equal(dataset_labels(dataset), self.labels)


@dataclass(frozen=True)
class _Measured:
    """The last measurement."""

    training: _Training
    dataset: Any
    max_batches: int
    points: CertifiedPoints
    radii: list[int]

    def is_of(self, training: _Training, dataset: Any, max_batches: int) -> bool:
        """Whether it was of this training set and this much of this evaluation set."""
        return self.training is training and self.dataset is dataset and self.max_batches == max_batches


def _training_loader(trainer: Any) -> DataLoader[Any] | None:
    """The loader of the training set; None where the Trainer knows none."""
    loaders = trainer.train_dataloader
    data = trainer.datamodule
    if loaders is None and data is not None and _has_training_loader(data):
        data.setup("fit")
        loaders = data.train_dataloader()
    loader = first_of(loaders)
    if loader is None:
        return None
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise UserError(
            f"LabelFlipCertification needs a map-style training set, got {type(dataset or loader).__name__}; "
            "give the data set __len__ and __getitem__"
        )
    return loader  # type: ignore[no-any-return]  # Lightning's loaders are Any


def _has_training_loader(data: Any) -> bool:
    """Whether a data module has a method of its own; the one that it inherits from Lightning only raises."""
    return not type(data).train_dataloader.__module__.endswith(".core.hooks")


def _from_all_ranks(trainer: Any, share: CertifiedPoints | str) -> list[CertifiedPoints | str]:
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [share]
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)
    return shares
