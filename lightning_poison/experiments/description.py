"""What decides how something comes out, as plain values, and a digest of them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.functional.random_streams import kept_random_state, mix_seed
from lightning_poison.functional.workers import lasting_pickle
from lightning_poison.nets.building import build_net

__all__ = ["describe_net", "digest", "plain", "tensor_digest"]

_DIGITS = 20
_PACKAGE = __name__.partition(".")[0]
_PARSERS = "jsonargparse."
_PRECISION = 3  # decimals of a network's answer that are the same on every machine


def plain(thing: Any) -> Any:
    """A setting as plain values that JSON can hold, complete and the same in every process.

    Dataclasses and partial functions are taken apart, a text that names a file counts with the file's content, classes
    and functions go by their names, dataclasses from elsewhere with a hash of their text. Of what has no lasting name,
    such as a lambda, a hash of its code is kept.

    Example:
        >>> from lightning_poison.poisons import RandomPoints, ToClass
        >>> plain({"relabel": ToClass(3), "share": 0.5})
        {'relabel': {'class': 'lightning_poison.poisons.relabellings.ToClass', 'label': 3}, 'share': 0.5}
    """
    if thing is None or isinstance(thing, (bool, int, float)):
        return thing
    if isinstance(thing, (str, Path)):
        return _text(str(thing))
    if isinstance(thing, (list, tuple)):
        return [plain(each) for each in thing]
    if isinstance(thing, Mapping):
        return {str(key): plain(thing[key]) for key in sorted(thing, key=str)}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {field.name: plain(getattr(thing, field.name)) for field in dataclasses.fields(thing) if field.init}
        return {"class": _name(type(thing)), **_source(type(thing)), **fields}
    if isinstance(thing, functools.partial):
        return _partial(thing)
    return _name(thing)


def digest(settings: Any) -> str:
    """Twenty hexadecimal digits of the SHA-256 of plain values.

    Example:
        >>> digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def tensor_digest(*tensors: Tensor) -> str:
    """Twenty hexadecimal digits of the SHA-256 of the values, types and shapes of tensors.

    Example:
        >>> tensor_digest(torch.zeros(2, 3)) == tensor_digest(torch.zeros(3, 2))
        False
    """
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()[:_DIGITS]


def describe_net(net: Callable[[int], nn.Module], num_classes: int, sample: Tensor) -> dict[str, Any]:
    """What tells a network from another one: its layers, their sizes, and what it answers before any training.

    The answers, in eval mode and, where it is another one, in training mode, stand for what neither layers nor sizes
    show: how the weights are drawn and what ``forward`` does. Arguments that ``net`` carries along, as a
    ``functools.partial`` does, count as well.

    Args:
        net: makes the network when called with ``num_classes=K``.
        num_classes: K.
        sample: shape (m, ...), inputs to ask it about.

    Raises:
        UserError: ``net`` makes no network of ``num_classes``.
        RuntimeError: the network cannot take the inputs.
    """
    with kept_random_state(mix_seed(0, "description")), torch.no_grad():
        module = build_net(net, num_classes).eval()
        answer = _rounded(module(sample))
        pair = torch.cat([sample, sample])  # two, for layers that look at a batch
        still, moving = _rounded(module(pair)), _rounded(module.train()(pair))
    description = {
        "class": _name(type(module)),
        "layers": repr(module),
        "sizes": {name: list(weight.shape) for name, weight in module.named_parameters()},
        "answer": answer,
    }
    if moving != still:
        description["training"] = moving
    if isinstance(net, functools.partial):
        description["arguments"] = _partial(net)
    return description


def _source(cls: type) -> dict[str, str]:
    """A hash of the text of a class of somebody else's, which its name does not tell from an edited one."""
    if cls.__module__.partition(".")[0] == _PACKAGE:
        return {}
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):  # typed in, or compiled
        return {}
    return {"source": hashlib.sha256(text.encode()).hexdigest()}


def _rounded(answer: Tensor) -> list[float]:
    return [round(float(value), _PRECISION) + 0.0 for value in answer.double().flatten()]


def _text(text: str) -> Any:
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or not one at all
        is_file = False
    return {"file": text, "sha256": hashlib.sha256(Path(text).read_bytes()).hexdigest()} if is_file else text


def _partial(thing: functools.partial[Any]) -> Any:
    """A partial function; what the parser of the command line wraps around a class is left out."""
    parts = [thing.func, *thing.args]
    own = [part for part in parts if not str(getattr(part, "__module__", "")).startswith(_PARSERS)]
    return {"call": [plain(part) for part in own], "with": plain(thing.keywords)}


def _name(thing: Any) -> Any:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module not in (None, "__main__") and name is not None and "<" not in name:
        return f"{module}.{name}"
    return {"name": name or type(thing).__name__, "pickle": hashlib.sha256(lasting_pickle(thing)).hexdigest()}
