"""Imports only go down the layers; the packaging knows every package."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

import lightning_poison

PACKAGE = Path(lightning_poison.__file__).parent
LAYERS = {
    "errors": 0,
    "_lightning": 0,
    "functional": 0,
    "plots": 0,
    "metrics": 1,
    "attacks": 1,
    "certificates": 1,
    "report": 1,
    "nets": 2,
    "ensembles": 2,
    "poisons": 2,
    "trainer": 3,
    "victims": 4,
    "datamodules": 4,
    "callbacks": 5,
    "experiments": 6,
    "cli": 7,
    "__main__": 8,
}
LIGHTNING = {"pytorch_lightning", "lightning"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = layer_of(path)
    if here == "__init__":
        return
    assert here in LAYERS, f"{here} is in no layer"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "lightning_poison" and len(parts) > 1 and parts[1] in LAYERS and parts[1] != here:
            assert LAYERS[parts[1]] <= LAYERS[here], f"{path} imports {name} from a higher layer"
        if LAYERS[here] <= 2 and here != "_lightning":
            assert parts[0] not in LIGHTNING, f"{path} is below Lightning and imports {name}"


def test_every_layer_is_known_to_the_packaging() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    declared = set(setup["options"]["packages"].split())
    found = {
        ".".join(("lightning_poison", *path.parent.relative_to(PACKAGE).parts)) for path in PACKAGE.rglob("__init__.py")
    }
    assert declared == found | {"lightning_poison.configs"}


def test_every_file_that_is_no_module_is_in_the_wheel() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    declared = {package: names.split(", ") for package, names in setup["options.package_data"].items()}
    files = [path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert {path.name for path in files} >= {"page.html.jinja", "page.css", "py.typed"}
    for path in files:
        assert path.name in declared[".".join(("lightning_poison", *path.parent.relative_to(PACKAGE).parts))]
