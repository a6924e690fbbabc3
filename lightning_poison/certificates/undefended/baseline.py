r"""The undefended baseline: logistic regression, and how many label flips its predictions need.

The attacks are those of Rosenfeld et al. (2020, appendix C). Two orders are tried for each point, and the better attack
is kept:

- **distance**: labels of the predicted class, those nearest to the point in feature space first;
- **influence**: labels whose flip moves the point's logit most against the prediction, by
  :math:`\Delta = -(2 y_i - 1)\, x^T H^{-1} x_i` (Koh and Liang, 2017), recomputed after each flip.

A reverse pass then takes back every flip that is not needed. All predictions are those of refitted models, so the
number of flips is an upper bound on the fewest, and says how robust the model is at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_poison.certificates.guarantee import Certainty
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels, check_number
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = [
    "AttackedPoints",
    "FlipAttacks",
    "LogisticFits",
    "UndefendedLogistic",
    "distance_attack",
    "influence_attack",
    "reverse_pass",
]

_TOLERANCE = 1e-9  # of the gradient, in units of the largest that n points can give
_ITERATIONS = 100
_SLOW = 0.3  # a step that leaves more of the gradient than this asks for a new Hessian
_DOUBT = 3.0  # how far an estimated effect may be off before the reverse pass leaves a flip untried
_HESSIANS = 256 * 2**20  # bytes of the Hessians that are kept, one a point


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


# --- attacks ----------------------------------------------------------------------------------------------------------


def influence_attack(fits: LogisticFits, points: Tensor, max_flips: int, step: int) -> list[Tensor]:
    """Flip the label of largest influence, refit, and so on.

    Args:
        fits: one column a point, with the clean labels; changed.
        points: shape (B, d), float64.
        max_flips: give up after so many.
        step: labels flipped between two refits; 1 as in the paper.

    Returns:
        for each point the flipped training points, shape (f,), int64; empty where the prediction did not change.
    """
    sides, clean = _sides(fits, points), fits.labels.clone()
    found, open_ = [torch.empty(0, dtype=torch.int64) for _ in points], torch.arange(len(points))
    for flipped in range(0, max_flips, step):
        fits.refresh(torch.arange(len(open_)))
        gains = _effects(fits, points[open_], sides[open_]).masked_fill_(fits.labels != clean[:, open_], -torch.inf)
        best, index = gains.topk(min(step, max_flips - flipped, len(gains)), dim=0)
        flip = torch.zeros_like(fits.labels).scatter_(0, index, best > 0)
        fits.labels ^= flip
        fits.refit()
        changed = _sides(fits, points[open_]) != sides[open_]
        for column in changed.nonzero()[:, 0].tolist():
            found[int(open_[column])] = (fits.labels[:, column] != clean[:, open_[column]]).nonzero()[:, 0]
        rest = (~changed & (best[0] > 0)).nonzero()[:, 0]
        fits.keep(rest)
        open_ = open_[rest]
        if len(open_) == 0:
            break
    return found


def distance_attack(fits: LogisticFits, points: Tensor, max_flips: int) -> list[Tensor]:
    """Flip the nearest labels of the predicted class: twice as many until the prediction changes, then bisect.

    Args and returns as for :func:`influence_attack`.
    """
    sides, clean = _sides(fits, points), fits.labels.clone()
    distance = torch.cdist(fits.features, points).masked_fill_(clean != sides, torch.inf)
    order = distance.argsort(dim=0)
    most = (clean == sides).sum(0).clamp(max=max_flips)
    few, many = torch.zeros_like(most), torch.ones_like(most).minimum(most)

    def changes(counts: Tensor) -> Tensor:
        chosen = torch.arange(len(clean))[:, None] < counts
        fits.labels = clean ^ torch.zeros_like(clean).scatter_(0, order, chosen)
        fits.refit()
        return _sides(fits, points) != sides

    done = changes(many)
    while (growing := ~done & (many < most)).any():
        few = torch.where(growing, many, few)
        many = torch.where(growing, (2 * many).minimum(most), many)
        done |= changes(many)
    while (open_ := done & (many - few > 1)).any():
        middle = torch.where(open_, (few + many) // 2, many)
        success = changes(middle)
        many = torch.where(open_ & success, middle, many)
        few = torch.where(open_ & ~success, middle, few)
    counts = torch.where(done, many, 0).tolist()
    return [order[:count, column].sort().values for column, count in enumerate(counts)]


def reverse_pass(
    refitted: Callable[[Tensor], LogisticFits], labels: Tensor, points: Tensor, flips: list[Tensor]
) -> list[Tensor]:
    """Take back the flips that are not needed, those of least influence first.

    Args:
        refitted: from labels (n, B) to their fits.
        labels: shape (n,), bool: the clean ones.
        points: shape (B, d), float64.
        flips: of each point, as an attack found them; no list is empty.

    Returns:
        a part of each list that changes the prediction just as well.
    """
    flipped = torch.zeros(len(labels), len(points), dtype=torch.bool)
    for column, index in enumerate(flips):
        flipped[index, column] = True
    fits = refitted(labels[:, None] ^ flipped)
    sides, start = _sides(fits, points), fits.coefficients.clone()
    # What the flip added to the logit, measured towards the side that the attack reached.
    effects = _effects(fits, points, sides)
    order = effects.masked_fill(~flipped, torch.inf).argsort(dim=0)
    for rank in range(max(map(len, flips), default=0)):
        spared = order[rank : rank + 1]
        overshoot = (points * start.T).sum(1).abs()
        worth = flipped.gather(0, spared)[0] & (effects.gather(0, spared)[0] <= _DOUBT * overshoot)
        if not worth.any():
            break
        tried = flipped.scatter(0, spared, flipped.gather(0, spared) & ~worth)
        fits.labels = labels[:, None] ^ tried
        fits.refit()
        kept = _sides(fits, points) == sides
        flipped = torch.where(kept, tried, flipped)
        start = torch.where(kept, fits.coefficients, start)
    return [column.nonzero()[:, 0] for column in flipped.T]


def _sides(fits: LogisticFits, points: Tensor) -> Tensor:
    """The predicted labels as bool: logit above 0."""
    return (points * fits.coefficients.T).sum(1) > 0


def _effects(fits: LogisticFits, points: Tensor, sides: Tensor) -> Tensor:
    """For each label how much flipping it moves each point's logit away from ``sides``, to first order: (n, B)."""
    rows = torch.arange(len(points))
    pull = fits.features @ (fits.solve(points.T.contiguous(), rows) * (sides.double() * 2 - 1))
    return torch.where(fits.labels, pull, -pull)


