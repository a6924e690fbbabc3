"""The tangent kernel against gradients taken one by one; random Fourier features against the kernel they approach."""

import io
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from lightning_poison.certificates import CertifiedRidge, FrozenFeatures, KernelRidge, RawFeatures, RBFKernel
from lightning_poison.certificates.features import RandomFourierFeatures, UnchangedInputs
from lightning_poison.certificates.learners import TangentKernel
from lightning_poison.errors import UserError
from lightning_poison.functional import tangents
from lightning_poison.functional.random_streams import generator, kept_random_state

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def pickle_copy(network: nn.Module) -> nn.Module:
    """A copy of networks that ``copy.deepcopy`` does not take."""
    stream = io.BytesIO()
    torch.save(network, stream)
    stream.seek(0)
    copied: nn.Module = torch.load(stream, weights_only=False)
    return copied


def one_by_one(kernel: TangentKernel, images: torch.Tensor) -> torch.Tensor:
    """Gradients by plain backward passes through the kernel's own network."""
    rows = []
    for image in images:
        kernel._fresh.zero_grad()
        (kernel._fresh(image[None])[0] * kernel._signs).sum().backward()
        rows.append(torch.cat([weight.grad.flatten() for weight in kernel._fresh.parameters()]))
    return torch.stack(rows).double()


@pytest.mark.parametrize("tiny_blocks", [False, True])
def test_it_is_the_inner_product_of_gradients(monkeypatch: pytest.MonkeyPatch, tiny_blocks: bool) -> None:
    if tiny_blocks:
        monkeypatch.setattr(tangents, "_KEPT_BYTES", 6000)
        monkeypatch.setattr(tangents, "_BLOCK_BYTES", 4000)
    kernel = TangentKernel(small_network, seed=3)
    kernel.fit(IMAGES[:5])
    gradients = one_by_one(kernel, IMAGES[:9])
    matrix = kernel.matrix(IMAGES[:4].double(), IMAGES[:9])
    assert matrix.dtype == torch.float64
    assert torch.allclose(matrix, gradients[:4] @ gradients.T, rtol=1e-4)


def test_weights_are_fresh_and_belong_to_the_seed() -> None:
    state = torch.get_rng_state()
    kernels = [TangentKernel(small_network, seed) for seed in (0, 0, 1)]
    matrices = []
    for kernel in kernels:
        kernel.fit(IMAGES[:3])
        matrices.append(kernel.matrix(IMAGES[:3], IMAGES[:3]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(matrices[0], matrices[1])
    assert not torch.allclose(matrices[0], matrices[2])


def trained_on(labels: torch.Tensor, how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with kept_random_state(0):
        network = nn.Sequential(nn.Flatten(), how(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(IMAGES[:150]), labels).backward()
        optimizer.step()
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "how",
    [lambda layer: prune.l1_unstructured(layer, "weight", 0.3), weight_norm, spectral_norm],
    ids=["pruned", "weight_norm", "spectral_norm"],
)
def test_no_label_comes_in_by_a_trained_network_that_is_pruned_or_reparametrised(
    how: Callable[[nn.Module], nn.Module],
) -> None:
    changed = LABELS[:150].clone()
    changed[7] = (changed[7] + 1) % 10
    networks = [trained_on(labels, how) for labels in (LABELS[:150], changed)]
    for network in networks:
        for trained in (network, lambda network=network: network, lambda network=network: pickle_copy(network)):
            with pytest.raises(UserError, match=r"got a Sequential; pass lambda|the same under two seeds"):
                KernelRidge(UnchangedInputs(), TangentKernel(trained)).fit(IMAGES[:150], LABELS[:150], 10)

    def made() -> nn.Module:
        return nn.Sequential(nn.Flatten(), how(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10))

    before, after = (
        KernelRidge(UnchangedInputs(), TangentKernel(made)).fit(IMAGES[:150], labels, 10).certify(IMAGES[200:400])
        for labels in (LABELS[:150], changed)
    )
    certified = before.radius >= 1
    assert certified.sum() > 50
    assert torch.equal(before.prediction[certified], after.prediction[certified])


def test_kernel_ridge_with_it_learns_digits_and_is_certified() -> None:
    learner = KernelRidge(UnchangedInputs(), TangentKernel(small_network), 0.01)
    certificate = learner.fit(IMAGES[:300], LABELS[:300], 10).certify(IMAGES[300:400])
    assert (certificate.prediction == LABELS[300:400]).double().mean() > 0.8
    assert certificate.radius.double().mean() > 2
    assert "tangent kernel of a Sequential at initialisation (seed 0)" in learner.describe()
    assert learner.reach == "end-to-end"


def test_errors_of_the_tangent_kernel_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="TangentKernel must be fitted"):
        TangentKernel(small_network).matrix(IMAGES[:1], IMAGES[:1])
    with pytest.raises(UserError, match=r"network must take inputs of shape \(64,\)"):
        TangentKernel(small_network).fit(IMAGES[:5].flatten(1))


def test_random_features_approach_the_gaussian_kernel() -> None:
    points = IMAGES[:50].flatten(1)
    kernel = RBFKernel()
    kernel.fit(points)
    cosines = RandomFourierFeatures(RawFeatures(), dim=20_000).fit(points).transform(points).double()
    assert (cosines @ cosines.T - kernel.matrix(points, points)).abs().max() < 0.05


def test_ridge_on_random_features_nearly_equals_kernel_ridge() -> None:
    exact = KernelRidge(RawFeatures(), RBFKernel(2.0), 0.02).fit(IMAGES[:400], LABELS[:400], 10)
    features = RandomFourierFeatures(RawFeatures(), dim=2000, bandwidth=2.0)
    strength = 0.02 * 2000  # relative to trace / dim there, to the trace here
    nearly = CertifiedRidge(features, strength, max_dim=2000, intercept=False).fit(IMAGES[:400], LABELS[:400], 10)
    one, other = exact.certify(IMAGES[400:600]), nearly.certify(IMAGES[400:600])
    assert (one.prediction == other.prediction).double().mean() > 0.95
    assert (one.radius - other.radius).double().abs().mean() < 0.15 * one.radius.double().mean()


def test_random_features_belong_to_the_seed_and_keep_the_reach() -> None:
    points = torch.randn(30, 4, generator=generator(0))
    batches = points.split(7)
    one, same, other = (RandomFourierFeatures(RawFeatures(), 16, seed=seed).fit(batches) for seed in (0, 0, 1))
    assert torch.equal(one.transform(points), same.transform(points))
    assert not torch.equal(one.transform(points), other.transform(points))
    assert one.transform(points).dtype == torch.float32
    assert not RandomFourierFeatures(FrozenFeatures(nn.Identity())).end_to_end
    assert RandomFourierFeatures().describe().startswith("1024 random Fourier features (seed 0) of 128 random conv")
    duplicates = RandomFourierFeatures(RawFeatures(), 16).fit(torch.ones(9, 2))
    assert torch.isfinite(duplicates.transform(torch.ones(1, 2))).all()
    with pytest.raises(UserError, match="must be fitted before transform"):
        RandomFourierFeatures().transform(points)
    with pytest.raises(UserError, match="bandwidth must be larger than 0"):
        RandomFourierFeatures(bandwidth=0.0)
