import functools
import math
import random

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from lightning_poison.attacks import from_torchattacks
from lightning_poison.errors import UserError


def test_equals_a_direct_call(trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    factory = functools.partial(torchattacks.PGD, eps=0.1, alpha=0.025, steps=5, random_start=False)
    result = from_torchattacks(factory, trained)(trained, inputs, labels)
    right = trained(inputs).argmax(1) == labels
    expected = factory(trained)(inputs, labels)
    theirs = trained(expected).argmax(1) != labels
    torch.testing.assert_close(result.examples[right], expected[right])
    assert result.fooled.equal(theirs | ~right)
    assert 0 < result.fooled.sum() < 100
    assert result.criterion == "last iterate"


def test_targeted(trained, digits, capsys):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    targets = (labels + 1) % 10
    factory = functools.partial(torchattacks.PGD, eps=0.3, alpha=0.05, steps=10, random_start=False)
    result = from_torchattacks(factory, trained)(trained, inputs, labels, targets=targets)
    assert capsys.readouterr().out == ""
    peer = factory(trained)
    peer.set_mode_targeted_by_function(lambda _, y: (y + 1) % 10)
    assert result.fooled.equal(trained(peer(inputs, labels)).argmax(1) == targets)
    assert result.fooled.sum() > 10


def test_random_attacks_leave_the_global_streams_and_the_network_alone(network, digits, unchanged):
    inputs, labels = digits[0][:20], digits[1][:20]
    attack = from_torchattacks(lambda net: torchattacks.PGD(net, steps=2), network)
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    results = [unchanged(network, lambda: attack(network, inputs, labels)) for _ in range(2)]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert results[0].examples.equal(results[1].examples)


def test_a_failing_network_is_left_alone(network, digits, unchanged):
    attack = from_torchattacks(torchattacks.FGSM, network)

    def fail(*_):
        raise RuntimeError("broken on purpose")

    network[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        unchanged(network, lambda: attack(network, digits[0][:4], digits[1][:4]))


@pytest.mark.parametrize(
    ("factory", "eps", "norm", "steps"),
    [
        (lambda net: torchattacks.FGSM(net, eps=0.1), 0.1, "linf", None),
        (lambda net: torchattacks.PGDL2(net, eps=2.0, steps=3), 2.0, "l2", 3),
        (lambda net: torchattacks.APGD(net, norm="L2", eps=0.5), 0.5, "l2", 10),
        (lambda net: torchattacks.AutoAttack(net, eps=0.1), 0.1, "linf", None),
        (torchattacks.DeepFool, math.inf, None, 50),
    ],
)
def test_radius_and_norm_are_found(factory, eps, norm, steps, network):
    attack = from_torchattacks(factory, network)
    assert (attack.eps, attack.norm, attack.steps) == (eps, norm, steps)
    assert attack.name.startswith("torchattacks.")


def test_attacks_without_a_radius_run(trained, digits):
    inputs, labels = digits[0][1200:1210], digits[1][1200:1210]
    result = from_torchattacks(lambda net: torchattacks.DeepFool(net, steps=10), trained)(trained, inputs, labels)
    assert result.examples.min() >= 0


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (functools.partial(torchattacks.PGD, foo=3), "attack can't be built: .*foo"),
        (functools.partial(torchattacks.PGD, eps="8/255"), "eps of torchattacks.PGD must be a number, got '8/255'"),
        (functools.partial(torchattacks.AutoAttack, norm="linf", version="x"), "attack can't be built: Not valid"),
        (nn.Identity, "attack must be one of lightning_poison.attacks"),
        (lambda net: 3, "attack must be one of lightning_poison.attacks"),
    ],
)
def test_mistakes_surface_when_the_attack_is_built(factory, message, network):
    with pytest.raises(UserError, match=message) as caught:
        from_torchattacks(factory, network)
    assert "\n" not in str(caught.value)


def test_no_targeted_mode(trained, digits):
    attack = from_torchattacks(lambda net: torchattacks.VANILA(net), trained)
    with pytest.raises(UserError, match=r"torchattacks.VANILA has no targeted mode"):
        attack(trained, digits[0][:4], digits[1][:4], targets=(digits[1][:4] + 1) % 10)


def test_an_attack_that_leaves_its_ball_is_refused(trained, digits):
    class Liar(torchattacks.PGD):
        def forward(self, images, labels):
            return (images + 2 * self.eps).clamp(0, 1)

    attack = from_torchattacks(lambda net: Liar(net, eps=0.05), trained)
    with pytest.raises(UserError, match=r"torchattacks.Liar left the linf ball of radius 0.05"):
        attack(trained, digits[0][:4], digits[1][:4])


def test_needs_a_module():
    with pytest.raises(UserError, match=r"torchattacks needs an nn.Module with parameters, got ReLU"):
        from_torchattacks(torchattacks.FGSM, nn.ReLU())
