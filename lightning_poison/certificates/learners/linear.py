r"""Learners whose class scores are sums of weights over the training points of a class.

As the weights see no label, the certificate is that of :mod:`lightning_poison.certificates.label_linear`. Where all
votes are of one size it is half the margin, by counting, exact up to ties:

**Learner.** Training point i votes on x with a weight :math:`w_i(x) \in \{-1, 0, 1\}` that sees no label. The score of
class c is :math:`s_c = \sum_{i: y_i = c} w_i = P_c - N_c`, the votes for less the votes against it; the prediction is
the class of the largest score, the lowest index among equals.

**Adversary.** Knows everything, and replaces up to r of the n training labels by any of the K classes.

**Theorem.** Let c be the prediction, and m > 0 the least margin :math:`s_c - s_j` to a rival j. No
:math:`\lceil m / 2 \rceil - 1` changes of labels alter the prediction, and some :math:`\lceil m / 2 \rceil` bring a
rival at least level with c.

**Proof.** One change takes w_i from one class and gives it to another, so it moves each score by at most 1 and each
margin by at most 2. After r changes with 2 r < m every margin of c is still positive. Conversely let j be the rival of
margin m. As long as :math:`s_c - s_j = P_c - N_c - P_j + N_j > 0`, there is a vote for c or a vote against j. Giving
the former to j, or the latter to c, takes 2 off the margin, and leaves a vote for j or against c, which is not chosen
again. The argument starts anew: m / 2 changes, rounded up, make the margin 0 or less. QED.

So nobody gets more than half the margin out of votes of size 1, and these do; weights of different sizes fall to
changes of the largest ones. (The same number follows from the theorem of
:mod:`lightning_poison.certificates.label_linear`, whose gains are 2, 1 and 0 here.) Scores are integers, and nothing is
rounded.

**Ties** count against us, so that the radius may be one below the largest that is true: where m is even and c has a
lower index than every rival of margin m, c wins the tie that m / 2 changes make. One more alters the prediction, as
:math:`P_c + N_j \ge m` leaves a vote for c or against j to change. In every other case the radius is exact.

**How large it gets.** Votes of +1 in x's cluster and 0 elsewhere have a margin of at most the cluster's size; -1
elsewhere adds the rival's points outside: with pure clusters :math:`m = N_c + N_j` for classes of N points, the largest
that any learner can have which treats the classes alike (:func:`lightning_poison.certificates.radius_ceiling`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lightning_poison.certificates.collective import CollectiveCertificate, certify_together
from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.label_linear import (
    LabelFlipCertificate,
    OptimalFlips,
    certify_label_linear,
    optimal_label_flips,
)
from lightning_poison.certificates.learner import Advance, CertifiedLearner
from lightning_poison.certificates.learners.kernels import Kernel, SimilarityToTraining
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.ridge import Ridge
from lightning_poison.functional.scale import unit_of

__all__ = ["CertifiedRidge", "EqualVotesLearner", "LabelLinearLearner", "NearestNeighbours", "certify_equal_votes"]

_REMEDY = "clean the inputs or change the feature map"


# --- learners that are linear in their labels -------------------------------------------------------------------------


class LabelLinearLearner(CertifiedLearner):
    """A learner that is linear in its labels: exact certificates, and the optimal attack.

    A subclass says with which weights w_i(x) the training points vote on x; they may depend on every input, and on no
    label. The theorem is that of :mod:`lightning_poison.certificates.label_linear`.
    """

    @abstractmethod
    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The vote weights of points, in chunks (m', n) that follow each other, so that (m, n) never exists.

        Args:
            features: shape (m, d), m > 0.

        Returns:
            over the training points in the learner's own order.
        """

    def vote_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """:meth:`weight_chunks`, where training points that equal each other weigh alike to the last bit.

        Which of them has which label is not told by points and labels, so it must not matter.
        """
        for weights in self.weight_chunks(features) if len(features) else ():
            yield self._own.alike(weights, dim=1)

    def weights(self, features: Tensor) -> Tensor:
        """The vote weights of points as one matrix, shape (m, n), float; training points stand as they were given."""
        self._check_features(features)
        return torch.cat([torch.empty(0, self.num_points), *self.vote_chunks(features)])[:, self.order.argsort()]

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Exact certificates of points whose features are known."""
        self._check_features(features)

        def chunks() -> Iterator[Tensor]:
            for weights in self.vote_chunks(features):
                yield weights
                advance(len(weights))

        return certify_label_linear(chunks(), self.labels, self.num_classes)

    def certify_together(self, features: Tensor, budget: int) -> CollectiveCertificate:
        """How many of these predictions one adversary with ``budget`` label changes in all can change.

        Args:
            features: shape (m, d).
            budget: r.
        """
        self._check_features(features)
        found = certify_together(self.vote_chunks(features), self.labels, self.num_classes, budget)
        index, order = self.order[found.index].sort()
        return replace(found, index=index, new_label=found.new_label[order])

    def optimal_flips(self, features: Tensor) -> list[OptimalFlips | None]:
        """For each point the fewest label changes that alter its prediction; None where nothing does.

        Args:
            features: shape (m, d).
        """
        given = torch.empty_like(self.labels)
        given[self.order] = self.labels
        return [optimal_label_flips(weights, given, self.num_classes) for weights in self.weights(features)]


# --- ridge regression -------------------------------------------------------------------------------------------------

_BATCH = 1000


class CertifiedRidge(LabelLinearLearner):
    """Ridge regression of one-hot labels on label-free features, with exact label-flip certificates.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        regularisation: strength of the ridge, relative to the mean eigenvalue of the features' second moments, so
            that one value suits any data. More of it gives larger radii and, in time, fewer right predictions. Choose
            it without the labels that are certified.
        max_dim: keep at most so many leading directions of the training features (eigenvectors of their second
            moments, which see no label); the rest, which the ridge all but ignores, only costs time.
        intercept: add a constant feature, see :class:`Ridge`. Without it weights are similarities around the origin.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> CertifiedRidge(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs)
        LabelFlipCertificate(prediction=tensor([0, 0, 1]), radius=tensor([0, 0, 0]))
    """

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        regularisation: float = 0.05,
        max_dim: int = 256,
        intercept: bool = True,
    ) -> None:
        super().__init__(features)
        self.max_dim = check_integer("max_dim", max_dim, minimum=1)
        self.regularisation = check_number("regularisation", regularisation, minimum=0)
        self.intercept = intercept
        self._directions: Tensor | None = None
        self._ridge: Ridge  # there is none before fit

    def _fit(self, features: Tensor) -> None:
        self._directions = _leading_directions(features, self.max_dim) if features.shape[1] > self.max_dim else None
        self._ridge = Ridge(self._projected(features), self.regularisation, intercept=self.intercept)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The rows of :class:`Ridge`'s weights."""
        yield from self._ridge.weight_chunks(self._projected(features))

    def _projected(self, features: Tensor) -> Tensor:
        """Coordinates along the leading directions, float64, without a float64 copy of all features at once."""
        if self._directions is None:
            return features
        return torch.cat([part.double() @ self._directions for part in torch.split(features, _BATCH)])

    def describe(self) -> str:
        """The learner in a few words."""
        kept = "" if self._directions is None else f" along {self._directions.shape[1]} leading directions"
        return f"ridge regression (relative strength {self.regularisation:g}){kept}"

    def choices(self) -> tuple[str, ...]:
        """The strength, and the number of directions where it matters."""
        return ("the strength",) if self._directions is None else ("the strength", "the number of directions")


