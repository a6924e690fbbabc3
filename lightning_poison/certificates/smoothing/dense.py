r"""The sums of a smoothed margin from a matrix of weights.

**How L is computed.** With :math:`E = e^u, u = t \beta`, a term is

.. math:: \log E e^{-u Z} = -u + \log p_- + \log(E^2 + (p_0 / p_-) E + p_+ / p_-) .

The first part adds up to -t times the sum of the weights, and the logarithms to logarithms of products of as many
factors as a float64 number can hold: one exponential a term, hardly any logarithm, and nothing cancels. (For signs it
is :math:`\log \cosh` with the exponent of the tilt taken out.)

**Rounding.** The weights are taken as the exact numbers that they are. In units of :math:`2^{-52}`, a term's logarithm
errs by at most 16 + 4 |u|: the rounding of u counts twice in the exponent, a library's exponential is within four
units, the probabilities within two, and each of five more operations, the product's included, adds one. Sums of n
terms, in any order, err by n units times the sum of absolute values (Higham, 2002, section 4.2), and those are at most
2 |u| + log 3 + the largest :math:`-\log p`. What is added to L is :math:`4 (n + 64)` units of the sum of :math:`|u_i| +
2 - \min \log p` and of |t b|, more than twice all of this together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.margins import EPS, LARGEST_EXPONENT, LabelNoise, Moments, Segment
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["Margins"]

_LOG_LARGEST = 700.0  # exp(+-700) are ordinary float64 numbers
_LONGEST_PRODUCT = 512
_SINGLE_EXPONENT = 40.0  # exp(+-80) are ordinary float32 numbers
_RUN = 16
_BLOCK_BYTES = 2 * 2**20


@dataclass
class Margins:
    """The margins of m points.

    Args:
        weights: shape (m, n), float64.
        segments: a partition of the columns; empty ones are left out.
        size: at least the sum of |alpha_i|, up to rounding, shape (m,).
        peak: max |alpha_i|, shape (m,).
        total: sum of sign_i alpha_i, shape (m,), up to rounding.
        offset: b, shape (m,).
        offset_error: how far rounding may have moved b, shape (m,).

    Example:
        >>> from lightning_poison.certificates.smoothing.margins import noise_of_own
        >>> one = torch.ones(1).double()
        >>> margin = Margins(one[None], [Segment(0, 1, 1, noise_of_own(0.1, 2))], one, one, one, 0 * one, 0 * one)
        >>> margin.log_mgf(one * math.log(3)).exp()  # 0.9 / 3 + 0.1 * 3
        tensor([0.6000], dtype=torch.float64)
    """

    weights: Tensor
    segments: Sequence[Segment]
    size: Tensor
    peak: Tensor
    total: Tensor
    offset: Tensor
    offset_error: Tensor
    _samples: dict[int | None, list[tuple[LabelNoise, Tensor, Tensor | None]]] = field(init=False, default_factory=dict)

    def largest(self) -> Tensor:
        """The largest |beta_i|, shape (m,), float64."""
        return self.peak

    def slopes(self, tilt: Tensor, sample: int | None = None) -> Tensor:
        """First three derivatives of L at t, shape (3, m), float64 but only as exact as float32.

        Args:
            tilt: t, shape (m,), float64.
            sample: estimate them from about so many training points; None: from all.
        """
        step = tilt.float()[:, None]
        sums = torch.stack([-self.offset, *torch.zeros(2, *self.offset.shape).to(self.offset)])
        for noise, columns, shares in self._sampled(sample):
            sums += _single_slopes(columns, shares, step, noise).double()
        return sums

    def blocks(self) -> Iterator[tuple[slice, Margins]]:
        """Some rows at a time, as many as a cache holds."""
        rows = rows_per_chunk(self.weights.shape[1], budget=_BLOCK_BYTES)
        columns = (self.weights, self.size, self.peak, self.total, self.offset, self.offset_error)
        for start in range(0, len(self.weights), rows):
            part = slice(start, start + rows)
            weights, *rest = (column[part] for column in columns)
            yield part, Margins(weights, self.segments, *rest)

    def log_mgf(self, tilt: Tensor) -> Tensor:
        """At least L(t), shape (m,), float64."""
        logs = torch.zeros_like(tilt)
        for segment, exponential in zip(self.segments, self._exponentials(tilt), strict=True):
            logs += self._log_factors(segment, exponential, tilt)
        return self._bound(tilt, logs)

    def moments(self, tilt: Tensor) -> Moments:
        """L(t) and the tilted moments."""
        sums, logs = torch.zeros(3, len(tilt), dtype=torch.float64, device=tilt.device), torch.zeros_like(tilt)
        for segment, exponential in zip(self.segments, self._exponentials(tilt), strict=True):
            columns = self.weights[:, segment.start : segment.stop]
            if not segment.noise.is_sign:
                sums += _ternary_moments(columns, exponential, segment)
            logs += self._log_factors(segment, exponential, tilt)  # overwrites the exponentials by the factors
            if segment.noise.is_sign:
                sums += _sign_moments(columns, exponential, segment)
        mean, variance, third = sums
        # |u| units from the exponentials, a dozen operations, n for the sum; and what 1 - p loses when p is near 1
        relative, n = 8 * (self.weights.shape[1] + 4 * LARGEST_EXPONENT + 64) * EPS, self.weights.shape[1]
        return Moments(
            self._bound(tilt, logs),
            self.offset + mean,
            relative * (self.size + self.offset.abs()) + self.offset_error,
            variance * (1 - relative) - 16 * EPS * n * self.peak.square(),
            third * (1 + relative) + 64 * EPS * n * self.peak**3,
        )

    def _bound(self, tilt: Tensor, logs: Tensor) -> Tensor:
        steep, n = tilt.abs(), self.weights.shape[1]
        constant = math.fsum((part.stop - part.start) * math.log(part.noise.minus) for part in self.segments)
        spread = n * (2 + max((part.noise.spread for part in self.segments), default=0.0))
        rounding = 4 * (n + 64) * EPS * (steep * (self.size + self.offset.abs()) + spread)
        return logs + constant - tilt * (self.offset + self.total) + rounding + steep * self.offset_error

    def _exponentials(self, tilt: Tensor) -> Iterator[Tensor]:
        """E, or its square where the noise is a sign, segment by segment."""
        for segment in self.segments:
            step = (2 if segment.noise.is_sign else 1) * segment.sign * tilt
            yield torch.mul(self.weights[:, segment.start : segment.stop], step[:, None]).exp_()

    def _log_factors(self, segment: Segment, exponential: Tensor, tilt: Tensor) -> Tensor:
        r"""Sum of :math:`\log(E^2 + (p_0 / p_-) E + p_+ / p_-)`, whose terms take the place of E."""
        noise = segment.noise
        if not noise.is_sign:
            exponential.mul_(exponential + noise.zero / noise.minus)
        reach = 2 * float((tilt.abs() * self.peak).max()) if len(tilt) else 0.0
        return _log_product(exponential.add_(noise.plus / noise.minus), reach + 2 * noise.spread + 2)

    def _sampled(self, sample: int | None) -> list[tuple[LabelNoise, Tensor, Tensor | None]]:
        """About ``sample`` columns, kept for the next time."""
        if sample not in self._samples:
            stride = max(self.weights.shape[1] // sample, 1) if sample else 1
            self._samples = {sample: self._in_float32(stride)}
        return self._samples[sample]

    def _in_float32(self, stride: int) -> list[tuple[LabelNoise, Tensor, Tensor | None]]:
        """For each noise the signed weights in float32, one in ``stride``, and for how many each of them stands."""
        parts: dict[LabelNoise, list[tuple[Tensor, Segment]]] = {}
        for segment in self.segments:
            columns = _thinned(self.weights[:, segment.start : segment.stop], stride)
            parts.setdefault(segment.noise, []).append((columns, segment))
        return [(noise, *_joined(part, stride)) for noise, part in parts.items()]


def _thinned(columns: Tensor, stride: int) -> Tensor:
    """One in ``stride`` runs of columns."""
    groups = columns.shape[1] // (stride * _RUN)
    if stride == 1 or groups == 0:
        return columns
    runs = columns[:, : groups * stride * _RUN].reshape(len(columns), groups, stride * _RUN)[:, :, :_RUN]
    return runs.reshape(len(columns), groups * _RUN)


def _joined(parts: list[tuple[Tensor, Segment]], stride: int) -> tuple[Tensor, Tensor | None]:
    """Columns of several segments side by side in float32, with their signs, and how many each stands for."""
    rows, widths = len(parts[0][0]), [columns.shape[1] for columns, _ in parts]
    joined = parts[0][0].new_empty(rows, sum(widths), dtype=torch.float32)
    for target, (columns, segment) in zip(torch.split(joined, widths, dim=1), parts, strict=True):
        target.copy_(columns)
        if segment.sign < 0:
            target.neg_()
    shares = [
        joined.new_full((width,), (part.stop - part.start) / width)
        for width, (_, part) in zip(widths, parts, strict=True)
    ]
    return joined, torch.cat(shares) if stride > 1 else None


def _log_product(factors: Tensor, reach: float) -> Tensor:
    """Sum over columns of the logarithms of positive numbers of at most ``reach``, by logarithms of products."""
    # a reach that is not a number comes with a t that bounds nothing
    length = min(2 ** int(math.log2(max(_LOG_LARGEST / reach, 1))), _LONGEST_PRODUCT) if reach > 0 else 1
    whole = factors.shape[1] // length * length
    logs = factors[:, whole:].log().sum(1)
    if whole and length > 1:
        logs += factors[:, :whole].reshape(len(factors), -1, length).prod(2).log_().sum(1)
    return logs if length > 1 else factors.log().sum(1)


def _single_slopes(weights: Tensor, shares: Tensor | None, step: Tensor, noise: LabelNoise) -> Tensor:
    """Sums over columns, each times its share, of the first three derivatives of log E exp(-t weight noise), (3, m)."""
    if noise.is_sign:
        flipped = torch.mul(weights, 2 * step).sub_(math.log(noise.plus / noise.minus)).sigmoid_().mul_(weights)
        kept = weights - flipped
        product = kept * flipped
        first = _summed(flipped, shares) - _summed(kept, shares)
        return torch.stack([first, 4 * _summed(product, shares), 8 * _summed(kept.sub_(flipped).mul_(product), shares)])
    exponential = torch.mul(weights, step).clamp_(-_SINGLE_EXPONENT, _SINGLE_EXPONENT).exp_()
    minus, plus = exponential * noise.minus, noise.plus / exponential
    total = minus + plus + noise.zero
    plus, minus, zero = plus / total, minus / total, noise.zero / total
    mean, variance = plus - minus, zero * (plus + minus) + 4 * plus * minus
    third = plus * (zero + 2 * minus) ** 3 - minus * (zero + 2 * plus) ** 3 - zero * mean**3
    terms = (-mean * weights, variance * weights**2, -third * weights**3)
    return torch.stack([_summed(term, shares) for term in terms])


def _summed(columns: Tensor, shares: Tensor | None) -> Tensor:
    return columns.sum(1) if shares is None else columns @ shares


def _sign_moments(weights: Tensor, factors: Tensor, segment: Segment) -> Tensor:
    """Sums over columns of tilted means, variances and third absolute central moments of signs, shape (3, m).

    With p = P(+1), they are 2 p - 1, 4 p (1 - p) and 8 p (1 - p) (1 - 2 p (1 - p)) times powers of |weight|.
    """
    plus = (segment.noise.plus / segment.noise.minus) / factors
    mean = 2 * torch.linalg.vecdot(plus, weights) - weights.sum(1)
    both = torch.addcmul(plus, plus, plus, value=-1)
    second = torch.mul(both, weights, out=plus).mul_(weights)
    variance, size = second.sum(1), weights.abs()
    third = torch.linalg.vecdot(second, size) - 2 * torch.linalg.vecdot(second.mul_(both), size)
    return torch.stack([segment.sign * mean, 4 * variance, 8 * third])


def _ternary_moments(weights: Tensor, exponential: Tensor, segment: Segment) -> Tensor:
    """Sums over columns of tilted means, variances and third absolute central moments, shape (3, m)."""
    noise, size = segment.noise, weights.abs()
    zero, minus = (noise.zero / noise.minus) * exponential, exponential.square()
    total = minus + zero + noise.plus / noise.minus
    plus, zero, minus = (noise.plus / noise.minus) / total, zero.div_(total), minus.div_(total)
    mean = plus - minus
    variance = zero * (plus + minus) + 4 * plus * minus  # nothing is subtracted, so nothing cancels
    third = plus * (zero + 2 * minus) ** 3 + minus * (zero + 2 * plus) ** 3 + zero * mean.abs() ** 3
    sums = (segment.sign * mean * weights, variance * size.square(), third * size**3)
    return torch.stack([part.sum(1) for part in sums])
