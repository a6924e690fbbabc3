"""Worker processes that share large arrays."""

from __future__ import annotations

from typing import Any

__all__ = ["worker_pool"]

_SHARED = "1M"  # larger arrays are mapped into the workers' memory instead of copied


def worker_pool(jobs: int, **settings: Any) -> Any:
    """A ``joblib.Parallel`` whose workers look at the caller's arrays; ``joblib.parallel_config`` names its backend.

    Args:
        jobs: processes; -1: one for each core.
        settings: more arguments of ``Parallel``.

    Example:
        >>> from joblib import delayed
        >>> worker_pool(1)(delayed(abs)(number) for number in (-1, 2))
        [1, 2]
    """
    from joblib import Parallel

    # "c": private copies of what is written to, as torch wants no read-only memory
    return Parallel(n_jobs=jobs, max_nbytes=_SHARED, mmap_mode="c", **settings)
