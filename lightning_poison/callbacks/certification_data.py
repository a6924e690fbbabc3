"""Training inputs and evaluation points as a certified learner reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_poison.datamodules.labels import known_labels
from lightning_poison.errors import UserError
from lightning_poison.functional.point_order import OwnOrder, point_keys
from lightning_poison.functional.random_streams import RandomStates, kept_random_state, private_generators
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import EvaluatedSamples, collation

__all__ = ["EvaluationPoints", "TrainingInputs"]

_BATCH = 1000


class TrainingInputs:
    """Inputs of training points, batch by batch, in an order that no label decides.

    A data set may draw (augmentation). Each point is then read with all generators set to a seed of its own, made of
    its own bytes as they come out under one seed that all points share: neither the order in which the points lie nor
    what was read before, both of which labels may decide, has a part in it. Afterwards the generators are where they
    were.

    Args:
        loader: whose data set, workers and collate function are used.
        positions: of the points in the data set.
    """

    def __init__(self, loader: DataLoader[Any], positions: Sequence[int]) -> None:
        self._loader, self._positions = loader, positions

    def in_own_order(
        self, labels: Tensor, advance: Callable[[int], object] = lambda _: None
    ) -> tuple[Iterable[Tensor], OwnOrder]:
        """Read all points once to find their order.

        Args:
            labels: shape (n,), those of the positions.
            advance: called with the number of points read, batch by batch.

        Returns:
            the inputs in batches, read anew as often as asked; and their order.
        """
        keys: list[bytes] = []
        seeds: dict[int, int] = {}
        for inputs, drawn in self._read(self._positions, None):
            keys += point_keys(inputs)
            seeds |= drawn
            advance(len(inputs))
        own = OwnOrder.by_keys(keys, labels)
        order = own.order.tolist()
        positions, sorted_keys = [self._positions[row] for row in order], [keys[row] for row in order]
        return _OrderedInputs(lambda: self._read(positions, seeds), positions, sorted_keys), own

    def _read(self, positions: Sequence[int], seeds: dict[int, int] | None) -> Iterator[tuple[Tensor, dict[int, int]]]:
        loader, collate = self._loader, _Collate(collation(self._loader))
        items = _Items(loader.dataset, collate.one, seeds)
        for batch, drawn in DataLoader(
            items,
            batch_size=_BATCH,
            sampler=positions,
            num_workers=loader.num_workers,
            collate_fn=collate,  # type: ignore[arg-type]  # the items come with their seeds
            generator=torch.Generator(),  # else the global one is drawn from
        ):
            yield inputs_and_labels(batch)[0].cpu(), drawn


@dataclass(frozen=True)
class _OrderedInputs:
    """Inputs of points, which must be the same whenever they are read."""

    read: Callable[[], Iterator[tuple[Tensor, dict[int, int]]]]
    positions: Sequence[int]
    keys: Sequence[bytes]

    def __iter__(self) -> Iterator[Tensor]:
        start = 0
        for inputs, _ in self.read():
            for row, key in enumerate(point_keys(inputs), start):
                if key != self.keys[row]:
                    raise UserError(
                        "training inputs must be the same whenever they are read with the same seeds, got another one "
                        f"at point {self.positions[row]}; let augmentation draw from generators of the data set, "
                        "and collate_fn take each point on its own"
                    )
            start += len(inputs)
            yield inputs


class _Items(Dataset[Any]):
    """Items of a data set, by position; those that draw, each with a seed of its own.

    Args:
        dataset: item i is (input, label, ...).
        input_of: the input of an item.
        seeds: of the points that draw, by position; None: find out.
    """

    def __init__(self, dataset: Any, input_of: Callable[[Any], Tensor], seeds: dict[int, int] | None) -> None:
        self._dataset, self._input_of, self._seeds = dataset, input_of, seeds
        self._found: list[Any] | None = None

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0][0]

    def __getitems__(self, positions: list[int]) -> tuple[list[Any], dict[int, int]]:
        """The items, and the seeds of those that draw."""
        if self._seeds is None:
            with kept_random_state(0, generators=self._generators):
                states = RandomStates(self._generators)
                items = self._plain(positions)
                if not states.have_moved():
                    return items, {}
            seeds = {position: self._seed(position) for position in positions}
        else:
            seeds = {position: self._seeds[position] for position in positions if position in self._seeds}
        if not seeds:
            return self._plain(positions), {}
        return [self._under(seeds.get(each, 0), each) for each in positions], seeds

    @property
    def _generators(self) -> list[Any]:
        """Those of the data set in this process."""
        if self._found is None:
            self._found = private_generators(self._dataset)
        return self._found

    def _plain(self, positions: list[int]) -> list[Any]:
        together = getattr(self._dataset, "__getitems__", None)
        return list(together(positions)) if callable(together) else [self._dataset[each] for each in positions]

    def _under(self, seed: int, position: int) -> Any:
        with kept_random_state(seed, generators=self._generators):
            return self._dataset[position]

    def _seed(self, position: int) -> int:
        key = point_keys(self._input_of(self._under(0, position)))[0]
        return int.from_bytes(key[:8], "little") >> 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None}


@dataclass(frozen=True)
class _Collate:
    """The loader's collate function, for items that come with their seeds."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, read: tuple[list[Any], dict[int, int]]) -> tuple[Any, dict[int, int]]:
        with kept_random_state(0):
            return self.collate(read[0]), read[1]

    def one(self, item: Any) -> Tensor:
        """The input of one item, shape (1, ...)."""
        with kept_random_state(0):
            return inputs_and_labels(self.collate([item]))[0]


class EvaluationPoints:
    """The evaluation inputs of this rank, batch by batch; remembers which points they were.

    Args:
        trainer: while it evaluates.
        loader: of the evaluation.
        max_batches: evaluated on each rank.
        max_samples: how many points are certified, drawn with a fixed seed; None: all.
    """

    def __init__(self, trainer: Any, loader: Any, max_batches: float, max_samples: int | None) -> None:
        self._trainer, self._loader, self._max_batches = trainer, loader, max_batches
        self._samples = EvaluatedSamples(trainer, max_samples, known_labels)
        self._index, self._labels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]

    @property
    def known(self) -> bool:
        """Whether points are known by their position in the data set."""
        return self._samples.known

    def __iter__(self) -> Iterator[Tensor]:
        for number, batch in enumerate(self._loader, start=1):
            inputs, labels = inputs_and_labels(batch)
            index = self._samples.next(inputs, labels)
            kept = index >= 0
            if kept.any():
                self._index.append(index[kept])
                self._labels.append(labels.cpu()[kept].long())
                yield inputs.cpu()[kept]
            if number >= self._max_batches:
                return

    def index_and_labels(self) -> tuple[Tensor, Tensor]:
        """Positions and clean labels of the points read so far, int64."""
        return torch.cat(self._index), torch.cat(self._labels)

    def count_here(self) -> bool:
        """Whether this rank's points count; every rank must ask, when it has read all of its own."""
        return self._samples.count_here(self._trainer)
