"""Arrays in, figures out; nothing here touches pyplot's global state."""

from lightning_poison.plots.certified_accuracy import certified_accuracy_curve
from lightning_poison.plots.comparison import comparison_bars
from lightning_poison.plots.flips import flip_matrix
from lightning_poison.plots.images import image_grid
from lightning_poison.plots.path_lengths import path_length_histogram
from lightning_poison.plots.training import curve_groups, training_curves

__all__ = [
    "certified_accuracy_curve",
    "comparison_bars",
    "curve_groups",
    "flip_matrix",
    "image_grid",
    "path_length_histogram",
    "training_curves",
]
