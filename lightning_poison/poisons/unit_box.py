"""Inputs of any range, for attacks that move within [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack
from lightning_poison.nets.building import device_of
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["UnitBox", "attacked_in_box", "input_range"]


@dataclass(frozen=True)
class UnitBox:
    """Maps the range of some inputs onto [0, 1]; sizes of attacks are then shares of this range.

    Args:
        low: what becomes 0.
        width: how far above it what becomes 1 lies; positive.

    Example:
        >>> box = UnitBox.around(torch.tensor([[-1.0, 3.0]]))
        >>> box, box.inwards(torch.tensor([0.0, 1.0])), box.outwards(torch.tensor([0.25]))
        (UnitBox(low=-1.0, width=4.0), tensor([0.2500, 0.5000]), tensor([0.]))
    """

    low: float
    width: float

    @classmethod
    def around(cls, inputs: Tensor) -> UnitBox | None:
        """The box of these inputs; None: they lie in [0, 1] as they are."""
        low, high = (float(bound) for bound in torch.aminmax(inputs))
        if low >= 0 and high <= 1:
            return None
        return cls(low, (high - low) or 1.0)

    def inwards(self, inputs: Tensor) -> Tensor:
        """From the range to [0, 1], whatever the shape; what lies beyond is cut off."""
        return ((inputs - self.low) / self.width).clamp_(0, 1)

    def outwards(self, inputs: Tensor) -> Tensor:
        """From [0, 1] to the range, whatever the shape."""
        return self.low + self.width * inputs

    def around_network(self, network: nn.Module) -> nn.Module:
        """The network, which maps inputs of the range to scores, as a function of inputs in [0, 1]."""
        return _InBox(network, self)


def input_range(training_set: TrainingSet) -> UnitBox | None:
    """The box of all inputs of a training set, found once."""
    return training_set.remembered("range of the inputs", lambda: UnitBox.around(training_set.inputs))


def attacked_in_box(
    box: UnitBox | None,
    attack: Attack,
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
) -> Tensor:
    """Adversarial examples of inputs of any range.

    Args:
        box: their range; None: they lie in [0, 1].
        attack: moves points in [0, 1].
        network: maps (N, ...) to logits (N, K).
        inputs: shape (n, ...), on the CPU.
        labels: shape (n,), int64.
        targets: shape (n,), int64; None: untargeted.

    Returns:
        shape (n, ...), on the CPU.

    Raises:
        UserError: the network gives no class scores, or the attack cannot be run on it.

    Example:
        >>> from lightning_poison.attacks import FGSM
        >>> network = nn.Linear(1, 2)
        >>> _ = network.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.zeros(2)})
        >>> attacked_in_box(UnitBox(-2.0, 4.0), FGSM(eps=0.25), network, torch.tensor([[-1.0]]), torch.tensor([0]))
        tensor([[0.]])
    """
    device = device_of(network)
    goals = None if targets is None else targets.to(device)
    if box is None:
        return attack(network, inputs.to(device), labels.to(device), targets=goals).examples.cpu()
    starts = box.inwards(inputs).to(device)
    return box.outwards(attack(box.around_network(network), starts, labels.to(device), targets=goals).examples.cpu())


class _InBox(nn.Module):
    def __init__(self, network: nn.Module, box: UnitBox) -> None:
        super().__init__()
        self.network, self.box = network, box

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.network(self.box.outwards(inputs))
        return scores
