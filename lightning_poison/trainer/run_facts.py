"""What is known about a run: its data, flips, seeds, configuration; its command, versions and time."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning_poison
from lightning_poison.functional.checks import as_integer, declared_classes

__all__ = [
    "command_line",
    "config_text",
    "data_facts",
    "now",
    "poison_facts",
    "run_title",
    "seeds",
    "training_dataset",
    "versions",
]

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "lightning", "torchmetrics", "torchattacks")


def training_dataset(trainer: Any) -> Any | None:
    """The data set behind the Trainer's training loader, None where there is none or more than one."""
    loader = getattr(trainer, "train_dataloader", None)
    if isinstance(loader, (list, tuple)) and len(loader) == 1:
        loader = loader[0]
    return getattr(loader, "dataset", None)


def data_facts(trainer: Any, flips: Any | None) -> dict[str, Any]:
    """Name of the data, number of training points and classes, fingerprint; what is not known is left out."""
    provenance = {} if flips is None else flips.provenance
    datamodule = _clean_datamodule(trainer)
    dataset = training_dataset(trainer)
    facts = {
        "data_module": None if datamodule is None else type(datamodule).__name__,
        "training_points": provenance.get("num_points", _length(dataset)),
        "num_classes": provenance.get("num_classes", declared_classes(datamodule)),
        "num_classes_with_flips": provenance.get("num_classes_after"),
        "fingerprint": provenance.get("fingerprint"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def poison_facts(flips: Any | None) -> dict[str, Any] | None:
    """Number of flips and how they were chosen; what the data's facts say already is left out."""
    if flips is None:
        return None
    known = {"num_points", "num_classes", "num_classes_after", "fingerprint", "package_version"}
    chosen = {name: value for name, value in flips.provenance.items() if name not in known and value is not None}
    return {"count": len(flips), **chosen}


def seeds(trainer: Any, flips: Any | None) -> dict[str, int | None]:
    """Every seed of the run by what it rules."""
    found = {
        "everything": _global_seed(),
        "data": getattr(_clean_datamodule(trainer), "seed", None),
        "poison": None if flips is None else flips.provenance.get("seed"),
    }
    return {name: number for name, seed in found.items() if (number := as_integer(seed)) is not None}


def run_title(trainer: Any, flips: Any | None) -> str:
    """A heading such as "MNIST with 100 flipped labels"."""
    datamodule = _clean_datamodule(trainer)
    name = type(trainer.lightning_module).__name__ if datamodule is None else type(datamodule).__name__
    if flips is None:
        return name
    return f"{name} with {flips.short()}"


def config_text(folder: Path | None, log_folder: Path) -> str | None:
    """The configuration that the command line saved in the log folder.

    Args:
        folder: of the report; None: there is none.
        log_folder: where the logger keeps its files.
    """
    for place in () if folder is None else (folder.parent, log_folder):
        with suppress(OSError):
            return (place / "config.yaml").read_text(encoding="utf-8")
    return None


def command_line() -> str:
    """The command that started this process, as one would type it."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("python")
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    if program.suffix == ".py" and program.name != "__main__.py":
        start = ["python", str(program)]
    return shlex.join([*start, *sys.argv[1:]])


def _global_seed() -> int | None:
    """The seed that Lightning's ``seed_everything`` set, None where it was not called."""
    text = os.environ.get("PL_GLOBAL_SEED", "")
    return int(text) if text.lstrip("-").isdigit() else None


def versions() -> dict[str, str]:
    """The versions that decide what a run computes.

    Example:
        >>> "torch" in versions()
        True
    """
    found = {"python": platform.python_version(), "lightning_poison": lightning_poison.__version__}
    return found | {package: version for package in _PACKAGES if (version := _version(package)) is not None}


def now() -> str:
    """This moment, ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _length(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None


def _clean_datamodule(trainer: Any) -> Any | None:
    """The run's data module, without a poisoning wrapper."""
    datamodule = getattr(trainer, "datamodule", None)
    return vars(datamodule).get("datamodule", datamodule) if datamodule is not None else None
