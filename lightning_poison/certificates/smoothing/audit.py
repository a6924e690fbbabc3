r"""A sharp bound on a smoothed margin's tail: exact convolution on a lattice, every error accounted for.

**Theorem.** Write :math:`\beta_i = h k_i + r_i` with integers :math:`k_i` and :math:`|r_i| \le h/2`, and split
:math:`D = D' + R`, :math:`D' = b + h N`, :math:`N = \sum k_i Z_i`, :math:`R = \sum r_i Z_i`. Let t > 0, let L' be the
log moment generating function of D' at t, and Q the law tilted by :math:`e^{-tD' - L'}`, under which the :math:`Z_i`
stay independent. For every c,

.. math:: P(D \le 0) \le e^{L'} \left( E_Q[e^{tD'} 1_{D' \le c}] + E_Q[e^{-tR} 1_{-R > c}] \right) .

With :math:`\mu` the mean of -R and V its variance under Q, the second term is at most
:math:`\exp(t \mu + (t - \theta)(c - \mu) + V (e^{\theta h} - 1 - \theta h) / h^2)` for every :math:`\theta \ge t`. For
t < 0 everything holds for -D.

**Proof.** :math:`P(D \le 0) = e^{L'} E_Q[e^{tD'} 1_{D' \le -R}]`. Where :math:`-R \le c` the event implies
:math:`D' \le c`; elsewhere :math:`e^{tD'} \le e^{-tR}`. For :math:`-R > c`,
:math:`e^{-tR} \le e^{-\theta R - (\theta - t) c}`, and the centred terms of -R are at most h in size, so Bennett's
bound on their moment generating function applies. QED.

**The first term.** The law of N under Q modulo M is computed from its characteristic function at the M-th roots of
unity by a Fourier transform. Points are the same up to rounding within a lattice cell, so the function is a product
over the cells that are occupied. Let :math:`N_0` be the largest N with :math:`b + h N \le c`. The probability of a
residue is at least that of its member in :math:`(N_0 - M, N_0]`, and what lies below these M has a weight of at most
:math:`e^{t (b + h (N_0 - M))}`. So wrapping around only makes the bound larger.

**Rounding.** The logarithm of a value of the characteristic function is a sum over B cells of count times logarithm, at
most pi n together, and errs by less than 8 n B units of 2^-52; the transform, of a vector of length at most 1, by less
than 256. That much is added to each probability. Other roundings are put into one factor and one summand of the
result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.chernoff import berry_esseen_at, bounded_at_best_tilt
from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import EPS

__all__ = ["audit"]

_CELLS = 2**16  # M
_FARTHEST = 2.0**30  # the largest k: below it |r| is at most h / 2 but for a share of 2^-22
_REACH = 14.0  # what M covers, in standard deviations of D under Q
_DEVIATIONS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)  # of R, tried for c
_ROUNDING = 1e-9
_CHUNK = 2**22


def audit(margins: Margins, sign: Tensor) -> Tensor:
    """Bound the probability that each margin does not have its predicted sign; never above the Berry-Esseen bound.

    About a second a point: to see how much the other bounds give away, or for points that matter.

    Args:
        margins: of m points, from a matrix of weights.
        sign: shape (m,), +1 or -1: the predicted sign.

    Returns:
        an upper bound on the logarithm of the probability, shape (m,), float64, at most 0.
    """
    return bounded_at_best_tilt(margins, sign, _bound)


def _bound(margins: Margins, tilt: Tensor, sign: Tensor) -> Tensor:
    bounds = berry_esseen_at(margins, tilt, sign)
    deviations = margins.moments(tilt).variance.clamp(min=0).sqrt().tolist()
    for row, (t, deviation) in enumerate(zip(tilt.abs().tolist(), deviations, strict=True)):
        spacing = _REACH * deviation / _CELLS
        if t > 0 and 0 < float(margins.peak[row]) < _FARTHEST * spacing:
            sharper = _lattice_bound(_cells(margins, row, float(sign[row]), spacing), t)
            bounds[row] = torch.minimum(bounds[row], torch.tensor(sharper, dtype=torch.float64))
    return bounds


@dataclass(frozen=True)
class _Cells:
    """One margin on a lattice, its points gathered by cell and noise.

    Args:
        spacing: h.
        offset: b, rounded down.
        place: k of each cell, shape (B,), int64.
        count: training points in it, shape (B,), float64.
        rest: sum of r over its points, shape (B,).
        rest_squared: sum of r^2, shape (B,).
        probabilities: of +1, 0 and -1, shape (3, B).
    """

    spacing: float
    offset: float
    place: Tensor
    count: Tensor
    rest: Tensor
    rest_squared: Tensor
    probabilities: Tensor


def _cells(margins: Margins, row: int, sign: float, spacing: float) -> _Cells:
    parts = []
    for segment in margins.segments:
        beta = (sign * segment.sign) * margins.weights[row, segment.start : segment.stop].cpu()
        place, cell = torch.unique(torch.round(beta / spacing).long(), return_inverse=True)
        rest = beta - spacing * place[cell].double()
        noise = segment.noise
        zeros = torch.zeros(len(place), dtype=torch.float64)
        parts.append(
            (
                place,
                torch.bincount(cell, minlength=len(place)).double(),
                zeros.index_add(0, cell, rest),
                zeros.index_add(0, cell, rest.square()),
                torch.tensor([noise.plus, noise.zero, noise.minus], dtype=torch.float64)[:, None].expand(3, len(place)),
            )
        )
    joined = [torch.cat(part, dim=-1) for part in zip(*parts, strict=True)]
    # beta = h k + r holds up to rounding
    rounding = margins.offset_error[row] + 8 * EPS * (margins.size[row] + margins.offset[row].abs())
    return _Cells(spacing, float(sign * margins.offset[row] - rounding), *joined)


def _lattice_bound(cells: _Cells, t: float) -> float:
    """The theorem's bound, the smallest over a few c, as a logarithm."""
    h, n = cells.spacing, float(cells.count.sum())
    step = t * h * cells.place.double()
    logs = cells.probabilities.log() + torch.stack([-step, torch.zeros_like(step), step])
    cumulant = logs.logsumexp(0)
    log_mgf = float((cells.count * cumulant).sum()) - t * cells.offset
    size = float((cells.count * (cumulant.abs() + step.abs() + 1)).sum()) + t * abs(cells.offset)
    tilted = (logs - cumulant).exp()
    mean = tilted[0] - tilted[2]
    rest_mean = -float((mean * cells.rest).sum())
    rest_variance = float(((tilted[0] + tilted[2]) * cells.rest_squared).sum()) * (1 + _ROUNDING)
    law, error = _law(cells.place, cells.count, tilted)
    best = 0.0
    for deviations in _DEVIATIONS:
        # the rest's mean, n products and sums of at most h / 2, may be rounded down
        cut = rest_mean + deviations * math.sqrt(rest_variance) + n * (n + 8) * EPS * h
        first = _below(law, error, t, h, cells.offset, cut)
        second = _rest_term(t, h, rest_mean, rest_variance, cut)
        best = min(best, log_mgf + 8 * (n + 64) * EPS * size + math.log((first + second) * (1 + _ROUNDING)))
    return best


