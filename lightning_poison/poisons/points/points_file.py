"""The files of poison points: a torch file that holds everything, and a table beside it that a person can read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.files import write_atomically
from lightning_poison.poisons.flip_list_csv import provenance_lines

__all__ = ["FORMAT_VERSION", "check_points_path", "read_points", "write_points"]

FORMAT_VERSION = 1
_HEADER = "index,old_label,new_label,distance"


def check_points_path(path: str | Path) -> Path:
    """Return ``path`` if it can name a torch file that has its table beside it.

    Raises:
        UserError: it ends in ``.csv``, as the table's does.

    Example:
        >>> check_points_path("points.pt").name
        'points.pt'
    """
    target = Path(path)
    if target.suffix == ".csv":
        raise UserError(f"poison points must go to a .pt file, got {path}; their table is written beside it as .csv")
    return target


def write_points(state: Mapping[str, Any], path: str | Path) -> Path:
    """Write points to ``path``, and their table to the same name with ``.csv``, each whole or not at all.

    Args:
        state: the columns and the provenance of the points, see :meth:`PoisonPoints.state_dict`.
        path: of the torch file.

    Raises:
        UserError: the folder cannot be written, or ``path`` is that of the table.
    """
    target = check_points_path(path)
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **state}, buffer)
    write_atomically(target.with_suffix(".csv"), _table(state))
    return write_atomically(target, buffer.getvalue())


def read_points(path: str | Path) -> dict[str, Any]:
    """Read a torch file of poison points; nothing in it is executed.

    Returns:
        what :func:`write_points` was given.

    Raises:
        UserError: the file is missing, no such file, or of a later version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file of poison points at {path}; check the path") from None
    except Exception as error:  # an unpickler that is fed with anything raises anything
        reason = (
            error.strerror if isinstance(error, OSError) else "it is no whole torch file of tensors and plain values"
        )
        raise UserError(f"cannot read the poison points in {path} ({reason}); give the .pt file") from error
    columns: dict[str, Any] = state if isinstance(state, dict) else {}
    version = columns.get("format_version")
    if version is None or "inputs" not in columns:
        raise UserError(f"{path} holds no poison points; give a file that PoisonPoints.write wrote")
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version must be {FORMAT_VERSION}, got {version}; update lightning_poison")
    _check_columns(columns, path)
    return columns


def _check_columns(state: dict[str, Any], path: str | Path) -> None:
    for name in ("index", "inputs", "old_label", "new_label", "distance"):
        if not isinstance(state.get(name), Tensor):
            got = f"got {type(state[name]).__name__}" if name in state else "which is not there"
            raise UserError(f"{path}: {name} must be a tensor, {got}; give a file that PoisonPoints.write wrote")
    if not isinstance(state.get("provenance"), dict):
        raise UserError(f"{path}: provenance must be a dict; give a file that PoisonPoints.write wrote")


def _table(state: Mapping[str, Any]) -> str:
    lines = [*provenance_lines(FORMAT_VERSION, state["provenance"]), _HEADER]
    columns = (state[name].tolist() for name in ("index", "old_label", "new_label", "distance"))
    lines += [f"{index},{old},{new},{far:.6g}" for index, old, new, far in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"
