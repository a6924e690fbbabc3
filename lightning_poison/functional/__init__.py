"""Tensors in, tensors out: norms, losses, graphs, fits, intervals, random streams; and the checks of arguments."""
