"""Either Lightning package."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_poison._lightning import lightning_packages


@pytest.fixture(params=lightning_packages(), ids=lambda package: package.__name__)
def package(request: pytest.FixtureRequest) -> Any:
    """A Lightning package."""
    return request.param
