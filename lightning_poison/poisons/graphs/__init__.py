"""Selectors that look at which points of a class lie close together."""

from lightning_poison.poisons.graphs.class_graph_degree import ClassGraphDegree
from lightning_poison.poisons.graphs.class_graph_selector import ClassGraphSelector
from lightning_poison.poisons.graphs.colouring_score import ColouringScore
from lightning_poison.poisons.graphs.dominating_set import DominatingSet
from lightning_poison.poisons.graphs.intersection import ClassGraphIntersection
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
