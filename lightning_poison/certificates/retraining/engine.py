"""Many trainings of one procedure: side by side, resumable, the same whoever computes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance
from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.certificates.retraining.run_cache import RunCache
from lightning_poison.certificates.retraining.training_sets import TrainingSets
from lightning_poison.errors import UserError
from lightning_poison.functional.isolation import isolated_run
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.functional.workers import in_workers

__all__ = ["TrainedModels", "train_all"]

_Result = TypeVar("_Result")
_MEMORY = 2**32


@dataclass(frozen=True)
class TrainedModels:
    """The models of all runs, in memory or in a cache.

    Args:
        procedure: what made them.
        num_classes: K.
        models: one a run; None for those that are in the cache.
        cache: where the others are.
        jobs: processes that ask models.
    """

    procedure: TrainingProcedure
    num_classes: int
    models: list[Any]
    cache: RunCache | None
    jobs: int

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.models)

    def scores(self, inputs: Tensor) -> Iterator[Tensor]:
        """Class scores (m, K) of points (m, ...), run by run in their order."""
        return self._ask(_scores, inputs)

    def certificates(self, inputs: Tensor) -> Iterator[LabelFlipCertificate]:
        """Certificates of points, run by run, where the procedure has its own."""
        return self._ask(_certificate, inputs)

    def _ask(self, question: Callable[..., _Result], inputs: Tensor) -> Iterator[_Result]:
        settings = self.procedure, self.num_classes, self.cache, _array(inputs)
        return iter(in_workers(question, ((run, model, *settings) for run, model in enumerate(self.models)), self.jobs))


def train_all(
    procedure: TrainingProcedure,
    inputs: Tensor,
    sets: TrainingSets,
    num_classes: int,
    *,
    seed: int = 0,
    jobs: int = 1,
    cache: Path | None = None,
    advance: Advance = lambda _: None,
) -> TrainedModels:
    """Train one model for each training set.

    Every run has its own seed, made of ``seed`` and its number, and computes on one thread of one process. So neither
    ``jobs`` nor a kill and a resume changes any model.

    Args:
        procedure: how a model is made.
        inputs: shape (n, ...), on the CPU.
        sets: points and labels of each run.
        num_classes: K.
        seed: of the runs' own randomness.
        jobs: processes that train side by side; -1: one for each core.
        cache: folder for finished runs, shared by any number of experiments: data, labels, procedure and seed decide
            what belongs together. None: models are kept in memory only.
        advance: called with 1 for each run that is ready.

    Raises:
        UserError: the cache cannot be written, or there is none and the models would not fit into memory.
    """
    folder = None if cache is None else RunCache(cache / _fingerprint(procedure, inputs, sets, num_classes, seed))
    missing = [run for run in range(len(sets)) if folder is None or run not in folder]
    advance(len(sets) - len(missing))
    models: list[Any] = [None] * len(sets)
    settings = procedure, _array(inputs), sets, num_classes, seed, folder
    for run, model in zip(missing, in_workers(_train, ((run, *settings) for run in missing), jobs), strict=True):
        if folder is None and run == 0:
            _check_memory(model, len(sets))
        models[run] = model
        advance(1)
    return TrainedModels(procedure, num_classes, models, folder, jobs)


def _train(
    run: int,
    procedure: TrainingProcedure,
    inputs: NDArray[Any],
    sets: TrainingSets,
    num_classes: int,
    seed: int,
    cache: RunCache | None,
) -> Any:
    """The model of a run, or None once it is in the cache."""
    points, labels = sets.of_run(run)
    own_seed = mix_seed(seed, "training run", run)
    with isolated_run(own_seed):
        rows = torch.from_numpy(inputs)
        model = procedure.train(rows if points is None else rows[points], labels, num_classes, own_seed)
    if cache is None:
        return model
    cache.store(run, model)
    return None


def _scores(
    run: int, model: Any, procedure: TrainingProcedure, num_classes: int, cache: RunCache | None, inputs: NDArray[Any]
) -> Tensor:
    with isolated_run(0), torch.no_grad():
        return procedure.scores(model if cache is None else cache.load(run), torch.from_numpy(inputs), num_classes)


def _certificate(
    run: int,
    model: Any,
    procedure: TrainingProcedure,
    num_classes: int,  # noqa: ARG001  # asked like scores
    cache: RunCache | None,
    inputs: NDArray[Any],
) -> LabelFlipCertificate:
    with isolated_run(0), torch.no_grad():
        return procedure.certify(model if cache is None else cache.load(run), torch.from_numpy(inputs))


def _check_memory(model: Any, count: int) -> None:
    size = len(cloudpickle.dumps(model))
    if size * count > _MEMORY:
        raise UserError(
            f"cache must be a folder where the models take more than {_MEMORY >> 30} GiB, got none for {count} models "
            f"of {size >> 20} MiB; name a folder, or choose a procedure with smaller models"
        )


def _array(inputs: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(inputs.detach().cpu().numpy())


def _fingerprint(procedure: TrainingProcedure, inputs: Tensor, sets: TrainingSets, num_classes: int, seed: int) -> str:
    """What decides how the runs come out, as a folder name."""
    parts: list[bytes] = [procedure.fingerprint().encode(), f"{num_classes} {seed} {type(sets).__name__}".encode()]
    for value in (inputs, *vars(sets).values()):
        if isinstance(value, Tensor):
            parts += [f"{value.dtype} {tuple(value.shape)}".encode(), _array(value).tobytes()]
        else:
            parts.append(repr(value).encode())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]
