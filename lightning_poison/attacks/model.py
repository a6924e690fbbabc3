"""The network as an attack sees it: in eval mode, with frozen weights, giving class scores, and left as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_poison.attacks.convolution import FastInputGradients
from lightning_poison.attacks.outputs import are_scores, called, why_no_scores
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_labels, check_pixels

__all__ = [
    "batch_layout",
    "check_floats",
    "check_samples",
    "class_scores",
    "eval_mode",
    "frozen_eval",
    "input_gradients",
    "kept_state",
    "without_history",
]


# --- eval mode and frozen weights -------------------------------------------------------------------------------------

_FAST: ContextVar[FastInputGradients | None] = ContextVar("fast input gradients", default=None)


@contextmanager
def frozen_eval(model: Callable[..., Any]) -> Iterator[None]:
    """Gradients with respect to inputs, and none to weights, also within ``torch.inference_mode``.

    Inside, ``model`` is in eval mode, its parameters require no gradient, and :func:`class_scores` makes the gradients
    of its first convolution fast; outside, every module's mode, every parameter's flag, every buffer and the states of
    metrics inside the model (:func:`kept_state`) are as before, also after an
    exception. Tensors made in inference mode must be cloned inside before a gradient can flow through them.

    Args:
        model: an ``nn.Module``; of any other callable only the gradient mode is set.

    Raises:
        UserError: weights of the model have no values yet.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen_eval(net):
        ...     net.training, net[0].weight.requires_grad
        (False, False)
        >>> net.training, net[0].weight.requires_grad
        (True, True)
    """
    module = model if isinstance(model, nn.Module) else nn.Module()
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    if any(is_lazy(parameter) for parameter, _ in flags):
        raise UserError(
            "the model's weights must have values, got parameters of lazy modules that are not initialised; "
            "run one batch through it first"
        )
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            kept_state(module),
            eval_mode(module),
            _fast_input_gradients(FastInputGradients()),
        ):
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield
    finally:
        with torch.inference_mode(False):
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """A network and its parts in eval mode; each is in its own again on the way out, also after an exception.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())
        >>> with eval_mode(net):
        ...     net.training
        False
        >>> net.training, net[1].training
        (True, False)
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _fast_input_gradients(mode: FastInputGradients | None) -> Iterator[None]:
    token = _FAST.set(mode)
    try:
        yield
    finally:
        _FAST.reset(token)


# --- class scores and gradients ---------------------------------------------------------------------------------------


def class_scores(model: Callable[[Tensor], Any], inputs: Tensor) -> Tensor:
    """Run ``model`` and check that it returns class scores (logits).

    Args:
        model: maps (N, ...) to (N, K).
        inputs: shape (N, ...).

    Returns:
        shape (N, K), float, finite, K >= 2.

    Raises:
        UserError: the output is something else, the model takes something else than inputs, or it has overwritten them.
    """
    scores = _unharmed(model, inputs)
    if not isinstance(scores, Tensor):
        raise UserError(
            f"the model must return a tensor of class scores, got {type(scores).__name__}; "
            "let its forward return the logits alone, or say where they stand in what it returns (output: 0, or a name)"
        )
    if not are_scores(scores, len(inputs)):
        raise UserError(why_no_scores(model, inputs, scores))
    if not torch.isfinite(scores).all():
        check_finite("inputs", inputs, remedy="remove the broken samples")
        check_finite("class scores", scores, remedy="look for a diverged training (lower the learning rate)")
    return scores


