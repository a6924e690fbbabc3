"""The common part of learners that are made of many trainings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import ClassVar

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures, RawFeatures, UnchangedInputs
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance, CertifiedLearner
from lightning_poison.certificates.retraining.engine import TrainedModels, train_all
from lightning_poison.certificates.retraining.learner_training import LearnerTraining
from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.certificates.retraining.training_sets import TrainingSets
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, kind_shown
from lightning_poison.functional.files import check_writable

__all__ = ["RetrainedLearner"]

Tick = Callable[[], object]
"""Called after each step of the work."""


class RetrainedLearner(CertifiedLearner):
    """A learner that trains many models and counts what they say.

    ``fit`` only takes note of the data: the trainings run when the first points are certified, or in :meth:`train`.

    Args:
        procedure: what is trained; a certified learner stands for fitting copies of it.
        features: the feature map below the learner.
        seed: of everything random.
        jobs: processes that train side by side; -1: one for each core. The result does not depend on it.
        cache: folder for finished runs, so that a job that was killed goes on where it stood; None: none. The files
            are pickles: use a folder that nobody else can write to, and clear it when you change the code of what is
            trained.

    Raises:
        UserError: ``jobs`` is 0 or less than -1, or ``procedure`` is no procedure.
    """

    _trained: ClassVar[str] = "procedure"
    """What the argument is called."""

    def __init__(
        self,
        procedure: CertifiedLearner | TrainingProcedure,
        features: LabelFreeFeatures | None,
        seed: int,
        jobs: int,
        cache: str | None,
    ) -> None:
        super().__init__(features)
        if isinstance(procedure, CertifiedLearner):
            procedure = LearnerTraining(procedure)
        if not isinstance(procedure, TrainingProcedure):
            got = kind_shown(procedure)
            raise UserError(f"{self._trained} must be a TrainingProcedure or a CertifiedLearner, got {got}; make one")
        self.procedure = procedure
        self.seed = check_integer("seed", seed, minimum=0)
        self.jobs = jobs if jobs == -1 else check_integer("jobs", jobs, minimum=1, remedy="-1 means every core")
        if not isinstance(cache, (str, PathLike, NoneType)):
            raise UserError(f"cache must be the path of a folder, got {kind_shown(cache)}; None keeps models in memory")
        self.cache = cache
        self._inputs = torch.empty(0)
        self._models: TrainedModels | None = None

    def check_size(self, num_points: int, num_classes: int) -> None:  # noqa: ARG002  # for those who need them
        """Refuse a cache that cannot be written, before any training."""
        if self.cache is not None:
            check_writable(Path(self.cache).expanduser())

    def _fit(self, features: Tensor) -> None:
        self.check_size(self.num_points, self.num_classes)
        self._inputs = check_finite("features", features, remedy="clean the inputs or change the feature map")
        self._models = None

    def train(self, advance: Advance = lambda _: None) -> TrainedModels:
        """Train every model that is not trained yet.

        Args:
            advance: called with the number of runs that are ready, until they add up to all.

        Raises:
            UserError: the learner is not fitted, or the cache cannot be written.
        """
        self._check_fitted()
        if self._models is None:
            cache = None if self.cache is None else Path(self.cache).expanduser()
            self._models = train_all(
                self.procedure,
                self._inputs,
                self._training_sets(),
                self.num_classes,
                seed=self.seed,
                jobs=self.jobs,
                cache=cache,
                advance=advance,
            )
        return self._models

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known; trains first if need be.

        Args:
            features: shape (m, ...).
            advance: moves by shares of the whole work, in units of points; the numbers add up to m.
        """
        self._check_features(features)
        if not len(features):
            return LabelFlipCertificate(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
        check_finite("features", features, remedy="clean the inputs or change the feature map")
        blocks = torch.split(features, self._rows_at_once())
        runs, trained = len(self._training_sets()), self._models is not None
        progress = _Shares(advance, len(features), (len(blocks) + (not trained)) * runs)
        models = self.train(progress)
        parts = [self._certify_block(models, block, lambda: progress(1)) for block in blocks]
        return LabelFlipCertificate(
            torch.cat([part.prediction for part in parts]), torch.cat([part.radius for part in parts])
        )

    @abstractmethod
    def _training_sets(self) -> TrainingSets:
        """What each run is trained on."""

    @abstractmethod
    def _certify_block(self, models: TrainedModels, features: Tensor, tick: Tick) -> LabelFlipCertificate:
        """Certify points; ``tick`` after each model that was asked."""

    def _rows_at_once(self) -> int:
        """How many points are certified together."""
        return 2**31

    @property
    def end_to_end(self) -> bool:
        """Whether the features and the procedure are."""
        return self.features.end_to_end and self.procedure.end_to_end

    def premises(self) -> tuple[str, ...]:
        """Those of the features and of the procedure, each once."""
        return tuple(dict.fromkeys((*self.features.premises(), *self.procedure.premises())))

    def _describe_procedure(self) -> str:
        """The procedure; that a base learner takes the features as they are goes without saying."""
        procedure = self.procedure
        if isinstance(procedure, LearnerTraining) and isinstance(
            procedure.learner.features, (RawFeatures, UnchangedInputs)
        ):
            return procedure.learner.describe()
        return procedure.describe()


class _Shares:
    """Tells ``advance`` about steps of the work as shares of ``total``."""

    def __init__(self, advance: Advance, total: int, steps: int) -> None:
        self._advance, self._total, self._steps = advance, total, steps
        self._done = self._told = 0

    def __call__(self, steps: int) -> None:
        self._done += steps
        now = self._total * self._done // self._steps
        if now > self._told:
            self._advance(now - self._told)
            self._told = now
