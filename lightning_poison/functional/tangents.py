"""Derivatives of a network with respect to its weights: gradients of each point, and products with them.

Gradients are kept in factors, and their inner products are the tangent kernel. Where a matrix is known by its products
with vectors only, a linear system with it is solved by conjugate gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

__all__ = ["Solution", "Tangents", "conjugate_gradients", "jvp", "tangent_kernel", "tangents"]

_KEPT_BYTES = 512 * 2**20  # gradients of one side of a matrix of inner products
_BLOCK_BYTES = 64 * 2**20  # of the other
_BLOCK_POINTS = 256  # whose activations are in memory at once
_ROUNDING = 1e-4  # of a sum of gradients


# --- gradients of each point ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tangents:
    r"""Gradients :math:`\nabla_\theta f(x)` of N points.

    The gradient of a fully connected layer is an outer product of its input a and of the gradient d of its output, so
    that two of them have the inner product :math:`(a^T a')(d^T d')`: the two factors are kept, never their product,
    which is hundreds of times larger.

    Args:
        blocks: for each group of weights its factors, matrices of N rows.
    """

    blocks: list[tuple[Tensor, ...]]

    @property
    def floats(self) -> int:
        """Numbers kept for each point."""
        return sum(factor.shape[1] for block in self.blocks for factor in block)

    def rows(self, start: int, stop: int | None = None) -> Tangents:
        """The points from ``start`` to before ``stop``."""
        return Tangents([tuple(factor[start:stop] for factor in block) for block in self.blocks])

    @classmethod
    def joined(cls, parts: Sequence[Tangents]) -> Tangents:
        """The points of several parts, one after the other."""
        together = zip(*(part.blocks for part in parts), strict=True)
        return cls([tuple(torch.cat(factors) for factors in zip(*blocks, strict=True)) for blocks in together])

    def inner(self, other: Tangents) -> Tensor:
        """Inner products of all pairs.

        Args:
            other: gradients of M points, of the same network.

        Returns:
            shape (N, M), in the gradients' dtype.
        """
        total = torch.zeros(())
        for block, others in zip(self.blocks, other.blocks, strict=True):
            product = torch.ones(())
            for mine, theirs in zip(block, others, strict=True):
                product = product * (mine @ theirs.T)
            total = total + product
        return total


def tangents(network: nn.Module, inputs: Tensor, output: Callable[[Tensor], Tensor]) -> Tangents:
    """The gradients of one number of each point with respect to the weights that require a gradient.

    Plain ``Linear`` layers on vectors and plain ``Conv2d`` layers that are used once are taken from one backward pass
    over all points; what is left, if anything, from ``torch.func``. Layers whose sum over the points is not autograd's,
    as a weight is used elsewhere, too, are among what is left. The points must not see each other, which in eval
    mode they do not.

    Args:
        network: maps (N, ...) to outputs of N rows; in eval mode.
        inputs: shape (N, ...).
        output: maps the outputs of N points to one number each, (N,).

    Returns:
        the gradients, detached.

    Example:
        >>> one = tangents(nn.Linear(2, 1), torch.tensor([[1.0, 2.0]]), lambda scores: scores[:, 0])
        >>> one.inner(tangents(nn.Linear(2, 1), torch.tensor([[3.0, 4.0], [0.0, 0.0]]), lambda scores: scores[:, 0]))
        tensor([[12.,  1.]])
    """
    layers = _plain_layers(network)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    hooks = [layer.register_forward_hook(_recorder(seen[name])) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            total = output(network(inputs)).sum()
    finally:
        for hook in hooks:
            hook.remove()
    usable = {name: uses[0] for name, uses in seen.items() if len(uses) == 1 and _fits(layers[name], *uses[0])}
    outs = [out for _, out in usable.values()]
    weights = {name: list(layers[name].parameters(recurse=False)) for name in usable}
    asked = [*outs, *(weight for own in weights.values() for weight in own)]
    slopes = iter(torch.autograd.grad(total, asked, materialize_grads=True) if usable else ())
    factors = {name: _blocks(layers[name], given, next(slopes)) for name, (given, _) in usable.items()}
    sums = {name: [next(slopes) for _ in own] for name, own in weights.items()}
    usable = {name: use for name, use in usable.items() if _add_up(factors[name], sums[name])}
    blocks = [factors[name] for name in usable]
    done = {f"{name}.{weight}" if name else weight for name in usable for weight in ("weight", "bias")}
    rest = {name for name, weight in network.named_parameters() if weight.requires_grad and name not in done}
    if rest:
        blocks.append((_gradients(network, inputs, output, rest),))
    return Tangents(blocks)


def tangent_kernel(points: Tensor, others: Tensor, gradients: Callable[[Tensor], Tangents]) -> Tensor:
    """Inner products of all pairs of gradients, in bounded memory: 512 MiB of gradients besides the result.

    Args:
        points: shape (m, ...).
        others: shape (n, ...); the very same tensor as ``points`` costs half and gives a symmetric matrix.
        gradients: of a part of the points.

    Returns:
        shape (m, n), in the gradients' dtype, float32 where there are none.
    """
    if not len(points) or not len(others):
        return torch.zeros(len(points), len(others))
    size = 4 * max(gradients(others[:1]).floats, 1)
    block = max(min(_BLOCK_BYTES // size, _BLOCK_POINTS), 1)
    kept_points = max(_KEPT_BYTES // size // block, 1) * block
    kernel = None
    for first in range(0, len(others), kept_points):
        kept = Tangents.joined([gradients(part) for part in torch.split(others[first : first + kept_points], block)])
        width = len(others[first : first + kept_points])
        for row in range(0, len(points) if points is not others else first + width, block):
            skipped = max(row - first, 0) if points is others else 0
            part = points[row : row + block]
            own = (
                kept.rows(row - first, row - first + len(part))
                if points is others and row >= first
                else gradients(part)
            )
            inner = own.inner(kept.rows(skipped))
            if kernel is None:
                kernel = inner.new_empty(len(points), len(others))
            kernel[row : row + len(part), first + skipped : first + width] = inner
            if points is others:
                kernel[first + skipped : first + width, row : row + len(part)] = inner.T
    return kernel if kernel is not None else torch.zeros(len(points), len(others))


def _plain_layers(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Layers whose weights all require a gradient and belong to no other module."""
    owners: dict[int, int] = {}
    for module in network.modules():
        for weight in module.parameters(recurse=False):
            owners[id(weight)] = owners.get(id(weight), 0) + 1
    return {
        name: module
        for name, module in network.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d)
        and isinstance(module, (nn.Linear, nn.Conv2d))
        and {name for name, _ in module.named_parameters(recurse=False)} - {"bias"} == {"weight"}  # no weight_norm
        and all(weight.requires_grad and owners[id(weight)] == 1 for weight in module.parameters(recurse=False))
    }


