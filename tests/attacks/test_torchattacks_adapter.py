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

_FEW_QUERIES = {"Square": {"n_queries": 20}, "OnePixel": {"steps": 2, "popsize": 4}}


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


@pytest.mark.parametrize("name", ["Square", "OnePixel", "PGD"])
def test_scores_in_half_precision(trained, digits, name):
    inputs, labels = digits[0][1200:1206], digits[1][1200:1206]
    attack = from_torchattacks(functools.partial(getattr(torchattacks, name), **_FEW_QUERIES.get(name, {})), trained)
    with torch.autocast("cpu", torch.bfloat16):
        assert trained(inputs).dtype == torch.bfloat16
        result = attack(trained, inputs, labels)
        assert result.fooled.equal(trained(result.examples).argmax(1) != labels)
    assert result.examples.dtype == torch.float32


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


def test_fractions_in_words_are_read(network):
    attack = from_torchattacks(functools.partial(torchattacks.PGD, eps="8/255", alpha="2/255"), network)
    assert attack.eps == 8 / 255
    assert attack.factory(network).alpha == 2 / 255


# Name, arguments, and whether it can steer to a class.
TABLE = [
    ("APGD", {"eps": 0.2}, False),
    ("APGDT", {"eps": 0.2}, False),
    ("AutoAttack", {"eps": 0.4}, False),
    ("BIM", {"eps": 0.2, "alpha": 0.05}, True),
    ("CW", {"c": 10, "lr": 0.05, "steps": 30}, True),
    ("DeepFool", {"steps": 10}, False),
    ("FAB", {"eps": 0.2}, True),
    ("FGSM", {"eps": 0.2}, True),
    ("MIFGSM", {"eps": 0.2, "alpha": 0.05}, True),
    ("OnePixel", {"pixels": 3, "steps": 3}, True),
    ("PGD", {"eps": 0.2, "alpha": 0.05}, True),
    ("PGDL2", {"eps": 1.5, "alpha": 0.3}, True),
    ("Square", {"eps": 0.3, "n_queries": 60}, True),
]


@pytest.mark.parametrize(("name", "arguments", "steers"), TABLE, ids=[row[0] for row in TABLE])
def test_every_attack_of_the_table(name, arguments, steers, trained, digits, unchanged):
    inputs, labels = digits[0][1200:1208], digits[1][1200:1208]
    attack = from_torchattacks(functools.partial(getattr(torchattacks, name), **arguments), trained)
    targets = (labels + 1) % 10
    for aims in (None, targets) if steers else (None,):
        result = unchanged(trained, lambda aims=aims: attack(trained, inputs, labels, targets=aims))
        predictions = trained(result.examples).argmax(1)
        assert result.fooled.equal(predictions != labels if aims is None else predictions == aims)
        assert result.fooled.any(), "the attack does nothing"
        assert ((result.examples >= 0) & (result.examples <= 1)).all()
        size = (result.examples - inputs).flatten(1)
        size = size.norm(dim=1) if attack.norm == "l2" else size.abs().amax(1)
        assert (size <= attack.eps + 1e-5).all()
    if not steers:
        with pytest.raises(UserError, match=f"torchattacks.{name} has no targeted mode; leave target out, or use PGD"):
            attack(trained, inputs, labels, targets=targets)


@pytest.mark.skipif(not hasattr(torchattacks, "JSMA"), reason="this torchattacks has no JSMA")
def test_jsma_where_it_is_installed(trained, digits):
    inputs, labels = digits[0][1200:1202], digits[1][1200:1202]
    result = from_torchattacks(torchattacks.JSMA, trained)(trained, inputs, labels, targets=(labels + 1) % 10)
    assert result.fooled.equal(trained(result.examples).argmax(1) == (labels + 1) % 10)


@pytest.mark.parametrize("name", ["APGDT", "AutoAttack"])
def test_the_number_of_classes_must_be_the_models(name, trained, digits):
    eleven = nn.Sequential(trained, nn.ConstantPad1d((0, 1), -9.0)).eval()
    attack = from_torchattacks(getattr(torchattacks, name), eleven)
    with pytest.raises(UserError, match=rf"n_classes of torchattacks.{name} must be .* 11, got 10; write n_classes=11"):
        attack(eleven, digits[0][:2], digits[1][:2])


