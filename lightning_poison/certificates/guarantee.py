"""What a label-flip certificate promises, in words that can stand beside its numbers."""

from __future__ import annotations

from lightning_poison.certificates.features.base import LabelFreeFeatures

__all__ = ["guarantee"]


def guarantee(
    features: LabelFreeFeatures, regularisation: float, *, count: int, num_classes: int, directions: int | None = None
) -> str:
    """Say what the certified accuracy at r means: threat model, learner, reach and assumptions.

    Args:
        features: the feature map below the ridge regression.
        regularisation: its relative strength.
        count: number n of training points.
        num_classes: number K of classes.
        directions: how many leading directions of the training features the learner keeps; None: it keeps all.

    Example:
        >>> from lightning_poison.certificates.features.raw import RawFeatures
        >>> print(guarantee(RawFeatures(), 0.1, count=100, num_classes=10).splitlines()[3])
        Reach: end-to-end, as the features were built from inputs alone. Assumption: the kind of features and the ...
    """
    threat = (
        f"Threat: an adversary who knows everything changes up to r of the {count} training labels, each to any of "
        f"{num_classes} classes. Training and evaluation inputs stay as they are, and no point is added or removed."
    )
    kept = "" if directions is None else f", of which the {directions} leading directions are kept"
    learner = (
        f"Learner: ridge regression (relative strength {regularisation:g}) on {features.describe()}{kept}. "
        "The numbers hold for this learner, NOT for the neural network that was trained beside it."
    )
    meaning = (
        "Meaning: a point counted at r is classified as its clean label, and keeps this prediction under every "
        "such change of the labels as they are now, flips already made included. "
        "Each point is certified on its own: the adversary may spend all r changes on it."
    )
    return "\n".join([threat, learner, meaning, _reach(features, directions)])


def _reach(features: LabelFreeFeatures, directions: int | None) -> str:
    fixed = ["the kind of features"] if features.end_to_end else []
    fixed += ["the strength"] if directions is None else ["the strength", "the number of directions"]
    chosen = f"{', '.join(fixed[:-1])} and {fixed[-1]} were" if len(fixed) > 1 else f"{fixed[0]} was"
    assumption = f"Assumption: {chosen} fixed without these training labels."
    if features.end_to_end:
        return f"Reach: end-to-end, as the features were built from inputs alone. {assumption}"
    return (
        "Reach: not end-to-end, the ridge head only: the features may have been learnt from poisoned labels, "
        f"and labels changed before they were learnt are not covered. {assumption}"
    )
