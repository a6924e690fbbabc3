"""Deskewing, histograms of gradients and spectral coordinates."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_poison.certificates import FrozenFeatures, HOGFeatures, RawFeatures, SpectralFeatures
from lightning_poison.certificates.features.images import deskewed
from lightning_poison.errors import UserError

DIGITS = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:300, None]


def moments(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Centre and second moments (yy, xy) of an image (H, W)."""
    mass = image / image.sum()
    y, x = (torch.arange(side, dtype=image.dtype) for side in image.shape)
    mean_y, mean_x = (mass.sum(1) * y).sum(), (mass.sum(0) * x).sum()
    both = (mass * torch.outer(y - mean_y, x - mean_x)).sum()
    return float(mean_y), float(mean_x), float((mass.sum(1) * (y - mean_y) ** 2).sum()), float(both)


def test_a_slanted_stroke_is_centred_and_set_upright() -> None:
    image = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
    for row in range(6, 20):
        image[0, 0, row, 4 + row // 2 : 7 + row // 2] = 1
    before, after = moments(image[0, 0]), moments(deskewed(image)[0, 0])
    assert abs(before[3] / before[2]) > 0.4
    assert abs(after[3] / after[2]) < 0.03
    assert after[:2] == pytest.approx((13.5, 13.5), abs=0.05)


def test_an_upright_centred_image_and_an_empty_one_stay() -> None:
    image = torch.zeros(2, 3, 9, 9)
    image[0, :, 2:7, 3:6] = 0.5
    assert torch.allclose(deskewed(image), image, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 180.0, 247.5])
def test_a_ramp_falls_into_the_bins_beside_its_direction(angle: float) -> None:
    """By hand: a ramp of one direction, whose eight histograms are known."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    direction = math.radians(angle)
    ramp = (math.cos(direction) * x + math.sin(direction) * y)[None, None]
    features = HOGFeatures(deskew=False, stride=100)
    inner = features._histograms(ramp)[0].square().reshape(8)  # undo the root; one pooling centre
    place = angle / 45
    expected = torch.zeros(8)
    expected[int(place) % 8] = 1 - place % 1
    expected[(int(place) + 1) % 8] = place % 1
    assert torch.allclose(inner / inner.sum(), expected, atol=0.1)  # one-sided at the border


def test_histograms_have_unit_length_any_batching_and_no_label() -> None:
    whole = HOGFeatures(dim=12).fit(DIGITS)
    parts = HOGFeatures(dim=12).fit(iter(DIGITS.split(70)))
    features = whole.transform(DIGITS)
    assert features.dtype == torch.float32
    assert features.shape == (300, 12)
    assert torch.allclose(features.norm(dim=1), torch.ones(300), atol=1e-5)
    assert torch.allclose(features @ features.T, parts.transform(DIGITS) @ parts.transform(DIGITS).T, atol=1e-4)
    assert torch.allclose(torch.cat([whole.transform(p) for p in DIGITS.split(7)]), features, atol=1e-5)
    assert whole.end_to_end


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20), (9, 9), (1, 2, 2)])
def test_any_image_has_features(shape: tuple[int, ...]) -> None:
    images = torch.rand(30, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(HOGFeatures(dim=5).fit(images).transform(images)).all()
    flat = torch.zeros(5, *shape)
    assert torch.isfinite(HOGFeatures(dim=5).fit(flat).transform(flat)).all()


def test_spectral_features_place_new_points_beside_the_old_and_keep_the_reach() -> None:
    features = SpectralFeatures(HOGFeatures(dim=20), dim=6, neighbours=8).fit(DIGITS[:250])
    new = features.transform(DIGITS[250:])
    assert new.shape == (50, 6)
    assert torch.allclose(new, torch.cat([features.transform(p) for p in DIGITS[250:].split(9)]), atol=1e-9)
    assert features.end_to_end
    assert not SpectralFeatures(FrozenFeatures(torch.nn.Identity())).end_to_end
    assert "6 eigenvectors of the 8-nearest-neighbour graph on histograms" in features.describe()


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="inputs must be images"):
        HOGFeatures().fit(torch.rand(5, 20))
    with pytest.raises(UserError, match="fitted before transform"):
        HOGFeatures().transform(DIGITS)
    with pytest.raises(UserError, match="must have the training images' shape"):
        HOGFeatures().fit(DIGITS).transform(torch.rand(2, 1, 9, 9))
    with pytest.raises(UserError, match="inputs must be finite"):
        HOGFeatures().fit(DIGITS * float("nan"))
    with pytest.raises(UserError, match="fitted before it is extended"):
        SpectralFeatures(RawFeatures()).transform(DIGITS)
