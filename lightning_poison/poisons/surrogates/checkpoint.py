"""A surrogate that was trained before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.errors import UserError
from lightning_poison.nets import Normalize, SmallNet, net_for
from lightning_poison.nets.building import build_net, check_net_maker
from lightning_poison.poisons.surrogates.surrogate import Surrogate, check_surrogate
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["CheckpointSurrogate"]


@dataclass(frozen=True)
class CheckpointSurrogate(Surrogate):
    """A network whose weights are in a file: a checkpoint of Lightning's, or a plain ``state_dict``.

    In a checkpoint the network may be a part of the module (``model.conv.weight``): whatever stands before its names is
    left out. The normalisation that a :class:`Victim` stores is taken along. The file is read with ``weights_only``, so
    it cannot run code.

    Args:
        path: of the file.
        net: makes the network when called with ``num_classes=K``; None: one for the shape of the inputs, see
            :func:`net_for`.

    Raises:
        UserError: the file is missing or is no such file, holds other weights, or belongs to a run with flipped
            labels; the network does not fit the data or has not learnt them.

    Example:
        >>> import tempfile
        >>> from lightning_poison.nets import MLP
        >>> from lightning_poison.poisons import TrainingSet
        >>> path = str(Path(tempfile.mkdtemp()) / "weights.pt")
        >>> make = lambda num_classes: MLP(num_classes, 2, 1, hidden=())
        >>> net = make(num_classes=2)
        >>> _ = net.load_state_dict({"head.weight": torch.eye(2), "head.bias": torch.zeros(2)})
        >>> torch.save(net.state_dict(), path)
        >>> data = [(torch.tensor([1.0, 0.0]), 0), (torch.tensor([0.0, 1.0]), 1)]
        >>> training_set = TrainingSet(torch.tensor([0, 1]), 2, dataset=data)
        >>> CheckpointSurrogate(path, make).network(training_set, seed=0)(torch.tensor([[0.5, 0.25]]))
        tensor([[0.5000, 0.2500]])
    """

    path: str
    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, Path)):
            raise UserError(f"path must name a checkpoint, got {self.path!r}; write it as text")
        check_net_maker(self.net)

    def network(self, training_set: TrainingSet, seed: int) -> nn.Module:  # noqa: ARG002  # the signature is shared
        """Read it, once for each data set."""
        return training_set.remembered(self, lambda: check_surrogate(self._read(training_set), training_set))

    def _read(self, training_set: TrainingSet) -> nn.Module:
        content = _loaded(self.path)
        flips = _flipped_labels(content)
        if flips:
            raise UserError(
                f"the checkpoint {self.path} was trained with {flips} flipped labels; name one of a clean run "
                "(--poison=null)"
            )
        stored = content.get("state_dict", content)
        if not isinstance(stored, Mapping):
            raise UserError(f"state_dict in {self.path} must hold weights, got {type(stored).__name__}; name another")
        weights = {name: value for name, value in stored.items() if isinstance(name, str) and isinstance(value, Tensor)}
        network = build_net(self.net or net_for(training_set.inputs.shape[1:]), training_set.num_classes)
        network.load_state_dict(_matching(weights, network, self.path))
        mean, std = weights.get("normalize.mean"), weights.get("normalize.std")
        if mean is not None and std is not None:
            network = nn.Sequential(Normalize(mean.tolist(), std.tolist()), network)
        return network.eval().requires_grad_(False)


def _loaded(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint at {path}; name a file, such as a run's checkpoints/last.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that is fed with anything raises anything
        reason = (
            error.strerror if isinstance(error, OSError) else "it is no whole torch file of tensors and plain values"
        )
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason}); name a checkpoint of Lightning's, or save the network's "
            "state_dict with torch.save"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} must hold a state_dict, got {type(content).__name__}")
    return content


def _flipped_labels(content: Mapping[str, Any]) -> int:
    """How many flips the run's data module or callback recorded."""
    callbacks = content.get("callbacks")
    states = [*content.values(), *(callbacks.values() if isinstance(callbacks, dict) else ())]
    recorded = [state["flips"] for state in states if isinstance(state, dict) and isinstance(state.get("flips"), dict)]
    return max((len(flips["index"]) for flips in recorded if isinstance(flips.get("index"), (Tensor, list))), default=0)


def _matching(weights: Mapping[str, Tensor], network: nn.Module, path: str) -> dict[str, Tensor]:
    """The weights of the network under its own names."""
    own = network.state_dict()
    first = next(iter(own), "")
    prefixes = sorted((name.removesuffix(first) for name in weights if name.endswith(first)), key=len)
    differences = []
    for prefix in prefixes:
        difference = _difference(weights, own, prefix)
        if difference is None:
            return {name: weights[prefix + name] for name in own}
        differences.append(difference)
    reason = differences[0] if differences else f"{first} is not in the file"
    raise UserError(
        f"the checkpoint {path} does not fit the network {type(network).__name__} ({reason}); "
        "name the net that it was saved from, and the data with the same classes"
    )


def _difference(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str) -> str | None:
    for name, weight in own.items():
        if prefix + name not in weights:
            return f"{prefix + name} is not in the file"
        stored = list(weights[prefix + name].shape)
        if stored != list(weight.shape):
            return f"{prefix + name} is {stored} in the file and {list(weight.shape)} in the network"
    return None
