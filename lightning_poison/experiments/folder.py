"""The folder that keeps an experiment and its runs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.experiments.description import digest
from lightning_poison.functional.files import check_writable, write_atomically
from lightning_poison.poisons import FlipList

__all__ = ["ExperimentFolder", "Run", "RunResult", "RunStore"]

_FORMAT = 1
_NAME = "experiment.json"


# --- the folder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExperimentFolder:
    """Where the parts of an experiment are kept.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def flips(self) -> Path:
        """Folder of the flip lists."""
        return self.path / "flips"

    @property
    def runs(self) -> Path:
        """Folder of the finished runs."""
        return self.path / "runs"

    def check(self) -> ExperimentFolder:
        """Refuse a folder that holds other things; nothing is written yet.

        Raises:
            UserError: it is such a folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"folder must be a folder, got the file {self.path}; name another one: --folder DIR")
        if (
            self.path.is_dir()
            and self._note() is None
            and any(not each.name.startswith(".") for each in self._entries())
        ):
            raise UserError(
                f"folder must be empty or of an experiment, got {self.path}; name another one: --folder DIR"
            )
        return self

    def claim(self, data: str, description: Any) -> None:
        """Note down which data the folder's runs are of.

        Args:
            data: digest of the data.
            description: of the experiment, as plain values, for people.

        Raises:
            UserError: the folder holds an experiment on other data, or cannot be written.
        """
        check_writable(self.path)
        note = self._note()
        if note is not None and note.get("data") != data:
            raise UserError(
                f"folder {self.path} holds an experiment on other data ({note.get('data')}, these are {data}); "
                "name another one: --folder DIR"
            )
        content = {"format": _FORMAT, "data": data, "experiment": description}
        write_atomically(self.path / _NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir())

    def _note(self) -> dict[str, Any] | None:
        try:
            note = json.loads((self.path / _NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.path / _NAME}: {error}; name another folder: --folder DIR") from error
        return note if isinstance(note, dict) else {}


# --- runs -------------------------------------------------------------------------------------------------------------


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
