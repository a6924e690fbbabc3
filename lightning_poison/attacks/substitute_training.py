"""How an attacker who sees decisions alone trains a network of its own on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_poison.attacks.model import class_scores, input_gradients
from lightning_poison.functional.random_streams import generator

__all__ = ["SubstituteTraining", "augmented", "decisions", "small_network"]

QUERIES_AT_ONCE = 256
BATCH_SIZE = 64


def decisions(model: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, int]:
    """What the model decides, and among how many classes; nothing else of its scores leaves this function.

    Args:
        model: maps (n, ...) to scores (n, K).
        inputs: shape (N, ...), N >= 1.

    Returns:
        classes, shape (N,), int64; the number of classes K.

    Example:
        >>> decisions(lambda x: x, torch.tensor([[0.1, 0.9], [0.8, 0.3]]))
        (tensor([1, 0]), 2)
    """
    with torch.no_grad():
        scores = [class_scores(model, part) for part in torch.split(inputs, QUERIES_AT_ONCE)]
        return torch.cat([part.argmax(dim=1) for part in scores]), scores[0].shape[1]


def small_network(shape: torch.Size, num_classes: int) -> nn.Module:
    """Two 3x3 convolutions with max pooling for images, two hidden layers for anything else.

    Args:
        shape: of one input.
        num_classes: number of logits.

    Example:
        >>> small_network(torch.Size([1, 28, 28]), 10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    if len(shape) == 3 and min(shape[1:]) >= 4:
        channels, height, width = shape
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), num_classes),
        )
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape.numel(), 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )


def augmented(net: nn.Module, inputs: Tensor, labels: Tensor, step: float) -> Tensor:
    """Where to ask next: ``clip(x + step * sign(d F_c(x) / dx))``, F_c the score of the class c that x was given.

    Jacobian-based augmentation (Papernot et al., 2017, section 4.2): the new points lie where the substitute's
    decision changes most.

    Args:
        net: the substitute, its weights frozen.
        inputs: shape (N, ...), in [0, 1].
        labels: shape (N,), int64: the victim's decisions.
        step: the paper's lambda, in pixel units.

    Returns:
        shape (N, ...), in [0, 1].

    Example:
        >>> net = nn.Linear(2, 2, bias=False).requires_grad_(False)
        >>> _ = net.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
        >>> augmented(net, torch.tensor([[0.5, 0.0]]), torch.tensor([0]), 0.1)
        tensor([[0.6000, 0.0000]])
    """
    parts = []
    for rows in torch.split(torch.arange(len(inputs), device=inputs.device), QUERIES_AT_ONCE):
        points = inputs[rows].requires_grad_()
        own_scores = class_scores(net, points).gather(1, labels[rows, None]).sum()
        parts.append((points.detach() + step * input_gradients(own_scores, points).sign()).clamp(0, 1))
    return torch.cat(parts)


@dataclass(frozen=True)
class SubstituteTraining:
    """Rounds of asking, training and augmenting; each round but the last doubles the points.

    Attributes:
        rounds: how often the points are augmented.
        epochs: over all points so far, after each asking.
        lr: of Adam.
        step: of the augmentation, in pixel units.
        seed: of the order of the points.
    """

    rounds: int
    epochs: int
    lr: float
    step: float
    seed: int

    def run(
        self, net: nn.Module, ask: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor
    ) -> tuple[nn.Module, int]:
        """Train ``net`` in place, within gradients enabled.

        Args:
            net: the substitute.
            ask: gives the victim's decisions on points (n, ...), shape (n,).
            inputs: shape (N, ...), in [0, 1]: the attacker's own points.
            labels: shape (N,), int64: the victim's decisions on them.

        Returns:
            the trained network, in eval mode and frozen; how many decisions were asked for, ``labels`` included.
        """
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        order = generator(self.seed, "substitute order")
        self._fit(net, optimizer, inputs, labels, order)
        for _ in range(self.rounds):
            net.eval().requires_grad_(False)
            more = augmented(net, inputs, labels, self.step)
            inputs, labels = torch.cat((inputs, more)), torch.cat((labels, ask(more)))
            self._fit(net, optimizer, inputs, labels, order)
        return net.eval().requires_grad_(False), len(inputs)

    def _fit(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, order: torch.Generator
    ) -> None:
        net.train().requires_grad_(True)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(inputs), generator=order).to(inputs.device), BATCH_SIZE):
                loss = cross_entropy(class_scores(net, inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # of torch
                optimizer.step()
        optimizer.zero_grad()
