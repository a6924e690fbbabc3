"""How large a radius any learner that treats the classes alike can have."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_labels

__all__ = ["radius_ceiling"]


def radius_ceiling(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    r"""The largest label-flip radius that is possible at points of a given prediction.

    **Theorem.** Let a deterministic learner commute with renaming the classes: exchanging the names of two classes in
    all training labels exchanges them in its prediction. Where it predicts c, its radius is at most
    :math:`\min_{j \ne c} \lceil (N_c + N_j) / 2 \rceil - 1`, N being the numbers of training labels.

    **Proof.** Let r = ceil((N_c + N_j) / 2). Relabel floor(N_c / 2) points of c as j and ceil(N_j / 2) points of j as
    c: these labels y' are at most r changes away. Changing instead the other points of the two classes, again at most
    r, gives the mirror image of y', with c and j renamed. If the prediction were c after any r changes, it would be c
    at both; but renaming c and j must turn the one prediction, c, into j. QED.

    Where neither c nor j has a label renaming them changes none, and such a learner predicts neither of them: there is
    no radius, and the ceiling is 0. A learner that breaks ties by class number does not commute with renaming where
    there is a tie; this project's certificates count ties against themselves and stay below the ceiling.

    Args:
        prediction: shape (m,), integers in [0, K).
        labels: shape (n,), integers in [0, K): the training labels.
        num_classes: K.

    Returns:
        shape (m,), int64, at least 0; n where there is one class only.

    Example:
        >>> radius_ceiling(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]), num_classes=3)
        tensor([2, 2])
    """
    check_labels("labels", labels, num_classes)
    check_labels("prediction", prediction, num_classes)
    if num_classes == 1:
        return torch.full((len(prediction),), len(labels))
    counts = torch.bincount(labels.long(), minlength=num_classes)
    pairs = torch.div(counts[:, None] + counts[None, :] + 1, 2, rounding_mode="floor") - 1
    pairs = pairs.clamp(min=0)  # of two classes without labels
    pairs.fill_diagonal_(torch.iinfo(torch.int64).max)
    return pairs.min(dim=1).values[prediction.long()]  # small integers would be a mask, or too small for the radius
