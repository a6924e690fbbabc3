"""Which file ``--ckpt_path`` means, and whether it is a checkpoint at all."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lightning_poison.errors import UserError
from lightning_poison.victims import Victim

__all__ = ["check_fits", "resolve_checkpoint"]

_OF_SHARDS = (".metadata", "latest", "checkpoint")  # files of a checkpoint that is a folder
_SPECIAL = ("hpc", "registry")


def resolve_checkpoint(ckpt_path: str | None, root: str | Path) -> str | None:
    """The checkpoint to load.

    Args:
        ckpt_path: a file, ``last`` for the newest ``last.ckpt`` of any run below ``root``, ``best`` for the best
            checkpoint of that run, another word that Lightning knows, or None.
        root: the folder that holds the runs.

    Raises:
        UserError: there is no such file.
    """
    if ckpt_path is None or ckpt_path in _SPECIAL or ckpt_path.startswith("registry:") or "://" in ckpt_path:
        return ckpt_path
    if ckpt_path == "last":
        return str(_newest(root, "last"))
    if ckpt_path == "best":
        return _best(_newest(root, "best"))
    if not Path(ckpt_path).exists():
        raise UserError(
            f"--ckpt_path {ckpt_path}: there is no such file; runs below {root} keep theirs in checkpoints/"
        )
    if Path(ckpt_path).is_file():
        _read(ckpt_path)
    elif not any((Path(ckpt_path) / name).exists() for name in _OF_SHARDS):
        raise UserError(f"--ckpt_path {ckpt_path}: it is a folder; name a file, such as its checkpoints/last.ckpt")
    return ckpt_path


def _newest(root: str | Path, word: str) -> Path:
    # Versions of one checkpoint in one folder: last.ckpt, last-v1.ckpt, ...
    found = sorted(Path(root).glob("**/checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime)
    found = [path for path in found if "clean_twin" not in path.parts]
    if not found:
        raise UserError(
            f"--ckpt_path {word}: no run below {root} has saved a last.ckpt; name a file, "
            "or leave --ckpt_path out to start anew"
        )
    return found[-1]


def _best(last: Path) -> str:
    """The best checkpoint of the run that ``last`` belongs to, by what that run monitored."""
    for state in _read(str(last)).get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("monitor") and state.get("best_model_path"):
            best = last.parent / Path(state["best_model_path"]).name
            if best.exists():
                return str(best)
    raise UserError(
        f"--ckpt_path best: the run of {last} monitored nothing; name a file, or let fit choose: "
        "--checkpoint.monitor=val/acc --checkpoint.mode=max"
    )


def check_fits(ckpt_path: str, model: Any, resume: bool) -> dict[str, Any]:
    """Refuse the checkpoint of another model, as loading it would, but before a run has begun.

    Args:
        ckpt_path: a file.
        model: the LightningModule.
        resume: whether training goes on, so that the optimizer must fit as well.

    Returns:
        the checkpoint.

    Raises:
        UserError: a weight is missing, left over or of another shape, or the optimizer is another one.
    """
    checkpoint = _read(ckpt_path, "cpu")
    if getattr(model, "strict_loading", True):
        difference = _difference(checkpoint["state_dict"], model.state_dict())
        if difference:
            raise UserError(
                f"the checkpoint {ckpt_path} does not fit the model ({difference}); "
                "use the network, data and poison that it was trained with, as in the config.yaml of its run"
            )
    if resume and isinstance(model, Victim):
        model.on_load_checkpoint(checkpoint)
    return checkpoint


def _difference(stored: dict[str, Any], own: dict[str, Any]) -> str | None:
    for name, weight in own.items():
        if name in stored and stored[name].shape != weight.shape:
            return f"{name} is {list(stored[name].shape)} in the file and {list(weight.shape)} in the model"
    for here, there, where in ((own, stored, "model"), (stored, own, "file")):
        lonely = [name for name in here if name not in there]
        if lonely:
            return f"{lonely[0]} is in the {where} only"
    return None


def _read(path: str, device: str = "meta") -> dict[str, Any]:
    """A checkpoint of Lightning's, by default without reading its tensors.

    Raises:
        UserError: the file is none.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0][:100] or "it ends too early"
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason}); name a file that Lightning has saved"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"the checkpoint {path} has no state_dict; name a file that Lightning has saved")
    checked: dict[str, Any] = content
    return checked