# --- many logistic regressions at once --------------------------------------------------------------------------------


class LogisticFits:
    r"""B logistic regressions on the same features, each with its own labels.

    Column b minimises :math:`\sum_i \log(1 + e^{-s_{ib} x_i^T \theta_b}) + \tfrac{\lambda}{2} \|\theta_b\|^2`, where
    :math:`s_{ib} = 1` for label 1, else -1. Changing a few labels moves the minimum little: a refit starts from the
    last minimum and keeps the Hessian for as long as it serves.

    Args:
        features: X, shape (n, d), float64.
        labels: shape (n, B), bool: label 1.
        strength: :math:`\lambda` > 0.
        start: shape (d, B), float64; zero by default.

    Attributes:
        labels: shape (n, B), bool; change them, then call :meth:`refit`.
        coefficients: shape (d, B), float64.
    """

    def __init__(self, features: Tensor, labels: Tensor, strength: float, start: Tensor | None = None) -> None:
        self.features, self.labels, self.strength = features, labels.clone(), strength
        count = (features.shape[1], labels.shape[1])
        self.coefficients = features.new_zeros(count) if start is None else start.clone()
        self._scale = float(features.abs().sum(0).max()) + strength
        self._factors = features.new_zeros(count[1], count[0], count[0])
        self.refresh(torch.arange(count[1]))
        self.refit()

    def refit(self) -> None:
        """Move to the minimum for the labels as they are now.

        Raises:
            UserError: the strength is so small that Newton's method finds none.
        """
        gradient = self._gradient(self.coefficients, self.labels)
        todo = (gradient.abs().amax(0) > _TOLERANCE * self._scale).nonzero()[:, 0]
        gradient = gradient[:, todo]
        for _ in range(_ITERATIONS):
            if len(todo) == 0:
                return
            gradient, slow = self._step(todo, gradient)
            self.refresh(todo[slow])
            open_ = gradient.abs().amax(0) > _TOLERANCE * self._scale
            todo, gradient = todo[open_], gradient[:, open_]
        raise UserError(f"strength must be larger for these features, got {self.strength:g}; try 1.0")

    def _step(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """A Newton step of some columns, halved until the gradient shrinks; the new gradient, and who was slow."""
        direction = -self.solve(gradient, rows)
        before, start = gradient.norm(dim=0), self.coefficients[:, rows]
        labels, length = self.labels[:, rows], torch.ones_like(before)
        for _ in range(30):
            moved = start + length * direction
            after = self._gradient(moved, labels)
            worse = after.norm(dim=0) >= before
            if not worse.any():
                break
            length = torch.where(worse, length / 2, length)
        self.coefficients[:, rows] = moved
        return after, (after.norm(dim=0) > _SLOW * before).nonzero()[:, 0]

    def refresh(self, rows: Tensor) -> None:
        """Compute the Hessians of some columns anew, at the present coefficients."""
        share = torch.sigmoid(self.features @ self.coefficients[:, rows])
        for row, curvature in zip(rows.tolist(), (share * (1 - share)).T, strict=True):
            hessian = self.features.T @ (self.features * curvature[:, None])
            hessian.diagonal().add_(self.strength)
            self._factors[row] = torch.linalg.cholesky(hessian)

    def solve(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """The inverse Hessian of column ``rows[b]`` times ``vectors[:, b]``: shape (d, len(rows))."""
        solved: Tensor = torch.cholesky_solve(vectors.T[:, :, None], self._factors[rows])[:, :, 0].T
        return solved

    def keep(self, rows: Tensor) -> None:
        """Drop all other columns."""
        self.labels, self.coefficients = self.labels[:, rows], self.coefficients[:, rows]
        self._factors = self._factors[rows]

    def _gradient(self, coefficients: Tensor, labels: Tensor) -> Tensor:
        share = torch.sigmoid(self.features @ coefficients)
        return self.features.T @ (share - labels.double()) + self.strength * coefficients
