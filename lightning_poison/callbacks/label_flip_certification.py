"""How many changed training labels each prediction of a certified learner withstands."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from lightning_poison.callbacks.base import Measurement, check_name, refuse_equal_names
from lightning_poison.callbacks.certification_data import EvaluationPoints, TrainingInputs
from lightning_poison.callbacks.certification_methods import (
    AttackedBaseline,
    certify_points,
    class_count,
    fit_methods,
    named_methods,
    with_any_label,
)
from lightning_poison.callbacks.training_points import fetch, the_training_loader, trained_on
from lightning_poison.certificates import CertifiedLearner, LabelFreeFeatures, UndefendedLogistic
from lightning_poison.certificates.certified_points import default_radii
from lightning_poison.certificates.section import CertifiedMethod, certification_section
from lightning_poison.certificates.undefended import AttackedPoints
from lightning_poison.datamodules import PoisonedDataset
from lightning_poison.datamodules.labels import dataset_labels
from lightning_poison.datamodules.poisoned import call_with_stage
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.report import LoggedMetric, Section
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import (
    EvaluatedSamples,
    evaluation_loader,
    first_items,
    max_evaluation_batches,
)
from lightning_poison.trainer.folders import report_folder
from lightning_poison.trainer.positions import yielded
from lightning_poison.trainer.progress import progress
from lightning_poison.trainer.ranks import from_rank_zero

__all__ = ["LabelFlipCertification"]

_FAST_DEV_POINTS = 1000
_UNDEFENDED = "undefended, attacked"


class LabelFlipCertification(Measurement):
    """Certify one learner or several against label flips, beside the victim.

    The learner is fitted to the training set as poisoned and evaluated on the validation set at the end of ``fit``
    (and in ``validate``) and on the test set in ``test``. Its certificates say nothing about the victim: they show what
    the same data allow a learner that flips cannot mislead, and the report says so next to every number. Only the first
    evaluation loader is used; samples that a distributed sampler repeats count once.

    Logs ``cert/acc_at_R`` for each radius R (the share of points classified as their clean label whatever R training
    labels are changed), ``cert/acc_at_0`` (natural accuracy), ``cert/radius_median`` and ``cert/radius_mean`` (in
    labels; 0 where a learner abstains) and, where one does, ``cert/abstained`` (the share of such points); of several
    methods each under its name, ``cert/acc_at_R_NAME``. Writes ``certificates.csv`` (index, label,
    prediction, radius) to the report folder, or one ``certificates_NAME.csv`` a method. The numbers do not depend on
    the epoch: they are computed once for each pair of training and evaluation set.

    The training set is the points that the training loader's sampler yields, and must be map-style. In ``test`` and
    ``validate`` without a ``fit`` before, it comes from the data module; with loaders alone nothing can be certified,
    which a warning says. With random augmentation the learner is trained on one fixed draw of it.

    Args:
        method: the certified learner, or several by name, to be compared in one table and one picture; None: ridge
            regression, with exact certificates.
        features: the feature map of every method that names none of its own, computed once for all of them; None:
            random convolutions, which suit images and vectors of any size.
        radii: numbers R of changed labels to report; None: 0, 1, 2, 5, 10, ... up to the size of a class, above which
            no fair learner gets.
        published: other people's certified accuracy by name, as {R: share}, drawn beside ours as marks.
        undefended: a learner without defence, for two classes, that stands on the features of the first method and is
            attacked: its accuracy after the flips that were found is drawn dotted, and written to ``attacked.csv``.
        undefended_points: attack it on at most so many points, evenly spread (about a second each).
        max_samples: certify at most so many evaluation points, drawn with a fixed seed, class by class where the data
            set tells its labels; None: all.
        every_n_epochs: log after every n-th epoch of ``fit`` and after the last one; None: after the last only.
        name: ends the keys and the file name, to tell several of these callbacks apart.
        any_label: certify each method twice: against labels of the declared classes, which holds where all others are
            refused before training, and against any label at all. The second numbers are smaller and stand under the
            method's name with ``_any_label`` behind it.

    Raises:
        UserError: a radius is negative, a method's name is not fit for a file, or a published share is no share.

    Example:
        >>> from lightning_poison.certificates import CertifiedRidge
        >>> LabelFlipCertification(CertifiedRidge(regularisation=1.0), radii=[0, 100]).radii
        [0, 100]
    """

    def __init__(
        self,
        method: CertifiedLearner | dict[str, CertifiedLearner] | None = None,
        features: LabelFreeFeatures | None = None,
        radii: list[int] | None = None,
        published: dict[str, dict[int, float]] | None = None,
        undefended: UndefendedLogistic | None = None,
        undefended_points: int = 100,
        max_samples: int | None = None,
        every_n_epochs: int | None = None,
        name: str | None = None,
        any_label: bool = False,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.methods = named_methods(method, features)
        self.radii = None if radii is None else sorted({0, *map(_checked_radius, radii)})
        self.published = published or {}
        for whose, points in self.published.items():
            for radius, share in points.items():
                check_integer(f"published radius of {whose}", radius, minimum=0)
                check_number(f"published accuracy of {whose}", share, minimum=0, maximum=1)
        undefended_points = check_integer("undefended_points", undefended_points, minimum=1)
        self.baseline = AttackedBaseline(undefended, undefended_points) if undefended else None
        self.any_label = bool(any_label)
        taken = [name for name in self.methods if with_any_label(name) in self.methods] if any_label else []
        if taken:
            raise UserError(f"method names must not end in _any_label with any_label, got {with_any_label(taken[0])!r}")
        self.name = check_name(name)
        self._suffix = "" if name is None else f"_{name}"
        self._trained_on: DataLoader[Any] | None = None
        self._training: _Training | None = None
        self._fitted: Mapping[str, CertifiedLearner] = {}
        self._measured: _Measured | None = None

    def forget(self) -> None:
        """Nothing was fitted or measured in this run."""
        super().forget()
        self._training = self._measured = self._trained_on = None
        self._fitted = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse two callbacks that would log the same keys."""
        super().setup(trainer, pl_module, stage)
        refuse_equal_names(self, trainer)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Nothing is measured yet."""
        super().on_fit_start(trainer, pl_module)
        self._measured = None

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Refuse training and evaluation points that cannot be told, and sizes and labels that cannot be certified."""
        loader = self._trained_on = _training_loader(trainer)
        if loader is not None:
            positions = _training_positions(trainer, loader)
            labels = dataset_labels(loader.dataset)[positions]
            num_classes, _ = class_count(trainer, loader.dataset, labels)
            for learner in self.methods.values():
                for classes in (num_classes, num_classes + self.any_label):
                    learner.check_size(len(labels), classes)
            if self.baseline is not None:
                self.baseline.check_size(num_classes)
            fetch(trainer, pl_module, loader, positions[:1])
        evaluated = evaluation_loader(trainer)
        if evaluated is not None:
            samples = EvaluatedSamples(trainer, self.max_samples)
            batch = first_items(trainer, pl_module, evaluated, samples.some(1))
            if batch is not None:
                inputs_and_labels(batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the validation set, after the epoch's own validation."""
        if self.is_due(trainer):
            values = self.attempt(trainer, lambda: self._measure(trainer))
            self.log_metrics(trainer, pl_module, values or [])

    def is_overdue(self, trainer: Any, pl_module: Any) -> bool:
        """Whether nothing was measured in this fit: no weights have a part in it."""
        return self._measured is None

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now, as the last epoch came unannounced: early stopping decides after every other callback."""
        self.log_at_end(trainer, self._measure(trainer))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the validation set in ``validate``."""
        if trainer.state.fn == "validate":
            self.log_metrics(trainer, pl_module, self._measure(trainer))

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure on the test set."""
        self.log_metrics(trainer, pl_module, self._measure(trainer))

    def report_sections(self) -> list[Section]:
        """Guarantee, tables and curves of the last measurement."""
        if (measured := self._measured) is None or not all(len(one.points) for one in measured.methods.values()):
            return []
        name = re.sub(r"[^A-Za-z0-9_-]", "-", f"certified-accuracy{self._suffix}")
        attacked = {_UNDEFENDED: measured.attacked} if measured.attacked is not None else {}
        return [
            certification_section(
                measured.methods, measured.radii, published=self.published, attacked=attacked, name=name
            )
        ]

    def _ending(self, name: str) -> str:
        """What a method's keys and file end with."""
        return (f"_{name}" if name else "") + self._suffix

    def _measure(self, trainer: Any) -> list[LoggedMetric]:
        """The values to log, empty where there is nothing to certify with; writes the tables."""
        loader, max_batches = evaluation_loader(trainer), max_evaluation_batches(trainer)
        if loader is None or not max_batches:
            if trainer.state.fn != "fit" or not _has_own(trainer.datamodule, "test_dataloader"):
                rank_zero_warn("LabelFlipCertification needs evaluation data, got none; pass a validation loader")
            return []
        source = _training_loader(trainer) or self._trained_on
        if source is None and self._training is None:
            rank_zero_warn(
                "LabelFlipCertification needs the training data, got evaluation loaders only; pass a data module "
                "that has a train_dataloader, or fit first with the same Trainer"
            )
            return []
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            kept_random_state(seed=0),
        ):  # the same augmentation on every rank
            training = self._prepare(trainer, source)
            measured = self._measured
            if measured is None or not measured.is_of(training, loader.dataset, max_batches):
                methods, attacked = self._certify(trainer, loader, max_batches)
                radii = self.radii or default_radii(training.labels)
                measured = self._measured = _Measured(training, loader.dataset, max_batches, methods, attacked, radii)
        from_rank_zero(trainer, lambda: self._write(trainer, measured))
        return [
            metric
            for name, one in measured.methods.items()
            for metric in one.points.metrics(measured.radii, self._ending(name), one.learner.note())
        ]

    def _write(self, trainer: Any, measured: _Measured) -> None:
        folder = report_folder(trainer)
        if folder is not None:
            for name, method in measured.methods.items():
                write_atomically(folder / f"certificates{self._ending(name)}.csv", method.points.csv())
            if measured.attacked is not None:
                write_atomically(folder / f"attacked{self._suffix}.csv", measured.attacked.csv())

    def _prepare(self, trainer: Any, loader: Any) -> _Training:
        """The training points that the methods are fitted to; they are fitted only to new ones, or to new labels."""
        if loader is None and self._training is not None:
            return self._training
        positions = _training_positions(trainer, loader)
        labels = dataset_labels(loader.dataset)[positions]
        if self._training is not None and self._training.is_of(loader.dataset, positions, labels):
            return self._training
        count = min(len(positions), _FAST_DEV_POINTS) if trainer.fast_dev_run else len(positions)
        self._training = None  # should fitting fail
        inputs = TrainingInputs(loader, positions[:count].tolist())
        num_classes, scope = class_count(trainer, loader.dataset, labels)
        self._fitted = fit_methods(
            self.methods,
            inputs,
            labels[:count],
            num_classes,
            partial(progress, trainer),
            scope=scope,
            any_label=self.any_label,
            baseline=self.baseline,
        )
        self._training = _Training(loader.dataset, positions, labels)
        return self._training

    def _certify(
        self, trainer: Any, loader: Any, max_batches: float
    ) -> tuple[dict[str, CertifiedMethod], AttackedPoints | None]:
        def points() -> EvaluationPoints:
            return EvaluationPoints(trainer, loader, max_batches, self.max_samples)

        found, attacked = certify_points(trainer, self._fitted, points, partial(progress, trainer), self.baseline)
        return {name: CertifiedMethod(self._fitted[name], certified) for name, certified in found.items()}, attacked


