from __future__ import annotations

import torch

from lightning_poison.functional.random_streams import generator, mix_seed, uniform_noise


def test_seeds_do_not_collide_or_change() -> None:
    seeds = {mix_seed(seed, "epoch", epoch) for seed in range(50) for epoch in range(50)}
    assert len(seeds) == 2500
    assert mix_seed(1, "2") != mix_seed(12)
    # A published run must stay reproducible in every later version.
    assert mix_seed(0, "shuffle", 3) == 8056902505601589706


def test_the_global_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = torch.rand(3, generator=generator(7, "x"))
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert torch.rand(3, generator=generator(7, "x")).equal(first)


def test_noise_belongs_to_the_sample() -> None:
    whole = uniform_noise(torch.Size([5, 3]), torch.arange(5), 0, "restart", 1)
    assert whole.abs().max() <= 1
    assert len(whole.unique()) == whole.numel()
    assert uniform_noise(torch.Size([2, 3]), torch.tensor([4, 2]), 0, "restart", 1).equal(whole[[4, 2]])
    assert not uniform_noise(torch.Size([5, 3]), torch.arange(5), 0, "restart", 2).equal(whole)
