"""What every certified learner is to its users: fitted, asked for certificates, able to say what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, get_args

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures, RandomConvFeatures
from lightning_poison.certificates.features.base import PointSource, all_batches, check_as_many, in_own_order
from lightning_poison.certificates.guarantee import Certainty, LabelScope, Promise, guarantee, reach_of
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_kind, check_labels
from lightning_poison.functional.point_order import OwnOrder

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightning_poison.report import ReportFigure

__all__ = ["Advance", "CertifiedLearner"]

Advance = Callable[[int], object]
"""Told how many points were done since the last call."""

_BATCH = 1000


def _silent(_: int) -> None:
    """No progress is shown."""


class CertifiedLearner(ABC):
    """A classifier that tells for each prediction how many training labels may change without changing it.

    The data go through four steps: ``features.fit`` sees the training inputs, :meth:`transform` turns inputs into
    features, :meth:`_fit` takes those of the training points (the labels stand in ``labels``), and
    :meth:`certify_features` certifies evaluation points. Before each step that sees all training points they are put
    into an order of their own (:mod:`lightning_poison.functional.point_order`), so that the order in which they are
    given, which may say what their labels are, decides nothing.

    Args:
        features: the feature map below the learner; it is fitted here, to the training inputs alone. None: the default
            of ``RandomConvFeatures``, which suits images and vectors of any size, unless whoever uses the learner
            replaces it by a map that several learners share.

    Attributes:
        has_own_features: whether ``features`` was given.
        labels: shape (n,), int64: the training labels as they are, flips included, in the learner's own order; empty
            before ``fit``.
        order: shape (n,), int64: where each of them stood among those given.
        num_classes: every class that an adversary may write: K, or K + 1 where labels may be any at all.
        scope: which labels an adversary may write, see :data:`LabelScope`.
    """

    transductive: ClassVar[bool] = False
    """Whether the prediction of a point may depend on the inputs of the points that are certified along with it."""

    certifies_refits: ClassVar[bool] = True
    """Whether it is proved that this learner, fitted to changed labels, gives the certified predictions again.

    False where certificates hold with a probability only, or are about a smoothed classifier whose most likely class a
    prediction is only where that is proved: they must not be built upon.
    """

    def __init__(self, features: LabelFreeFeatures | None = None) -> None:
        check_kind("features", features, LabelFreeFeatures, "RawFeatures()", optional=True)
        self.has_own_features = features is not None
        self.features: LabelFreeFeatures = features if features is not None else RandomConvFeatures()
        self.labels = torch.empty(0, dtype=torch.int64)
        self.order = torch.empty(0, dtype=torch.int64)
        self.num_classes = 0
        self.scope: LabelScope = "declared"
        self._own = OwnOrder(self.order, None)
        self._fitted = False
        self._shape = torch.Size()

    @property
    def num_points(self) -> int:
        """Number of training points, n."""
        return len(self.labels)

    def fit(
        self,
        inputs: Tensor | Iterable[Tensor] | PointSource,
        labels: Tensor,
        num_classes: int,
        advance: Advance = _silent,
        scope: LabelScope = "declared",
    ) -> Self:
        """Fit the feature map, then the learner.

        Args:
            inputs: shape (n, ...), or batches of such, which are kept in memory; or a :class:`PointSource`.
            labels: shape (n,), integers in [0, K): the training labels as they are, flips included.
            num_classes: K.
            advance: called with the number of points turned into features, batch by batch.
            scope: which labels an adversary may write. "declared": one of the K classes, and whoever trains refuses
                others; "counted": the same, with a K that was counted in the labels; "any": any label at all, in
                ``labels`` too. What is none of the K classes then counts as one class more, number K, which the
                learner may predict.

        Returns:
            the learner itself.

        Raises:
            UserError: inputs and labels do not match, or hold values that no certificate can be built on.
        """
        labels = _labels_of(labels, num_classes, scope)
        self._fitted = False  # what is fitted must not meet a feature map that is not its own
        batches, own = in_own_order(inputs, labels)
        self.features.fit(batches)
        self.fit_features(own.alike(self.transform(batches, advance)), labels[own.order], num_classes, scope)
        self.order = own.order[self.order]
        return self

    def fit_features(self, features: Tensor, labels: Tensor, num_classes: int, scope: LabelScope = "declared") -> Self:
        """:meth:`fit` for training points whose features are known, the feature map being fitted.

        Args:
            features: shape (n, d), as :meth:`transform` gives them.
            labels: shape (n,), integers in [0, K).
            num_classes: K.
            scope: which labels an adversary may write.

        Raises:
            UserError: as for :meth:`fit`.
        """
        self._fitted = False
        labels, self.scope = _labels_of(labels, num_classes, scope), scope
        self.num_classes = num_classes + (scope == "any")
        check_as_many(len(features), labels)
        self._own = OwnOrder.of(features, labels)
        self.order, self.labels = self._own.order, labels[self._own.order.to(labels.device)]
        in_order = torch.equal(self.order, torch.arange(len(labels)))
        self._shape = features.shape[1:]
        self._fit(features if in_order else features[self.order])
        self._fitted = True
        return self

    def certify(self, inputs: Tensor | Iterable[Tensor]) -> LabelFlipCertificate:
        """Predictions and certified radii of points.

        Args:
            inputs: shape (m, ...), or batches of such.

        Raises:
            UserError: the learner is not fitted, or the features are not finite.
        """
        self._check_fitted()
        return self.certify_features(self.transform(inputs))

    def transform(self, inputs: Tensor | Iterable[Tensor], advance: Advance = _silent) -> Tensor:
        """Features of points.

        Args:
            inputs: shape (m, ...), or batches of such.
            advance: called with the number of points done, batch by batch.

        Returns:
            shape (m, d), float.

        Raises:
            UserError: the features are not finite.
        """
        features = []
        for part in all_batches(inputs):
            for batch in torch.split(part, _BATCH):
                found = self.features.transform(batch)
                features.append(check_finite("features", found, remedy="clean the inputs or change the feature map"))
                advance(len(batch))
        return torch.cat(features) if features else torch.empty(0, 0)

    @abstractmethod
    def _fit(self, features: Tensor) -> None:
        """Learn from the training points' features (n, d) and ``self.labels``, both in the learner's own order."""

    @abstractmethod
    def certify_features(self, features: Tensor, advance: Advance = _silent) -> LabelFlipCertificate:
        """:meth:`certify` for points whose features are known.

        Args:
            features: shape (m, d), as :meth:`transform` gives them; m may be 0.
            advance: called with the number of points certified, chunk by chunk; the numbers add up to m.
        """

    @abstractmethod
    def describe(self) -> str:
        """The learner without its features in a few words: "ridge regression (relative strength 0.05)"."""

    @property
    def needs_all_points(self) -> bool:
        """Whether all evaluation points must be certified in one call, on whatever ranks they are."""
        return self.transductive

    @property
    def end_to_end(self) -> bool:
        """Whether no certified label has a part in anything but the learner itself."""
        return self.features.end_to_end

    @property
    def reach(self) -> str:
        """How far the guarantee goes: "end-to-end" or "not end-to-end, the head only"."""
        return reach_of(self.end_to_end)

    def premises(self) -> tuple[str, ...]:
        """What somebody else must see to for that, each as it follows "as long as"."""
        return self.features.premises()

    def choices(self) -> tuple[str, ...]:
        """What had to be fixed without the certified labels, such as "the strength"."""
        return ()

    def certainty(self) -> Certainty:
        """How certain a certificate is."""
        return Certainty()

    def report_figures(self) -> tuple[ReportFigure, ...]:
        """Pictures of the learner's own, beside the curve that all learners have."""
        return ()

    def check_size(self, num_points: int, num_classes: int) -> None:  # noqa: B027  # most learners take any
        """Refuse data that the learner cannot be fitted to, as far as their size tells, before anything is computed.

        Args:
            num_points: n.
            num_classes: K, and one more where labels may be any at all.

        Raises:
            UserError: the learner's arguments do not fit the data.
        """

    def promise(self) -> Promise:
        """What the certificates promise, as facts."""
        return Promise(
            learner=self.describe(),
            features=self.features.describe(),
            certainty=self.certainty(),
            end_to_end=self.end_to_end,
            premises=self.premises(),
            choices=self.choices(),
            scope=self.scope,
            num_points=self.num_points,
            num_classes=self.num_classes - (self.scope == "any"),
            transductive=self.transductive,
        )

    def guarantee(self) -> str:
        """What the certificates promise, in lines of words."""
        return guarantee(self)

    def note(self) -> str:
        """What the certificates promise in the few words that fit beside a number."""
        return self.promise().note

    def _check_features(self, features: Tensor) -> None:
        """Raise a user's error unless the learner is fitted, and to features such as these."""
        self._check_fitted()
        if len(features) and features.shape[1:] != self._shape:
            got = f"{tuple(features.shape[1:])} for {tuple(self._shape)}"
            raise UserError(f"points must have features of the same shape as the training points, got {got}")

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise UserError(
                f"{type(self).__name__} must be fitted before certify, got no training points; call fit first"
            )


def _labels_of(labels: Tensor, num_classes: int, scope: LabelScope) -> Tensor:
    """Labels in [0, K), and K for all others where these are allowed; int64."""
    check_choice("scope", scope, get_args(LabelScope))
    labels = torch.as_tensor(labels)  # lists and arrays are taken, too
    if scope == "any" and not labels.is_floating_point():
        classes = labels.long()
        labels = torch.where((classes < 0) | (classes >= num_classes), num_classes, classes)
    return check_labels("labels", labels, num_classes + (scope == "any")).long()
