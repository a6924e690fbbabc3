"""One network after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_poison.attacks.model import batch_layout
from lightning_poison.ensembles.members import EpochTrainer, Member
from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["SequentialTrainer"]


class SequentialTrainer(EpochTrainer):
    """Each network for itself, with any layers.

    On a CPU the channels of a pixel lie side by side where the network can take it (see ``batch_layout``), which speeds
    pooling up. What a layer draws (dropout) comes from a stream of the member's seed and the epoch.
    """

    def __init__(self, members: Sequence[Member], inputs: Tensor, labels: Tensor, recipe: TrainingRecipe) -> None:
        super().__init__(members, inputs, labels, recipe)
        with kept_random_state(0, inputs.device):
            self._lay_out = batch_layout(members[0].module.eval(), inputs)
        self._optimizers = [self.optimizer(list(member.module.parameters())) for member in members]

    def train_epoch(self, epoch: int, rows: list[int], order: Tensor, right: Tensor | None) -> list[float]:
        """Train the rows in turn."""
        losses = []
        for position, row in enumerate(rows):
            with kept_random_state(mix_seed(self.members[row].seed, "layers that draw", epoch), self.inputs.device):
                losses.append(self._train_member(epoch, row, order, None if right is None else right[position]))
        return losses

    def _train_member(self, epoch: int, row: int, order: Tensor, right: Tensor | None) -> float:
        module, optimizer, labels = self.members[row].module.train(), self._optimizers[row], self.labels[row]
        total = torch.zeros((), device=self.inputs.device)
        for rate, chosen in self.rates(epoch, order):
            for group in optimizer.param_groups:
                group["lr"] = rate
            scores = module(self._lay_out(self.inputs[chosen]))
            loss = nn.functional.cross_entropy(scores, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            total += loss.detach() * len(chosen)
            if right is not None:
                right[chosen] = scores.detach().argmax(dim=1) == labels[chosen]
        return float(total) / len(order)
