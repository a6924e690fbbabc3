"""What a network writes while it runs, put back: buffers, and the states of metrics inside it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["kept_state"]


@contextmanager
def kept_state(module: nn.Module) -> Iterator[None]:
    """Whatever a forward inside writes into buffers and metrics is undone on the way out, also after an exception.

    Kept are the buffers of the module and of all its submodules (running statistics, counters, queues, caches), and
    torchmetrics' metrics among them: their states, counts of updates and caches. Buffers that a forward registers for
    the first time stay, as their module may have noted that they are there. Attributes that are neither, such as a
    counter that is a plain number or a metric in a list, are not seen and not kept.

    Metrics inside do not communicate, as ranks run their networks a different number of times.

    Args:
        module: any network.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with kept_state(norm):
        ...     _ = norm(torch.rand(8, 2))
        ...     inside = norm.num_batches_tracked.item()
        >>> inside, norm.num_batches_tracked.item()
        (1, 0)
    """
    parts = list(module.modules())
    with torch.inference_mode(False), torch.no_grad():
        buffers = _KeptBuffers(parts)
        metrics = _kept_metrics(parts)
    try:
        yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            buffers.put_back()
        for part, attributes in metrics:
            vars(part).clear()
            vars(part).update(attributes)


class _KeptBuffers:
    """The buffers of a network, and the values that they had, laid side by side so that one look compares them all.

    Versions would not do: batch normalisation writes its statistics, and ``buffer.data`` is written, without one.
    """

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        # A lazy module's buffer has no values yet: whoever runs it first makes them.
        self.objects = [
            (part, name, buffer)
            for part in parts
            for name, buffer in part._buffers.items()
            if buffer is None or not is_lazy(buffer)
        ]
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for part, name, buffer in self.objects:
            if buffer is None or buffer.is_meta or buffer.layout != torch.strided:
                continue
            if buffer.is_inference():  # not to be written or differentiated through outside inference mode:
                part._buffers[name] = buffer.clone()  # a stand-in is
            else:
                alike.setdefault((type(buffer), buffer.device, buffer.dtype), []).append(buffer)
        self.values = [(group, [buffer.shape for buffer in group], _side_by_side(group)) for group in alike.values()]

    def put_back(self) -> None:
        """Make them what they were; a buffer that nobody has written is left alone."""
        for part, name, buffer in self.objects:
            buffers = part._buffers
            if name not in buffers or buffers[name] is not buffer:
                buffers[name] = buffer
        for group, shapes, values in self.values:
            if not _are_equal(group, shapes, values):
                pieces = torch.split(values, [shape.numel() for shape in shapes])
                for buffer, shape, piece in zip(group, shapes, pieces, strict=True):
                    if buffer.shape != shape or buffer.dtype != values.dtype:
                        buffer.data = piece.view(shape).clone()
                    elif not torch.equal(buffer, piece.view(shape)):
                        buffer.copy_(piece.view(shape))


def _are_equal(group: list[Tensor], shapes: list[torch.Size], values: Tensor) -> bool:
    if any(b.shape != shape or b.dtype != values.dtype for b, shape in zip(group, shapes, strict=True)):
        return False
    return torch.equal(_side_by_side(group), values)


def _side_by_side(group: list[Tensor]) -> Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in group])


def _kept_metrics(parts: list[nn.Module]) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Every metric with its attributes; the states left inside are copies, so that nobody writes into these."""
    torchmetrics: Any = sys.modules.get("torchmetrics")  # whoever has a metric has imported it
    if torchmetrics is None:
        return []
    kept, copies = [], {}  # metrics of a collection share states, and go on sharing them
    for part in parts:
        if not isinstance(part, torchmetrics.Metric) and not type(part).__module__.startswith("torchmetrics."):
            continue
        attributes = vars(part)
        kept.append((part, dict(attributes)))
        for name in attributes.get("_defaults", ()):
            state = attributes[name]
            if id(state) not in copies:
                copies[id(state)] = _copied(state)
            attributes[name] = copies[id(state)]
        for name in ("dist_sync_on_step", "sync_on_compute", "_to_sync"):
            if name in attributes:
                attributes[name] = False
        if "_groups" in attributes:
            attributes["_groups"] = copy.deepcopy(attributes["_groups"])
    return kept


def _copied(state: Any) -> Any:
    """A metric's state that may be written to outside inference mode; entries of a list are only ever added."""
    if isinstance(state, Tensor):
        return state.clone()
    return list(state) if isinstance(state, list) else state
