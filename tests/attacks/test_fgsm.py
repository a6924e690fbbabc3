import pytest
import torch

from lightning_poison.attacks import FGSM
from lightning_poison.errors import UserError


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm, linear, middling):
    # With two classes every loss rises along w_other - w_label, and half the points stay right before the attack.
    inputs, labels = middling
    eps = 0.1 if norm == "linf" else 0.3
    result = FGSM(eps, norm)(linear, inputs, labels)
    difference = (linear.weights[1 - labels] - linear.weights[labels]).detach()
    direction = difference.sign() if norm == "linf" else difference / difference.norm(dim=1, keepdim=True)
    right = linear(inputs).argmax(1) == labels
    assert 0 < right.sum() < len(right)
    moved = inputs + eps * direction.view_as(inputs)
    torch.testing.assert_close(result.examples[right], moved[right])
    assert result.examples[~right].equal(inputs[~right])
    gain = eps * difference.norm(p=1 if norm == "linf" else 2, dim=1)
    scores = linear(inputs).detach()
    clean = (scores.gather(1, 1 - labels[:, None]) - scores.gather(1, labels[:, None])).squeeze(1)
    assert (result.fooled == (clean + gain > 0)).all()
    assert 0 < result.fooled[right].sum() < right.sum()


def test_targeted_moves_towards_the_target(linear, middling):
    inputs, labels = middling
    untargeted = FGSM(0.1)(linear, inputs, labels)
    targeted = FGSM(0.1)(linear, inputs, labels, targets=1 - labels)
    torch.testing.assert_close(targeted.examples, untargeted.examples)
    assert targeted.fooled.equal(untargeted.fooled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"eps must lie in \[0, 1\] pixel units, got 8; for 8 grey levels of 255 write 8/255"),
        ({"eps": "abc"}, "must be a number or a fraction"),
        ({"eps": -0.1, "norm": "l2"}, "must not be negative"),
        ({"norm": "l7"}, "norm must be one of linf, l2"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        FGSM(**arguments)


def test_fractions_are_read():
    assert FGSM("8/255") == FGSM(8 / 255)
    assert FGSM(2, "l2").eps == 2.0
