"""Arrays in, figures out; nothing here touches pyplot's global state."""

from lightning_poison.plots.accuracy import (
    comparison_bars,
    curve_groups,
    robustness_curve_figure,
    strategy_curve,
    strategy_intervals,
    training_curves,
)
from lightning_poison.plots.certified_accuracy import certified_accuracy_curve, required_margin_figure
from lightning_poison.plots.images import flip_matrix, image_grid
from lightning_poison.plots.paths import decision_regions, path_ends, path_length_histogram, path_trace

__all__ = [
    "certified_accuracy_curve",
    "comparison_bars",
    "curve_groups",
    "decision_regions",
    "flip_matrix",
    "image_grid",
    "path_ends",
    "path_length_histogram",
    "path_trace",
    "required_margin_figure",
    "robustness_curve_figure",
    "strategy_curve",
    "strategy_intervals",
    "training_curves",
]
