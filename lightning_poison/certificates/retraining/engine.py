"""Many trainings of one procedure: their training sets, side by side, kept, the same whoever computes them."""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC, abstractmethod
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
from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.random_streams import generator, isolated_run, mix_seed
from lightning_poison.functional.workers import in_workers

__all__ = ["NoisyLabels", "PartsOfData", "RunCache", "TrainedModels", "TrainingSets", "train_all"]

_MEMORY = 2**32
_DIGEST = hashlib.sha256().digest_size
_Result = TypeVar("_Result")


# --- training and asking ----------------------------------------------------------------------------------------------


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


# --- training sets ----------------------------------------------------------------------------------------------------


class TrainingSets(ABC):
    """For each run, which points and which labels. Small enough to be sent to other processes."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of runs."""

    @abstractmethod
    def of_run(self, run: int) -> tuple[Tensor | None, Tensor]:
        """Positions of the points, shape (s,), None for all in order; and their labels, shape (s,), int64."""


@dataclass(frozen=True)
class NoisyLabels(TrainingSets):
    """All points, each label flipped with probability q to one of the other K - 1 classes, all equally likely.

    The flips of a run depend on the seed, the run's number and the position of the point alone. Which of several equal
    points has which of their labels is drawn anew in each run, so that one changed label is one changed label however
    the labels were told apart.

    Args:
        labels: shape (n,), int64 in [0, K).
        num_classes: K.
        q: the probability.
        runs: how many.
        seed: of the flips.
        equal: shape (n,), int64: the same number for equal points, rising; None: all are different.

    Example:
        >>> noisy = NoisyLabels(torch.zeros(1000, dtype=torch.int64), 3, q=0.2, runs=1).of_run(0)[1]
        >>> [round(share, 1) for share in (noisy.bincount() / 1000).tolist()]
        [0.8, 0.1, 0.1]
    """

    labels: Tensor
    num_classes: int
    q: float
    runs: int
    seed: int = 0
    equal: Tensor | None = None

    def __len__(self) -> int:
        """Number of runs."""
        return self.runs

    def of_run(self, run: int) -> tuple[None, Tensor]:
        """Every point, with fresh flips."""
        stream, n = generator(self.seed, "noisy labels", run), len(self.labels)
        flipped = torch.rand(n, generator=stream, dtype=torch.float64) < self.q
        steps = torch.randint(1, max(self.num_classes, 2), (n,), generator=stream)
        labels = self.labels
        if self.equal is not None:
            shuffled = torch.randperm(n, generator=generator(self.seed, "equal points", run))
            labels = labels[shuffled[self.equal[shuffled].argsort(stable=True)]]
        return None, torch.where(flipped, (labels + steps) % self.num_classes, labels)


@dataclass(frozen=True)
class PartsOfData(TrainingSets):
    """One run for each voter: the points of the parts that it uses, with their labels as they are.

    Args:
        labels: shape (n,), int64 in [0, K).
        parts: shape (n,), int64 in [0, P): the part of each point.
        users: shape (P, d), int64: the voters that use each part.
    """

    labels: Tensor
    parts: Tensor
    users: Tensor

    def __len__(self) -> int:
        """Number of voters."""
        return len(self.users)

    def of_run(self, run: int) -> tuple[Tensor, Tensor]:
        """The points of one voter, ascending."""
        uses = (self.users == run).any(1)
        points = uses[self.parts].nonzero()[:, 0]
        return points, self.labels[points]


# --- finished runs in a folder ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunCache:
    """The models of finished runs, one file each, written whole or not at all.

    A file starts with the SHA-256 of the rest, so that a damaged one counts as missing. Models are pickled: use a
    folder that nobody else can write to.

    Args:
        folder: where the files are.

    Example:
        >>> cache = RunCache(Path("runs"))
        >>> cache.store(3, {"weight": 1.5})
        >>> 3 in cache, 4 in cache, cache.load(3)
        (True, False, {'weight': 1.5})
    """

    folder: Path

    def __contains__(self, run: int) -> bool:
        return self._read(run) is not None

    def store(self, run: int, model: Any) -> None:
        """Keep the model of a run.

        Raises:
            UserError: the folder cannot be written.
        """
        content = cloudpickle.dumps(model)  # models may hold functions of the script
        write_atomically(self._path(run), hashlib.sha256(content).digest() + content)

    def load(self, run: int) -> Any:
        """The model of a run that is in the cache.

        Raises:
            KeyError: it is not, or no longer.
        """
        content = self._read(run)
        if content is None:
            raise KeyError(run)
        return pickle.loads(content)  # noqa: S301  # our own file, its digest verified

    def _path(self, run: int) -> Path:
        return self.folder / f"run_{run:06d}.pickle"

    def _read(self, run: int) -> bytes | None:
        try:
            content = self._path(run).read_bytes()
        except FileNotFoundError:
            return None
        digest, rest = content[:_DIGEST], content[_DIGEST:]
        return rest if hashlib.sha256(rest).digest() == digest else None
