import itertools

import pytest
import torch
import torchattacks

from lightning_poison.attacks import PGD, adversarial_paths
from lightning_poison.attacks.samples import Samples, is_fooled
from lightning_poison.errors import UserError
from lightning_poison.functional.losses import cross_entropy, margin

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}


def naive_pgd(net, x, y, target, *, eps, steps, losses, norm, last=False):
    """One sample, a loop over losses, one separate forward for the check and one for the gradient."""

    def fooled(point):
        prediction = net(point[None]).argmax()
        return bool(prediction != y if target is None else prediction == target)

    for loss in losses:
        point = x.clone()
        if fooled(point):
            return True, point
        for step in range(steps):
            point.requires_grad_()
            scores = net(point[None])
            value = LOSSES[loss](scores, y[None]) if target is None else -LOSSES[loss](scores, target[None])
            (gradient,) = torch.autograd.grad(value.sum(), point)
            direction = gradient.sign() if norm == "linf" else gradient / gradient.norm()
            change = point.detach() + 2.5 * eps / steps * direction - x
            point = (x + change.clamp(-eps, eps)).clamp(0, 1) if norm == "linf" else nearest_l2(x, change, eps)
            if (not last or step == steps - 1) and fooled(point):
                return True, point
    return False, point


def nearest_l2(x, change, eps):
    """The point of ball and box nearest to x + change, by halving the interval of its one free parameter."""
    low, high = 0.0, 1.0
    if ((x + change).clamp(0, 1) - x).norm() <= eps:
        return (x + change).clamp(0, 1)
    for _ in range(100):
        middle = (low + high) / 2
        inside = ((x + middle * change).clamp(0, 1) - x).norm() <= eps
        low, high = (middle, high) if inside else (low, middle)
    return (x + low * change).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("success", ["any iterate", "last iterate"])
