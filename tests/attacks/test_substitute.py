import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_poison.attacks import PGD, SubstituteTransfer
from lightning_poison.attacks.substitute import augmented, decisions
from lightning_poison.errors import UserError


class DecisionsOnly(nn.Module):
    """Answers with one-hot decisions, counts them, and refuses every gradient."""

    def __init__(self, net):
        super().__init__()
        self.net, self.count = net, 0

    def forward(self, inputs):
        assert not inputs.requires_grad
        self.count += len(inputs)
        return Unmoved.apply(nn.functional.one_hot(self.net(inputs).argmax(1), 10).float())


class Unmoved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        return scores

    @staticmethod
    def backward(ctx, gradients):
        raise AssertionError("the attacker took a gradient of the victim")


@pytest.fixture(scope="module")
def prepared(trained, digits):
    return SubstituteTransfer(0.2, own_inputs=150, rounds=2).prepare(trained, digits[0][:150])


def test_a_linear_victim_is_learnt():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 3, generator=generator)
    inputs = torch.rand(700, 8, generator=generator)
    labels = decisions(lambda x: x @ weights, inputs)[0]
    attack = SubstituteTransfer(0.1, rounds=3, epochs=20).prepare(lambda x: x @ weights, inputs[:150])
    result = attack(lambda x: x @ weights, inputs[150:], labels[150:])
    assert result.details["agreement"].mean() > 0.9
    # What would fool nearly always is the direction of the weights; a substitute that agrees has found it.
    white = PGD(0.1)(lambda x: x @ weights, inputs[150:], labels[150:]).fooled
    assert (white | ~result.fooled).all()
    assert result.fooled.sum() > 0.8 * white.sum() > 50


def test_a_victim_that_gives_decisions_only(trained, prepared, digits):
    victim = DecisionsOnly(trained).eval()
    attack = SubstituteTransfer(0.2, own_inputs=150, rounds=2).prepare(victim, digits[0][:150])
    assert victim.count == attack.training_queries == 150 * 2**2
    inputs, labels = digits[0][1200:1400], digits[1][1200:1400]
    result = attack(victim, inputs, labels)
    tries = 2 + 2  # whether the victim's passes differ
    assert victim.count - attack.training_queries - tries == result.details["queries"].sum()
    # Scores would not have told it more.
    same = prepared(trained, inputs, labels)
    assert same.examples.equal(result.examples)
    assert all(
        same.details[key].equal(
            value,
        )
        or key == "transferred"
        for key, value in result.details.items()
    )


def test_never_more_than_the_white_box_and_more_than_noise(trained, prepared, digits):
    inputs, labels = digits[0][1200:1500], digits[1][1200:1500]
    transfer = prepared(trained, inputs, labels).fooled
    white = PGD(0.2)(trained, inputs, labels).fooled
    noise = (torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)) - 0.5).sign()
    by_chance = trained((inputs + 0.2 * noise).clamp(0, 1)).argmax(1) != labels
    assert white.sum() >= transfer.sum() > 2 * by_chance.sum()


def test_the_figures_are_what_they_are_called(trained, prepared, digits):
    inputs, labels = digits[0][1200:1400], digits[1][1200:1400]
    result = prepared(trained, inputs, labels)
    clean, seen = trained(inputs).argmax(1), trained(result.examples).argmax(1)
    substitute = prepared.substitute
    right = clean == labels
    assert result.fooled.equal(~right | (seen != labels))
    assert result.examples[~right].equal(inputs[~right])
    assert result.details["agreement"].equal((substitute(inputs).argmax(1) == clean).double())
    assert result.details["queries"].equal(1 + right.double())
    crossed = right & (substitute(result.examples).argmax(1) != labels)
    transferred = result.details["transferred"]
    assert transferred.isnan().equal(~crossed)
    assert transferred[crossed].equal((seen != labels)[crossed].double())
    assert 0 < transferred[crossed].sum() < crossed.sum()
    assert result.criterion == "last iterate"


def test_targeted(trained, prepared, digits):
    inputs, labels = digits[0][1200:1400], digits[1][1200:1400]
    rows = labels != 8
    targets = torch.full_like(labels, 8)
    result = prepared(trained, inputs[rows], labels[rows], targets=targets[rows])
    assert result.fooled.equal(trained(result.examples).argmax(1) == 8)
    assert result.fooled.sum() > 3 * (trained(inputs[rows]).argmax(1) == 8).sum()


