"""What input smoothing says about a point."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ABSTAINED", "InputSmoothingCertificate"]

ABSTAINED = -1
"""Stands for a prediction where the votes allow none."""


@dataclass(frozen=True)
class InputSmoothingCertificate:
    """Predictions of a smoothed classifier, with the size of the changes that cannot alter them.

    Args:
        prediction: shape (m,), int64; -1 where it abstains.
        radius: shape (m,), float64, in pixel units: no change of the input with an l2 norm of at most so much alters
            the prediction of the smoothed classifier, but for the error probability alpha; 0 where it abstains.
        draws: shape (m,), int64: noisy copies that went through the network.
    """

    prediction: Tensor
    radius: Tensor
    draws: Tensor

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def abstained(self) -> Tensor:
        """Where it makes no prediction: shape (m,), bool."""
        return self.prediction == ABSTAINED
