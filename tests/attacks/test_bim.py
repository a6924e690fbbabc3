import pytest
import torch

from lightning_poison.attacks import BIM, FGSM, ILCM, PGD
from lightning_poison.errors import UserError

RADIUS = {"linf": 0.12, "l2": 0.9, "l1": 4.0}


def naive(net, x, y, aim, *, eps, steps, goal, last=False):
    """One sample, l_inf: towards ``aim``, or away from the label where it is None; until ``goal(prediction)``."""
    point = x.clone()
    for step in range(steps + 1):
        scores = net(point.requires_grad_()[None])
        if goal(int(scores.argmax())) and (not last or step in (0, steps)):
            return True, point.detach()
        if step == steps:
            return False, point.detach()
        logs = scores.log_softmax(dim=1)[0]
        (gradient,) = torch.autograd.grad(-logs[y] if aim is None else logs[aim], point)
        point = point.detach() + eps / steps * gradient.sign()
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1)
    raise AssertionError


@pytest.mark.parametrize("attack", [BIM, ILCM])
@pytest.mark.parametrize("success", ["any iterate", "last iterate"])
@pytest.mark.parametrize("targeted", [False, True])
def test_equals_a_naive_loop(attack, success, targeted, trained, digits):
    inputs, labels = digits[0][1200:1230].double(), digits[1][1200:1230]
    net = trained.double()
    try:
        targets = (labels + 3) % 10 if targeted else None
        result = attack(0.15, steps=5, success=success)(net, inputs, labels, targets=targets)
        for row, (x, y) in enumerate(zip(inputs, labels.tolist(), strict=True)):
            if targeted:
                aim = int(targets[row])
                goal = lambda k, aim=aim: k == aim  # noqa: E731
            else:
                aim = None if attack is BIM else int(net(x[None]).argmin())
                goal = lambda k, y=y: k != y  # noqa: E731
            fooled, example = naive(net, x, y, aim, eps=0.15, steps=5, goal=goal, last=success == "last iterate")
            assert fooled == result.fooled[row]
            torch.testing.assert_close(result.examples[row], example, rtol=0, atol=1e-9)
        assert 0 < result.fooled.sum() < len(labels)
        assert result.criterion == success
    finally:
        net.float()


@pytest.mark.parametrize("norm", RADIUS)
@pytest.mark.parametrize("attack", [FGSM, BIM, ILCM])
def test_every_norm_stays_inside_and_fools(attack, norm, trained, digits):
    inputs, labels = digits[0][1200:1350], digits[1][1200:1350]
    result = attack(RADIUS[norm], norm=norm)(trained, inputs, labels)
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    changes = (result.examples.double() - inputs.double()).flatten(1).norm(p=order, dim=1)
    assert changes.max() <= RADIUS[norm] + 1e-4
    assert changes.max() > 0.5 * RADIUS[norm]
    with torch.no_grad():
        predictions = trained(result.examples).argmax(1)
        clean = trained(inputs).argmax(1)
    assert result.fooled.equal(predictions != labels)
    assert result.fooled.sum() > (clean != labels).sum()


def test_bim_is_pgd_with_one_loss_and_short_steps(trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    for norm, eps in RADIUS.items():
        pgd = PGD(eps, steps=7, step_size=eps / 7, norm=norm, losses=("cross_entropy",))(trained, inputs, labels)
        bim = BIM(eps, steps=7, norm=norm)(trained, inputs, labels)
        assert bim.examples.equal(pgd.examples)
        assert bim.fooled.equal(pgd.fooled)


def test_fgsm_in_l1_changes_the_steepest_pixel_on_a_linear_model(linear, middling):
    inputs, labels = middling
    result = FGSM(0.3, "l1")(linear, inputs, labels)
    slopes = (linear.weights[1 - labels] - linear.weights[labels]).detach()
    for x, y, g, found in zip(inputs, labels, slopes, result.examples, strict=True):
        expected, place = x.flatten().clone(), int(g.abs().argmax())
        if int(linear(x[None]).argmax()) == y:
            expected[place] += 0.3 * float(g[place].sign())
        torch.testing.assert_close(found.flatten(), expected)


def test_bim_steps_reach_the_border_and_no_further(linear, middling):
    inputs, labels = middling
    right = linear(inputs).argmax(1) == labels
    once = FGSM(0.01)(linear, inputs, labels).examples
    result = BIM(0.01, steps=4, success="last iterate")(linear, inputs, labels)
    torch.testing.assert_close(result.examples[right], once[right])


@pytest.mark.parametrize("attack", [BIM, ILCM])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"eps must lie in \[0, 1\] pixel units, got 8"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0; steps=10 is usual"),
        ({"step_size": 2}, r"step_size must lie in \[0, 1\] pixel units"),
        ({"norm": "l7"}, "norm must be one of linf, l2, l1"),
        ({"success": "sometimes"}, "success must be one of any iterate, last iterate"),
    ],
)
def test_bad_arguments(attack, arguments, message):
    with pytest.raises(UserError, match=message):
        attack(**arguments)
