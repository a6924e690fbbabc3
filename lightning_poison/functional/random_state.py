"""Code that draws from random streams, kept from disturbing them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["RandomStates", "kept_random_state", "private_generators"]

_LEAVES = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    ModuleType,
    CodeType,
    torch.Tensor,
    np.ndarray,
    np.generic,
)
_LONGEST = 10_000  # entries of a container that is searched


@contextmanager
def kept_random_state(
    seed: int | None = None, device: torch.device | None = None, generators: Sequence[Any] = ()
) -> Iterator[None]:
    """Put the global generators of ``random``, NumPy and torch back on the way out.

    Random augmentation, a stochastic victim or a foreign attack that runs inside leaves no trace on the training that
    follows.

    Args:
        seed: of the streams inside, so that they are the same on every rank; None: they go on from where they are.
        device: whose generator to keep (and seed), besides the CPU's.
        generators: others to keep (and seed) as well, see :func:`private_generators`.

    Example:
        >>> with kept_random_state():
        ...     inside = torch.rand(1)
        >>> torch.equal(inside, torch.rand(1))
        True
    """
    states = RandomStates(generators)
    cuda = device if device is not None and device.type == "cuda" else None
    cuda_state = None if cuda is None else torch.cuda.get_rng_state(cuda)
    try:
        if seed is not None:
            _seed(seed, cuda)
            for each in generators:
                _seed_generator(each, seed)
        yield
    finally:
        states.restore()
        if cuda is not None and cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, cuda)


class RandomStates:
    """Where the global generators of ``random``, NumPy and torch are, and others besides.

    Args:
        generators: the others, see :func:`private_generators`.

    Example:
        >>> states = RandomStates()
        >>> number = torch.rand(1)
        >>> states.have_moved()
        True
        >>> states.restore()
        >>> torch.rand(1).equal(number)
        True
    """

    def __init__(self, generators: Sequence[Any] = ()) -> None:
        self._generators = generators
        self._states = self._now()

    def restore(self) -> None:
        """Put every generator back."""
        python, of_numpy, of_torch, others = self._states
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002  # others draw from it
        torch.set_rng_state(of_torch)
        for each, state in zip(self._generators, others, strict=True):
            _set_state(each, state)

    def have_moved(self) -> bool:
        """Whether anything has been drawn since."""
        return any(not _same(one, other) for one, other in zip(self._states, self._now(), strict=True))

    def _now(self) -> tuple[Any, Any, Any, list[Any]]:
        others = [_state(each) for each in self._generators]
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), others  # noqa: NPY002


def private_generators(owner: Any) -> list[Any]:
    """The generators that an object draws from besides the global ones, as far as they can be found.

    Attributes, containers of up to 10,000 entries, partial and nested functions, their defaults and the global names
    that they use are searched, whatever holds whatever.

    Args:
        owner: such as a data set with random augmentation.

    Returns:
        ``random.Random``, NumPy's ``BitGenerator`` and ``RandomState``, ``torch.Generator``; each once.

    Example:
        >>> stream = torch.Generator()
        >>> private_generators(lambda size: torch.rand(size, generator=stream)) == [stream]
        True
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}  # what is kept cannot leave its number to something else
    todo: list[Any] = [owner]
    while todo:
        thing = todo.pop()
        if isinstance(thing, _LEAVES) or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, np.random.Generator):
            todo.append(thing.bit_generator)
        elif isinstance(thing, (torch.Generator, np.random.BitGenerator, np.random.RandomState)) or (
            isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom)
        ):
            found.append(thing)
        else:
            todo.extend(_parts(thing))
    return found


def _parts(thing: Any) -> list[Any]:
    """What an object holds."""
    if isinstance(thing, Mapping):
        return list(thing.values()) if len(thing) <= _LONGEST else []
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing) if len(thing) <= _LONGEST else []
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, FunctionType):
        names = thing.__code__.co_names
        used = [thing.__globals__[name] for name in names if name in thing.__globals__]
        kinds = (random.Random, torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState)
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return [*cells, *defaults, *(each for each in used if isinstance(each, kinds))]
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name) for name in slots)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises where a name has no value yet
    except ValueError:
        return False
    return True


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if not name.startswith("__"))


def _state(each: Any) -> Any:
    if isinstance(each, random.Random):
        return each.getstate()
    return each.state if isinstance(each, np.random.BitGenerator) else each.get_state()


def _set_state(each: Any, state: Any) -> None:
    if isinstance(each, random.Random):
        each.setstate(state)
    elif isinstance(each, np.random.BitGenerator):
        each.state = state
    else:
        each.set_state(state)


def _seed_generator(each: Any, seed: int) -> None:
    if isinstance(each, torch.Generator):
        each.manual_seed(seed)
    elif isinstance(each, np.random.BitGenerator):
        each.state = type(each)(seed).state
    elif isinstance(each, np.random.RandomState):
        each.seed([seed % 2**32, seed >> 32])
    else:
        each.seed(seed)


def _same(one: Any, other: Any) -> bool:
    """Whether two states are equal, arrays within them included."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, Mapping):
        return all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and (one == other if _plain(one) else all(map(_same, one, other)))
    return bool(one == other)


def _plain(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float, str)) for value in values)


def _seed(seed: int, device: torch.device | None) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # not ``torch.manual_seed``: nobody puts the other devices back
    if device is not None:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
