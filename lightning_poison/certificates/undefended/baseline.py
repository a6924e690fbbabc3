"""The undefended baseline: logistic regression, and how many label flips each of its predictions needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_poison.certificates.guarantee import Certainty
from lightning_poison.certificates.undefended.flip_attack import distance_attack, influence_attack, reverse_pass
from lightning_poison.certificates.undefended.logistic import LogisticFits
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels, check_number
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["AttackedPoints", "FlipAttacks", "UndefendedLogistic"]

_HESSIANS = 256 * 2**20  # bytes of the Hessians that are kept, one a point


@dataclass(frozen=True)
class FlipAttacks:
    """The best attack found on each prediction.

    Args:
        prediction: shape (m,), int64: before any flip.
        flips: shape (m,), int64: how many label flips changed it; n + 1 where no attack did.
        index: of each point the flipped training points, shape (f,), int64, ascending.
    """

    prediction: Tensor
    flips: Tensor
    index: list[Tensor]

    def __len__(self) -> int:
        return len(self.prediction)

    def accuracy(self, labels: Tensor, radii: Sequence[int]) -> Tensor:
        """Share of points that are right and that r flips were not enough to change: shape (len(radii),), float64.

        An upper bound on what the undefended model keeps, as better attacks may exist.

        Args:
            labels: shape (m,), integers: clean labels of the points.
            radii: numbers r of flipped training labels.
        """
        right = self.prediction == labels
        kept = self.flips[None, :] > torch.tensor(list(radii)).reshape(-1, 1)
        return (right & kept).double().mean(1)


@dataclass(frozen=True)
class AttackedPoints:
    """Attacks on evaluation points, in the order of their data set.

    Args:
        index: shape (m,), int64: positions in the data set.
        labels: shape (m,), int64: clean labels.
        attacks: on the m points.
        known: whether ``index`` holds positions; if not, it does not show in the table.
    """

    index: Tensor
    labels: Tensor
    attacks: FlipAttacks
    known: bool = True

    certainty: ClassVar[Certainty] = Certainty("from above")

    def __len__(self) -> int:
        return len(self.index)

    def accuracy(self, radii: Sequence[int]) -> list[float]:
        """Share that is right after r flips that were found, at each r."""
        shares: list[float] = self.attacks.accuracy(self.labels, radii).tolist()
        return shares

    def csv(self) -> str:
        """A table with the columns ``index, label, prediction, flips``."""
        index = self.index.tolist() if self.known else [""] * len(self)
        columns = (self.labels, self.attacks.prediction, self.attacks.flips)
        rows = zip(index, *(column.tolist() for column in columns), strict=True)
        return "\n".join(["index,label,prediction,flips", *(",".join(map(str, row)) for row in rows), ""])


class UndefendedLogistic:
    r"""Logistic regression on frozen features for two classes, and the flip attacks of Rosenfeld et al. (appendix C).

    Args:
        strength: of the penalty :math:`\tfrac{\lambda}{2} \|\theta\|^2`, > 0; the intercept is penalised as well.
        step: labels that the influence attack flips between two refits; 1 as in the paper, more is faster.
        max_flips: give up after so many flips; None: a quarter of the training points.

    Example:
        >>> features, labels = torch.tensor([[-2.0], [-1.0], [-1.5], [1.0], [2.0]]), torch.tensor([0, 0, 0, 1, 1])
        >>> attacks = UndefendedLogistic(max_flips=4).fit_features(features, labels).attack(torch.tensor([[-0.2]]))
        >>> attacks.prediction.tolist(), attacks.flips.tolist(), attacks.accuracy(torch.tensor([0]), [0, 4]).tolist()
        ([0], [1], [1.0, 0.0])
    """

    def __init__(self, strength: float = 1.0, step: int = 1, max_flips: int | None = None) -> None:
        self.strength = check_number("strength", strength, minimum=1e-12)
        self.step = check_integer("step", step, minimum=1)
        self.max_flips = None if max_flips is None else check_integer("max_flips", max_flips, minimum=1)
        self._fits: LogisticFits | None = None
        self._basis: Tensor | None = None

    def fit_features(self, features: Tensor, labels: Tensor, num_classes: int = 2) -> UndefendedLogistic:
        """Fit to the training points.

        Args:
            features: shape (n, d), any float dtype.
            labels: shape (n,), 0 or 1.
            num_classes: 2.

        Returns:
            the model itself.

        Raises:
            UserError: there are other than two classes, or features are not finite.
        """
        self.check_classes(num_classes)
        check_labels("labels", labels, 2)
        check_finite("features", features, remedy="clean the inputs or change the feature map")
        if len(features) != len(labels):
            raise UserError(f"features must match the labels, got {len(features)} points for {len(labels)} labels")
        rows, self._basis = _with_constant(features), None
        if rows.shape[1] > len(rows):  # the penalised minimum lies in the span of the points
            self._basis = torch.linalg.qr(rows.T).Q
        self._fits = LogisticFits(self._in_span(rows), labels.bool()[:, None], self.strength)
        return self

    @staticmethod
    def check_classes(num_classes: int) -> None:
        """Refuse other than two classes.

        Raises:
            UserError: there are more, or one.
        """
        if num_classes != 2:
            raise UserError(f"num_classes must be 2 for the undefended baseline, got {num_classes}; choose two classes")

    def attack(self, features: Tensor, advance: Callable[[int], object] = lambda _: None) -> FlipAttacks:
        """Attack the prediction of each point on its own.

        Args:
            features: shape (m, d).
            advance: called with the number of points done, chunk by chunk.

        Raises:
            UserError: the model is not fitted.
        """
        if self._fits is None:
            raise UserError("UndefendedLogistic must be fitted before attack, got no points; call fit_features first")
        points = self._in_span(_with_constant(check_finite("features", features)))
        width = points.shape[1]
        at_once = min(rows_per_chunk(len(self._fits.features)), rows_per_chunk(width**2, budget=_HESSIANS), 64)
        index: list[Tensor] = []
        for chunk in torch.split(points, at_once) if len(points) else ():
            index += self._best(self._fits, chunk)
            advance(len(chunk))
        never = len(self._fits.features) + 1
        flips = torch.tensor([len(one) or never for one in index], dtype=torch.int64)
        return FlipAttacks((points @ self._fits.coefficients > 0)[:, 0].long(), flips, index)

    def _best(self, clean: LogisticFits, points: Tensor) -> list[Tensor]:
        """The fewer flips of the two attacks, after their reverse passes."""

        def refitted(labels: Tensor) -> LogisticFits:
            start = clean.coefficients.expand(-1, labels.shape[1])
            return LogisticFits(clean.features, labels, self.strength, start)

        most = max(len(clean.features) // 4, 1) if self.max_flips is None else self.max_flips
        unchanged = clean.labels.expand(-1, len(points)).clone()
        found = [
            influence_attack(refitted(unchanged), points, most, self.step),
            distance_attack(refitted(unchanged), points, most),
        ]
        for flips in found:
            rows = [row for row, index in enumerate(flips) if len(index)]
            shorter = reverse_pass(refitted, clean.labels[:, 0], points[rows], [flips[row] for row in rows])
            for row, index in zip(rows, shorter, strict=True):
                flips[row] = index
        return [min((one for one in pair if len(one)), key=len, default=pair[0]) for pair in zip(*found, strict=True)]

    def _in_span(self, rows: Tensor) -> Tensor:
        """Coordinates in the span of the training points, where there are fewer of them than features."""
        return rows if self._basis is None else rows @ self._basis


def _with_constant(features: Tensor) -> Tensor:
    return torch.nn.functional.pad(features.flatten(1).double(), (0, 1), value=1.0)