@pytest.mark.parametrize(
    ("classes", "factory", "needed"),
    [
        (2, torchattacks.AutoAttack, r"AutoAttack \(the APGDT in it\) needs at least 4"),
        (
            3,
            functools.partial(torchattacks.AutoAttack, n_classes=3),
            r"AutoAttack \(the APGDT in it\) needs at least 4",
        ),
        (
            2,
            functools.partial(torchattacks.AutoAttack, version="rand"),
            r"AutoAttack \(the APGD in it\) needs at least 3",
        ),
        (2, functools.partial(torchattacks.APGDT, n_classes=2), "APGDT needs at least 4"),
        (2, functools.partial(torchattacks.APGD, loss="dlr"), "APGD needs at least 3"),
        (2, functools.partial(torchattacks.UPGD, loss="dlr"), "UPGD needs at least 3"),
    ],
)
def test_too_few_classes_are_not_blamed_on_the_inputs(classes, factory, needed, trained, digits):
    few = nn.Sequential(trained, nn.Linear(10, classes)).eval()
    inputs = digits[0][1200:1204]
    attack = from_torchattacks(factory, few)
    with pytest.raises(UserError, match=f"^torchattacks.{needed} classes.*, got a model of {classes}; use") as caught:
        attack(few, inputs, few(inputs).argmax(1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["APGD", "FAB", "Square", "PGD", "DeepFool"])
def test_attacks_of_two_classes(name, digits):
    inputs = digits[0][:6]
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-direction, direction])), net[1].bias.zero_()
    arguments = {"FAB": {"n_classes": 2}, "DeepFool": {}}.get(name, {})
    attack = from_torchattacks(functools.partial(getattr(torchattacks, name), **arguments), net)
    result = attack(net, inputs, net(inputs).argmax(1))
    assert result.fooled.equal(net(result.examples).argmax(1) != net(inputs).argmax(1))


def test_an_attack_that_cannot_take_the_inputs_says_so_in_a_line(trained, digits):
    attack = from_torchattacks(torchattacks.TIFGSM, trained)  # for three channels only
    with pytest.raises(
        UserError, match=r"torchattacks.TIFGSM can't attack inputs of shape \(1, 8, 8\) among 10 classes: .*; use"
    ):
        attack(trained, digits[0][1200:1202], digits[1][1200:1202])


def test_a_network_whose_gradient_lies_in_another_order(trained, digits):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained

        def forward(self, inputs):
            return self.net(inputs.transpose(2, 3))

    inputs, labels = digits[0][1200:1220], digits[1][1200:1220]
    turned = Turned().eval()
    attack = from_torchattacks(functools.partial(torchattacks.PGDL2, eps=1.5, random_start=False), turned)
    expected = from_torchattacks(functools.partial(torchattacks.PGDL2, eps=1.5, random_start=False), trained)
    found = attack(turned, inputs.transpose(2, 3), labels).fooled
    assert found.equal(expected(trained, inputs, labels).fooled)


def test_attacks_without_a_radius_run(trained, digits):
    inputs, labels = digits[0][1200:1210], digits[1][1200:1210]
    result = from_torchattacks(lambda net: torchattacks.DeepFool(net, steps=10), trained)(trained, inputs, labels)
    assert result.examples.min() >= 0


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (functools.partial(torchattacks.PGD, foo=3), "attack can't be built: .*foo"),
        (functools.partial(torchattacks.PGD, eps="abc"), "eps of torchattacks.PGD must be a number, got 'abc'; write"),
        (functools.partial(torchattacks.PGD, eps="1/0"), "eps of torchattacks.PGD must be a number, got '1/0'"),
        (
            functools.partial(torchattacks.PGD, eps=8),
            r"^eps must lie in \[0, 1\] pixel units, got 8; for 8 grey levels of 255 write 8/255$",
        ),
        (functools.partial(torchattacks.AutoAttack, eps=8), r"eps must lie in \[0, 1\] pixel units, got 8"),
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
