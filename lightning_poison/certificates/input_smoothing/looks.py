r"""Looking at the votes before all are in, without spoiling the certificate.

A look at n_i copies, f_i of them against the class, gives an upper bound u_i on the probability of another class that
fails with probability at most alpha_i. All bounds hold at once with probability at least :math:`1 - \sum_i \alpha_i =
1 - \alpha` (union bound), whenever and for whatever reason drawing stops. So the smallest one counts, and the rule that
stops may be anything; it costs power only.

Here the last look has half of alpha, the others share the rest, and each look has twice as many copies as the one
before. A point is done as soon as every radius asked about is either reached or out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.special import ndtri
from torch import Tensor

from lightning_poison.functional.intervals import binomial_lower, binomial_upper

__all__ = ["Looks", "l2_radius"]

_SMALLEST = 300  # copies of the first look, at least
_HOPE = 1e-3  # a radius is given up that only this share of equally good points could still reach
_ROUNDING = 1e-12


class Looks:
    """When to look, and what each look says.

    Args:
        n: copies in all.
        alpha: probability that any bound is wrong.
        sigma: standard deviation of the noise.
        radii: what is asked about; empty: look once, at the end.

    Attributes:
        sizes: number of copies at each look, increasing; the last one is ``n``.
        levels: the error probability of each look; they add up to at most alpha.

    Example:
        >>> Looks(3000, 0.001, 0.25, radii=[0.5]).sizes
        [300, 700, 1500, 3000]
    """

    def __init__(self, n: int, alpha: float, sigma: float, radii: Sequence[float] = ()) -> None:
        self.sizes, size = [n], n
        while radii and size // 2 >= _SMALLEST:
            size //= 2
            self.sizes.insert(0, size // 100 * 100)
        early = len(self.sizes) - 1
        self.levels = [*[alpha / 2 / early] * early, alpha / 2] if early else [alpha]
        self._sigma, self._radii = sigma, torch.tensor(sorted({0.0, *radii}), dtype=torch.float64)

    def bound(self, look: int, against: Tensor) -> Tensor:
        """Upper bound on the probability of the other classes, float64, from the number of votes against."""
        return binomial_upper(against, self.sizes[look], self.levels[look])

    def undecided(self, look: int, against: Tensor, bound: Tensor) -> Tensor:
        """Where more copies may still reach one of the radii: shape (m,), bool.

        Args:
            look: the present look.
            against: shape (m,), integers: votes for other classes so far.
            bound: shape (m,), float64: the smallest upper bound so far.
        """
        if look == len(self.sizes) - 1:
            return torch.zeros(len(against), dtype=torch.bool)
        reached = l2_radius(bound, self._sigma)
        possible = torch.minimum(
            l2_radius(self.bound(len(self.sizes) - 1, against), self._sigma),  # no vote against any more
            l2_radius(binomial_lower(against, self.sizes[look], _HOPE), self._sigma),
        )
        asked = self._radii[None, :]
        return ((asked > reached[:, None]) & (asked <= possible[:, None])).any(1)


def l2_radius(error: Tensor, sigma: float) -> Tensor:
    r"""The certified radius :math:`\sigma \Phi^{-1}(1 - u)`, rounded down; -1 where u is 1/2 or more.

    Theorem (Cohen, Rosenfeld and Kolter, 2019, "Certified adversarial robustness via randomized smoothing", theorem 1
    with the runner-up bounded by 1 - p): if the class has probability p > 1/2 under noise N(0, sigma^2 I), then it is
    the likeliest for every input at a distance less than :math:`\sigma \Phi^{-1}(p)`. Proof: by the Neyman-Pearson
    lemma the least probability that the class can have at distance d is :math:`\Phi(\Phi^{-1}(p) - d / \sigma)`, that
    of a half-space; it exceeds 1/2 up to the radius. A tie at the radius itself is excluded by rounding down.

    Args:
        error: shape (m,), float64: upper bound u on 1 - p.
        sigma: standard deviation of the noise, in pixel units.

    Returns:
        shape (m,), float64, in pixel units.

    Example:
        >>> l2_radius(torch.tensor([0.001, 0.4, 0.5], dtype=torch.float64), sigma=1.0)
        tensor([ 3.0902,  0.2533, -1.0000], dtype=torch.float64)
    """
    quantile = -torch.as_tensor(ndtri(error.numpy()))  # of 1 - u, without forming it
    radius = sigma * quantile * (1 - _ROUNDING) - _ROUNDING * sigma
    return torch.where((error < 0.5) & (radius > 0), radius, -1.0)
