"""Where configs are, what makes a file one, and on which others it builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types

import lightning_poison
from lightning_poison.errors import UserError

__all__ = ["describe_configs", "find_config", "read_config", "shipped_configs", "text_with_bases"]

_BEGIN = "begin with a shipped one, see lightning-poison configs"


def shipped_configs() -> dict[str, Path]:
    """The shipped configs by file name, sorted.

    Example:
        >>> "digits.yaml" in shipped_configs()
        True
    """
    package = Path(lightning_poison.__file__).resolve().parent
    inside, beside = package / "configs", package.parent / "configs"
    folder = inside if inside.is_dir() else beside
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


def describe_configs() -> dict[str, str]:
    """The first line of each shipped config, which is a comment that says what it is for."""
    return {
        name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for name, path in shipped_configs().items()
    }


def find_config(name: str) -> Path:
    """The file that ``--config NAME`` means: in the current folder, else among those shipped with the package.

    Args:
        name: a path, or the name of a shipped config, with or without ``.yaml``.

    Raises:
        UserError: there is no such file; the message lists the shipped ones.

    Example:
        >>> find_config("digits").name
        'digits.yaml'
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    raise UserError(f"there is no config {name} here, and the shipped ones are {', '.join(shipped)}")


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a config with those of its bases; none where the YAML is wrong, which the parser says better.

    Args:
        path: of a file that exists.

    Raises:
        UserError: see :func:`text_with_bases`.

    Example:
        >>> read_config(find_config("lbfgs"))["data"]["class_path"]  # it stands in the base, digits.yaml
        'lightning_poison.datamodules.Digits'
    """
    try:
        keys: dict[str, Any] = yaml.safe_load(text_with_bases(path) or path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return {}
    return keys


def text_with_bases(path: Path) -> str | None:
    """The YAML of a config that builds on others; None: it builds on none, or is wrong YAML.

    A file that holds ``base: OTHER`` says what differs from OTHER, which is looked for beside the file, then where
    :func:`find_config` looks, and may have a base itself (a file may have the name of its base). Mappings are merged
    key by key, unless both name a ``class_path`` and name different ones; whatever else the file holds, lists too,
    stands for what OTHER holds.

    Args:
        path: of a file that exists.

    Raises:
        UserError: a file is no text, is empty, or is no mapping; a base is missing; bases go in a circle.

    Example:
        >>> text_with_bases(find_config("digits")) is None
        True
    """
    files = [path]
    try:
        node = _mapping_in(path)
        while (name := _base_in(node, files[-1])) is not None:
            files.append(_find_base(name, files))
            node = _merged(_mapping_in(files[-1]), _without_base(node))
    except yaml.YAMLError as error:
        if files[-1] == path:
            return None
        reason = " ".join(str(error).split())
        raise UserError(f"base in {files[-2]}: {files[-1]} is no YAML ({reason}); mend it") from error
    return None if files == [path] else str(yaml.serialize(node, allow_unicode=True))


def _mapping_in(path: Path) -> yaml.MappingNode:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise UserError(f"--config {path} must be a YAML file in UTF-8, got one that is no text; {_BEGIN}") from error
    if node is None or node.tag == "tag:yaml.org,2002:null":
        raise UserError(f"--config {path} must hold KEY: VALUE, got an empty file; {_BEGIN}")
    if not isinstance(node, yaml.MappingNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise UserError(f"--config {path} must hold KEY: VALUE, got a {kind}; {_BEGIN}")
    return node


def _base_in(node: yaml.MappingNode, path: Path) -> str | None:
    value = _values(node).get("base")
    if value is None:
        return None
    if not isinstance(value, yaml.ScalarNode) or not value.value:
        raise UserError(f"base in {path} must name one config file; write base: digits.yaml")
    return str(value.value)


def _find_base(name: str, files: list[Path]) -> Path:
    here, shipped = files[-1], shipped_configs()
    candidates = (here.parent / name, Path(name), shipped.get(name), shipped.get(f"{name}.yaml"))
    found = [path for path in candidates if path is not None and path.is_file()]
    if not found:
        raise UserError(f"base in {here}: there is no config {name}, and the shipped ones are {', '.join(shipped)}")
    base = next((path for path in found if path.resolve() != here.resolve()), found[0])  # mine may be named as its base
    if base.resolve() in [file.resolve() for file in files]:
        circle = " -> ".join(file.name for file in [*files, base])
        raise UserError(f"base in {here} must not lead back to a file that builds on it, got {circle}")
    return base


def _without_base(node: yaml.MappingNode) -> yaml.MappingNode:
    return _mapping([pair for pair in node.value if pair[0].value != "base"])


def _merged(base: yaml.Node, own: yaml.Node) -> yaml.Node:
    if not isinstance(base, yaml.MappingNode) or not isinstance(own, yaml.MappingNode):
        return own
    theirs, ours = _values(base), _values(own)
    classes = [values["class_path"].value for values in (theirs, ours) if "class_path" in values]
    if len(set(classes)) == 2:
        return own
    pairs = {str(key.value): (key, value) for key, value in base.value}
    for key, value in own.value:
        name = str(key.value)
        pairs[name] = (key, _merged(theirs[name], value) if name in theirs else value)
    return _mapping(list(pairs.values()))


def _mapping(pairs: list[tuple[yaml.Node, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)


def _values(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
