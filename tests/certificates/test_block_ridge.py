"""Ridge that reads its features in blocks is ridge, and leaves them on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_poison.certificates import certify_label_linear
from lightning_poison.certificates.block_ridge import BlockRidge
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import Ridge


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_it_equals_ridge_whatever_the_blocks(block: int) -> None:
    stream = generator(block)
    labels = torch.randint(3, (200,), generator=stream)
    features = torch.randn(3, 12, generator=stream)[labels] + torch.randn(200, 12, generator=stream)
    points = torch.randn(9, 12, generator=stream)
    expected = Ridge(features, 0.5).weights(points)
    chunks = list(BlockRidge(features, 0.5, block).weight_chunks(points, rows=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    assert torch.allclose(torch.cat(chunks), expected, atol=1e-13)
    one, other = (certify_label_linear(weights, labels, 3) for weights in (chunks, expected))
    assert torch.equal(one.prediction, other.prediction)
    assert torch.equal(one.radius, other.radius)


def test_features_may_stay_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    features = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="r+"))
    weights = torch.cat(list(BlockRidge(features, block=8).weight_chunks(features[:5])))
    assert torch.allclose(weights, Ridge(features.clone(), 0.3).weights(features[:5]), atol=1e-13)


def test_bad_features_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="features must be a non-empty float matrix"):
        BlockRidge(torch.ones(3))
    with pytest.raises(UserError, match="features must be finite"):
        BlockRidge(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(UserError, match="regularisation must be larger"):
        BlockRidge(torch.ones(5, 3), regularisation=0.0)
    assert not torch.cat(list(BlockRidge(torch.zeros(5, 3)).weight_chunks(torch.zeros(1, 3)))).isnan().any()
