"""The common base of the small networks."""

from __future__ import annotations

from torch import nn

__all__ = ["SmallNet"]


class SmallNet(nn.Module):
    """A network of this package.

    The command line looks up short names (``--model.net=MLP``) among these first: other packages have an ``MLP`` too.
    """
