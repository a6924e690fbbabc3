"""Certified learners as a callback is given them, fitted and asked together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_poison.callbacks.certification_data import EvaluationPoints
from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    CertifiedRidge,
    LabelFlipCertificate,
    LabelFreeFeatures,
)
from lightning_poison.certificates.features.base import in_own_order
from lightning_poison.errors import UserError
from lightning_poison.functional.point_order import OwnOrder
from lightning_poison.functional.progress import Progress
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero

__all__ = ["Methods", "certify_points", "fit_methods", "named_methods"]

Methods = Mapping[str, CertifiedLearner]


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
    methods: Methods, inputs: Iterable[Tensor], labels: Tensor, num_classes: int, progress: Progress
) -> None:
    """Fit every method, in an order that no label decides; features that several share are computed once."""
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
        for name in names:
            methods[name].fit_features(features, labels[of_features.order], num_classes)
            methods[name].order = given[methods[name].order]


def certify_points(
    trainer: Any, methods: Methods, points: Callable[[], EvaluationPoints], progress: Progress
) -> dict[str, CertifiedPoints]:
    """Certificates of the evaluation points of all ranks, by every method.

    Each rank certifies its own share. Where a learner needs all points at once (it is transductive, or shares its alpha
    among them) the first rank certifies them.

    Args:
        trainer: says how many ranks there are.
        methods: fitted.
        points: makes a reader of this rank's share.
        progress: shows how far it is.
    """
    found: dict[str, CertifiedPoints] = {}
    for names in _sharing_features(methods):
        reader = points()
        features, index, labels = _read(trainer, methods[names[0]], reader)
        for name in names:
            certify = _of_all_points if methods[name].all_at_once else _of_each_share
            with progress(_task("evaluation points", [name]), len(index)) as advance:
                certified = certify(trainer, methods[name], features, index, labels, advance)
                found[name] = replace(certified, known=reader.known)
    return {name: found[name] for name in methods}


def _of_each_share(
    trainer: Any, learner: CertifiedLearner, features: Tensor, index: Tensor, labels: Tensor, advance: Any
) -> CertifiedPoints:
    def share() -> CertifiedPoints:
        return CertifiedPoints(index, labels, learner.certify_features(features, advance))

    return CertifiedPoints.merge(from_all_ranks(trainer, share))


def _of_all_points(
    trainer: Any, learner: CertifiedLearner, features: Tensor, index: Tensor, labels: Tensor, advance: Any
) -> CertifiedPoints:
    shares = from_all_ranks(trainer, lambda: (features, index, labels))
    rows = torch.cat([share[1] for share in shares])
    order = _once(rows)

    def certificate() -> LabelFlipCertificate:
        together = torch.cat([share[0] for share in shares if len(share[0])])
        return learner.certify_features(together[order], advance)

    found = from_rank_zero(trainer, certificate)  # it may train for hours, and the others wait
    return CertifiedPoints(rows[order], torch.cat([share[2] for share in shares])[order], found)


def _once(index: Tensor) -> Tensor:
    """Where each position stands for the first time, in the order of the positions; those below 0 are repeats."""
    order = index.argsort(stable=True)
    order = order[index[order] >= 0]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = index[order][1:] != index[order][:-1]
    return order[first]


def _read(trainer: Any, learner: CertifiedLearner, points: EvaluationPoints) -> tuple[Tensor, Tensor, Tensor]:
    """Features, positions and labels of this rank's share."""
    found: list[Tensor] = []
    from_all_ranks(trainer, lambda: found.append(learner.transform(points)))
    features, (index, labels) = found[0], points.index_and_labels()
    return (features, index, labels) if points.count_here() else (features[:0], index[:0], labels[:0])


def _sharing_features(methods: Methods) -> list[list[str]]:
    """Names of the methods that stand on one feature map."""
    groups: dict[int, list[str]] = {}
    for name, learner in methods.items():
        groups.setdefault(id(learner.features), []).append(name)
    return list(groups.values())


def _task(what: str, names: list[str]) -> str:
    return f"certificate{' ' if names != [''] else ''}{', '.join(names)}: {what}"
