"""What every certified learner is to its users: fitted, asked for certificates, able to say what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures, RandomConvFeatures
from lightning_poison.certificates.features.base import PointSource, check_as_many, in_own_order
from lightning_poison.certificates.guarantee import Certainty, LabelScope, Promise, reach_of
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_integer, check_kind, check_labels
from lightning_poison.functional.point_order import OwnOrder

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightning_poison.report import ReportFigure

__all__ = ["Advance", "CertifiedLearner", "Points"]

Advance = Callable[[int], object]
"""Told how many points were done since the last call."""

Points = Tensor | npt.ArrayLike | Iterable[Tensor | npt.ArrayLike]
"""Points as they are handed to a learner: a float tensor (n, ...), what NumPy makes a float array of (an array, a
list of lists, a data frame), or batches of either, such as a loader of inputs."""

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
        inputs: Points | PointSource,
        labels: Tensor | npt.ArrayLike,
        num_classes: int,
        advance: Advance = _silent,
        scope: LabelScope = "declared",
    ) -> Self:
        """Fit the feature map, then the learner.

        Args:
            inputs: shape (n, ...), or an iterable of batches that can be read twice and are kept in memory; or a
                :class:`PointSource`.
            labels: shape (n,), integers in [0, K): the training labels as they are, flips included; a tensor, an array
                or a list.
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
        num_classes = check_integer("num_classes", num_classes, minimum=1)
        points: Any = inputs if hasattr(inputs, "in_own_order") else _as_points("inputs", inputs)
        labels = _labels_of(_as_labels(labels), num_classes, scope)
        if isinstance(points, Iterator):
            raise UserError("inputs must be readable twice, got an iterator; pass a tensor or a list of batches")
        self._fitted = False  # what is fitted must not meet a feature map that is not its own
        batches, own = in_own_order(points, labels)
        self.features.fit(batches)
        self.fit_features(own.alike(self.transform(batches, advance)), labels[own.order], num_classes, scope)
        self.order = own.order[self.order]
        return self

    def fit_features(
        self, features: Tensor, labels: Tensor | npt.ArrayLike, num_classes: int, scope: LabelScope = "declared"
    ) -> Self:
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
        num_classes = check_integer("num_classes", num_classes, minimum=1)
        features, labels = _as_tensor("features", features), _labels_of(_as_labels(labels), num_classes, scope)
        self.scope, self.num_classes = scope, num_classes + (scope == "any")
        check_as_many(len(features), labels)
        self._own = OwnOrder.of(features, labels)
        # A copy: labels that are flipped in place afterwards are not those that were fitted.
        self.order, self.labels = self._own.order, labels[self._own.order.to(labels.device)]
        in_order = torch.equal(self.order, torch.arange(len(labels)))
        self._shape = features.shape[1:]
        self._fit(features if in_order else features[self.order])
        self._fitted = True
        return self

    def certify(self, inputs: Points) -> LabelFlipCertificate:
        """Predictions and certified radii of points.

        Args:
            inputs: shape (m, ...), or batches of such.

        Raises:
            UserError: the learner is not fitted, or the features are not finite.
        """
        self._check_fitted()
        return self.certify_features(self.transform(inputs))

    def transform(self, inputs: Points, advance: Advance = _silent) -> Tensor:
        """Features of points.

        Args:
            inputs: shape (m, ...), or batches of such.
            advance: called with the number of points done, batch by batch.

        Returns:
            shape (m, d), float.

        Raises:
            UserError: inputs are no float points, or the features are not finite.
        """
        features = []
        parts = _as_points("inputs", inputs)
        for part in [parts] if isinstance(parts, Tensor) else parts:
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
        """What the certified accuracy at r means: threat model, learner, meaning, reach and assumptions, a line each.

        The learner is fitted, as its numbers of points and classes are part of the statement.

        Example:
            >>> from lightning_poison.certificates import CertifiedRidge, RawFeatures
            >>> learner = CertifiedRidge(RawFeatures(), 0.1).fit(torch.eye(3), torch.tensor([0, 0, 1]), num_classes=2)
            >>> print(learner.guarantee().splitlines()[3])
            Reach: end-to-end, as the features were built from inputs alone. Assumption: the kind of features ...
        """
        return "\n".join(self.promise().lines())

    def note(self) -> str:
        """What the certificates promise in the few words that fit beside a number."""
        return self.promise().note

    def _check_features(self, features: Tensor) -> None:
        """Raise a user's error unless the learner is fitted, and to features such as these."""
        self._check_fitted()
        check_kind("features", features, Tensor, "learner.transform(inputs)")
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


def _as_points(name: str, points: Points) -> Tensor | Iterable[Tensor]:
    """Points as one float tensor, or batches of them as an iterable of such, which is read as it goes."""
    batches = isinstance(points, (list, tuple)) and len(points) > 0 and isinstance(points[0], (Tensor, np.ndarray))
    if not batches and (isinstance(points, (Tensor, list, tuple)) or hasattr(points, "__array__")):
        return _as_tensor(name, points)
    if isinstance(points, Iterator):
        return (_as_tensor(name, batch) for batch in points)
    if isinstance(points, Iterable) and not isinstance(points, (str, bytes, dict)):
        return _Batches(name, points)
    got = f"the class {points.__name__}" if isinstance(points, type) else type(points).__name__
    raise UserError(f"{name} must be points or batches of points, got {got}; pass a float tensor (n, ...)")


class _Batches:
    """Batches that become tensors as they are read, as often as asked."""

    def __init__(self, name: str, batches: Iterable[Any]) -> None:
        self._name, self._batches = name, batches

    def __iter__(self) -> Iterator[Tensor]:
        return (_as_tensor(self._name, batch) for batch in self._batches)


def _as_tensor(name: str, points: Any) -> Tensor:
    """A float tensor of at least two axes."""
    if not isinstance(points, Tensor):
        array = _as_array(name, points)
        points = torch.from_numpy(array if array.flags.writeable else array.copy())
    tensor: Tensor = points
    if not tensor.is_floating_point():
        raise UserError(f"{name} must be float tensors, got dtype {tensor.dtype}; convert pixels to [0, 1]")
    if tensor.ndim < 2:
        raise UserError(f"{name} must have shape (n, ...), got {tuple(tensor.shape)}; one row is one point")
    return tensor


def _as_labels(labels: Any) -> Tensor:
    """Labels as a tensor; :func:`check_labels` says what is wrong with them."""
    if isinstance(labels, Tensor):
        return labels
    array = _as_array("labels", labels)
    return torch.from_numpy(array.copy())


def _as_array(name: str, values: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.ascontiguousarray(np.asarray(values))
    except (TypeError, ValueError) as error:
        got = f"{type(values).__name__} ({str(error).partition(chr(10))[0]})"
        raise UserError(f"{name} must be an array of numbers, got {got}; give all rows one shape") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:  # what torch has, too
        raise UserError(f"{name} must be an array of numbers, got dtype {array.dtype}; convert them with astype(float)")
    return array