@dataclass(frozen=True)
class _Training:
    """Training points that the methods were fitted to."""

    dataset: Any
    positions: Tensor
    labels: Tensor

    def is_of(self, dataset: Any, positions: Tensor, labels: Tensor) -> bool:
        """Whether it is these points of this data set with these labels."""
        return dataset is self.dataset and torch.equal(positions, self.positions) and torch.equal(labels, self.labels)


@dataclass(frozen=True)
class _Measured:
    """The last measurement."""

    training: _Training
    dataset: Any
    max_batches: float
    methods: dict[str, CertifiedMethod]
    attacked: AttackedPoints | None
    radii: list[int]

    def is_of(self, training: _Training, dataset: Any, max_batches: float) -> bool:
        """Whether it was of this training set and this much of this evaluation set."""
        return self.training is training and self.dataset is dataset and self.max_batches == max_batches


def _checked_radius(radius: int) -> int:
    return check_integer("radii", radius, minimum=0, remedy="a radius counts changed labels")


def _training_loader(trainer: Any) -> DataLoader[Any] | None:
    """The loader of the training set; None where the Trainer knows none."""
    loaders = trainer.train_dataloader
    data = trainer.datamodule
    if loaders is None and _has_own(data, "train_dataloader"):
        call_with_stage(data.setup, "fit")
        loaders = data.train_dataloader()
    if loaders is None:
        return None
    return the_training_loader(loaders, "LabelFlipCertification")