def test_the_same_inputs_give_the_same_substitute(trained, prepared, digits, unchanged):
    attack = SubstituteTransfer(0.2, own_inputs=150, rounds=2)
    again = unchanged(trained, lambda: attack.prepare(trained, digits[0][:150]))
    assert attack.substitute is None
    assert again == attack  # what it has learnt is no argument
    assert repr(again) == repr(attack)
    with torch.inference_mode():
        inside = attack.prepare(trained, digits[0][:150].clone())
    other = SubstituteTransfer(0.2, own_inputs=150, rounds=2, seed=1).prepare(trained, digits[0][:150])
    weights = prepared.substitute.state_dict()
    for attack_again, equal in ((again, True), (inside, True), (other, False)):
        same = [weights[name].equal(value) for name, value in attack_again.substitute.state_dict().items()]
        assert all(same) == equal
    assert not any(parameter.requires_grad for parameter in prepared.substitute.parameters())


def test_it_runs_inside_validation_and_leaves_no_trace(trained, prepared, digits, unchanged):
    inputs, labels = digits[0][1200:1250], digits[1][1200:1250]
    outside = unchanged(trained, lambda: prepared(trained, inputs, labels))
    with torch.inference_mode():
        inside = prepared(trained, inputs.clone(), labels.clone())
    assert inside.examples.equal(outside.examples)


def test_copies_go_on_working(trained, prepared, digits):
    inputs, labels = digits[0][1200:1220], digits[1][1200:1220]
    expected = prepared(trained, inputs, labels).examples
    for twin in (
        copy.deepcopy(prepared),
        replace(replace(prepared, eps=0.1), eps=0.2),
        pickle.loads(pickle.dumps(prepared)),
    ):
        assert twin.training_queries == prepared.training_queries
        assert twin(trained, inputs, labels).examples.equal(expected)


def test_a_network_of_ones_own(trained, digits):
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = copy.deepcopy(own.state_dict())
    attack = SubstituteTransfer(0.2, net=own, own_inputs=150, rounds=2).prepare(trained, digits[0][:150])
    assert isinstance(attack.substitute[1], nn.Linear)
    assert all(before[name].equal(value) for name, value in own.state_dict().items())
    assert attack(trained, digits[0][1200:1400], digits[1][1200:1400]).details["agreement"].mean() > 0.7
    with pytest.raises(UserError, match="net must have one logit for each of the victim's 10 classes, got 7"):
        SubstituteTransfer(net=nn.Sequential(nn.Flatten(), nn.Linear(64, 7))).prepare(trained, digits[0][:9])


def test_examples_transfer_from_any_network(trained, digits):
    # From the victim itself everything transfers.
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    attack = SubstituteTransfer(0.1, substitute=trained)
    assert attack.prepare(trained, inputs[:0]) is attack
    result = attack(trained, inputs, labels)
    assert result.details["agreement"].all()
    assert result.details["transferred"].nanmean() == 1
    plain = PGD(0.1, losses=("cross_entropy",), success="last iterate")(trained, inputs, labels)
    right = trained(inputs).argmax(1) == labels
    torch.testing.assert_close(result.examples[right], plain.examples[right], rtol=0, atol=1e-5)


def test_new_points_lie_where_the_own_score_rises():
    weights = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 0.0, 3.0]])
    net = nn.Linear(3, 2).requires_grad_(False)
    net.weight.copy_(weights)
    inputs = torch.tensor([[0.5, 0.05, 0.5], [0.5, 0.5, 0.95]])
    found = augmented(net, inputs, torch.tensor([0, 1]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.0, 0.5], [0.4, 0.5, 1.0]]))


def test_unprepared(trained, digits):
    with pytest.raises(UserError, match=r"no substitute yet; call attack = attack.prepare\(victim, inputs\)"):
        SubstituteTransfer()(trained, digits[0][:5], digits[1][:5])
    with pytest.raises(UserError, match="at least 2 inputs of the attacker's own, got 1"):
        SubstituteTransfer().prepare(trained, digits[0][:1])
    with pytest.raises(UserError, match=r"inputs must lie in \[0, 1\]"):
        SubstituteTransfer().prepare(trained, digits[0][:5] * 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, "for 8 grey levels of 255 write 8/255"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"own_inputs": 1}, "own_inputs must be an integer of at least 2"),
        ({"rounds": -1}, "rounds must be an integer of at least 0"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"lr": 0}, "use lr=0.002"),
        ({"loss": "hinge"}, "must be one of"),
        ({"net": "PoolCNN"}, "net must be a torch.nn.Module, got str"),
        ({"augmentation_step": 2}, "for 2 grey levels of 255 write 2/255"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        SubstituteTransfer(**arguments)
