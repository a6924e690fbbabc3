"""Networks that have learnt nothing are told from those that have, however their weights are kept."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from lightning_poison.errors import UserError
from lightning_poison.functional.fresh_networks import fresh_network, weight_that_is_not_drawn


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def pruned() -> nn.Module:
    network = plain()
    prune.l1_unstructured(network[0], "weight", amount=0.5)
    return network


def reparametrised(how: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = plain()
        network[3] = how(network[3])
        return network

    return make


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        plain,
        pruned,
        reparametrised(weight_norm),
        reparametrised(spectral_norm),
        reparametrised(parametrizations.weight_norm),
        reparametrised(parametrizations.spectral_norm),
    ],
)
def test_weights_belong_to_the_seed_however_they_are_kept(make: Callable[[], nn.Module]) -> None:
    state = torch.get_rng_state()
    inputs = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    one, same, other = (fresh_network(make, seed)(inputs) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    trained = make()
    assert weight_that_is_not_drawn(make) is None
    for maker in (lambda: trained, lambda: nn.Sequential(trained, nn.Linear(2, 2))):
        with pytest.raises(UserError, match=r"must draw its weights when it is made, got .* the same under two seeds"):
            fresh_network(maker, 0)


def test_a_copy_of_a_trained_network_is_found_out_and_so_is_a_trained_part() -> None:
    trained = plain()

    def with_trained_part() -> nn.Module:
        network = plain()
        network[0] = copy.deepcopy(trained[0])
        return network

    assert weight_that_is_not_drawn(lambda: copy.deepcopy(trained)) == "0.weight"
    assert weight_that_is_not_drawn(with_trained_part) == "0.weight"


def test_constant_weights_and_lazy_ones_are_fine() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs @ self.weight

    assert fresh_network(Own, 0)(torch.ones(1, 2)).tolist() == [2]
    lazy = fresh_network(lambda: nn.LazyLinear(2), 5, torch.zeros(1, 7))
    assert lazy.weight.shape == (2, 7)


def test_what_does_not_follow_the_seed_or_is_one_network_is_refused() -> None:
    own = torch.Generator().manual_seed(0)

    def by_itself() -> nn.Module:
        network = nn.Linear(3, 2)
        nn.init.uniform_(network.weight, generator=own)
        return network

    network = nn.Linear(3, 2)

    def reset() -> nn.Module:
        network.reset_parameters()
        return network

    with pytest.raises(UserError, match="draw its weights from torch's global generator, got a Linear with other ones"):
        fresh_network(by_itself, 0)
    with pytest.raises(UserError, match="must make a new network whenever it is called, got one Linear twice"):
        fresh_network(reset, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nn.Linear(2, 2), "network must make a network when called, got a Linear; pass lambda"),
        (5, "network must make a network when called, got 5; pass lambda"),
        (nn.Linear, "called without arguments, got Linear .missing a required argument: 'in_features'.; pass lambda"),
        (lambda: 5, "network must make a torch.nn.Module when called, got int"),
    ],
)
def test_what_makes_no_network_is_one_clear_line(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fresh_network(make, 0)