def test_equals_a_naive_loop(norm, targeted, success, trained, digits):
    inputs, labels = digits[0][1200:1240].double(), digits[1][1200:1240]
    net = trained.double()
    try:
        targets = (labels + 1) % 10 if targeted else None
        eps = (0.2 if targeted else 0.1) * (1 if norm == "linf" else 6)
        attack = PGD(eps, steps=6, norm=norm, success=success)
        result = attack(net, inputs, labels, targets=targets)
        for row, (x, y) in enumerate(zip(inputs, labels, strict=True)):
            fooled, example = naive_pgd(
                net,
                x,
                y,
                None if targets is None else targets[row],
                eps=eps,
                steps=6,
                losses=attack.losses,
                norm=norm,
                last=success == "last iterate",
            )
            assert fooled == result.fooled[row]
            torch.testing.assert_close(result.examples[row], example, rtol=0, atol=1e-9)
        assert 0 < result.fooled.sum() < len(labels)
    finally:
        net.float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm, linear, middling):
    # The best attack on a linear score gains eps times the dual norm of the weights' difference.
    inputs, labels = middling
    difference = (linear.weights[1 - labels] - linear.weights[labels]).detach()
    scores = linear(inputs).detach()
    clean = (scores.gather(1, 1 - labels[:, None]) - scores.gather(1, labels[:, None])).squeeze(1)
    needed = -clean / difference.norm(p=1 if norm == "linf" else 2, dim=1)  # radius at which the label changes
    for eps in (0.02, 0.05, 0.1):
        result = PGD(eps, steps=10, norm=norm)(linear, inputs, labels)
        assert (result.fooled == (needed < eps)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("success", ["any iterate", "last iterate"])
def test_examples_lie_in_ball_and_box_and_do_what_is_said(norm, restarts, success, trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    eps = 0.15 if norm == "linf" else 1.2
    result = PGD(eps, steps=5, norm=norm, restarts=restarts, success=success)(trained, inputs, labels)
    assert result.criterion == success
    changes = (result.examples.double() - inputs.double()).flatten(1)
    assert changes.norm(p=float("inf") if norm == "linf" else 2, dim=1).max() <= eps + 1e-5
    assert result.examples.min() >= 0
    assert result.examples.max() <= 1
    with torch.no_grad():
        predictions = trained(result.examples).argmax(1)
    assert (result.fooled == (predictions != labels)).all()


def test_points_that_are_wrong_anyway_count_as_fooled(trained, digits):
    inputs, labels = digits[0][1200:], digits[1][1200:]
    with torch.no_grad():
        wrong = trained(inputs).argmax(1) != labels
    assert wrong.any()
    for success in ("any iterate", "last iterate"):
        result = PGD(0.0, steps=1, success=success)(trained, inputs, labels)
        assert result.fooled.equal(wrong)
        assert result.examples.equal(inputs)


def test_worst_case_over_losses_and_restarts(trained, digits):
    inputs, labels = digits[0][1200:1500], digits[1][1200:1500]
    one = {loss: PGD(0.1, steps=4, losses=(loss,))(trained, inputs, labels).fooled for loss in LOSSES}
    both = PGD(0.1, steps=4)(trained, inputs, labels).fooled
    assert both.equal(one["cross_entropy"] | one["margin"])
    more = PGD(0.1, steps=4, restarts=2)(trained, inputs, labels).fooled
    assert (more | ~both).all()
    last = PGD(0.1, steps=4, success="last iterate")(trained, inputs, labels).fooled
    assert (both | ~last).all()


@pytest.mark.parametrize(("eps", "steps"), itertools.product((0.05, 0.1, 0.15), (10, 40)))
def test_never_weaker_than_torchattacks_at_the_same_budget(eps, steps, trained, digits):
    inputs, labels = digits[0][1200:], digits[1][1200:]
    peer = torchattacks.PGD(trained, eps=eps, alpha=2.5 * eps / steps, steps=steps, random_start=False)
    theirs = trained(peer(inputs, labels)).argmax(1) != labels
    ours = PGD(eps, steps=steps)(trained, inputs, labels).fooled
    assert (ours | ~theirs).all()
    if eps < 0.15:
        assert not ours.all()


def test_random_starts_do_not_depend_on_batches(trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    attack = PGD(0.08, steps=2, losses=("margin",), restarts=3)
    ids = torch.arange(1200, 1300)
    whole = attack(trained, inputs, labels, sample_ids=ids)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for rows in order.split(17):
        part = attack(trained, inputs[rows], labels[rows], sample_ids=ids[rows])
        assert part.fooled.equal(whole.fooled[rows])
        torch.testing.assert_close(part.examples, whole.examples[rows], rtol=0, atol=1e-6)
    other = PGD(0.08, steps=2, losses=("margin",), restarts=3, seed=1)(trained, inputs, labels, sample_ids=ids)
    assert not other.examples.equal(whole.examples)


def test_one_forward_a_step_and_fewer_points_once_some_are_fooled(trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    sizes = []
    handle = trained.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    try:
        result = PGD(0.1, steps=8, losses=("cross_entropy",))(trained, inputs, labels)
    finally:
        handle.remove()
    assert [sizes.pop(0) for _ in range(2)] == [2, 2]  # tries, to see whether its passes differ
    assert sizes.pop(0) == 2  # and which memory layout the network takes
    assert len(sizes) == 9
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= int((~result.fooled).sum())
    assert sizes[-1] < 100


def test_targeted_success_is_the_target():
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    labels, targets = torch.tensor([0, 0]), torch.tensor([1, 1])
    assert is_fooled(scores, labels, targets).tolist() == [True, False]


def test_an_empty_batch(trained):
    result = PGD()(trained, torch.rand(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert result.fooled.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"eps must lie in \[0, 1\] pixel units, got 8"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"step_size": 2}, r"step_size must lie in \[0, 1\] pixel units"),
        ({"norm": "l0"}, "norm must be one of linf, l2, l1, got l0"),
        ({"losses": "margin"}, "losses must be a list of names"),
        ({"losses": ()}, "losses must be a list of names"),
        ({"losses": ("hinge",)}, "losses must be one of cross_entropy, margin"),
        ({"restarts": -1}, "restarts must be an integer of at least 0"),
        ({"success": "sometimes"}, "success must be one of any iterate, last iterate"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        PGD(**arguments)
    assert "\n" not in str(caught.value)


def test_restarts_are_uniform_in_the_linf_ball_and_on_the_l2_sphere():
    centres = torch.full((50, 1, 8, 8), 0.5, dtype=torch.float64)
    samples = Samples.checked(centres, torch.zeros(50, dtype=torch.int64))
    away = PGD(eps=0.1)._random_start(samples, 1) - centres
    assert away.abs().max() < 0.1
    assert away.abs().mean() == pytest.approx(0.05, rel=0.03)
    assert away.square().mean() == pytest.approx(0.1**2 / 3, rel=0.05)
    away = PGD(eps=0.3, norm="l2")._random_start(samples, 1) - centres
    torch.testing.assert_close(away.flatten(1).norm(dim=1), torch.full((50,), 0.3, dtype=torch.float64))
    assert away.mean().abs() < 0.005


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_point_without_derivative_stays_put_and_spoils_no_other(norm):
    class Standardised(torch.nn.Module):
        def forward(self, inputs):
            spread = inputs.flatten(1).std(dim=1)
            return torch.stack([spread, 0.25 + 0 * spread], dim=1)

    inputs = torch.cat(
        [torch.full((1, 1, 4, 4), 0.5), torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))]
    )
    labels = torch.tensor([1, 0, 0, 0, 0, 0])
    result = PGD(0.1, steps=5, norm=norm)(Standardised(), inputs, labels)
    alone = PGD(0.1, steps=5, norm=norm)(Standardised(), inputs[1:], labels[1:])
    assert not result.fooled[0]
    assert result.examples[0].equal(inputs[0])
    assert result.examples[1:].equal(alone.examples)
    lengths = adversarial_paths(Standardised(), inputs, labels, max_steps=9)
    assert lengths.length[0] == 9
    assert not lengths.reached[0]
