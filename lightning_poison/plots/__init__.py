"""Arrays in, figures out; nothing here touches pyplot's global state."""

from lightning_poison.plots.certified_accuracy import certified_accuracy_curve
from lightning_poison.plots.comparison import comparison_bars
from lightning_poison.plots.decision_regions import decision_regions
from lightning_poison.plots.flips import flip_matrix
from lightning_poison.plots.images import image_grid
from lightning_poison.plots.path_ends import path_ends
from lightning_poison.plots.path_lengths import path_length_histogram
from lightning_poison.plots.path_trace import path_trace
from lightning_poison.plots.required_margin import required_margin_figure
from lightning_poison.plots.robustness_curve import robustness_curve_figure
from lightning_poison.plots.strategies import strategy_curve, strategy_intervals
from lightning_poison.plots.training import curve_groups, training_curves

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
