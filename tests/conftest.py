"""What every test shares."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from lightning_poison._lightning import lightning_packages

collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # they hold no doctests, and share their name

lightning_packages()  # importing a Lightning package sets the level of its logger
torch.set_num_threads(1)  # the tests run in parallel
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

PATCHED = ("__init__", "__setattr__", "__delattr__")
LOADERS = {kind: {name: vars(kind).get(name) for name in PATCHED} for kind in (DataLoader, BatchSampler)}


@pytest.fixture(autouse=True)
def loaders_as_torch_made_them() -> Iterator[None]:
    """Take off what Lightning leaves on torch's loaders where a data module's hook raises.

    It patches their classes around that hook and puts nothing back after an error, so that every later test of the
    process would read other loaders than its own.
    """
    yield
    for kind, methods in LOADERS.items():
        for name, method in methods.items():
            if method is not None:
                setattr(kind, name, method)
            elif name in vars(kind):
                delattr(kind, name)
            if f"__old{name}" in vars(kind):
                delattr(kind, f"__old{name}")


@pytest.fixture
def mnist_root() -> Path:
    """A torchvision root that holds the real MNIST."""
    root = os.environ.get("LIGHTNING_POISON_DATA")
    if root is None:
        pytest.skip("LIGHTNING_POISON_DATA is not set: it names a folder with the real MNIST")
    if not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip(f"there is no MNIST in {root}")
    return Path(root)
