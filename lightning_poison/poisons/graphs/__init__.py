"""Selectors that look at which points of a class lie close together."""

from lightning_poison.poisons.graphs.class_graphs import (
    ClassGraphDegree,
    ClassGraphIntersection,
    ClassGraphSelector,
    DominatingSet,
)
from lightning_poison.poisons.graphs.colouring_score import ColouringScore
from lightning_poison.poisons.graphs.spaces import FeatureSpace, InputSpace, PCASpace, Space

__all__ = [
    "ClassGraphDegree",
    "ClassGraphIntersection",
    "ClassGraphSelector",
    "ColouringScore",
    "DominatingSet",
    "FeatureSpace",
    "InputSpace",
    "PCASpace",
    "Space",
]
