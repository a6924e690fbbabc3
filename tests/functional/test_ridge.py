"""Ridge weights against scikit-learn, least squares and each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as PeerRidge

from lightning_poison.errors import UserError
from lightning_poison.functional import ridge as module
from lightning_poison.functional.ridge import Ridge, rows_per_chunk


def problem(n: int, d: int, seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=stream) * torch.rand(d, generator=stream) * 5 + 1
    return features, torch.randint(classes, (n,), generator=stream), torch.randn(7, d, generator=stream)


def one_hot(labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, classes).double()


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (10, 10)])
@pytest.mark.parametrize("regularisation", [1e-3, 0.1, 10.0])
def test_votes_are_the_predictions_of_scikit_learn(n: int, d: int, regularisation: float) -> None:
    features, labels, points = problem(n, d)
    ridge = Ridge(features, regularisation, intercept=False)
    peer = PeerRidge(alpha=ridge.strength, fit_intercept=False, solver="svd")
    peer.fit(features.double().numpy(), one_hot(labels).numpy())
    expected = peer.predict(points.double().numpy())
    np.testing.assert_allclose((ridge.weights(points) @ one_hot(labels)).numpy(), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ridge.scores(points, labels, 3).numpy(), expected, rtol=1e-7, atol=1e-9)


def test_strength_is_relative_to_the_mean_eigenvalue() -> None:
    features, _, _ = problem(30, 5)
    eigenvalues = np.linalg.eigvalsh(features.double().numpy().T @ features.double().numpy())
    assert Ridge(features, 0.3, intercept=False).strength == pytest.approx(0.3 * eigenvalues.mean())


def test_without_strength_it_is_least_squares() -> None:
    features, labels, points = problem(50, 4)
    coefficients = np.linalg.lstsq(features.double().numpy(), one_hot(labels).numpy(), rcond=None)[0]
    scores = Ridge(features, 0.0, intercept=False).scores(points, labels, 3)
    np.testing.assert_allclose(scores.numpy(), points.double().numpy() @ coefficients, rtol=1e-8, atol=1e-10)


def test_the_intercept_is_one_more_penalised_feature_of_the_same_size() -> None:
    features, _, points = problem(30, 5)
    constant = features.double().square().mean().sqrt()
    wider = [torch.cat([x.double(), constant.expand(len(x), 1)], 1) for x in (features, points)]
    expected = Ridge(wider[0], 0.1, intercept=False).weights(wider[1])
    assert torch.allclose(Ridge(features, 0.1).weights(points), expected, rtol=1e-12)


def test_scaling_the_data_changes_no_vote() -> None:
    features, _, points = problem(30, 5)
    assert torch.allclose(Ridge(features).weights(points), Ridge(features * 1024).weights(points * 1024), rtol=1e-10)


def test_chunks_are_the_rows_of_the_whole() -> None:
    features, _, points = problem(30, 5)
    ridge = Ridge(features)
    chunks = list(ridge.weight_chunks(points, rows=3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert torch.allclose(torch.cat(chunks), ridge.weights(points), rtol=1e-12)
    assert rows_per_chunk(10**12) == 1


def test_dead_and_repeated_features_do_no_harm() -> None:
    features, labels, points = problem(30, 5)
    dead = [torch.cat([x, torch.zeros(len(x), 1), x[:, :1]], 1) for x in (features, points)]
    scores = Ridge(dead[0], 0.1).scores(dead[1], labels, 3)
    assert torch.isfinite(scores).all()
    assert torch.equal(
        Ridge(torch.zeros(4, 2), 0.1, intercept=False).weights(torch.ones(1, 2)), torch.zeros(1, 4).double()
    )


@pytest.mark.parametrize(
    ("features", "regularisation", "words"),
    [
        (torch.ones(3, 2), 0.0, "regularisation must be larger"),
        (torch.ones(3, 2), -1.0, "regularisation must lie in"),
        (torch.ones(3, 2), float("nan"), "regularisation must be a finite number"),
        (torch.tensor([[0.0, float("nan")]]), 0.1, "features must be finite"),
        (torch.ones(3), 0.1, "features must be a non-empty float matrix"),
        (torch.ones(3, 2, dtype=torch.int64), 0.1, "features must be a non-empty float matrix"),
        (torch.empty(0, 2), 0.1, "features must be a non-empty float matrix"),
    ],
)
def test_bad_input_is_one_clear_line(features: torch.Tensor, regularisation: float, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        Ridge(features, regularisation, intercept=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_features_in_blocks_of_any_size_and_on_disk_have_the_same_votes(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(rows).normal(size=(200, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", features)
    stored, points = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="r+")), torch.from_numpy(features[:9])
    gram = features.astype(np.float64)
    gram = np.hstack([gram, np.full((200, 1), np.sqrt((gram**2).mean()))])
    strength = 0.5 * (gram**2).sum() / 13
    expected = gram[:9] @ np.linalg.solve(gram.T @ gram + strength * np.eye(13), gram.T)
    monkeypatch.setattr(module, "_BLOCK_BYTES", rows * 8 * 12)
    chunks = list(Ridge(stored, 0.5).weight_chunks(points, rows=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    np.testing.assert_allclose(torch.cat(chunks).numpy(), expected, atol=1e-13)
