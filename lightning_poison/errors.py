"""The one exception for a user's mistake."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake of the user's, not of the program's.

    The message is one line that names the argument, the rule, the value and the remedy. The command line prints it
    and exits with code 2; in Python it is a ``ValueError``.

    Example:
        >>> raise UserError("steps must be at least 1, got 0; use steps=40 for a thorough attack")
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: steps must be at least 1, got 0; use steps=40 for a thorough attack
    """