def _leading_directions(features: Tensor, count: int) -> Tensor:
    """The ``count`` leading eigenvectors of X^T X as columns (d, count), float64."""
    check_finite("features", features, remedy=_REMEDY)
    unit = unit_of(features)
    parts = (part.double() * unit for part in torch.split(features, _BATCH))
    moments = sum((part.T @ part for part in parts), torch.zeros(()))
    directions: Tensor = torch.linalg.eigh(moments).eigenvectors[:, -count:]
    return directions


# --- votes of one size ------------------------------------------------------------------------------------------------

_EXACT = 2**24  # sums of fewer votes are exact in float32


class EqualVotesLearner(LabelLinearLearner):
    """A label-linear learner whose weights are -1, 0 or 1: certificates by counting, exact up to ties.

    No training point weighs more than another, so an adversary finds none that is worth more than two votes; weighted
    learners lose their heaviest points first. The theorem is at the top of this module.
    """

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known, exact up to ties."""
        self._check_features(features)
        if self.num_points >= _EXACT:
            raise UserError(f"labels must be fewer than {_EXACT} for votes, got {self.num_points}; take a part of them")
        one_hot = torch.nn.functional.one_hot(self.labels, self.num_classes).float()
        scores = [one_hot[:0].long()]
        for votes in self.vote_chunks(features):
            scores.append((votes.float() @ one_hot).long())
            advance(len(votes))
        return certify_equal_votes(torch.cat(scores), self.num_points)


def certify_equal_votes(scores: Tensor, num_points: int) -> LabelFlipCertificate:
    """Certify predictions from class scores that count votes of -1, 0 and 1.

    The theorem and its proof stand at the head of this module, and what "up to ties" means.

    Args:
        scores: shape (m, K), int64: votes for each class less votes against it, one vote a training point.
        num_points: n, the number of training points; with one class it is the radius.

    Raises:
        UserError: the scores are not integers, or no n points can have given them.

    Example:
        >>> certify_equal_votes(torch.tensor([[7, 2], [0, 1], [3, 3]]), num_points=20)
        LabelFlipCertificate(prediction=tensor([0, 1, 0]), radius=tensor([2, 0, 0]))
    """
    num_points = check_integer("num_points", num_points, minimum=1)
    if scores.ndim != 2 or scores.shape[1] == 0 or scores.dtype != torch.int64:
        got = f"shape {tuple(scores.shape)}, dtype {scores.dtype}"
        raise UserError(f"scores must be an int64 matrix (points, classes), got {got}; count votes in integers")
    if (scores.abs().sum(dim=1) > num_points).any():
        largest = int(scores.abs().sum(dim=1).max())
        raise UserError(f"scores must come from at most num_points={num_points} votes a row, got {largest}")
    prediction = scores.argmax(dim=1)
    if scores.shape[1] == 1:
        return LabelFlipCertificate(prediction, torch.full_like(prediction, num_points))
    first, second = scores.topk(2, dim=1).values.unbind(dim=1)
    fewest = torch.div(first - second + 1, 2, rounding_mode="floor")
    return LabelFlipCertificate(prediction, (fewest - 1).clamp(min=0))


class NearestNeighbours(EqualVotesLearner):
    """Each of the k most similar training points has a vote, with certificates that are exact up to ties.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        neighbours: k; at most all training points are used. The radius is below k / 2, so take about half a class.
        kernel: what similar means; None: cosine. ``RBFKernel`` takes the nearest in l2.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.1, 1.0], [0.0, 1.0], [0.2, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 0, 1])
        >>> NearestNeighbours(RawFeatures(), neighbours=3).fit(inputs, labels, num_classes=2).certify(inputs[:1])
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
    """

    def __init__(
        self, features: LabelFreeFeatures | None = None, neighbours: int = 1000, kernel: Kernel | None = None
    ) -> None:
        super().__init__(features)
        self.neighbours = check_integer("neighbours", neighbours, minimum=1)
        self.similarity = SimilarityToTraining(kernel)

    def _fit(self, features: Tensor) -> None:
        self.similarity.fit(features)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """1 for each of the k most similar training points, the first among equals, else 0; float32."""
        for similarity in self.similarity.chunks(features):
            yield _largest(self._own.alike(similarity, dim=1), min(self.neighbours, self.num_points))

    def vote_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """:meth:`weight_chunks`: of equal training points the first ones vote, those of the lowest labels.

        Changing one of their labels changes at most one label among the first ones, whatever their number: the sorted
        labels before and after differ by one that is taken out and one that is put in.
        """
        if len(features):
            yield from self.weight_chunks(features)

    def describe(self) -> str:
        """The learner in a few words."""
        return f"votes of the {self.neighbours} nearest training points by {self.similarity.kernel.describe()}"

    def choices(self) -> tuple[str, ...]:
        """The number of neighbours and the kernel."""
        return ("the number of neighbours", "the kernel")


def _largest(similarity: Tensor, count: int) -> Tensor:
    """Which ``count`` entries of each row are the largest, the first among equals; 0 or 1, float32."""
    check_finite("similarities", similarity, remedy=_REMEDY)
    threshold = similarity.kthvalue(similarity.shape[1] - count + 1, dim=1, keepdim=True).values
    chosen = (similarity >= threshold).float()
    tied = (chosen.sum(1) > count).nonzero()[:, 0]
    if len(tied):
        rows, level = similarity[tied], threshold[tied]
        above, equal = rows > level, rows == level
        room = count - above.sum(1, keepdim=True)
        chosen[tied] = (above | (equal & (equal.cumsum(1) <= room))).float()
    return chosen
