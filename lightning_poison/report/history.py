"""The epoch-end values of a run, without repeats of values that were not measured again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["History", "as_number"]


def as_number(value: Any) -> float:
    """A logged value as a float; one of single precision as the shortest decimal that means it: 0.02, not 0.0199999996.

    Example:
        >>> import torch
        >>> as_number(torch.tensor(0.02)), as_number(0.1)
        (0.02, 0.1)
    """
    number = float(value)
    return float(str(np.float32(number))) if str(getattr(value, "dtype", "")).endswith("float32") else number


class History:
    """Collects, per metric key, the value at the end of each epoch in which it was logged.

    A Trainer keeps the last value of every key, also of one that is logged every third epoch only. Such a leftover is
    the very same object as before, while a new measurement makes a new object: that tells them apart.

    Example:
        >>> history, leftover = History(), 2.0
        >>> history.collect(0, {"val/acc": 0.5, "paths/length_mean": leftover})
        >>> history.collect(1, {"val/acc": 0.75, "paths/length_mean": leftover})
        >>> history.curves()
        {'val/acc': [(0, 0.5), (1, 0.75)], 'paths/length_mean': [(0, 2.0)]}
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}
        self._seen: dict[str, Any] = {}

    def collect(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Take over what is new in ``metrics``; a second call for the same epoch overwrites."""
        for key, value in metrics.items():
            if self._seen.get(key) is not value and not key.endswith("_step"):
                self._values.setdefault(key, {})[int(epoch)] = as_number(value)
        self._seen = dict(metrics)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """By key, (epoch, value) in the order of the epochs."""
        return {key: sorted(values.items()) for key, values in self._values.items()}

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._seen.clear()

    def state_dict(self) -> dict[str, list[list[float]]]:
        """Plain Python, fit for a checkpoint that is loaded with ``weights_only``."""
        return {key: [[epoch, value] for epoch, value in points] for key, points in self.curves().items()}

    def load_state_dict(self, state: Mapping[str, list[list[float]]]) -> None:
        """Invert :meth:`state_dict`."""
        self.clear()
        self._values = {key: {int(epoch): float(value) for epoch, value in points} for key, points in state.items()}
