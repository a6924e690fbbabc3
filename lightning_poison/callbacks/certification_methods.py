"""Certified learners as a callback is given them, fitted and asked together, an undefended one beside them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_poison.callbacks.certification_data import EvaluationPoints
from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    CertifiedRidge,
    LabelFreeFeatures,
    UndefendedLogistic,
)
from lightning_poison.certificates.features.base import PointSource, in_own_order
from lightning_poison.certificates.guarantee import LabelScope
from lightning_poison.certificates.learner import Advance
from lightning_poison.certificates.undefended import AttackedPoints
from lightning_poison.datamodules import PoisonedDataModule, find_poisoned_dataset
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.functional.point_order import OwnOrder
from lightning_poison.functional.progress import Progress
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero

__all__ = ["AttackedBaseline", "certify_points", "class_count", "fit_methods", "named_methods", "with_any_label"]

Methods = Mapping[str, CertifiedLearner]
_Result = TypeVar("_Result")


# --- fitting ----------------------------------------------------------------------------------------------------------


def named_methods(method: CertifiedLearner | Methods | None, features: LabelFreeFeatures | None) -> Methods:
    """The learners by name, a single one under ""; those without features of their own share ``features``.

    Raises:
        UserError: there is no method, or a name is not fit for keys and files.
    """
    if not isinstance(method, Mapping):
        methods = {"": CertifiedRidge() if method is None else method}
    else:
        methods = {str(name): learner for name, learner in method.items()}
        for name in methods:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*", name):
                raise UserError(f"method names must be letters, digits and _.=+-, got {name!r}; they name files too")
    if not methods:
        raise UserError("method must hold at least one certified learner, got none; leave it out for the default")
    if features is not None:
        _check_kind("features", features, LabelFreeFeatures)
    for learner in methods.values():
        _check_kind("method", learner, CertifiedLearner)
        if features is not None and not learner.has_own_features:
            learner.features = features
    return methods


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        got = f"the class {value.__name__}; call it" if isinstance(value, type) else type(value).__name__
        raise UserError(f"{name} must be a {kind.__name__}, got {got}")


def fit_methods(
    methods: Methods,
    inputs: Iterable[Tensor] | PointSource,
    labels: Tensor,
    num_classes: int,
    progress: Progress,
    *,
    scope: LabelScope = "declared",
    any_label: bool = False,
    baseline: AttackedBaseline | None = None,
) -> Methods:
    """Fit every method, in an order that no label decides; features that several share are computed once.

    Args:
        methods: certified learners by name.
        inputs: training inputs.
        labels: shape (n,), int64.
        num_classes: K.
        progress: shows how far it is.
        scope: whether K was declared.
        any_label: fit each method twice: beside itself against any label at all, named ``NAME_any_label``.
        baseline: an undefended learner, fitted to the features of the first method.

    Returns:
        the fitted learners, those against any label right behind the others.
    """
    fitted: dict[str, CertifiedLearner] = {}
    with progress(_task("reading the training points", [""]), len(labels)) as advance:
        batches, own = in_own_order(inputs, labels, advance)
    labels = labels[own.order]
    for names in _sharing_features(methods):
        first = methods[names[0]]
        with progress(_task("fitting the features", names), 1) as advance:
            first.features.fit(batches)
            advance(1)
        with progress(_task("training features", names), len(labels)) as advance:
            features = own.alike(first.transform(batches, advance))
        of_features = OwnOrder.of(features, labels)  # once for all, so that the methods can share them
        features, given = features[of_features.order], own.order[of_features.order]
        sorted_labels = labels[of_features.order]
        for name in names:
            learner = fitted[name] = methods[name].fit_features(features, sorted_labels, num_classes, scope)
            learner.order = given[learner.order]
            if any_label:
                twin = copy.copy(learner)  # clusters of the same features need not be formed again
                fitted[with_any_label(name)] = twin.fit_features(features, sorted_labels, num_classes, "any")
                twin.order = learner.order
        if baseline is not None and names[0] == next(iter(methods)):
            baseline.fit(features, sorted_labels, num_classes)
    return {each: fitted[each] for name in methods for each in (name, with_any_label(name)) if each in fitted}


def class_count(trainer: Any, dataset: Any, labels: Tensor) -> tuple[int, LabelScope]:
    """K, and whether it was declared or had to be counted in the labels.

    It is declared by the data module or by the model, as ``num_classes``; a class that the run's own flips add comes on
    top.

    Args:
        trainer: knows the data module and the model.
        dataset: the training set.
        labels: shape (n,), int64: its labels.

    Raises:
        UserError: a label is none of the declared classes.
    """
    flipped = find_poisoned_dataset(dataset)
    added = 0 if flipped is None or not len(flipped.flips) else int(flipped.flips.new_label.max()) + 1
    for owner in (trainer.datamodule, getattr(trainer, "lightning_module", None)):
        declared = _declared(owner)
        if declared is not None:
            num_classes = max(declared, added)
            if int(labels.max()) >= num_classes:
                raise UserError(
                    f"labels must be among the {num_classes} classes that {type(owner).__name__} declares, got "
                    f"{int(labels.max())}; correct its num_classes or the labels"
                )
            return num_classes, "declared"
    return max(int(labels.max()) + 1, added), "counted"


def _declared(owner: Any) -> int | None:
    """``num_classes`` of a data module or model; one that wraps another and would count asks the other."""
    if isinstance(owner, PoisonedDataModule) and _declared(owner.datamodule) is None:
        return None
    return declared_classes(owner)


def with_any_label(name: str) -> str:
    """The name of a method that is certified against any label at all.

    Example:
        >>> with_any_label("votes"), with_any_label("")
        ('votes_any_label', 'any_label')
    """
    return f"{name}_any_label" if name else "any_label"


def _sharing_features(methods: Methods) -> list[list[str]]:
    """Names of the methods that stand on one feature map."""
    groups: dict[int, list[str]] = {}
    for name, learner in methods.items():
        groups.setdefault(id(learner.features), []).append(name)
    return list(groups.values())


def _task(what: str, names: list[str]) -> str:
    return f"certificate{' ' if names != [''] else ''}{', '.join(names)}: {what}"


# --- certifying -------------------------------------------------------------------------------------------------------


def certify_points(
    trainer: Any,
    methods: Methods,
    points: Callable[[], EvaluationPoints],
    progress: Progress,
    baseline: AttackedBaseline | None = None,
) -> tuple[dict[str, CertifiedPoints], AttackedPoints | None]:
    """Certificates of the evaluation points of all ranks, by every method.

    Each rank certifies its own share. Where a learner needs all points at once (it is transductive, or shares its alpha
    among them) the first rank certifies them; it attacks the baseline, too.

    Args:
        trainer: says how many ranks there are.
        methods: fitted.
        points: makes a reader of this rank's share.
        progress: shows how far it is.
        baseline: fitted; attacked on some of the points.
    """
    found: dict[str, CertifiedPoints] = {}
    attacked = None
    for names in _sharing_features(methods):
        reader = points()
        features, index, labels = _read(trainer, methods[names[0]], reader)
        for name in names:
            certify = _of_all_points if methods[name].needs_all_points else _of_each_share
            with progress(_task("evaluation points", [name]), len(index)) as advance:
                certified = certify(trainer, methods[name], features, index, labels, advance)
                found[name] = replace(certified, known=reader.known)
        if baseline is not None and names[0] == next(iter(methods)):
            with progress(_task("attacked points", ["undefended"]), len(index)) as advance:
                attacked = _attacked(trainer, baseline, features, index, labels, advance)
                attacked = replace(attacked, known=reader.known)
    return {name: found[name] for name in methods}, attacked


def _of_each_share(
    trainer: Any, learner: CertifiedLearner, features: Tensor, index: Tensor, labels: Tensor, advance: Any
) -> CertifiedPoints:
    def share() -> CertifiedPoints:
        return CertifiedPoints(index, labels, learner.certify_features(features, advance))

    return CertifiedPoints.merge(from_all_ranks(trainer, share))


def _of_all_points(
    trainer: Any, learner: CertifiedLearner, features: Tensor, index: Tensor, labels: Tensor, advance: Any
) -> CertifiedPoints:
    def certified(features: Tensor, index: Tensor, labels: Tensor) -> CertifiedPoints:
        return CertifiedPoints(index, labels, learner.certify_features(features, advance))

    return _on_the_first_rank(trainer, certified, features, index, labels)


def _attacked(
    trainer: Any, baseline: AttackedBaseline, features: Tensor, index: Tensor, labels: Tensor, advance: Any
) -> AttackedPoints:
    def attacked(features: Tensor, index: Tensor, labels: Tensor) -> AttackedPoints:
        return baseline.attack(features, index, labels, advance)

    return _on_the_first_rank(trainer, attacked, features, index, labels)


def _on_the_first_rank(
    trainer: Any, work: Callable[[Tensor, Tensor, Tensor], _Result], features: Tensor, index: Tensor, labels: Tensor
) -> _Result:
    """What the first rank makes of the features, positions and labels of all points, in their order."""
    shares = from_all_ranks(trainer, lambda: (features, index, labels))
    rows = torch.cat([share[1] for share in shares])
    order = rows.argsort()  # each stands there once, see EvaluationPoints

    def result() -> _Result:
        together = torch.cat([share[0] for share in shares if len(share[0])])
        return work(together[order], rows[order], torch.cat([share[2] for share in shares])[order])

    return from_rank_zero(trainer, result)  # it may train for hours, and the others wait


def _read(trainer: Any, learner: CertifiedLearner, points: EvaluationPoints) -> tuple[Tensor, Tensor, Tensor]:
    """Features, positions and labels of this rank's share."""
    found: list[Tensor] = []
    from_all_ranks(trainer, lambda: found.append(learner.transform(points)))
    features, (index, labels) = found[0], points.index_and_labels()
    return (features, index, labels) if points.count_here() else (features[:0], index[:0], labels[:0])


# --- the undefended baseline beside them ------------------------------------------------------------------------------


class AttackedBaseline:
    """An undefended learner on the certified learners' features, attacked on at most so many points, evenly spread.

    Args:
        model: the undefended learner.
        max_points: attack at most so many.
    """

    def __init__(self, model: UndefendedLogistic, max_points: int) -> None:
        self.model, self.max_points = model, max_points

    def check_size(self, num_classes: int) -> None:
        """Refuse more than two classes."""
        self.model.check_classes(num_classes)

    def fit(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        """Fit to the training points: features (n, d) and labels (n,)."""
        self.model.fit_features(features, labels, num_classes)

    def attack(self, features: Tensor, index: Tensor, labels: Tensor, advance: Advance) -> AttackedPoints:
        """Attack some of the points.

        Args:
            features: shape (m, d): of all of them.
            index: shape (m,), int64: positions in the data set.
            labels: shape (m,), int64: clean labels.
            advance: called with the number of points done or left out.
        """
        stride = -(-len(features) // self.max_points) if len(features) else 1
        chosen = torch.arange(0, len(features), stride)
        advance(len(features) - len(chosen))
        return AttackedPoints(index[chosen], labels[chosen], self.model.attack(features[chosen], advance))
