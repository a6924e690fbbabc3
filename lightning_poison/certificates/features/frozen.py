"""A user's own frozen network as features."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures
from lightning_poison.errors import UserError

__all__ = ["FrozenFeatures"]


class FrozenFeatures(LabelFreeFeatures):
    """The outputs of a frozen feature extractor.

    Args:
        extractor: maps inputs (N, ...) to (N, d) or (N, ...), which is flattened. ``fit`` takes a copy of it, so that
            training and evaluation points go through the same weights, whatever becomes of the original; the copy
            runs in eval mode, without gradients, on the CPU.
        label_free: promise that the extractor was trained without the labels that are certified: on other data, or
            without labels. Where that cannot be promised the guarantee covers the head alone, and says so.

    Example:
        >>> FrozenFeatures(nn.Linear(4, 2)).end_to_end
        False
    """

    def __init__(self, extractor: nn.Module, label_free: bool = False) -> None:
        self.extractor = extractor
        self.end_to_end = bool(label_free)
        self._copy: nn.Module | None = None

    def fit(self, inputs: Batches) -> FrozenFeatures:
        """Copy the extractor as it is now."""
        super().fit(inputs)
        try:
            self._copy = copy.deepcopy(self.extractor).cpu().eval()
        except RuntimeError as error:  # weights that are computed by a hook
            raise UserError(
                f"extractor must be a module that can be copied, got {type(self.extractor).__name__} ({error}); "
                "use torch.nn.utils.parametrizations for weights that are computed"
            ) from error
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Run the extractor on (N, ...)."""
        if self._copy is None:
            raise UserError("FrozenFeatures must be fitted before transform, got no copy; call fit(inputs) first")
        try:
            with torch.no_grad():
                features: Tensor = self._copy(inputs)
        except RuntimeError as error:
            raise UserError(
                f"extractor must take inputs of shape {tuple(inputs.shape)}, got {type(self._copy).__name__} "
                f"({str(error).partition(chr(10))[0]}); give it the size of the data"
            ) from error
        return features.flatten(1)

    def premises(self) -> tuple[str, ...]:
        """That the promise is kept."""
        return ("the frozen network was trained without these labels",) if self.end_to_end else ()

    def describe(self) -> str:
        """The map in a few words."""
        return f"a frozen {type(self.extractor).__name__}"
