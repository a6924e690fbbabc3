"""Imports only go down the layers; the packaging knows every package."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path

import networkx as nx
import pytest

import lightning_poison

PACKAGE = Path(lightning_poison.__file__).parent
LAYERS = {
    "errors": 0,
    "_lightning": 0,
    "functional": 0,
    "plots": 0,
    "attacks": 1,
    "certificates": 1,
    "report": 1,
    "theory": 1,
    "nets": 2,
    "ensembles": 2,
    "poisons": 2,
    "trainer": 3,
    "victims": 4,
    "certificates.networks": 4,
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
    return layer_named(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_named(parts: Sequence[str]) -> str:
    """The layer of a module, given its name without that of the package."""
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LAYERS else parts[0]


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
        there = layer_named(parts[1:]) if parts[0] == "lightning_poison" and len(parts) > 1 else here
        if there in LAYERS and there != here:
            assert LAYERS[there] <= LAYERS[here], f"{path} imports {name} from a higher layer"
        if LAYERS[here] <= 2 and here != "_lightning":
            assert parts[0] not in LIGHTNING, f"{path} is below Lightning and imports {name}"


def test_nothing_below_the_trainer_layer_is_handed_a_trainer() -> None:
    for path in modules():
        if LAYERS.get(layer_of(path), 8) < LAYERS["trainer"]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.arg) and node.arg == "trainer":
                    kind = ast.unparse(node.annotation) if node.annotation else "Any"
                    assert kind != "Any", f"{path.relative_to(PACKAGE)}, line {node.lineno} takes a Trainer"


def test_every_layer_is_known_to_the_packaging() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    declared = set(setup["options"]["packages"].split())
    found = {
        ".".join(("lightning_poison", *path.parent.relative_to(PACKAGE).parts)) for path in PACKAGE.rglob("__init__.py")
    }
    assert declared == found | {"lightning_poison.configs"}


def cycles(sources: Mapping[str, str]) -> list[list[str]]:
    """Modules that import each other, directly or over others, also within functions and for type checkers only.

    A name that a package passes on counts as imported from the module that defines it, and packages themselves are
    left out: otherwise every package would import its modules, and they it.

    Args:
        sources: the text of each module by its full name, packages as ``package.__init__``.
    """
    taken = {
        module: [
            (node.module or "", alias.name, alias.asname or alias.name)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        + [
            (*alias.name.rpartition(".")[::2], "")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        for module, text in sources.items()
    }

    def defining(package: str, name: str) -> str | None:
        for module in (f"{package}.{name}", package):
            if module in sources:
                return module
        for origin, original, here in taken.get(f"{package}.__init__", []):
            if here == name and (origin, original) != (package, name):
                return defining(origin, original)
        return None

    graph = nx.DiGraph(
        (module, found)
        for module in sources
        for origin, original, _ in taken[module]
        if (found := defining(origin, original)) is not None
    )
    graph.remove_nodes_from([module for module in sources if module.endswith("__init__")])
    groups = [sorted(group) for group in nx.strongly_connected_components(graph)]
    return sorted(group for group in groups if len(group) > 1 or graph.has_edge(group[0], group[0]))


def test_no_modules_import_each_other() -> None:
    sources = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in modules()
    }
    assert len(sources) > 50
    assert cycles(sources) == []


@pytest.mark.parametrize(
    "back",
    [
        "from p.a import x",
        "import p.a",
        "from p import a",
        "from p import x",
        "def late():\n    from p.a import x",
        "if TYPE_CHECKING:\n    from p.a import x",
        "from p.c import x",
    ],
)
def test_hidden_cycles_are_found(back: str) -> None:
    package = {"p.__init__": "from p.a import x\nfrom p.b import y", "p.a": "from p.b import y\nx = 1"}
    assert cycles({**package, "p.b": "y = 1", "p.c": "from p.a import x"}) == []
    found = cycles({**package, "p.b": back, "p.c": "from p.a import x"})
    assert found == [["p.a", "p.b", "p.c"] if "p.c" in back else ["p.a", "p.b"]]


def test_every_file_that_is_no_module_is_in_the_wheel() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    declared = {package: names.split(", ") for package, names in setup["options.package_data"].items()}
    files = [path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert {path.name for path in files} >= {"page.html.jinja", "page.css", "py.typed"}
    for path in files:
        assert path.name in declared[".".join(("lightning_poison", *path.parent.relative_to(PACKAGE).parts))]
