"""Random streams: explicit ones, the same on every rank and after every resume, and the global state kept."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "RandomStates",
    "fill_gaussian",
    "generator",
    "isolated_run",
    "kept_random_state",
    "mix_seed",
    "private_generators",
    "uniform_noise",
]

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


# --- streams of their own ---------------------------------------------------------------------------------------------


def mix_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed that depends on ``seed`` and every key, and on nothing else.

    Unlike ``seed + key`` two different tuples do not share a stream.

    Example:
        >>> mix_seed(0, "shuffle", 1) != mix_seed(1, "shuffle", 0)
        True
    """
    text = "\x1f".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator seeded with :func:`mix_seed`, independent of the global state.

    Example:
        >>> torch.rand(2, generator=generator(0, "demo")).equal(torch.rand(2, generator=generator(0, "demo")))
        True
    """
    return torch.Generator().manual_seed(mix_seed(seed, *keys))


def uniform_noise(shape: torch.Size, sample_ids: Tensor, seed: int, *keys: int | str) -> Tensor:
    """Noise in [-1, 1) that belongs to each sample, however samples are batched or spread over ranks.

    Args:
        shape: (N, ...) of the result.
        sample_ids: shape (N,), int64: the sample's position in its data set.
        seed: the attack's seed.
        keys: more to tell streams apart, such as the number of the restart.

    Returns:
        shape (N, ...), float32, on the CPU.

    Example:
        >>> whole = uniform_noise(torch.Size([3, 2]), torch.arange(3), 0)
        >>> whole[1:].equal(uniform_noise(torch.Size([2, 2]), torch.arange(1, 3), 0))
        True
    """
    noise = torch.empty(shape)
    for row, sample in zip(noise, sample_ids.tolist(), strict=True):
        row.uniform_(-1, 1, generator=generator(seed, *keys, sample))
    return noise


def fill_gaussian(buffer: Tensor, std: float, seed: int, *keys: int | str) -> Tensor:
    """Overwrite a tensor with independent normal numbers of mean 0, on its own device.

    The numbers depend on the shape, the seed, the keys and the kind of device, and on nothing else.

    Args:
        buffer: any shape, float; kept in place, so that a loop needs no fresh memory.
        std: standard deviation.
        seed: the stream's seed.
        keys: more to tell streams apart.

    Returns:
        ``buffer``.

    Example:
        >>> noise = fill_gaussian(torch.empty(10_000), 0.5, seed=0)
        >>> round(float(noise.std()), 1), noise.equal(fill_gaussian(torch.empty(10_000), 0.5, 0))
        (0.5, True)
    """
    stream = torch.Generator(device=buffer.device).manual_seed(mix_seed(seed, *keys))
    return buffer.normal_(0, std, generator=stream)


# --- the global state kept --------------------------------------------------------------------------------------------


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


@contextmanager
def isolated_run(seed: int) -> Iterator[None]:
    """Seed the global generators, compute on one thread with gradients possible, and put everything back.

    On one thread sums have one order, so that a run comes out the same in whatever process and beside however many
    others it is computed. Speed comes from runs side by side.

    Args:
        seed: of the global generators inside.

    Example:
        >>> with isolated_run(7):
        ...     first = torch.rand(2)
        >>> with isolated_run(7):
        ...     print(torch.rand(2).equal(first), torch.get_num_threads())
        True 1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            _libraries().limit(limits=1),
            kept_random_state(seed),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


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
