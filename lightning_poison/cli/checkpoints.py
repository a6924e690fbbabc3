"""Which file ``--ckpt_path`` means, and whether it is a checkpoint at all."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch

from lightning_poison.errors import UserError

__all__ = ["resolve_checkpoint"]

_SPECIAL = ("best", "hpc", "registry")


def resolve_checkpoint(ckpt_path: str | None, root: str | Path) -> str | None:
    """The checkpoint to load.

    Args:
        ckpt_path: a file, ``last`` for the newest ``last.ckpt`` of any run below ``root``, a word that Lightning
            knows, or None.
        root: the folder that holds the runs.

    Raises:
        UserError: there is no such file.
    """
    if ckpt_path is None or ckpt_path in _SPECIAL or ckpt_path.startswith("registry:") or "://" in ckpt_path:
        return ckpt_path
    if ckpt_path == "last":
        # Versions of one checkpoint in one folder: last.ckpt, last-v1.ckpt, ...
        found = sorted(Path(root).glob("**/checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime)
        found = [path for path in found if "clean_twin" not in path.parts]
        if not found:
            raise UserError(
                f"--ckpt_path last: no run below {root} has saved a last.ckpt; name a file, "
                "or leave --ckpt_path out to start anew"
            )
        return str(found[-1])
    if not Path(ckpt_path).exists():
        raise UserError(
            f"--ckpt_path {ckpt_path}: there is no such file; runs below {root} keep theirs in checkpoints/"
        )
    if Path(ckpt_path).is_file():
        _check(ckpt_path)
    return ckpt_path


def _check(path: str) -> None:
    """Refuse a file that is no checkpoint of Lightning's, without reading its tensors."""
    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0][:100] or "it ends too early"
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason}); name a file that Lightning has saved"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"the checkpoint {path} has no state_dict; name a file that Lightning has saved")
