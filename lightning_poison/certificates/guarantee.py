"""What a label-flip certificate promises, in words that can stand beside its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_poison.certificates.learner import CertifiedLearner

__all__ = ["guarantee"]


def guarantee(learner: CertifiedLearner) -> str:
    """Say what the certified accuracy at r means: threat model, learner, meaning, reach and assumptions.

    Args:
        learner: the certified learner; fitted, as its numbers of points and classes are part of the statement.

    Returns:
        one line for each of them.

    Example:
        >>> import torch
        >>> from lightning_poison.certificates import CertifiedRidge, RawFeatures
        >>> learner = CertifiedRidge(RawFeatures(), 0.1).fit(torch.eye(3), torch.tensor([0, 0, 1]), num_classes=2)
        >>> print(guarantee(learner).splitlines()[3])
        Reach: end-to-end, as the features were built from inputs alone. Assumption: the kind of features and the ...
    """
    threat = (
        f"Threat: an adversary who knows everything changes up to r of the {learner.num_points:,} training labels, "
        f"each to any of {learner.num_classes} classes. Training and evaluation inputs stay as they are, and no point "
        "is added or removed."
    )
    about = (
        f"Learner: {learner.describe()} on {learner.features.describe()}. "
        "The numbers hold for this learner, NOT for the neural network that was trained beside it."
    )
    keeps = "is claimed, but not proved, to keep" if learner.claim() == "not proved" else "keeps"
    meaning = (
        f"Meaning: a point counted at r is classified as its clean label, and {keeps} this prediction under every "
        "such change of the labels as they are now, flips already made included. "
        f"Each point is certified on its own: the adversary may spend all r changes on it. {learner.certainty()}"
    )
    return "\n".join([threat, about, meaning, _reach(learner)])


def _reach(learner: CertifiedLearner) -> str:
    end_to_end = learner.reach == "end-to-end"
    fixed = [*(["the kind of features"] if end_to_end else []), *learner.choices()]
    if fixed:
        chosen = f"{', '.join(fixed[:-1])} and {fixed[-1]} were" if len(fixed) > 1 else f"{fixed[0]} was"
        assumption = f" Assumption: {chosen} fixed without these training labels."
    else:
        assumption = ""
    if end_to_end:
        premise = learner.features.premise()
        why = f"as long as {premise}" if premise else "as the features were built from inputs alone"
        return f"Reach: end-to-end, {why}.{assumption}"
    return (
        "Reach: not end-to-end, the head only: the features may have been learnt from poisoned labels, "
        f"and labels changed before they were learnt are not covered.{assumption}"
    )
