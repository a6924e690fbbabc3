"""Features of images that see no label: convolutions with patches of them, and histograms of gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own custom

from lightning_poison.certificates.features.base import (
    Batches,
    LabelFreeFeatures,
    PCAFeatures,
    as_batches,
    spread_inputs,
)
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import rows_per_chunk
from lightning_poison.functional.scale import in_units, rescaled, unit_of

__all__ = ["HOGFeatures", "RandomConvFeatures", "deskewed"]


# --- random convolutions ----------------------------------------------------------------------------------------------

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


# --- histograms of oriented gradients ---------------------------------------------------------------------------------

_MAX_SKEW = 2.0  # columns per row; more would shear an image out of its frame
_TINY = 1e-12


class HOGFeatures(LabelFreeFeatures):
    """Histograms of oriented gradients, along their principal components, of unit length.

    Images are centred and deskewed by their moments. At each pixel the gradient of the channel where it is largest
    shares its magnitude among ``orientations`` bins of its direction, linearly between neighbours (signed: a dark and a
    bright edge differ); a Gaussian pools each bin at every ``stride``-th pixel. The vector has unit length, then the
    square root evens out strong and weak edges (Dalal and Triggs, 2005; the square root as in RootSIFT, Arandjelovic
    and Zisserman, 2012).

    Args:
        dim: number of principal components of the training points' histograms.
        orientations: bins of the gradient's direction.
        stride: pixels between the pooling centres.
        sigma: width of the pooling, in pixels.
        deskew: centre and deskew the images first; right for single objects on a dark ground, such as digits.

    Example:
        >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> HOGFeatures(dim=5).fit(images).transform(images).shape
        torch.Size([20, 5])
    """

    def __init__(
        self, dim: int = 128, orientations: int = 8, stride: int = 3, sigma: float = 2.0, deskew: bool = True
    ) -> None:
        self.orientations = check_integer("orientations", orientations, minimum=1)
        self.stride = check_integer("stride", stride, minimum=1)
        self.sigma = check_number("sigma", sigma, minimum=0.1)
        self.deskew = bool(deskew)
        self._components = PCAFeatures(dim)
        self._shape: torch.Size | None = None

    def fit(self, inputs: Batches) -> HOGFeatures:
        """Find the principal components of the training images' histograms."""
        self._shape = None
        self._components.fit(self._histograms(batch) for batch in as_batches(inputs))
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) or (N, H, W) to (N, dim), float32, of unit length."""
        return F.normalize(self._components.transform(self._histograms(inputs))).float()

    def _histograms(self, inputs: Tensor) -> Tensor:
        images = inputs[:, None] if inputs.ndim == 3 else inputs
        if images.ndim != 4 or min(images.shape[2:]) < 2:
            raise UserError(f"inputs must be images (N, C, H, W), got {tuple(inputs.shape)}; use PCAFeatures")
        if self._shape not in (None, images.shape[1:]):
            got = f"{tuple(images.shape[1:])} for {tuple(self._shape or ())}"
            raise UserError(f"inputs must have the training images' shape, got {got}; resize them or fit again")
        self._shape = images.shape[1:]
        entries = (self.orientations + images.shape[1]) * images.shape[2] * images.shape[3]
        parts = torch.split(images, rows_per_chunk(entries))
        return torch.cat([self._histogram(rescaled(part).float()) for part in parts])

    def _histogram(self, images: Tensor) -> Tensor:
        upright = deskewed(images) if self.deskew else images
        planes = _oriented(upright, self.orientations)
        rows, columns = (_pooling(side, self.stride, self.sigma) for side in images.shape[2:])
        pooled = torch.einsum("yh,nohw,xw->noyx", rows, planes, columns)
        return F.normalize(pooled.reshape(len(images), -1)).sqrt_()

    def describe(self) -> str:
        """The map in a few words."""
        upright = " of deskewed images" if self.deskew else ""
        return f"histograms of oriented gradients{upright} along {self._components.dim} principal components"


def deskewed(images: Tensor) -> Tensor:
    r"""Images moved to their centre of mass and sheared until rows and columns are uncorrelated.

    With :math:`\mu` the second moments of an image's mass, row y moves by :math:`\mu_{xy} / \mu_{yy} (y - \bar y)`.

    Args:
        images: shape (N, C, H, W), float; what is negative has no mass.

    Returns:
        shape (N, C, H, W), float; an image without mass stays as it is.

    Example:
        >>> image = torch.zeros(1, 1, 5, 5)
        >>> image[0, 0, 0, 0] = 1
        >>> deskewed(image)[0, 0].nonzero().tolist()
        [[2, 2]]
    """
    height, width = images.shape[2:]
    mass = images.clamp(min=0).sum(dim=1)
    mass = mass / mass.sum(dim=(1, 2), keepdim=True).clamp(min=_TINY)
    y = torch.arange(height, dtype=images.dtype) - (height - 1) / 2
    x = torch.arange(width, dtype=images.dtype) - (width - 1) / 2
    mean_y, mean_x = mass.sum(2) @ y, mass.sum(1) @ x
    from_y, from_x = y - mean_y[:, None], x - mean_x[:, None]
    spread = (mass.sum(2) * from_y.square()).sum(1)
    both = torch.einsum("nyx,ny,nx->n", mass, from_y, from_x)
    skew = torch.where(spread > _TINY, both / spread.clamp(min=_TINY), 0.0).clamp(-_MAX_SKEW, _MAX_SKEW)
    # The pixel at (x, y) from the new centre comes from (x + skew * y, y) from the old one.
    source_x = x + (skew[:, None] * y)[:, :, None] + mean_x[:, None, None]
    source_y = (y + mean_y[:, None])[:, :, None].expand_as(source_x)
    grid = torch.stack([source_x * (2 / max(width - 1, 1)), source_y * (2 / max(height - 1, 1))], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _oriented(images: Tensor, orientations: int) -> Tensor:
    """Largest gradient magnitudes of the channels (N, C, H, W), by bins of direction: (N, orientations, H, W)."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    magnitude, channel = torch.hypot(down, across).max(dim=1, keepdim=True)
    bins = torch.atan2(down.gather(1, channel), across.gather(1, channel)) * (orientations / (2 * math.pi))
    lower = bins.floor()
    upper_share = bins - lower
    result = images.new_zeros(len(images), orientations, *images.shape[2:])
    first = lower.long() % orientations
    result.scatter_add_(1, first, magnitude * (1 - upper_share))
    result.scatter_add_(1, (first + 1) % orientations, magnitude * upper_share)
    return result


def _pooling(side: int, stride: int, sigma: float) -> Tensor:
    """Gaussian weights of ``side`` pixels at centres ``stride`` apart, evenly within the side: (centres, side)."""
    count = max((side - 1) // stride + 1, 1)
    centres = (side - 1) / 2 + stride * (torch.arange(count) - (count - 1) / 2)
    distance = torch.arange(side) - centres[:, None]
    return torch.exp(-0.5 * (distance / sigma).square())
