"""Feature maps: what they compute, that they see no label, and what they refuse."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn

from lightning_poison.certificates import (
    CertifiedRidge,
    CosineKernel,
    FrozenFeatures,
    HOGFeatures,
    KMeansClusters,
    LabelFreeFeatures,
    PCAFeatures,
    RandomConvFeatures,
    RandomFourierFeatures,
    RawFeatures,
    RBFKernel,
    SpectralClusters,
    SpectralFeatures,
)
from lightning_poison.certificates.learners import Clusters, Kernel
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator

DIGITS = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:300, None]


def test_raw_features_are_the_input_as_a_vector() -> None:
    features = RawFeatures().fit(DIGITS).transform(DIGITS)
    assert torch.equal(features, DIGITS.reshape(300, 64))


def test_principal_components_are_those_of_scikit_learn_up_to_sign() -> None:
    ours = PCAFeatures(dim=10).fit(DIGITS.split(37)).transform(DIGITS).numpy()
    peer = PCA(10, svd_solver="full").fit_transform(DIGITS.flatten(1).double().numpy())
    np.testing.assert_allclose(np.abs(ours), np.abs(peer), atol=1e-8)


def test_principal_components_are_at_most_as_many_as_the_data_allow() -> None:
    assert PCAFeatures(dim=1000).fit(DIGITS).transform(DIGITS).shape == (300, 64)
    assert PCAFeatures(dim=1000).fit(DIGITS[:5]).transform(DIGITS).shape == (300, 5)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (28, 28), (1, 3, 2), (20,), (1,)])
def test_random_convolutions_take_any_image_or_vector(shape: tuple[int, ...]) -> None:
    inputs = torch.rand(30, *shape, generator=torch.Generator().manual_seed(0))
    features = RandomConvFeatures(filters=8).fit(inputs).transform(inputs)
    assert features.shape[0] == 30
    assert features.shape[1] in {8 * rows * columns for rows in (1, 2, 3) for columns in (1, 2, 3)}
    assert torch.isfinite(features).all()
    lengths = features.norm(dim=1)
    assert (((lengths - 1).abs() < 1e-5) | (lengths == 0)).all()


def test_random_convolutions_by_hand() -> None:
    """The definition, pixel by pixel, from the fitted filters."""
    features = RandomConvFeatures(filters=4, patch_size=3, grid=2)
    features.fit(DIGITS)
    kernel, bias = features._kernel, features._bias
    assert kernel is not None
    assert bias is not None
    image = DIGITS[5, 0]
    pooled = torch.zeros(4, 2, 2)
    for f in range(4):
        for y in range(6):
            for x in range(6):
                response = (image[y : y + 3, x : x + 3] * kernel[f, 0]).sum() + bias[f]
                pooled[f, y // 3, x // 3] += response.clamp(min=0) / 9
    expected = pooled.flatten().sqrt() / pooled.flatten().sqrt().norm()
    assert torch.allclose(features.transform(DIGITS[5:6])[0], expected, atol=1e-5)


def test_responses_have_unit_deviation_and_no_mean_over_training_patches() -> None:
    features = RandomConvFeatures(filters=16, patch_size=3, threshold=0.0).fit(DIGITS)
    assert features._kernel is not None
    responses = nn.functional.conv2d(DIGITS, features._kernel, features._bias)
    assert responses.mean().abs() < 0.05
    assert abs(responses.std() - 1) < 0.05


def test_the_seed_decides_and_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (RandomConvFeatures(8, seed=s).fit(DIGITS).transform(DIGITS) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_batches_and_the_whole_give_the_same_features() -> None:
    for features in (RandomConvFeatures(8), PCAFeatures(5), RawFeatures()):
        whole = features.fit(DIGITS).transform(DIGITS)
        parts = torch.cat([features.transform(part) for part in DIGITS.split(64)])
        assert torch.allclose(whole, parts, atol=1e-6)
        again = features.fit(iter(DIGITS.split(64))).transform(DIGITS)
        assert torch.allclose(whole.abs(), again.abs(), atol=1e-5)


def test_constant_images_give_features_without_nan() -> None:
    constant = torch.full((10, 1, 8, 8), 0.5)
    assert torch.isfinite(RandomConvFeatures(4).fit(constant).transform(constant)).all()
    assert torch.isfinite(PCAFeatures(4).fit(constant).transform(constant)).all()


def test_a_frozen_extractor_runs_in_eval_mode_and_keeps_its_modes() -> None:
    extractor = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    extractor[2].eval()
    features = FrozenFeatures(extractor).fit(DIGITS)
    one, two = features.transform(DIGITS), features.transform(DIGITS)
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert [module.training for module in extractor] == [True, True, False]
    assert extractor.training


def test_a_frozen_extractor_stays_as_it_was_fitted() -> None:
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    features = FrozenFeatures(extractor).fit(DIGITS)
    before = features.transform(DIGITS)
    nn.init.zeros_(extractor[1].weight)
    assert torch.equal(features.transform(DIGITS), before)
    assert not torch.equal(features.fit(DIGITS).transform(DIGITS), before)


def test_an_extractor_that_cannot_be_copied_is_one_clear_line() -> None:
    extractor = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 3)))
    extractor(DIGITS)
    with pytest.raises(UserError, match="extractor must be a module that can be copied, got Sequential"):
        FrozenFeatures(extractor).fit(DIGITS)


def test_only_an_extractor_that_may_have_seen_labels_is_not_end_to_end() -> None:
    assert not FrozenFeatures(nn.Identity()).end_to_end
    assert FrozenFeatures(nn.Identity(), label_free=True).end_to_end
    assert all(features.end_to_end for features in (RawFeatures(), PCAFeatures(), RandomConvFeatures()))


@pytest.mark.parametrize("features", [RawFeatures(), PCAFeatures(3), RandomConvFeatures(4)])
@pytest.mark.parametrize(
    ("inputs", "words"),
    [([], "at least one training point"), (torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "must be float")],
)
def test_fit_refuses_nothing_and_bytes(features: LabelFreeFeatures, inputs: Tensor | list[Tensor], words: str) -> None:
    with pytest.raises(UserError, match=words):
        features.fit(inputs)


@pytest.mark.parametrize("features", [PCAFeatures(3), RandomConvFeatures(4)])
def test_what_must_be_fitted_says_so_and_refuses_nan(features: LabelFreeFeatures) -> None:
    with pytest.raises(UserError, match="fitted before transform"):
        features.transform(DIGITS)
    with pytest.raises(UserError, match="inputs must be finite"):
        features.fit(torch.full((3, 1, 8, 8), float("nan")))


def test_random_convolutions_refuse_other_shapes() -> None:
    features = RandomConvFeatures(4).fit(DIGITS)
    with pytest.raises(UserError, match="as many channels"):
        features.transform(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="vectors or images"):
        features.transform(torch.zeros(1, 1, 1, 8, 8))
    with pytest.raises(UserError, match="at least as large"):
        features.transform(torch.zeros(1, 1, 8, 3))


INVARIANT = {
    "convolutions": lambda: RandomConvFeatures(filters=8, patch_size=3),
    "histograms": lambda: HOGFeatures(4),
    "histograms as they stand": lambda: HOGFeatures(4, deskew=False),
    "Fourier": lambda: RandomFourierFeatures(RawFeatures(), 16),
    "Fourier of convolutions": lambda: RandomFourierFeatures(RandomConvFeatures(8, 3), 16),
    "graph": lambda: SpectralFeatures(RawFeatures(), 3, neighbours=4),
    "components": lambda: PCAFeatures(4),
}
SCALES = [2.0**power for power in (-1000, -300, -130, 120, 130, 300, 1000)]


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("scale", SCALES)
def test_features_are_the_same_in_any_unit_of_the_inputs(name: str, scale: float) -> None:
    inputs = torch.rand(30, 1, 8, 8, generator=generator(0), dtype=torch.float64) + 0.25
    once, scaled = (INVARIANT[name]().fit(x).transform(x[:7]) for x in (inputs, inputs * scale))
    wanted = once * scale if name == "components" else once
    assert torch.isfinite(scaled).all()
    assert torch.allclose(scaled / wanted.abs().max(), wanted / wanted.abs().max(), atol=1e-5)


@pytest.mark.parametrize("kernel", [RBFKernel, CosineKernel, lambda: CosineKernel(centre=True)])
@pytest.mark.parametrize("scale", SCALES)
def test_kernels_are_the_same_in_any_unit_of_the_features(kernel: Callable[[], Kernel], scale: float) -> None:
    points = torch.rand(20, 5, generator=generator(1), dtype=torch.float64)
    once, scaled = kernel(), kernel()
    once.fit(points)
    scaled.fit(points * scale)
    assert torch.allclose(
        once.matrix(points[:4], points), scaled.matrix(points[:4] * scale, points * scale), atol=1e-12
    )


@pytest.mark.parametrize("clusters", [KMeansClusters, lambda count: SpectralClusters(count, neighbours=3)])
@pytest.mark.parametrize("scale", SCALES)
def test_clusters_are_the_same_in_any_unit_of_the_features(clusters: Callable[[int], Clusters], scale: float) -> None:
    points = torch.rand(24, 3, generator=generator(2), dtype=torch.float64) + 3 * (torch.arange(24) % 2)[:, None]
    assert torch.equal(clusters(2).fit(points), clusters(2).fit(points * scale))


@pytest.mark.parametrize("make", [*INVARIANT.values(), RawFeatures, lambda: FrozenFeatures(nn.Flatten())])
@pytest.mark.parametrize("worst", [1e300, float("inf"), float("nan")])
def test_one_input_beyond_all_others_is_right_or_one_line(make: Callable[[], LabelFreeFeatures], worst: float) -> None:
    inputs = torch.rand(12, 1, 6, 6, generator=generator(3), dtype=torch.float64)
    inputs[3] = worst
    learner = CertifiedRidge(make())
    with pytest.raises(UserError, match=r"finite|overflow|squares") if worst != 1e300 else suppress(UserError):
        certificate = learner.fit(inputs, torch.arange(12) % 2, 2).certify(inputs[:3])
        assert (certificate.radius >= 0).all()
