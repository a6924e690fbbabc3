"""What is attacked: inputs with their labels, targets and positions, which always go together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.model import check_samples, without_history
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_labels

__all__ = ["Samples", "is_fooled"]


@dataclass(frozen=True)
class Samples:
    """Samples of one batch; ``samples[rows]`` are some of them.

    Attributes:
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), int64: the true classes.
        targets: shape (N,), int64: the classes to reach; None: any but the label.
        ids: shape (N,), integer, on any device: positions in the data set, which random draws depend on.
        stochastic: the victim's scores differ from pass to pass, so no single pass settles whether one is fooled.

    Example:
        >>> samples = Samples.checked(torch.rand(3, 2), torch.tensor([0, 1, 1]))
        >>> samples[torch.tensor([2])].ids, len(samples[:2])
        (tensor([2]), 2)
    """

    inputs: Tensor
    labels: Tensor
    targets: Tensor | None
    ids: Tensor
    stochastic: bool = False

    @classmethod
    def checked(
        cls, inputs: Tensor, labels: Tensor, targets: Tensor | None = None, ids: Tensor | None = None
    ) -> Samples:
        """The samples as an attack can use them, without history; call it outside inference mode.

        Args:
            inputs: shape (N, ...), float, in [0, 1].
            labels: shape (N,), integer.
            targets: shape (N,), integer, or None.
            ids: shape (N,), integer; None: 0 to N-1.

        Raises:
            UserError: pixels outside [0, 1], NaN, another dtype, lengths that differ.
        """
        inputs, labels = without_history(inputs), without_history(labels)
        targets = None if targets is None else without_history(targets)
        ids = torch.arange(len(inputs)) if ids is None else without_history(ids)
        inputs = check_samples(inputs, labels, targets)
        if ids.shape != labels.shape:
            raise UserError(f"sample_ids must have one entry for each of {len(labels)} inputs, got {len(ids)}")
        return cls(inputs, labels.long(), None if targets is None else targets.long(), ids)

    def __len__(self) -> int:
        """How many they are."""
        return len(self.inputs)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        """The samples at ``rows``, which lie on the inputs' device."""
        ids = self.ids[rows if isinstance(rows, slice) else rows.to(self.ids.device)]
        targets = None if self.targets is None else self.targets[rows]
        return Samples(self.inputs[rows], self.labels[rows], targets, ids, self.stochastic)

    def check_classes(self, num_classes: int) -> None:
        """Refuse a label or target that is not below ``num_classes``.

        Raises:
            UserError: there is one.
        """
        check_labels("labels", self.labels, num_classes)
        if self.targets is not None:
            check_labels("targets", self.targets, num_classes)

    def fooled(self, scores: Tensor) -> Tensor:
        """Which of them are fooled where the network gives ``scores``, see :func:`is_fooled`."""
        return is_fooled(scores, self.labels, self.targets)


def is_fooled(scores: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Untargeted: whether the prediction is not the label. Targeted: whether it is the target.

    Args:
        scores: shape (N, K).
        labels: shape (N,), int64.
        targets: shape (N,), int64, or None.

    Returns:
        shape (N,), bool.

    Raises:
        UserError: a label or target is not below K.

    Example:
        >>> is_fooled(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]), None)
        tensor([ True, False])
    """
    check_labels("labels", labels, scores.shape[1])
    predictions = scores.argmax(dim=1)
    if targets is None:
        return predictions != labels
    return predictions == check_labels("targets", targets, scores.shape[1])
