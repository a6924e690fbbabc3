"""What every test shares."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from lightning_poison._lightning import lightning_packages

collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # they hold no doctests, and share their name

lightning_packages()  # importing a Lightning package sets the level of its logger
torch.set_num_threads(1)  # the tests run in parallel
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture
def mnist_root() -> Path:
    """A torchvision root that holds the real MNIST."""
    root = os.environ.get("LIGHTNING_POISON_DATA")
    if root is None:
        pytest.skip("LIGHTNING_POISON_DATA is not set: it names a folder with the real MNIST")
    if not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip(f"there is no MNIST in {root}")
    return Path(root)
