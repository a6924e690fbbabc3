from __future__ import annotations

import pickle

import pytest
import torch

from lightning_poison.metrics import Share


def test_counts_are_exact_beyond_float32() -> None:
    share = Share()
    share.true += 2**24
    share.total += 2**24
    share.update(torch.tensor([False]))
    assert share.compute().item() == 2**24 / (2**24 + 1)


def test_without_samples_it_is_nan() -> None:
    assert Share().compute().isnan()


@pytest.mark.skipif(not hasattr(Share, "merge_state"), reason="torchmetrics merges states from 1.7 on")
def test_states_merge() -> None:
    one, other = Share(), Share()
    one.update(torch.tensor([True, False]))
    other.update(torch.tensor([True]))
    one.merge_state(other)
    assert one.compute().item() == 2 / 3
    assert pickle.loads(pickle.dumps(one)).compute().item() == 2 / 3
    one.reset()
    assert one.total == 0
