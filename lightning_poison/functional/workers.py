"""Worker processes: shared arrays, jobs, and results that outlast them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["in_workers", "lasting_pickle"]

_SHARED = "1M"  # larger arrays are mapped into the workers' memory instead of copied
T = TypeVar("T")


def in_workers(
    work: Callable[..., T], pieces: Iterable[tuple[Any, ...]], jobs: int | None, **settings: Any
) -> Iterable[T]:
    """``work(*piece)`` for each piece, side by side, by joblib; ``joblib.parallel_config`` names its backend.

    Args:
        work: what the workers call.
        pieces: its arguments; arrays in them are shared.
        jobs: processes; 1: this one, which works when it is asked for the next result; -1: one for each core; None: as
            many as a surrounding ``parallel_config`` says, else one for each core.
        settings: more arguments of ``joblib.Parallel``.

    Returns:
        the results in the order of the pieces, as they come.

    Example:
        >>> list(in_workers(pow, [(2, 3), (3, 2)], jobs=1))
        [8, 9]
    """
    if jobs == 1:
        return (work(*piece) for piece in pieces)
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    if jobs is None:
        jobs = get_active_backend()[1]
        jobs = -1 if jobs is None else jobs
    # "c": private copies of what is written to, as torch wants no read-only memory
    settings = {"return_as": "generator", "max_nbytes": _SHARED, "mmap_mode": "c", **settings}
    results: Iterable[T] = Parallel(n_jobs=jobs, **settings)(delayed(work)(*piece) for piece in pieces)
    return results


def lasting_pickle(thing: Any) -> bytes:
    """A pickle that is the same in every process that runs the same script; it is for comparison only.

    cloudpickle writes classes of the script that runs, or of a notebook, with all that is in them, and gives each a
    random name, which is taken out here.

    Example:
        >>> from fractions import Fraction
        >>> lasting_pickle(Fraction(1, 3)) == lasting_pickle(Fraction(2, 6))
        True
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if not isinstance(obj, type) or not isinstance(reduced, tuple):
                return reduced
            arguments = tuple("" if _is_random_name(each) else each for each in reduced[1])
            return (reduced[0], arguments, *reduced[2:])

    with io.BytesIO() as stream:
        Pickler(stream).dump(thing)
        return stream.getvalue()


def _is_random_name(argument: Any) -> bool:
    return isinstance(argument, str) and re.fullmatch("[0-9a-f]{32}", argument) is not None