def _unharmed(model: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """The model's output; a model that overwrites its inputs is refused, as others will still read them."""
    before = None if inputs.is_inference() else inputs._version
    fast = _FAST.get()
    # On for the network alone: it looks at every operation, which takes time. Off where networks call each other.
    with nullcontext() if fast is None else fast, _fast_input_gradients(None):
        output = called(model, inputs)
    if before is not None and inputs._version != before:
        raise UserError(
            "the model overwrites its inputs; let its forward make new tensors (x = x - mean, not x -= mean)"
        )
    return output


def input_gradients(total: Tensor, points: Tensor) -> Tensor:
    """The gradient of ``total`` with respect to ``points``; 0 where it is NaN, as there is no derivative to follow.

    Args:
        total: a number that was computed from the model's scores of the points.
        points: shape (n, ...).

    Returns:
        shape (n, ...).

    Raises:
        UserError: the model passes no gradient on, or only to everything at once.

    Example:
        >>> points = torch.tensor([[0.0, 4.0]], requires_grad=True)
        >>> input_gradients((points + 0 * points.sqrt()).sum(), points)
        tensor([[0., 1.]])
    """
    if not total.requires_grad:
        raise UserError(
            "the model passes no gradient on to its inputs (it detaches them, rounds them to integers or runs under "
            "no_grad); take that out of its forward, or use FiniteDifferences or SubstituteTransfer, which need none"
        )
    try:
        (gradients,) = torch.autograd.grad(total, points, materialize_grads=True)
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower() or "`inputs`" not in str(error):
            raise
        raise UserError(
            "the model must not compute with reentrant checkpoints, which give no gradient of inputs alone; pass "
            "use_reentrant=False to torch.utils.checkpoint (with other libraries: switch checkpoints off in eval mode)"
        ) from error
    return gradients.nan_to_num()


def without_history(values: Tensor) -> Tensor:
    """The same values, fit to start a computation with gradients; copied only where inference mode has made them.

    Example:
        >>> with torch.inference_mode():
        ...     made = torch.ones(2)
        >>> without_history(made).is_inference()
        False
    """
    return values.clone() if values.is_inference() else values.detach()


# --- memory layout ----------------------------------------------------------------------------------------------------


def batch_layout(model: Callable[[Tensor], Any], inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """How to lay out batches of images in memory so that the network is fast.

    On a CPU convolutions and poolings are up to nine times as fast when the channels of a pixel lie side by side.
    The values are the same. A network that can't take it (because it calls ``view`` where ``reshape`` would do) is
    found out by a try on two images and gets batches as they are.

    Args:
        model: maps (N, ...) to anything.
        inputs: shape (N, ...): examples to try it with.

    Returns:
        a function that lays out a batch.

    Example:
        >>> images = torch.rand(4, 3, 8, 8)
        >>> batch_layout(nn.Flatten(), images)(images).stride()
        (192, 1, 24, 3)
    """
    if inputs.ndim != 4 or inputs.device.type != "cpu" or not len(inputs):
        return _as_it_is
    try:
        with torch.no_grad():
            _unharmed(model, _channels_last(inputs[:2].clone()))
    except RuntimeError:
        return _as_it_is
    return _channels_last


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


def _channels_last(batch: Tensor) -> Tensor:
    if batch.ndim != 4:  # a transform may have flattened the images
        return batch
    count, channels, height, width = batch.shape
    laid_out = batch.contiguous(memory_format=torch.channels_last)
    # With one channel both layouts hold the same bytes, and the strides alone decide which one PyTorch sees.
    strides = (channels * height * width, 1, width * channels, channels)
    return laid_out.as_strided((count, channels, height, width), strides)


# --- checks of samples ------------------------------------------------------------------------------------------------


def check_floats(inputs: Tensor) -> None:
    """Refuse inputs that are no batch of floats, before a network sees them.

    Raises:
        UserError: they are integers, or a single number each.

    Example:
        >>> check_floats(torch.zeros(2, 3, dtype=torch.uint8))
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: inputs must be a batch of floats in [0, 1], got shape (2, 3), dtype \
torch.uint8; divide 8-bit images by 255
    """
    if not inputs.is_floating_point() or inputs.ndim < 2:
        raise UserError(
            f"inputs must be a batch of floats in [0, 1], got shape {tuple(inputs.shape)}, dtype {inputs.dtype}; "
            "divide 8-bit images by 255"
        )


def check_samples(inputs: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Refuse samples that no attack can be run on; class ranges are checked once the number of classes is known.

    Args:
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), integer.
        targets: shape (N,), integer, or None.

    Returns:
        the inputs, less what the rounding of a resize left outside [0, 1].

    Raises:
        UserError: pixels outside [0, 1], NaN, another dtype, lengths that differ.
    """
    check_floats(inputs)
    inputs = check_pixels("inputs", inputs)
    for name, values in (("labels", labels), ("targets", targets)):
        if values is not None and len(check_labels(name, values, torch.iinfo(torch.int64).max)) != len(inputs):
            raise UserError(f"{name} must have one entry for each of {len(inputs)} inputs, got {len(values)}")
    return inputs


# --- buffers and metrics, put back ------------------------------------------------------------------------------------


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
