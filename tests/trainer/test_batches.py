"""What comes out of a batch, and what is said of one that is something else."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.trainer.batches import inputs_and_labels

INPUTS = torch.rand(8, 3, 4, 4)
LABELS = torch.arange(8) % 3


class Named(NamedTuple):
    x: torch.Tensor
    y: object
    z: str


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("wide", [torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_every_integer_type_come_out_as_int64(dtype, wide):
    for kind in (dtype, wide):
        inputs, labels = inputs_and_labels((INPUTS, LABELS.to(kind)))
        assert inputs is INPUTS
        assert labels.dtype == torch.int64
        assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "labels", [LABELS.tolist(), tuple(LABELS.tolist()), LABELS.numpy(), list(LABELS), list(LABELS.numpy())]
)
@pytest.mark.parametrize("kind", [lambda *entries: list(entries), lambda *entries: entries, Named])
def test_labels_in_lists_and_arrays(labels, kind):
    assert inputs_and_labels(kind(INPUTS, labels, "more"))[1].equal(LABELS)


ONE_HOT = torch.eye(3)[LABELS]


@pytest.mark.parametrize(
    ("batch", "got", "remedy"),
    [
        (INPUTS, r"got Tensor of shape \(8, 3, 4, 4\), dtype torch.float32;", r"\(input, label\) pairs"),
        ({"image": INPUTS, "label": LABELS}, "got dict with 'image', 'label';", r"\(input, label\) pairs"),
        ([INPUTS], r"got list of \(Tensor\);", r"\(input, label\) pairs"),
        ([[INPUTS, LABELS]], r"got list of \(list\);", r"\(input, label\) pairs"),
        ("text", "got 'text';", "pairs"),
        (
            (INPUTS, LABELS[:, None]),
            r"labels of shape \(N,\), got Tensor of shape \(8, 1\), dtype torch.int64;",
            "squeeze",
        ),
        ((INPUTS, LABELS[:, None].float()), r"got Tensor of shape \(8, 1\), dtype torch.float32;", "squeeze"),
        ((INPUTS, LABELS.float()), r"got Tensor of shape \(8,\), dtype torch.float32;", r"labels.long\(\)"),
        ((INPUTS, ONE_HOT), r"got Tensor of shape \(8, 3\), dtype torch.float32, which are soft or one-hot", "MixUp"),
        ((INPUTS, ONE_HOT.long()), r"got Tensor of shape \(8, 3\), dtype torch.int64;", "argmax"),
        ((INPUTS, torch.tensor(3)), r"got Tensor of shape \(\), dtype torch.int64", "one a sample"),
        ((INPUTS, [{"boxes": 1}]), r"got list of \(dict\) for the labels", "class numbers"),
        ((INPUTS, ["cat", "dog"]), r"got \['cat', 'dog'\] for the labels", "class numbers"),
        (([INPUTS[0], INPUTS[1]], LABELS), r"got list of \(Tensor, Tensor\) for the inputs", "collate_fn"),
        (
            (torch.arange(8), INPUTS, LABELS),
            r"got \(8,\) torch.int64, \(8, 3, 4, 4\) torch.float32, \(8,\) torch.int64: it looks like \(index, ",
            "behind the labels",
        ),
    ],
)
def test_what_came_and_what_is_wanted(batch, got, remedy):
    with pytest.raises(UserError, match=r"^a batch must be \(inputs, integer labels, \.\.\.\), .*" + got) as error:
        inputs_and_labels(batch)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=remedy):
        inputs_and_labels(batch)
