"""Training loaders of other people's kinds, which a change of the data set does not reach by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader


class _Repeated:
    """Deals the batches of a batch sampler again and again."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class InfiniteLoader(DataLoader):
    """Makes its iterator once and for all, so that its workers stay, as loaders of detectors do."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        object.__setattr__(self, "batch_sampler", _Repeated(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


class WrappingLoader(DataLoader):
    """Lets a loader inside do the work, as loaders of launchers do."""

    def __init__(self, dataset: Any, **keywords: Any) -> None:
        super().__init__(dataset, **keywords)
        self.inside = DataLoader(dataset, **keywords)
        self.data = dataset

    def __iter__(self):
        assert self.data is self.dataset
        return iter(self.inside)


class TensorLoader(DataLoader):
    """Cuts batches out of tensors that it holds, without a look at its data set."""

    def __init__(self, dataset: Any, **keywords: Any) -> None:
        super().__init__(dataset, **keywords)
        self.tensors = dataset.tensors

    def __iter__(self):
        return zip(*(torch.split(tensor, self.batch_size) for tensor in self.tensors), strict=True)


class HidingLoader(InfiniteLoader):
    """Makes its iterator once and for all, and keeps it where nobody looks."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.kept = {"iterator": self.iterator}
        del self.iterator

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.kept["iterator"])


class EchoingLoader(DataLoader):
    """Gives each batch three times, and from the second epoch on what it remembers."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.remembered: list[Any] = []

    def __len__(self):
        return 3 * super().__len__()

    def __iter__(self):
        if not self.remembered:
            self.remembered += [batch for batch in super().__iter__() for _ in range(3)]
        return iter(self.remembered)
