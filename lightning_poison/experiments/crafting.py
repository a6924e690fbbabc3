"""The flip lists of an experiment, crafted once and kept as files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning_poison
from lightning_poison.errors import UserError
from lightning_poison.experiments.description import digest, plain
from lightning_poison.experiments.side_by_side import Ticker, side_by_side
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import Progress
from lightning_poison.functional.random_streams import isolated_run
from lightning_poison.poisons import FlipList, Poison

__all__ = ["FlipLists"]


@dataclass(frozen=True)
class FlipLists:
    """The lists of several strategies and seeds in a folder.

    A file's name holds the strategy's name, the seed and a digest of strategy, data and version of this package: what
    has been crafted is never crafted again, and a changed strategy finds no old list.

    Args:
        folder: where the files are.
        subject: the data.
        strategies: by name; None: no flips.
    """

    folder: Path
    subject: Subject
    strategies: Mapping[str, Poison | None]

    def craft(self, seeds: Sequence[int], jobs: int, progress: Progress) -> None:
        """Craft what is missing, seed by seed side by side; strategies of one seed share surrogates.

        Raises:
            UserError: a strategy does not fit the data; the message names it.
        """
        missing = {seed: [name for name in self.strategies if not self._is_there(name, seed)] for seed in seeds}
        work = [(self, names, seed) for seed, names in missing.items() if names]
        total = sum(len(names) for _, names, _ in work)
        side_by_side(_craft, work, jobs, self.folder, "crafting flips", total, progress)
        for name, poison in self.strategies.items():
            provenance = {} if poison is None or not seeds else FlipList.read(self.path(name, seeds[0])).provenance
            if "remark" in provenance:
                warnings.warn(f"strategy {name}: {provenance['remark']}", stacklevel=2)

    def of(self, name: str, seed: int) -> FlipList:
        """A list that has been crafted.

        Raises:
            UserError: the file does not belong to the data.
        """
        poison = self.strategies[name]
        if poison is None:
            return FlipList.empty({"strategy": None})
        after = poison.num_classes_after(self.subject.num_classes)
        return FlipList.read(self.path(name, seed)).check(self.subject.training_set(), after)

    def path(self, name: str, seed: int) -> Path:
        """Where a list is."""
        settings = {
            "strategy": self._plain[name],
            "data": self.subject.digest,
            "seed": seed,
            "version": lightning_poison.__version__,
        }
        return self.folder / f"{re.sub('[^A-Za-z0-9]+', '_', name).strip('_')}_seed_{seed}_{digest(settings)[:10]}.csv"

    @cached_property
    def _plain(self) -> dict[str, Any]:
        """The strategies as plain values; files that they name are read once."""
        return {name: plain(poison) for name, poison in self.strategies.items()}

    def _is_there(self, name: str, seed: int) -> bool:
        return self.strategies[name] is None or self.path(name, seed).is_file()


def _craft(ticker: Ticker, lists: FlipLists, names: list[str], seed: int) -> None:
    training_set = lists.subject.training_set()
    for name in names:
        poison, path = lists.strategies[name], lists.path(name, seed)
        if poison is not None and not path.is_file():  # another process may have been faster
            try:
                with isolated_run(seed):
                    poison.craft(training_set, seed).write(path)
            except UserError as error:
                raise UserError(f"strategy {name}: {error}") from error
        ticker.advance(1)
