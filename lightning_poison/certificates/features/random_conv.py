"""Convolutions with patches of the training inputs as filters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own custom

from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures, spread_inputs
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import rows_per_chunk
from lightning_poison.functional.scale import in_units, unit_of

__all__ = ["RandomConvFeatures"]

_FIT_POINTS = 2000
_FIT_PATCHES = 100_000
_FLAT = 0.1  # patches of less than this share of the largest deviation hold no pattern
_WHITENING_FLOOR = 0.1  # added to the eigenvalues, in units of their mean


class RandomConvFeatures(LabelFreeFeatures):
    """One layer of random convolutions: whitened patches of the training inputs as filters, threshold, average pooling.

    Patches are centred and whitened by the covariance of training patches; each of the ``filters`` is one random such
    patch, of unit length. Responses, scaled to unit variance over training patches, pass ``max(response - threshold,
    0)``, are averaged over a ``grid`` x ``grid`` of regions, and the square root evens out strong and weak ones. Each
    point's vector has unit length (Coates, Ng and Lee, 2011; the square root as in Perronnin et al., 2010). On MNIST
    the default with ridge regression is right on about 97 % of the test set.

    A vector, shape (N, d), is taken as one pixel of d channels: its filters are whole training points, so that any data
    works.

    Args:
        filters: number of filters; the features have ``filters * grid * grid`` dimensions (fewer for tiny images).
        patch_size: width and height of a filter, in pixels; at most half of the image's are used.
        grid: regions per side of the pooling.
        threshold: subtracted from the responses, in their standard deviations.
        seed: which patches are drawn.

    Example:
        >>> images = torch.rand(20, 1, 8, 8, generator=generator(0))
        >>> RandomConvFeatures(filters=16).fit(images).transform(images).shape
        torch.Size([20, 144])
    """

    def __init__(
        self,
        filters: int = 128,
        patch_size: int = 7,
        grid: int = 3,
        threshold: float = 1.5,
        seed: int = 0,
    ) -> None:
        self.filters = check_integer("filters", filters, minimum=1)
        self.patch_size = check_integer("patch_size", patch_size, minimum=1)
        self.grid = check_integer("grid", grid, minimum=1)
        self.threshold = check_number("threshold", threshold)
        self.seed = seed
        self._unit = 1.0
        self._kernel: Tensor | None = None
        self._bias: Tensor | None = None

    def fit(self, inputs: Batches) -> RandomConvFeatures:
        """Draw filters from patches of 2,000 to 4,000 inputs, evenly spread over all."""
        some = check_finite("inputs", spread_inputs(inputs, _FIT_POINTS), remedy="clean them")
        self._unit = unit_of(some, ordinary=0)
        images = _as_images(in_units(some, self._unit).float())
        height, width = (max(min(self.patch_size, side // 2), 1) for side in images.shape[2:])
        stream = generator(self.seed, "random convolution features")
        patches = _patches(images, (height, width), stream)
        mean = patches.mean(0)
        whitening = _whitening(patches - mean)
        kernel = F.normalize((_filters(patches, self.filters, stream) - mean) @ whitening) @ whitening
        scale = ((patches - mean) @ kernel.T).std().clamp(min=1e-12)
        self._kernel = (kernel / scale).reshape(-1, images.shape[1], height, width).float()
        self._bias = (-(kernel @ mean) / scale - self.threshold).float()
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Convolve, threshold, pool, take the root and normalise: (N, ...) to (N, d), float32."""
        if self._kernel is None:
            raise UserError(
                "RandomConvFeatures must be fitted before transform, got no filters; call fit(inputs) first"
            )
        images = _as_images(in_units(inputs, self._unit).float())
        channels, height, width = self._kernel.shape[1:]
        if images.shape[1] != channels:
            got = f"{images.shape[1]} for {channels}"
            raise UserError(
                f"inputs must have as many channels as the training inputs, got {got}; check the transforms"
            )
        if images.shape[2] < height or images.shape[3] < width:
            got = f"{tuple(images.shape[2:])} for {height} x {width}"
            raise UserError(f"inputs must be at least as large as a filter, got {got}; resize them or fit again")
        # The responses of a batch may be thousands of times as large as its features: one small part at a time.
        parts = torch.split(images, rows_per_chunk(self.filters * images.shape[2] * images.shape[3]))
        return torch.cat([self._pooled(part, self._kernel) for part in parts])

    def _pooled(self, images: Tensor, kernel: Tensor) -> Tensor:
        responses = F.conv2d(images, kernel, self._bias).relu_()
        rows, columns = (min(self.grid, side) for side in responses.shape[2:])
        return F.normalize(F.adaptive_avg_pool2d(responses, (rows, columns)).flatten(1).sqrt_())

    def describe(self) -> str:
        """The map in a few words."""
        return f"{self.filters} random convolutions of {self.patch_size} x {self.patch_size} pixels (seed {self.seed})"


def _as_images(inputs: Tensor) -> Tensor:
    """Any inputs as (N, C, H, W); a vector is one pixel of d channels."""
    if inputs.ndim == 2:
        return inputs[:, :, None, None]
    if inputs.ndim == 3:
        return inputs[:, None]
    if inputs.ndim != 4:
        raise UserError(f"inputs must be vectors or images (N, C, H, W), got {tuple(inputs.shape)}; use RawFeatures")
    return inputs


def _patches(images: Tensor, size: tuple[int, int], stream: torch.Generator) -> Tensor:
    """Random patches of random images, (T, C * h * w)."""
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    count = min(_FIT_PATCHES, len(windows) * windows.shape[2] * windows.shape[3])
    image, top, left = (torch.randint(windows.shape[axis], (count,), generator=stream) for axis in (0, 2, 3))
    return windows[image, :, top, left].flatten(1).double()


def _filters(patches: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """``count`` of the patches, flat ones only if all are."""
    deviation = patches.std(dim=1, correction=0)
    textured = patches[deviation >= _FLAT * deviation.max()]
    return textured[torch.randint(len(textured), (count,), generator=stream)]


def _whitening(centred: Tensor) -> Tensor:
    """The symmetric square root of the regularised inverse covariance."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    floor = _WHITENING_FLOOR * values.mean().clamp(min=1e-12)
    whitening: Tensor = vectors * (values.clamp(min=0) + floor).rsqrt() @ vectors.T
    return whitening
