"""Label flips, the victims trained on them, and what can still be guaranteed, as PyTorch Lightning plugins."""

__version__ = "0.1.0"
