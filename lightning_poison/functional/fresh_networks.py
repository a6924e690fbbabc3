"""Networks at initial weights that a seed decides, and nothing that was trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import kept_random_state, mix_seed

__all__ = ["check_maker", "fresh_network", "weight_that_is_not_drawn"]


def fresh_network(
    make: Callable[[], nn.Module], seed: int, sample: Tensor | None = None, name: str = "network"
) -> nn.Module:
    """A network that has learnt nothing: made when asked, with weights that the seed decides.

    It is made three times: twice under ``seed``, which must give the same weights, and once under another seed, which
    must give other ones. So trained weights are found out wherever they hide (a network that is made already, one that
    is pruned or reparametrised, a part that was loaded); a resetting of what is there would miss those that are
    computed from others. Weights that are constant, as zero biases are, may be the same under every seed. The global
    random state stays as it is.

    Args:
        make: makes the network when called without arguments; weights come from the global generators.
        seed: of the weights.
        sample: shape (N, ...): some inputs, for networks whose shapes follow from them (torch's lazy modules).
        name: what to call ``make`` in messages.

    Returns:
        the network in eval mode on the CPU, float32; ``make`` keeps no hold of it.

    Raises:
        UserError: ``make`` is a network, makes none, or its weights are not those of the seed.

    Example:
        >>> make = lambda: nn.Linear(2, 1)
        >>> fresh_network(make, seed=0).weight.equal(fresh_network(make, seed=0).weight)
        True
    """
    check_maker(make, name)
    first = _made(make, seed, sample, name)
    once = _values(first)
    second = _made(make, mix_seed(seed, "another network"), sample, name)
    other = _values(second)
    network = _made(make, seed, sample, name)
    undrawn = _equal_weight(once, other)
    if undrawn is not None:
        raise UserError(
            f"{name} must draw its weights when it is made, got {undrawn} of a {type(network).__name__} the same under "
            "two seeds; pass a function that makes a new, untrained network, such as lambda: MLP(10)"
        )
    weights = _values(network)
    if weights.keys() != once.keys() or not all(value.equal(once[key]) for key, value in weights.items()):
        raise UserError(
            f"{name} must draw its weights from torch's global generator, got a {type(network).__name__} with other "
            "ones under the same seed; give it no generator of its own"
        )
    held = {id(weight) for each in (first, second) for weight in each.parameters()}
    if any(id(weight) in held for weight in network.parameters()):
        raise UserError(
            f"{name} must make a new network whenever it is called, got one {type(network).__name__} twice; make it "
            "inside the function"
        )
    return network


def weight_that_is_not_drawn(make: Callable[[], nn.Module]) -> str | None:
    """The name of a weight that does not depend on the seed under which the network is made; None: there is none.

    Constant weights, as zero biases are, do not count. The global random state stays as it is.

    Example:
        >>> weight_that_is_not_drawn(lambda: nn.Linear(2, 1)) is None
        True
        >>> trained = nn.Linear(2, 1)
        >>> weight_that_is_not_drawn(lambda: trained)
        'weight'
    """
    once = _values(_made(make, 0, None, "network"))
    return _equal_weight(once, _values(_made(make, 1, None, "network")))


def check_maker(make: Any, name: str) -> None:
    """Refuse what cannot make a network when called without arguments; a network that is made already cannot.

    Raises:
        UserError: it is a network, or no function without arguments.

    Example:
        >>> check_maker(nn.Linear(4, 2), "network")
        Traceback (most recent call last):
        lightning_poison.errors.UserError: network must make a network when called, got a Linear; pass lambda: \
Linear(...)
    """
    kind = type(make).__name__
    if isinstance(make, nn.Module):
        raise UserError(f"{name} must make a network when called, got a {kind}; pass lambda: {kind}(...)")
    if not callable(make):
        raise UserError(f"{name} must make a network when called, got {make!r}; pass lambda: MLP(10)")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        shown = getattr(make, "__name__", kind)
        raise UserError(
            f"{name} must make a network when called without arguments, got {shown} ({error}); "
            f"pass lambda: {shown}(...)"
        ) from error
    except ValueError:  # written in C: its arguments are not known
        pass


def _made(make: Callable[[], nn.Module], seed: int, sample: Tensor | None, name: str) -> nn.Module:
    with kept_random_state(seed):
        network = make()
        if not isinstance(network, nn.Module):
            raise UserError(f"{name} must make a torch.nn.Module when called, got {type(network).__name__}")
        network = network.cpu().float().eval()
        if sample is not None and any(isinstance(weight, UninitializedParameter) for weight in network.parameters()):
            with torch.no_grad():
                network(sample.float())
    return network


def _values(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: weight.detach().clone()
        for name, weight in network.named_parameters()
        if not isinstance(weight, UninitializedParameter)
    }


def _equal_weight(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The first weight of more than one value that both have."""
    for name, weight in one.items():
        constant = weight.numel() == 0 or bool((weight == weight.flatten()[0]).all())
        if not constant and name in other and weight.equal(other[name]):
            return name
    return None