def _recorder(uses: list[tuple[Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def record(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:  # noqa: ARG001  # torch's signature
        uses.append((given[0].detach().clone(), out))
        return out.clone()  # what follows may change it in place

    return record


def _fits(layer: nn.Linear | nn.Conv2d, given: Tensor, out: Tensor) -> bool:
    if isinstance(layer, nn.Linear):
        return given.ndim == 2 and out.requires_grad
    return (
        given.ndim == 4 and layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


def _add_up(factors: tuple[Tensor, ...], sums: list[Tensor]) -> bool:
    """Whether the points' gradients add up to that of their sum, which every use of weight and bias takes part in."""
    given, *slope = (factor.double() for factor in factors)
    rows = given.norm(dim=1) * (slope[0].norm(dim=1) if slope else 1.0)
    added = slope[0].T @ given if slope else given.sum(dim=0, keepdim=True)
    whole = torch.cat([each.reshape(len(added), -1) for each in sums], dim=1)
    return float((added - whole).norm()) <= _ROUNDING * float(rows.sum())


def _blocks(layer: nn.Linear | nn.Conv2d, given: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    if isinstance(layer, nn.Linear):
        ones = [given.new_ones(len(given), 1)] if layer.bias is not None else []
        return torch.cat([given, *ones], dim=1), slope
    patches = functional.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]  # no string here, see _fits
    slope = slope.flatten(2)
    bias = [slope.sum(dim=2)] if layer.bias is not None else []
    return (torch.cat([torch.bmm(slope, patches.mT).flatten(1), *bias], dim=1),)


def _gradients(network: nn.Module, inputs: Tensor, output: Callable[[Tensor], Tensor], names: set[str]) -> Tensor:
    """The named weights' gradients as they are: (N, weights)."""
    weights = {name: weight.detach() for name, weight in network.named_parameters() if name in names}
    others = {name: weight.detach() for name, weight in network.named_parameters() if name not in names}
    fixed = {**others, **dict(network.named_buffers())}

    def value(weights: dict[str, Tensor], point: Tensor) -> Tensor:
        return output(functional_call(network, {**weights, **fixed}, (point[None],)))[0]

    with torch.enable_grad():
        parts = vmap(grad(value), in_dims=(None, 0))(weights, inputs)
    return torch.cat([part.reshape(len(inputs), -1) for part in parts.values()], dim=1)


# --- products ---------------------------------------------------------------------------------------------------------


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """``torch.func.jvp``, without the warnings that PyTorch gives about itself when it prepares its first one.

    Args:
        function: of the primals.
        primals: where the derivative is taken.
        tangents: its direction, of the same structure.

    Returns:
        the function's value and its derivative.

    Example:
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    _prepare()
    pair: tuple[Any, Any] = torch.func.jvp(function, primals, tangents)  # type: ignore[assignment]  # no auxiliary output
    return pair


@cache
def _prepare() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script, which it uses itself
        torch.func.jvp(torch.neg, (torch.zeros(()),), (torch.zeros(()),))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    precondition: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 1000,
    advance: Callable[[int], object] = lambda _: None,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A by preconditioned conjugate gradients.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006, algorithm 5.3. It stops at a direction
    along which A is not positive, with what it has.

    Args:
        product: maps x to A x; both like b.
        right: b, any shape, float64.
        precondition: maps r to about A^-1 r, symmetric and positive as well; None: r itself.
        tolerance: of the relative residual.
        max_steps: of products.
        advance: called with 1 after each.

    Example:
        >>> conjugate_gradients(lambda x: torch.tensor([2.0, 4.0]).double() * x, torch.ones(2).double()).value
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    value, residual = torch.zeros_like(right), right.clone()
    scale, steps = float(right.norm()), 0
    guess = precondition(residual) if precondition else residual
    direction, angle = guess.clone(), float((residual * guess).sum())
    while steps < max_steps and float(residual.norm()) > tolerance * scale:
        image = product(direction)
        steps += 1
        advance(1)
        curvature = float((direction * image).sum())
        if not curvature > 0:
            break
        value += angle / curvature * direction
        residual -= angle / curvature * image
        guess = precondition(residual) if precondition else residual
        previous, angle = angle, float((residual * guess).sum())
        direction = guess + angle / previous * direction
    return Solution(value, float(residual.norm()) / scale if scale else 0.0, steps)


@dataclass(frozen=True, eq=False)
class Solution:
    """What the iteration found.

    Args:
        value: x, like the right-hand side.
        residual: ||b - A x|| / ||b||, as the iteration updates it.
        steps: number of products.
    """

    value: Tensor
    residual: float
    steps: int
