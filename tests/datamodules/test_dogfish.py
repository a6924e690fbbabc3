"""Dogfish from files in the published formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_poison.datamodules import Dogfish
from lightning_poison.errors import UserError

DRAW = np.random.default_rng(0)


def features(folder: Path, name: str = "dogfish_900_300_inception_features_new", count: int = 18) -> None:
    for part, size in (("train", count), ("test", 6)):
        labels = np.arange(size) % 2 * 1.0
        np.savez(folder / f"{name}_{part}.npz", inception_features_val=DRAW.random((size, 9)), labels=labels)


def whole(path: Path, images: bool) -> dict[str, np.ndarray]:
    shape = (4, 5, 3) if images else (7,)
    arrays = {
        "X_train": np.round(DRAW.uniform(0, 255, (8, *shape))) / 127.5 - 1,
        "Y_train": np.array([-1, 1] * 4),
        "X_test": np.round(DRAW.uniform(0, 255, (4, *shape))) / 127.5 - 1,
        "Y_test": np.array([1, -1] * 2),
    }
    np.savez(path, **arrays)
    return arrays


def test_the_published_features(tmp_path: Path) -> None:
    features(tmp_path)
    data = Dogfish(str(tmp_path), val_split=2)
    assert (data.num_classes, data.class_names, data.input_shape) == (2, ["dog", "fish"], (9,))
    data.setup("fit")
    data.setup("test")
    parts = (data.train_dataloader().dataset, data.val_dataloader().dataset, data.test_dataloader().dataset)
    assert [len(part) for part in parts] == [16, 2, 6]
    stored = np.load(tmp_path / "dogfish_900_300_inception_features_new_test.npz")
    inputs, labels = next(iter(data.test_dataloader()))
    assert torch.equal(inputs, torch.from_numpy(stored["inception_features_val"].astype(np.float32)))
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_one_file_of_vectors_or_images(tmp_path: Path, images: bool, by_name: bool) -> None:
    path = tmp_path / "dataset_dog-fish_train-900_test-300.npz"
    arrays = whole(path, images)
    data = Dogfish(str(path if by_name else tmp_path))
    data.setup("test")
    inputs, labels = next(iter(data.test_dataloader()))
    assert inputs.shape == ((4, 3, 4, 5) if images else (4, 7))
    assert data.input_shape == tuple(inputs.shape[1:])
    assert labels.tolist() == [1, 0, 1, 0]
    expected = (arrays["X_test"].transpose(0, 3, 1, 2) + 1) / 2 if images else arrays["X_test"]
    assert np.allclose(inputs.numpy(), expected, atol=1e-6)
    assert dict(zip([0, 1], data.load_training().targets.bincount().tolist(), strict=True)) == {0: 4, 1: 4}


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Dogfish is not in .*inception_features_val and labels, or one"):
        Dogfish(str(tmp_path))
    (tmp_path / "dogfish_train.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="must be a NumPy archive, got a damaged file"):
        Dogfish(str(tmp_path))
    path = tmp_path / "dogfish_train.npz"
    arrays = whole(path, images=True)
    np.savez(path, **{**arrays, "Y_test": np.array([0, 1, 2, 1])})
    with pytest.raises(UserError, match=r"Y_test in .* must be 0 and 1 \(or -1 and 1\), got \[0, 1, 2\]"):
        Dogfish(str(path)).load_test()
    np.savez(path, **{**arrays, "Y_test": np.array([0, 1])})
    with pytest.raises(UserError, match=r"with a label each, got .*2 labels"):
        Dogfish(str(path)).load_test()
    np.savez(path, **{**arrays, "X_test": arrays["X_test"] * 255})
    with pytest.raises(UserError, match=r"must be images \(n, H, W, 3\) in \[-1, 1\]"):
        Dogfish(str(path)).load_test()
