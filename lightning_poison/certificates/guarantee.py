"""What a label-flip certificate promises: facts, and the words that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Certainty", "LabelScope", "Promise", "reach_of"]

LabelScope = Literal["declared", "counted", "any"]
"""Which labels an adversary may write: one of the K declared classes; one of K classes that were counted in the
labels, as nobody declared them; or any label at all."""

_SCOPES = {"declared": "to any of {} classes", "counted": "to any of {} classes", "any": "to any label at all"}
_CONDITIONS = {
    "declared": ": labels that are none of these must be refused before training",
    "counted": ", which were counted in the labels: whoever fits again must say num_classes={}, also where the highest "
    "class has lost its labels, and refuse other labels",
    "any": ": what is none of the {} declared classes counts as one class more",
}


@dataclass(frozen=True)
class Certainty:
    """How certain the certificates of a learner are.

    Args:
        kind: a proof; right with a probability over the learner's own draws; claimed without a proof; or a bound from
            above, as what an attack found is.
        about: what is certified, or why it is no proof: whole sentences.
        probability: of a right certificate, at least; 1 for a proof.
        points: for all certificates of up to so many points at once; None: for each on its own.

    Example:
        >>> Certainty("probability", probability=0.999).claim
        'probability 0.999 a point'
    """

    kind: Literal["proof", "probability", "not proved", "from above"] = "proof"
    about: str = ""
    probability: float = 1.0
    points: int | None = None

    @property
    def claim(self) -> str:
        """In a word or two: "proved", "probability 0.999 a point", "not proved", "bound from above"."""
        if self.kind == "probability":
            return f"probability {self.probability:.6g} {'a point' if self.points is None else 'for all points'}"
        return {"proof": "proved", "not proved": "not proved", "from above": "bound from above"}[self.kind]

    @property
    def of_all_points(self) -> bool:
        """Whether all certificates of an evaluation set are right at once, and not only each on its own."""
        return self.kind == "proof" or (self.kind == "probability" and self.points is not None)

    def sentences(self) -> str:
        """What it means, and what it is about."""
        if self.kind == "probability":
            whom = (
                "each point's certificate on its own is"
                if self.points is None
                else f"all certificates of up to {self.points} points at once are"
            )
            words = f"With probability at least {self.probability:.6g} over the learner's own draws {whom} right."
        else:
            words = {
                "proof": "Each certificate is a proof and holds with certainty.",
                "not proved": "Not a proof.",
                "from above": "A bound from above: these flips were found, and a better attack may need fewer.",
            }[self.kind]
        return f"{words} {self.about}".strip()


@dataclass(frozen=True)
class Promise:
    """Everything that the certificates of a learner promise, as facts.

    Args:
        learner: what is certified, in a few words.
        features: the map below it, in a few words.
        certainty: how certain the certificates are.
        end_to_end: whether no certified label has a part in anything but the learner; else it is about the head only.
        premises: what somebody else must see to for that, each as it follows "as long as".
        choices: what had to be fixed without the certified labels.
        scope: which labels an adversary may write.
        num_points: n, the training labels.
        num_classes: K, the declared classes.
        transductive: whether a prediction depends on the inputs of the points that are certified along with it.

    Example:
        >>> promise = Promise("votes", "raw inputs", Certainty(), True, (), (), "declared", 100, 10, False)
        >>> promise.note
        'proved; end-to-end; votes on raw inputs, not the victim'
    """

    learner: str
    features: str
    certainty: Certainty
    end_to_end: bool
    premises: tuple[str, ...]
    choices: tuple[str, ...]
    scope: LabelScope
    num_points: int
    num_classes: int
    transductive: bool

    @property
    def note(self) -> str:
        """The few words that fit beside a number."""
        scope = "; any label at all" if self.scope == "any" else ""
        together = "; of these points together" if self.transductive else ""
        return (
            f"{self.certainty.claim}; {reach_of(self.end_to_end)}{scope}{together}; {self.learner} on {self.features}, "
            "not the victim"
        )

    @property
    def labels(self) -> str:
        """What labels are changed to: "to any of 10 classes", "to any label at all"."""
        return _SCOPES[self.scope].format(self.num_classes)

    def lines(self) -> tuple[str, str, str, str]:
        """Threat, learner, meaning and reach, a line each."""
        return self._threat(), self._about(), self._meaning(), self._reach()

    def _threat(self) -> str:
        knows = "everything but the learner's own draws" if self.certainty.kind == "probability" else "everything"
        return (
            f"Threat: an adversary who knows {knows} changes up to r of the {self.num_points:,} training labels, each "
            f"{self.labels}{_CONDITIONS[self.scope].format(self.num_classes)}. "
            "Training and evaluation inputs stay as they are, and no point is added or removed."
        )

    def _about(self) -> str:
        together = (
            " It is transductive: a prediction depends on the inputs, never on labels, of the points that are "
            "certified along with it."
            if self.transductive
            else ""
        )
        return (
            f"Learner: {self.learner} on {self.features}.{together} "
            "The numbers hold for this learner, NOT for the neural network that was trained beside it."
        )

    def _meaning(self) -> str:
        keeps = {
            "not proved": "is claimed, but not proved, to keep",
            "from above": "has kept, under every change that was tried,",
        }.get(self.certainty.kind, "keeps")
        return (
            f"Meaning: a point counted at r is classified as its clean label, and {keeps} this prediction under every "
            "such change of the labels as they are now, flips already made included. "
            "Each point is certified on its own: the adversary may spend all r changes on it. "
            f"{self.certainty.sentences()}"
        )

    def _reach(self) -> str:
        fixed = [*(["the kind of features"] if self.end_to_end else []), *self.choices]
        if fixed:
            chosen = f"{', '.join(fixed[:-1])} and {fixed[-1]} were" if len(fixed) > 1 else f"{fixed[0]} was"
            assumption = f" Assumption: {chosen} fixed without these training labels."
        else:
            assumption = ""
        if self.end_to_end:
            premise = " and ".join(self.premises)
            why = f"as long as {premise}" if premise else "as the features were built from inputs alone"
            return f"Reach: end-to-end, {why}.{assumption}"
        return (
            "Reach: not end-to-end, the head only: the features may have been learnt from poisoned labels, "
            f"and labels changed before they were learnt are not covered.{assumption}"
        )


def reach_of(end_to_end: bool) -> str:
    """How far a guarantee goes: "end-to-end" or "not end-to-end, the head only"."""
    return "end-to-end" if end_to_end else "not end-to-end, the head only"
