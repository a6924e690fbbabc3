import random

import numpy as np
import pytest
import torch

from lightning_poison.functional.random_state import kept_random_state


def draws():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002


def test_streams_inside_depend_on_the_seed_alone_and_those_outside_go_on():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    first = torch.rand(2)
    outside = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    seen = []
    for seed in (0, 2**40, 0):
        with kept_random_state(seed, torch.device("cpu")):
            seen.append(draws())
    assert seen[0] == seen[2] != seen[1]
    assert random.getstate() == outside[0]
    assert (np.random.get_state()[1] == outside[1]).all()  # noqa: NPY002
    assert torch.cat([first, torch.rand(2)]).equal(expected)


def test_streams_come_back_after_an_exception():
    before = torch.get_rng_state(), random.getstate()

    def fail():
        with kept_random_state(0, torch.device("cpu")):
            draws()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1]
