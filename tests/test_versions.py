"""The oldest versions that are tested with are those that the packaging promises, and an environment has them."""

from __future__ import annotations

import configparser
import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def promised() -> dict[str, Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    requirements = [Requirement(line) for line in lines.splitlines() if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in requirements}


def pinned() -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "oldest.txt").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_pins_are_the_lower_bounds() -> None:
    for name, pin in pinned().items():
        (lower,) = [one.version for one in promised()[name].specifier if one.operator == ">="]
        assert Version(lower) == Version(pin), name


@pytest.mark.skipif(os.environ.get("LIGHTNING_POISON_VERSIONS") != "oldest", reason="for `make oldest`")
def test_the_oldest_versions_are_installed() -> None:
    assert {name: version(name) for name in pinned()} == pinned()


def test_what_is_installed_is_what_is_asked_for() -> None:
    for name in pinned():
        assert promised()[name].specifier.contains(version(name), prereleases=True), name
