from __future__ import annotations

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_poison.datamodules import PoisonedDataset, find_poisoned_dataset
from lightning_poison.datamodules.stored_tensors import ImageTensors
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList

FLIPS = FlipList(torch.tensor([1]), torch.tensor([4]), torch.tensor([7]))


class Named(NamedTuple):
    x: float
    y: int
    z: str


@pytest.mark.parametrize(
    "make",
    [
        lambda y: (0.5, y),
        lambda y: [0.5, y, "more"],
        lambda y: Named(0.5, y, "more"),
        lambda y: (0.5, torch.tensor(y)),
        lambda y: (0.5, torch.tensor([y], dtype=torch.int32)),
        lambda y: (0.5, np.int16(y)),
    ],
)
def test_items_and_labels_keep_their_type(make):
    inner = [make(3), make(4), make(5)]
    poisoned = PoisonedDataset(inner, FLIPS)
    clean, flipped = inner[1], poisoned[1]
    assert type(flipped) is type(clean)
    assert type(flipped[1]) is type(clean[1])
    assert int(flipped[1]) == 7
    assert getattr(flipped[1], "dtype", None) == getattr(clean[1], "dtype", None)
    assert list(flipped[2:]) == list(clean[2:])
    assert poisoned[0] is inner[0]
    assert int(inner[1][1]) == 4
    assert int(poisoned[-2][1]) == 7
    assert len(poisoned) == 3


def test_batched_access_only_where_the_inner_has_it():
    images = ImageTensors(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([3, 4, 5]))
    poisoned = PoisonedDataset(images, FLIPS)
    assert [label for _, label in poisoned.__getitems__([2, 1])] == [5, 7]
    assert not hasattr(PoisonedDataset([(0, 4), (0, 4)], FLIPS), "__getitems__")
    for loader in (DataLoader(poisoned, batch_size=3), DataLoader(Subset(poisoned, [0, 1, 2]), batch_size=3)):
        assert next(iter(loader))[1].tolist() == [3, 7, 5]


def test_iteration_pickling_and_workers():
    poisoned = pickle.loads(pickle.dumps(PoisonedDataset(TensorDataset(torch.rand(3), torch.tensor([3, 4, 5])), FLIPS)))
    assert [int(label) for _, label in poisoned] == [3, 7, 5]
    batches = list(DataLoader(poisoned, batch_size=2, num_workers=1))
    assert torch.cat([labels for _, labels in batches]).tolist() == [3, 7, 5]


def test_items_without_a_label_or_with_another_one():
    with pytest.raises(UserError, match=r"must be .input, label, .... tuples or lists, got dict at 1"):
        PoisonedDataset([{}, {}], FLIPS)[1]
    with pytest.raises(UserError, match="training point 1 has label 2, but the flip list says 4"):
        PoisonedDataset([(0.5, 2), (0.5, 2)], FLIPS)[1]


def test_finding_it_within_wrappers():
    poisoned = PoisonedDataset([(0.5, 4), (0.5, 4)], FLIPS)
    assert find_poisoned_dataset(Subset(Subset(poisoned, [0, 1]), [1])) is poisoned
    assert find_poisoned_dataset(TensorDataset(torch.zeros(1))) is None
    assert find_poisoned_dataset(None) is None


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32, np.uint8, np.int8, np.uint16, np.int64]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_new_class_beyond_the_labels_type_is_not_wrapped(dtype, workers):
    """The highest class that the type holds is there already, so that the new one is beyond it."""
    highest = min(np.iinfo(dtype).max if isinstance(dtype, type) else torch.iinfo(dtype).max, 2**40)
    make = dtype if isinstance(dtype, type) else lambda label: torch.tensor(label).to(dtype)
    clean = [(torch.zeros(2), make(label)) for label in (0, highest, 3)]
    flips = FlipList([2], [3], [highest + 1])
    poisoned = PoisonedDataset(clean, flips)
    assert [int(label) for _, label in poisoned] == [0, highest, highest + 1]
    (batch,) = DataLoader(poisoned, batch_size=3, num_workers=workers)
    assert batch[1].tolist() == [0, highest, highest + 1]
    assert batch[1].dtype == torch.int64
    assert flips.apply(torch.tensor([0, highest, 3])).tolist() == [0, highest, highest + 1]
    if not isinstance(dtype, type):
        assert flips.apply(torch.tensor([0, highest, 3]).to(dtype)).tolist() == [0, highest, highest + 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int8])
def test_labels_of_small_types_keep_them_where_the_flips_fit(dtype):
    labels = torch.tensor([3, 4, 5]).to(dtype)
    poisoned = PoisonedDataset(TensorDataset(torch.rand(3), labels), FLIPS)
    (batch,) = DataLoader(poisoned, batch_size=3)
    assert batch[1].dtype == dtype
    assert batch[1].tolist() == [3, 7, 5]
    applied = FLIPS.apply(labels)
    assert applied.dtype == dtype
    assert applied.tolist() == [3, 7, 5]
    assert labels.tolist() == [3, 4, 5]


def test_a_label_in_an_item_that_begins_with_an_index():
    items = [(0, torch.zeros(2, 2), 3), (1, torch.zeros(2, 2), 4)]
    with pytest.raises(
        UserError, match=r"tuple of \(int, Tensor, int\) at 1, which looks like \(index, input, label\)"
    ):
        PoisonedDataset(items, FLIPS)[1]