def _training_positions(trainer: Any, loader: DataLoader[Any]) -> Tensor:
    """The points that are trained on, shape (m,), int64; no label may have a part in which they are."""
    if yielded(loader).weighted:
        raise UserError(
            "LabelFlipCertification cannot certify a training loader whose sampler gives some points the weight 0: "
            "weights may come from labels, so that a changed label would change what is trained on; take those points "
            "out of the data set"
        )
    positions = trained_on(trainer, loader)
    sources = [_source(loader.dataset, position) for position in positions.tolist()] if _nests(loader.dataset) else []
    if len(set(sources)) < len(sources):
        raise UserError(
            "LabelFlipCertification cannot certify a training set that reads some labels more than once (a Subset that "
            "repeats indices, say): one changed label would count several times; let each point stand there once"
        )
    return positions


def _nests(dataset: Any) -> bool:
    return isinstance(dataset, (Subset, ConcatDataset, PoisonedDataset))


def _source(dataset: Any, position: int) -> tuple[int, int]:
    """Where the label of a point comes from: a data set, by its identity, and a position in it."""
    while _nests(dataset):
        if isinstance(dataset, Subset):
            dataset, position = dataset.dataset, int(dataset.indices[position])
        elif isinstance(dataset, ConcatDataset):
            part = bisect_right(dataset.cumulative_sizes, position)
            position -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        elif position < len(dataset.dataset):
            dataset = dataset.dataset
        else:
            break  # a point that the poison has added
    return id(dataset), position


def _has_own(data: Any, method: str) -> bool:
    """Whether there is a data module with a method of its own; the one that it inherits from Lightning only raises."""
    own = getattr(data, method, None)
    return own is not None and not own.__module__.endswith(".core.hooks")