def _law(place: Tensor, count: Tensor, tilted: Tensor) -> tuple[Tensor, float]:
    """The law of N modulo M, shape (M,), and how far rounding may have moved a probability."""
    angles = torch.arange(_CELLS, dtype=torch.float64) * (2 * math.pi / _CELLS)
    cosine, sine = angles.cos(), angles.sin()
    values = []
    for frequencies in torch.split(torch.arange(_CELLS // 2 + 1), max(_CHUNK // len(place), 1)):
        turn = (frequencies[:, None] * place) % _CELLS
        real = tilted[1] + (tilted[0] + tilted[2]) * cosine[turn]
        imaginary = (tilted[0] - tilted[2]) * sine[turn]
        modulus = (real.square() + imaginary.square()).clamp(min=1e-300).log() / 2 @ count
        phase = torch.atan2(imaginary, real) @ count
        values.append(torch.polar(modulus.clamp(max=0).exp(), -phase))
    function = torch.cat(values)
    relative = 8 * (len(place) + 16) * (float(count.sum()) + 16) * EPS
    return torch.fft.irfft(function, n=_CELLS), relative * 2 * float(function.abs().sum()) / _CELLS + 256 * EPS


def _below(law: Tensor, error: float, t: float, h: float, offset: float, cut: float) -> float:
    """At least E_Q[exp(t D') 1(D' <= c)]."""
    last = math.floor((cut - offset) / h + _ROUNDING * (1 + abs(cut - offset) / h))
    down = torch.arange(_CELLS)
    weight = (t * (offset + h * (last - down.double()))).exp()
    beneath = math.exp(min(t * (offset + h * (last - _CELLS)), 700.0))
    return float(((law[(last - down) % _CELLS].clamp(min=0) + error) * weight).sum()) + beneath


def _rest_term(t: float, h: float, mean: float, variance: float, cut: float) -> float:
    """At least E_Q[exp(-tR) 1(-R > c)]."""
    if variance == 0:
        return 0.0 if cut >= mean else math.inf
    h *= 1 + 1e-6  # r is a little larger where k is rounded
    thetas = t + (cut - mean) / variance * torch.linspace(0.25, 1.5, 26, dtype=torch.float64)
    bennett = variance * (torch.expm1(thetas * h) - thetas * h) / h**2
    exponents = t * mean + (t - thetas) * (cut - mean) + bennett
    return math.exp(min(float(exponents.min()) + _ROUNDING, 700.0))
