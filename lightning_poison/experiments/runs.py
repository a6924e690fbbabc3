"""One run of an experiment: what decides it, what came out, and the file that keeps it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_poison.experiments.description import digest
from lightning_poison.functional.files import write_atomically
from lightning_poison.poisons import FlipList

__all__ = ["Run", "RunResult", "RunStore"]


@dataclass(frozen=True)
class RunResult:
    """What was measured of one victim.

    Args:
        strategy: which chose the flips.
        victim: kind of the network.
        seed: of initial weights, order of the points and flips.
        flips: number of flipped labels.
        fitted: share of them that the victim has memorised; NaN without flips.
        epochs: for how long it was trained.
        loss: mean training loss of the last epoch; NaN where the training failed, and nothing is measured then.
        natural: share of the test points that are right.
        attacked: number of test points that were attacked.
        withstood: how many of them withstand at each radius, by the radius as text.
        seconds: of training and measuring; where several were trained together, an equal share.
    """

    strategy: str
    victim: str
    seed: int
    flips: int
    fitted: float
    epochs: int
    loss: float
    natural: float
    attacked: int
    withstood: dict[str, int]
    seconds: float = math.nan

    @property
    def memorised(self) -> bool:
        """Whether the training succeeded and every flip is fitted."""
        return not math.isnan(self.loss) and self.nothing_left

    @property
    def nothing_left(self) -> bool:
        """Whether there is no flip to be trained on for."""
        return self.flips == 0 or self.fitted == 1.0

    def adversarial(self, eps: str) -> float:
        """Adversarial accuracy at a radius; NaN where nothing was attacked."""
        return self.withstood[eps] / self.attacked if self.attacked else math.nan


@dataclass(frozen=True, eq=False)
class Run:
    """One victim to train and to measure.

    Args:
        strategy: name of what chose the flips.
        victim: name of the kind of network.
        seed: of initial weights and order of the points.
        flips: the flips.
        num_classes: K, with a class that the flips add.
        epochs: how many at least, and at most while flips are not fitted.
        settings: everything that decides the outcome but the epochs, as plain values.
    """

    strategy: str
    victim: str
    seed: int
    flips: FlipList = field(repr=False)
    num_classes: int
    epochs: tuple[int, int]
    settings: dict[str, Any] = field(repr=False)

    @cached_property
    def key(self) -> str:
        """Name of the run's file."""
        return digest(self.settings)

    def settled_by(self, result: RunResult) -> bool:
        """Whether a result would come out again: flips fitted within the epochs, or not within as many."""
        shortest, longest = self.epochs
        enough = shortest if result.flips == 0 else result.epochs
        return result.epochs == enough <= longest if result.nothing_left else result.epochs == longest


@dataclass(frozen=True)
class RunStore:
    """Finished runs, a JSON file each, written whole or not at all.

    A file is named by a digest of everything that decides the run, so that neither another experiment nor a changed
    setting finds it, and two processes that finish the same run write the same.

    Args:
        folder: where the files are.
    """

    folder: Path

    def result_of(self, run: Run) -> RunResult | None:
        """What came out of a run under its present names; None: it is not finished."""
        try:
            content = json.loads(self._path(run).read_text(encoding="utf-8"))
            numbers: dict[str, Any] = {
                name: math.nan if value is None else value for name, value in content["result"].items()
            }
            result = RunResult(**{**numbers, "strategy": run.strategy, "victim": run.victim})
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole: it is made again
            return None
        return result if content.get("settings") == run.settings and run.settled_by(result) else None

    def keep(self, run: Run, result: RunResult) -> Path:
        """Write a result.

        Raises:
            UserError: the folder cannot be written.
        """
        numbers = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(result).items()
        }
        content = {"settings": run.settings, "result": numbers}
        return write_atomically(self._path(run), json.dumps(content, indent=1, allow_nan=False) + "\n")

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run.key}.json"
