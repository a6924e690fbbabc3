import functools
import random

import numpy as np
import pytest
import torch

from lightning_poison.functional.random_streams import RandomStates, kept_random_state, private_generators


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


class Augmentation:
    __slots__ = ("streams",)

    def __init__(self, *streams):
        self.streams = dict(enumerate(streams))


def test_generators_of_a_data_set_are_found_wherever_it_keeps_them():
    of_torch, of_numpy, old, python = (
        torch.Generator().manual_seed(1),
        np.random.default_rng(1),
        np.random.RandomState(1),
        random.Random(1),
    )

    def flip(image, stream=python):
        return image if stream.random() < 0.5 else -image

    class Data:
        def __init__(self):
            self.transform = [Augmentation(of_torch), functools.partial(self.crop, by=of_numpy), (flip, {old})]
            self.itself = self

        def crop(self, image, by):
            return image + by.random()

    found = private_generators(Data())
    assert {id(each) for each in found} == {id(each) for each in (of_torch, of_numpy.bit_generator, old, python)}
    assert len(found) == 4


def test_private_streams_are_seeded_and_come_back():
    streams = (
        torch.Generator().manual_seed(1),
        np.random.default_rng(1),
        np.random.RandomState(1),
        random.Random(1),
    )

    def numbers():
        of_torch, of_numpy, old, python = streams
        return torch.rand(1, generator=of_torch).item(), of_numpy.random(), old.rand(), python.random()

    generators = private_generators(streams)
    states = RandomStates(generators)
    expected = numbers()
    assert states.have_moved()
    states.restore()
    assert not states.have_moved()
    seen = []
    for seed in (0, 2**40 + 1, 0):
        with kept_random_state(seed, generators=generators):
            seen.append(numbers())
    assert seen[0] == seen[2]
    assert all(one != other for one, other in zip(seen[0], seen[1], strict=True))
    assert numbers() == expected


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), lambda: np.random.rand(), random.random])  # noqa: NPY002
def test_any_draw_moves_the_states(draw):
    states = RandomStates()
    assert not states.have_moved()
    draw()
    assert states.have_moved()
