from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from lightning_poison.datamodules import PoisonedDataset, dataset_labels, fingerprint
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList


class Stored(Dataset):
    """Counts how many items are read; labels may be stored as well."""

    def __init__(self, labels_out, /, **stored):
        self.labels_out = labels_out
        self.reads = 0
        self.__dict__.update(stored)

    def __len__(self):
        return len(self.labels_out)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError
        self.reads += 1
        return torch.rand(2), self.labels_out[index]


LABELS = [index * 7 % 5 for index in range(200)]
TENSORS = TensorDataset(torch.rand(200, 3), torch.tensor(LABELS))


@pytest.mark.parametrize(
    "stored",
    [
        {"targets": LABELS},
        {"targets": torch.tensor(LABELS, dtype=torch.int32)},
        {"targets": np.array(LABELS, dtype=np.uint8)},
        {"labels": LABELS},
        {"targets": LABELS[:3], "labels": LABELS},
        {"targets": [float(label) for label in LABELS], "labels": tuple(LABELS)},
    ],
)
def test_stored_labels_are_found_without_reading_every_item(stored):
    dataset = Stored(LABELS, **stored)
    assert dataset_labels(dataset).tolist() == LABELS
    assert dataset.reads < 20


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        [torch.tensor(label) for label in LABELS],
        [np.int32(label) for label in LABELS],
        [torch.tensor([label], dtype=torch.uint16) for label in LABELS],
        [np.array([[label]]) for label in LABELS],
    ],
)
def test_labels_without_structure_are_scanned(labels):
    dataset = Stored(labels)
    assert dataset_labels(dataset).tolist() == LABELS
    assert dataset.reads == 200


def test_nested_structure():
    subset = Subset(ConcatDataset([TENSORS, Stored(LABELS, targets=LABELS)]), [399, 0, 201])
    assert dataset_labels(subset).tolist() == [LABELS[199], LABELS[0], LABELS[1]]
    flips = FlipList(torch.tensor([0]), torch.tensor([0]), torch.tensor([3]))
    assert dataset_labels(PoisonedDataset(TENSORS, flips)).tolist() == [3, *LABELS[1:]]
    mixed = ConcatDataset([TENSORS, Stored(LABELS)])
    assert dataset_labels(mixed).tolist() == LABELS * 2


def test_stored_labels_that_items_contradict_lead_to_a_scan():
    renamed = [label if label != 4 else 9 for label in LABELS]
    dataset = Stored(renamed, targets=LABELS)
    assert dataset_labels(dataset).tolist() == renamed


def test_a_target_transform_leads_to_a_scan():
    changed = LABELS.copy()
    changed[101] += 1  # a place that no spot check looks at
    dataset = Stored(changed, targets=LABELS, target_transform=lambda label: label)
    assert dataset_labels(dataset).tolist() == changed


def test_random_state_is_left_alone():
    class Augmented(Stored):
        def __getitem__(self, index):
            random.random()
            np.random.rand()  # noqa: NPY002
            return super().__getitem__(index)

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    dataset_labels(Augmented(LABELS))
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002


def test_progress_counts_every_item():
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def progress(description, total):
        seen.append((description, total))
        yield seen.append

    dataset_labels(Stored(LABELS), progress)
    assert seen == [("reading training labels", 200), *[1] * 200]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "must be map-style .* got Stream"),
        (object(), "must be map-style"),
        (Stored([]), "training set is empty"),
        (Stored([0, 1, -1]), "at least 0, got -1 at training point 2"),
        (Stored([0, 1.0]), "must be integers, got 1.0 at training point 1"),
        (Stored([torch.eye(3)[0]]), r"must be integers, got Tensor of shape \(3,\)"),
        (Stored([True]), "must be integers, got True"),
        (Stored(["cat"]), "must be integers, got 'cat'"),
        (Stored([torch.tensor(1.0)]), r"got Tensor of shape \(\), dtype torch.float32 at .* 0; .*, as int\(label\) is"),
        (Stored([np.array([0.0, 1.0])]), r"got ndarray of shape \(2,\), dtype float64 .*not one-hot or soft labels"),
        (
            [(7, torch.zeros(1, 2, 2), 1)],
            r"got tuple of \(int, Tensor, int\) at 0, which looks like \(index, input, label",
        ),
        (
            [[torch.tensor(7), np.zeros((2, 2)), np.int64(1)]],
            r"looks like \(index, input, label\).*label stands second",
        ),
        (
            [{"image": 0, "label": 1}],
            "must be .input, label, .... tuples or lists, got dict with 'image', 'label' at 0",
        ),
        ([torch.zeros(3)], "tuples or lists, got Tensor"),
    ],
)
def test_data_without_integer_labels(dataset, message):
    with pytest.raises(UserError, match=message):
        dataset_labels(dataset)


def test_fingerprint_depends_on_labels_and_raw_inputs_only():
    labels = torch.tensor(LABELS)
    base = fingerprint(TENSORS, labels)
    assert base == fingerprint(TensorDataset(TENSORS.tensors[0].clone(), labels), labels)
    assert base == fingerprint(Subset(TENSORS, range(200)), labels)
    assert base == fingerprint(PoisonedDataset(TENSORS, FlipList.empty()), labels)
    assert base != fingerprint(TensorDataset(TENSORS.tensors[0] + 1, labels), labels)
    changed = labels.clone()
    changed[117] += 1
    assert base != fingerprint(TENSORS, changed)
    assert base != fingerprint(Subset(TENSORS, range(199)), labels[:199])
    assert base != fingerprint(Subset(TENSORS, [5, *range(1, 200)]), labels)
    parts = ConcatDataset([Subset(TENSORS, range(90)), Subset(TENSORS, range(90, 200))])
    assert base == fingerprint(parts, labels)


def test_fingerprint_of_files_does_not_depend_on_their_folder():
    labels = torch.tensor([0, 1])
    here = Stored([0, 1], samples=[("/a/cat/1.png", 0), ("/a/dog/2.png", 1)])
    there = Stored([0, 1], samples=[("/b/c/cat/1.png", 0), ("/b/c/dog/2.png", 1)])
    other = Stored([0, 1], samples=[("/a/cat/1.png", 0), ("/a/dog/3.png", 1)])
    assert fingerprint(here, labels) == fingerprint(there, labels) != fingerprint(other, labels)
    assert here.reads == 0


def test_fingerprint_ignores_labels_dtype_and_knows_numpy_data():
    data = np.arange(12, dtype=np.uint8).reshape(2, 6)
    arrays = Stored([0, 1], data=data)
    tensors = Stored([0, 1], data=torch.from_numpy(data))
    assert fingerprint(arrays, torch.tensor([0, 1], dtype=torch.int32)) == fingerprint(tensors, torch.tensor([0, 1]))
