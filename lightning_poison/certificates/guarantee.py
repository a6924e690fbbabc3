"""What a label-flip certificate promises, in words that can stand beside its numbers."""

from __future__ import annotations

from lightning_poison.certificates.features.base import LabelFreeFeatures

__all__ = ["guarantee"]


def guarantee(features: LabelFreeFeatures, regularisation: float, *, count: int, num_classes: int) -> str:
    """Say what the certified accuracy at r means: threat model, learner, reach and assumptions.

    Args:
        features: the feature map below the ridge regression.
        regularisation: its relative strength.
        count: number n of training points.
        num_classes: number K of classes.

    Example:
        >>> from lightning_poison.certificates.features.raw import RawFeatures
        >>> print(guarantee(RawFeatures(), 0.1, count=100, num_classes=10).splitlines()[3])
        Reach: end-to-end, as the features were built from inputs alone. Assumption: the kind of features and the ...
    """
    threat = (
        f"Threat: an adversary who knows everything changes up to r of the {count} training labels, each to any of "
        f"{num_classes} classes. Training and evaluation inputs stay as they are, and no point is added or removed."
    )
    learner = (
        f"Learner: ridge regression (relative strength {regularisation:g}) on {features.describe()}. "
        "The numbers hold for this learner, NOT for the neural network that was trained beside it."
    )
    meaning = (
        "Meaning: a point counted at r is classified as its clean label, and keeps this prediction under every "
        "such change of the labels as they are now, flips already made included. "
        "Each point is certified on its own: the adversary may spend all r changes on it."
    )
    return "\n".join([threat, learner, meaning, _reach(features)])


def _reach(features: LabelFreeFeatures) -> str:
    if features.end_to_end:
        return (
            "Reach: end-to-end, as the features were built from inputs alone. "
            "Assumption: the kind of features and the strength were fixed without these training labels."
        )
    return (
        "Reach: not end-to-end, the ridge head only: the features may have been learnt from poisoned labels, "
        "and labels changed before they were learnt are not covered. "
        "Assumption: the strength was fixed without these training labels."
    )
