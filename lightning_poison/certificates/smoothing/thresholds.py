r"""From the probability of an error to a certified radius: the exact table, and closed forms.

**Smoothing.** Every training label is kept with probability 1 - q and otherwise replaced by one of the K - 1 other
classes, all equally likely. The smoothed prediction is a class whose probability p under this draw exceeds 1/2.

**Theorem** (Lee et al., 2019, "Tight certificates of adversarial robustness for randomly smoothed classifiers",
section 4; Rosenfeld et al., 2020, eq. 4). Let mu be the law of the drawn labels, rho the law after r of the n labels
have been changed. The largest rho-measure of a set with mu-measure e is found by the Neyman-Pearson lemma: the set is
filled in the order of the likelihood ratio, with a random share of the last value. The smoothed prediction is certified
for r changes if and only if this measure stays below 1/2, that is, if 1 - p < :math:`\varepsilon_r`, the e at which it
becomes 1/2.

**Closed form.** mu and rho differ in the r changed coordinates only. Let T count, over these, 0 for a drawn label that
equals the changed one, 2 for one that equals the original and 1 for any other (K = 2: T counts the originals, in steps
of 1). Under rho the r terms are independent with probabilities :math:`1 - q, q (K-2)/(K-1), q/(K-1)` (K = 2:
:math:`1 - q, q`), and :math:`\mu(T = k) = \rho(T = k) \lambda^k L^{-r}` with :math:`L = (1-q)(K-1)/q` and
:math:`\lambda = L` (K = 2: :math:`L^2`). So the likelihood ratio falls with T, the set is :math:`T < k` with a share of
:math:`T = k`, k the median of T under rho, and

.. math:: \varepsilon_r = \mu(T < k) + \mu(T = k) \frac{1/2 - \rho(T < k)}{\rho(T = k)} .

**Any other k** gives a number that is not larger: as a function of the rho-measure the least mu-measure is convex and
piecewise linear, and the formula is the line through one of its pieces. Hence the largest over a few k near the mean
is sound whatever the median is, and tight as soon as the median is among them.

**Rounding.** q is taken as the exact number that it is. Sums below the median have positive terms only and follow from
recurrences; a relative error of at most ``slack`` is taken off what is added and put on what is subtracted. Where a
sum is cut off, what is left out of mu only lowers the result; what is left out of rho is bounded and added.

**Radii.** How many changed labels a prediction withstands is a function of ``log_error``, an upper bound on log(1 - p),
where p is the probability of the predicted class when every label is flipped with probability q to one of the other
classes (uniformly). A bound of log(1/2) or more says nothing, and the radius is 0.

**KL radius** (Rosenfeld et al., 2020, "Certified robustness to label-flipping attacks via randomized smoothing",
eqs. 8 and 10; K classes: eq. 25). r changed labels turn the law mu of the drawn labels into rho with
:math:`KL(\rho \| \mu) = r (1 - \tfrac{Kq}{K-1}) \log\tfrac{(1-q)(K-1)}{q}`. By the data-processing inequality a
prediction of mu-probability p has a rho-probability b with :math:`kl(b \| p) \le KL(\rho \| \mu)`, so that b > 1/2 as
long as this is below :math:`kl(1/2 \| p) = -\tfrac12 \log 4p(1-p)`. The paper also admits equality, where b = 1/2 is
possible; ties count against us. In float64 no result can tell ``<`` from ``<=`` by being wrong: the quotient of the two
divergences is rounded down by more than it can err, so that it is strictly below the exact one, and a whole number r
would be certified rightly. We stay with ``<``, which then gives r - 1: never too large, and safe without that slack.

**Tight radius**: the largest r with 1 - p < :math:`\varepsilon_r`, as in the theorem above; the necessary and
sufficient condition for a black-box learner, about twice the KL radius.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_integer_field

__all__ = ["FlipNoise", "kl_radius", "kl_thresholds", "tight_radius", "tight_thresholds"]

_EPS = torch.finfo(torch.float64).eps
_NEGLIGIBLE = 1e-18
_BLOCK = 16384  # rows whose intermediate results a cache holds
_RESCALE_EVERY = 8  # a step multiplies by at most about r K, far below 2 ** 64
_ANY = 2**53  # stands for "any number"; a float64 holds it exactly


@dataclass(frozen=True)
class FlipNoise:
    """Random label flips: each label is replaced, with probability ``q``, by one of the other classes.

    Args:
        q: flip probability in (0, 1 - 1/K), so that the label itself stays the likeliest class.
        num_classes: K >= 2.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> FlipNoise(0.25, 2).margin
        0.5
    """

    q: float
    num_classes: int

    def __post_init__(self) -> None:
        check_integer_field(self, "num_classes", minimum=2)
        if isinstance(self.q, bool) or not isinstance(self.q, (int, float)) or not 0 < self.q < 1 or self.margin <= 0:
            raise UserError(
                f"q must lie strictly between 0 and 1 - 1/num_classes = {1 - 1 / self.num_classes:g}, got {self.q!r}; "
                "it is the probability that a label is flipped"
            )

    @property
    def margin(self) -> float:
        """1 - q K / (K - 1), correctly rounded."""
        return float(1 - Fraction(self.q) * self.num_classes / (self.num_classes - 1))

    @property
    def log_ratio(self) -> float:
        """Logarithm of L = (1 - q) (K - 1) / q, the likelihood ratio of a label, within a few units of rounding."""
        others, q = self.num_classes - 1, Fraction(self.q)
        return math.log1p(float((others - q * self.num_classes) / q))


# --- radii ------------------------------------------------------------------------------------------------------------


def tight_radius(log_error: Tensor, q: float, num_classes: int, max_radius: int) -> Tensor:
    """Certified number of changed labels by the Neyman-Pearson lemma: the best for a black-box learner.

    Args:
        log_error: shape (m,), float64: upper bounds on log(1 - p), which may be -inf.
        q: probability with which each label is flipped, in (0, 1 - 1/K).
        num_classes: K.
        max_radius: the number of labels; no radius is larger.

    Returns:
        shape (m,), int64; never below :func:`kl_radius`.

    Raises:
        UserError: q is out of its range, or ``log_error`` holds NaN.

    Example:
        >>> tight_radius(torch.tensor([-50.0, -5.0, -0.1], dtype=torch.float64), 0.1, num_classes=2, max_radius=100)
        tensor([26,  1,  0])
    """
    FlipNoise(q, num_classes)
    error = _checked(log_error, max_radius)
    finite = error[torch.isfinite(error)]
    last = _first_unreached(float(finite.min()), q, num_classes, max_radius) if len(finite) else 0
    table = tight_thresholds(torch.arange(last + 1), q, num_classes)
    # What r changes cannot do, fewer cannot either: a larger threshold further on holds for the smaller r as well.
    table = table.flip(0).cummax(0).values
    passed = last + 1 - torch.searchsorted(table, error, right=True)
    radius = torch.where(torch.isinf(error), max_radius, (passed - 1).clamp(min=0))
    return torch.maximum(radius, kl_radius(log_error, q, num_classes, max_radius))


def kl_radius(log_error: Tensor, q: float, num_classes: int, max_radius: int = _ANY) -> Tensor:
    """Certified number of changed labels by the KL divergence, in closed form.

    Args:
        log_error: shape (m,), float64: upper bounds on log(1 - p), which may be -inf.
        q: probability with which each label is flipped, in (0, 1 - 1/K).
        num_classes: K.
        max_radius: the number of labels; no radius is larger.

    Returns:
        shape (m,), int64.

    Raises:
        UserError: q is out of its range, or ``log_error`` holds NaN.

    Example:
        >>> kl_radius(torch.tensor([-50.0, -5.0, -0.1], dtype=torch.float64), q=0.1, num_classes=2)
        tensor([13,  1,  0])
    """
    noise, error = FlipNoise(q, num_classes), _checked(log_error, max_radius)
    bounded = error.clamp(min=-float(_ANY), max=math.log(0.5))  # p <= 1/2 reaches nowhere
    reach = -(math.log(4) + bounded + torch.log1p(-bounded.exp())) / 2 - 4 * _EPS * (2 - bounded)
    # Strictly below the quotient; its rounding and that of the divergence are taken off, so that the exact one is
    # larger than this one: where this one is a whole number, one change is lost that rounding down would still certify.
    quotient = reach / (_divergence(noise) * (1 + 32 * _EPS))
    radius = (quotient.clamp(max=float(_ANY)).ceil() - 1).clamp(min=0, max=max_radius).long()
    return torch.where(torch.isinf(error), max_radius, radius)


def kl_thresholds(radii: Tensor, q: float, num_classes: int) -> Tensor:
    r"""Log of the error probability below which the KL bound certifies r changed labels (figure 5 of the paper).

    The solution of :math:`-\tfrac12 \log 4 e (1 - e) = r D` for e < 1/2, D the divergence of one changed label. Not
    rounded down: for pictures; :func:`kl_radius` certifies.

    Args:
        radii: shape (R,), integers r >= 0.
        q: probability with which each label is flipped.
        num_classes: K.

    Returns:
        shape (R,), float64.

    Example:
        >>> kl_thresholds(torch.tensor([0, 1]), q=0.25, num_classes=2).exp()
        tensor([0.5000, 0.0918], dtype=torch.float64)
    """
    exponent = -2 * radii.double() * _divergence(FlipNoise(q, num_classes))
    return exponent - math.log(2) - torch.log1p((-torch.expm1(exponent)).sqrt())


def _divergence(noise: FlipNoise) -> float:
    """KL(rho || mu) of one changed label, within a few units of rounding."""
    return noise.margin * noise.log_ratio


def _checked(log_error: Tensor, max_radius: int) -> Tensor:
    max_radius = check_integer("max_radius", max_radius, minimum=0)
    if log_error.ndim != 1 or torch.isnan(log_error).any():
        raise UserError(
            f"log_error must be a vector without NaN, got shape {tuple(log_error.shape)}; it holds log(1 - p)"
        )
    return log_error.double().clamp(max=0)


def _first_unreached(log_error: float, q: float, num_classes: int, max_radius: int) -> int:
    """A radius from which on nothing is certified at ``log_error``, or the largest."""
    radius = 1
    while radius < max_radius and float(tight_thresholds(torch.tensor([radius]), q, num_classes)[0]) > log_error:
        radius *= 2
    return min(radius, max_radius)


# --- the exact table --------------------------------------------------------------------------------------------------


def tight_thresholds(radii: Tensor, q: float, num_classes: int) -> Tensor:
    """Log of the error probability below which a smoothed prediction withstands r changed labels.

    Args:
        radii: shape (R,), integers r >= 0, in increasing order.
        q: probability with which each label is flipped.
        num_classes: K: a flipped label becomes one of the K - 1 others, uniformly.

    Returns:
        shape (R,), float64: lower bounds on log epsilon_r, tight up to rounding; log(1/2) at r = 0.

    Raises:
        UserError: q is not in (0, 1 - 1/K), or the radii do not increase.

    Example:
        >>> tight_thresholds(torch.tensor([0, 1, 2]), q=0.25, num_classes=2).exp()
        tensor([0.5000, 0.1667, 0.0556], dtype=torch.float64)
    """
    noise = FlipNoise(q, num_classes)
    if radii.ndim != 1 or radii.is_floating_point() or (radii.diff() <= 0).any() or (radii < 0).any():
        raise UserError(f"radii must be increasing integers of at least 0, got {radii.tolist()[:5]}")
    flips = radii.double()
    lines = _binomial if num_classes == 2 else _trinomial
    return torch.cat([_best(lines(part, noise), part) for part in torch.split(flips, _BLOCK)])


def _best(lines: Iterator[Tensor], flips: Tensor) -> Tensor:
    best = torch.full_like(flips, -torch.inf)
    for line in lines:
        best = torch.maximum(best, line)
    return best.clamp(max=math.log(0.5) * (1 + _EPS))


def _line(log_mass: Tensor, mu_below: Tensor, rho_below: Tensor, log_likelihood: Tensor, slack: Tensor) -> Tensor:
    """The line of the module's head, rounded down.

    Args:
        log_mass: log rho(T = k).
        mu_below: mu(T < k) / mu(T = k), not too large by more than the slack.
        rho_below: rho(T < k) / rho(T = k), not too small by more than the slack.
        log_likelihood: log mu(T = k) / rho(T = k).
        slack: bound on the relative error of rho(T = k) and of both ratios, and of half the last argument's
            exponential.
    """
    half = 0.5 * torch.exp(-log_mass)
    share = (half + mu_below) * (1 - slack) - rho_below * (1 + slack)
    log_share = torch.where(share > 0, share.clamp(min=torch.finfo(torch.float64).tiny).log(), -torch.inf)
    return log_mass + log_likelihood + log_share - 4 * slack


def _binomial(flips: Tensor, noise: FlipNoise) -> Iterator[Tensor]:
    """Lines at the integers around r q, between which the median of Binomial(r, q) lies (K = 2)."""
    log_q, log_keep, log_ratio = math.log(noise.q), math.log1p(-noise.q), noise.log_ratio
    ratio = math.exp(-log_ratio)
    k = (flips * noise.q).floor()
    mu_below, rho_below = _sums_below(flips, k, ratio)
    for _ in range(2):
        rest = flips - k
        terms = [torch.lgamma(flips + 1), -torch.lgamma(k + 1), -torch.lgamma(rest + 1), k * log_q, rest * log_keep]
        log_mass = torch.stack(terms).sum(0)
        size = torch.stack(terms).abs().sum(0) + flips * log_ratio
        slack = _EPS * (16 * size + 16 * flips + 64)
        yield torch.where(
            rest >= 0, _line(log_mass, mu_below, rho_below, (2 * k - flips) * log_ratio, slack), -torch.inf
        )
        step = (k + 1) / rest.clamp(min=1)  # rho(T = k) / rho(T = k + 1) but for the ratio q / (1 - q)
        mu_below, rho_below, k = (1 + mu_below) * step * ratio, (1 + rho_below) * step / ratio, k + 1


def _sums_below(flips: Tensor, k: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """mu(T < k) / mu(T = k), rounded down by truncation, and rho(T < k) / rho(T = k), rounded up."""
    mu_sum, rho_sum = torch.zeros_like(k), torch.zeros_like(k)
    mu_term, rho_term = torch.ones_like(k), torch.ones_like(k)
    below = k.clone()
    for _ in range(int(k.max()) if len(k) else 0):
        step = below / (flips - below + 1)
        mu_term, rho_term = mu_term * step * ratio, rho_term * step / ratio
        mu_sum, rho_sum, below = mu_sum + mu_term, rho_sum + rho_term, (below - 1).clamp(min=0)
        # rho's terms shrink from here on (k is at most the mode), so that what is left is at most `below` of them
        if (rho_term * below <= _NEGLIGIBLE * (1 + rho_sum)).all():
            break
    return mu_sum, rho_sum + rho_term * below


def _trinomial(flips: Tensor, noise: FlipNoise) -> Iterator[Tensor]:
    """Lines at five integers around the mean of T (K > 2)."""
    q, others, log_ratio = noise.q, noise.num_classes - 1, noise.log_ratio
    keep = 1 - q
    powers = _Powers(q * (others - 1) / others / keep, q / others / keep, math.exp(-log_ratio))
    start = (flips * (q * (others + 1) / others)).floor().sub(2).clamp(min=0)
    powers.run(flips, start)
    log_keep = math.log1p(-q)
    for _ in range(5):
        k = powers.k
        log_mass = powers.term.log() + powers.exponent * math.log(2) + flips * log_keep
        size = flips * (log_ratio - log_keep) + powers.exponent.abs() + k * log_ratio
        slack = _EPS * (16 * size + 32 * flips + 32 * k + 64)
        mu_below, rho_below = powers.mu_sum / powers.term - 1, powers.rho_sum / powers.term - 1
        line = _line(log_mass, mu_below.clamp(min=0), rho_below.clamp(min=0), (k - flips) * log_ratio, slack)
        yield torch.where(k <= flips, line, -torch.inf)
        powers.step(flips)


class _Powers:
    r"""Coefficients of :math:`(1 + a z + b z^2)^r` for many r at once, with their sums.

    They follow from :math:`(k+1) t_{k+1} = (r - k) a t_k + (2r + 1 - k) b t_{k-1}`, the derivative of the power
    compared with the power (Knuth, The Art of Computer Programming 2, section 4.7, eq. 9). Up to k = r every term is
    positive, so that relative errors add up and do not grow.

    Args:
        a: coefficient of z.
        b: coefficient of z squared.
        ratio: the likelihood ratio of one step; ``mu_sum`` is the sum over i <= k of t_i ratio^(k - i).
    """

    def __init__(self, a: float, b: float, ratio: float) -> None:
        self.a, self.b, self.ratio = a, b, ratio

    def run(self, flips: Tensor, start: Tensor) -> None:
        """Go to k = ``start``, which does not fall along ``flips``."""
        state = torch.stack([torch.zeros_like(flips), *[torch.ones_like(flips)] * 3])
        exponent = torch.zeros_like(flips)
        finished = torch.searchsorted(start, torch.arange(int(start.max()) + 1 if len(start) else 0) + 0.5).tolist()
        first = 0
        for number, last in enumerate(finished):
            if number % _RESCALE_EVERY == 0:
                scale = torch.frexp(state[1, first:])[1]
                state[:, first:] = torch.ldexp(state[:, first:], -scale)
                exponent[first:] += scale
            first = last  # those before are where they should be
            state[:, first:] = self._next(state[:, first:], flips[first:], float(number))
        self._set(state, start, exponent)

    def step(self, flips: Tensor) -> None:
        """Go one further."""
        state = torch.stack([self.previous, self.term, self.rho_sum, self.mu_sum])
        self._set(self._next(state, flips, self.k), self.k + 1, self.exponent)

    def _next(self, state: Tensor, flips: Tensor, k: Tensor | float) -> Tensor:
        previous, term, rho_sum, mu_sum = state
        new = ((flips - k) * (self.a * term) + (2 * flips + 1 - k) * (self.b * previous)) / (k + 1)
        return torch.stack([term, new, rho_sum + new, mu_sum * self.ratio + new])

    def _set(self, state: Tensor, k: Tensor, exponent: Tensor) -> None:
        self.previous, self.term, self.rho_sum, self.mu_sum = state
        self.k, self.exponent = k, exponent
