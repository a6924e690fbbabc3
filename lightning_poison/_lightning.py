"""Base classes that both Lightning packages accept.

``pytorch_lightning`` and ``lightning.pytorch`` hold unrelated classes of the same shape, and each Trainer checks with
``isinstance``. A callback or data module that inherits from both bases runs under either. A LightningModule cannot
(each package takes the other's hooks for overridden ones), so victims belong to ``pytorch_lightning``.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

__all__ = ["Callback", "LightningDataModule", "lightning_packages"]


def lightning_packages() -> tuple[Any, ...]:
    """Every importable Lightning package, ``pytorch_lightning`` first."""
    if importlib.util.find_spec("lightning") is None:
        return (pl,)
    import lightning.pytorch as unified

    return (pl, unified)


if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule
else:
    _PACKAGES = lightning_packages()
    Callback = type("Callback", tuple(package.Callback for package in _PACKAGES), {"__module__": __name__})
    LightningDataModule = type(
        "LightningDataModule", tuple(package.LightningDataModule for package in _PACKAGES), {"__module__": __name__}
    )
