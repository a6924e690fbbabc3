r"""Ridge regression smoothed over random label flips: the certified classifier, and the paper's ridge strength.

The paper's strength looks at the labels:

.. math:: \lambda = (1 + q) \frac{\hat\sigma^2 k}{2 n} \kappa(X^T X), \qquad
          \hat\sigma^2 = \frac{\|y - X \hat\beta_{OLS}\|^2}{n - k}

(Rosenfeld et al., 2020, eq. 6). The noise estimate :math:`\hat\sigma^2` is computed from the labels that an adversary
may have changed, and no smoothing goes over it. So the learner is not a fixed function of the smoothed labels, and what
is certified with this strength is NOT proved: it is here to reproduce the paper's figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.guarantee import Certainty
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance, CertifiedLearner
from lightning_poison.certificates.smoothing.algorithm1 import CODINGS, TAILS, Coding, Tail, predict_smoothed
from lightning_poison.certificates.smoothing.thresholds import (
    FlipNoise,
    kl_radius,
    kl_thresholds,
    tight_radius,
    tight_thresholds,
)
from lightning_poison.certificates.smoothing.votes import Votes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_number
from lightning_poison.functional.ridge import Ridge, rows_per_chunk
from lightning_poison.functional.scale import unit_of
from lightning_poison.report import ReportFigure

__all__ = ["SmoothedRidge", "strength_of_equation_6"]

_CHUNK_BYTES = 16 * 2**20
_LARGE = 2**27  # features of more numbers are better read for many points at once
_PICTURED = 100  # radii of the picture

_UNPROVED = (
    "strength=eq6 estimates the noise from the labels that may have been changed, which the smoothing does not cover: "
    "the radii are the paper's, and are NOT a proof"
)


class SmoothedRidge(CertifiedLearner):
    """The majority vote of ridge regressions over randomly flipped training labels, with certified radii.

    Algorithm 1 of Rosenfeld et al. (2020, "Certified robustness to label-flipping attacks via randomized smoothing"),
    without any sampling; see :mod:`lightning_poison.certificates.smoothing.algorithm1`. As plain ridge regression is
    linear in its labels, :class:`lightning_poison.certificates.CertifiedRidge` certifies more, and exactly.

    Args:
        features: the feature map; it is fitted here, to the training inputs alone. None: that of ``CertifiedLearner``.
        q: probability with which each training label is flipped to another class, uniformly; in (0, 1 - 1/K).
        coding: of two classes: "signs" (-1 and +1, against 0) or "zero_one" (against 1/2, as in the paper, where large
            q pushes every prediction towards one class). More classes are one-hot, which is "signs".
        tail: what bounds the probability of other predictions: "chernoff" (the paper), "berry_esseen" (sharper, about
            twice the time), "audit" (nearly exact for sure predictions, a second a point and more).
        radius: "kl" (eq. 8, 10 and 25) or "tight" (the best that is true of any smoothed learner).
        regularisation: strength of the ridge, relative to the mean eigenvalue of the features' second moments.
        strength: "relative" uses ``regularisation``; "eq6" the paper's, for two classes, which sees the labels: the
            result is then not a proof, and says so.
        intercept: add a constant feature.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.eye(2).repeat(50, 1), torch.tensor([0, 1]).repeat(50)
        >>> learner = SmoothedRidge(RawFeatures(), q=0.1).fit(inputs, labels, num_classes=2)
        >>> learner.certify(torch.eye(2))
        LabelFlipCertificate(prediction=tensor([0, 1]), radius=tensor([10, 10]))
    """

    certifies_refits = False

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        q: float = 0.05,
        coding: Coding = "signs",
        tail: Tail = "berry_esseen",
        radius: Literal["kl", "tight"] = "tight",
        regularisation: float = 1.0,
        strength: Literal["relative", "eq6"] = "relative",
        intercept: bool = True,
    ) -> None:
        super().__init__(features)
        self.q = check_number("q", q, minimum=0, maximum=1)
        self.coding: Coding = check_choice("coding", coding, CODINGS)  # type: ignore[assignment]  # it is one of them
        self.tail: Tail = check_choice("tail", tail, TAILS)  # type: ignore[assignment]  # likewise
        self.radius = check_choice("radius", radius, ("kl", "tight"))
        self.regularisation = check_number("regularisation", regularisation, minimum=0)
        self.strength = check_choice("strength", strength, ("relative", "eq6"))
        self.intercept = intercept
        self._order: Tensor
        self._ridge: Ridge

    def check_size(self, num_points: int, num_classes: int) -> None:  # noqa: ARG002  # for those who need them
        """Refuse a flip probability that is too large for the classes, and what only two classes have."""
        FlipNoise(self.q, num_classes)
        if num_classes > 2 and self.strength == "eq6":
            raise UserError(f"strength must be relative with more than two classes, got eq6 with {num_classes}")
        if num_classes > 2 and self.coding == "zero_one":
            raise UserError(f"coding must be signs with more than two classes, got zero_one with {num_classes}")

    def _fit(self, features: Tensor) -> None:
        self.check_size(self.num_points, self.num_classes)
        self._order = self.labels.argsort(stable=True)
        self._ridge = Ridge(features, self._relative_strength(features), intercept=self.intercept)

    def _relative_strength(self, features: Tensor) -> float:
        if self.strength == "relative":
            return self.regularisation
        warnings.warn(_UNPROVED, stacklevel=2)
        unit = unit_of(features)
        features = features.double() * unit
        if self.intercept:
            constant = features.new_full((len(features), 1), float(features.square().mean().sqrt()))
            features = torch.cat([features, constant], dim=1)
        absolute = strength_of_equation_6(features, self.labels, self.q)  # which depends on no scale
        return absolute * features.shape[1] / float(features.square().sum()) * unit * unit

    def votes(self, features: Tensor) -> Iterator[Votes]:
        """The weights of points over training points in the order of their labels, chunk by chunk.

        They are computed in the order of the training points and then moved: sums in the order of the labels would be
        rounded otherwise after a flip, and where X^T X is nearly singular the weights would see the labels.

        Args:
            features: shape (m, d).
        """
        counts = torch.bincount(self.labels, minlength=self.num_classes).tolist()
        for chunk in torch.split(features, rows_per_chunk(self.num_points, budget=self._chunk_bytes())):
            weights = self._own.alike(self._ridge.weights(chunk), dim=1)
            yield Votes(weights.index_select(1, self._order), counts)

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known."""
        self._check_features(features)
        predictions, errors = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
        for votes in self.votes(features) if len(features) else ():
            smoothed = predict_smoothed(votes, self.q, self.num_classes, self.coding, self.tail)
            predictions.append(smoothed.prediction)
            errors.append(smoothed.log_error)
            advance(len(smoothed))
        of_errors = kl_radius if self.radius == "kl" else tight_radius
        radius = of_errors(torch.cat(errors), self.q, self.num_classes, self.num_points)
        return LabelFlipCertificate(torch.cat(predictions), radius)

    def report_figures(self) -> tuple[ReportFigure, ...]:
        """With the KL radius, what it gives away (figure 5 of the paper)."""
        if self.radius != "kl":
            return ()
        from lightning_poison.plots import required_margin_figure

        radii = torch.arange(1, min(_PICTURED, self.num_points) + 1)
        series = {
            "KL radius": kl_thresholds(radii, self.q, self.num_classes),
            "tight radius": tight_thresholds(radii, self.q, self.num_classes),
        }
        caption = (
            f"How likely the prediction must be, over random flips of probability {self.q:g}, to withstand r changed "
            "labels: left the probability p that certifies r, right the same inverted."
        )
        figure = required_margin_figure(radii, series, title=f"q = {self.q:g}")
        return (ReportFigure.from_figure(f"required-margin-q-{self.q:g}".replace(".", "-"), caption, figure),)

    def _chunk_bytes(self) -> int:
        """Where features are read again for each chunk, a chunk makes it worth while."""
        return _CHUNK_BYTES if self._ridge.features.numel() <= _LARGE else 32 * _CHUNK_BYTES

    def describe(self) -> str:
        """The learner in a few words."""
        how = "the strength of eq. 6, which sees the labels" if self.strength == "eq6" else f"{self.regularisation:g}"
        strength = how if self.strength == "eq6" else f"relative strength {how}"
        coding = " of labels 0 and 1" if self.coding == "zero_one" else ""
        return f"ridge regression ({strength}){coding} smoothed over label flips of probability {self.q:g}"

    def choices(self) -> tuple[str, ...]:
        """The flip probability, and the strength where it was chosen."""
        return ("the flip probability",) if self.strength == "eq6" else ("the flip probability", "the strength")

    def certainty(self) -> Certainty:
        """Whether it is a proof."""
        if self.strength == "eq6":
            return Certainty("not proved", f"{_UNPROVED[0].upper()}{_UNPROVED[1:]}.")
        bound = {"chernoff": "Chernoff's bound", "berry_esseen": "the Berry-Esseen bound", "audit": "exact convolution"}
        radius = "KL" if self.radius == "kl" else "tight"
        return Certainty(
            about="What is certified is the smoothed class, the majority vote over random flips; where nothing is "
            f"certified, the prediction may differ from it. No label is drawn: {bound[self.tail]} and the {radius} "
            "radius do without."
        )


def strength_of_equation_6(features: Tensor, labels: Tensor, q: float) -> float:
    """Lambda of eq. 6.

    Args:
        features: X, shape (n, k), n > k, any float dtype.
        labels: shape (n,), 0 or 1.
        q: probability with which each label is flipped.

    Raises:
        UserError: there are no more points than features, or X^T X is singular.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
        >>> round(strength_of_equation_6(features, torch.tensor([1, 0, 1]), q=0.5), 6)
        2.0
    """
    points, dimensions = features.shape
    features, labels = features.double() * unit_of(features), labels.double()
    values = torch.linalg.eigvalsh(features.T @ features)
    if points <= dimensions or float(values[0]) <= 1e-13 * float(values[-1]):
        got = f"{points} points and {dimensions} dimensions, smallest eigenvalue {float(values[0]):.2g}"
        raise UserError(f"features must have full rank for strength=eq6, got {got}; use strength=relative")
    coefficients = torch.linalg.solve(features.T @ features, features.T @ labels)
    variance = float((labels - features @ coefficients).square().sum()) / (points - dimensions)
    return (1 + q) * variance * dimensions / (2 * points) * float(values[-1] / values[0])
