from dataclasses import replace

import pytest
import torch
import torchvision.transforms as v1
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from lightning_poison.attacks import PGD, ExpectationOverTransformations, frozen_eval
from lightning_poison.attacks.transformations import random_view, usual_transforms
from lightning_poison.errors import UserError

BILINEAR = InterpolationMode.BILINEAR


class Half(nn.Module):
    """Shows one half of a vector or the other, each with probability one half."""

    def forward(self, inputs):
        first = torch.rand(()) < 0.5
        mask = torch.zeros(inputs.shape[1], dtype=inputs.dtype)
        mask[: len(mask) // 2] = float(first)
        mask[len(mask) // 2 :] = float(not first)
        return inputs * mask


@pytest.mark.parametrize(
    "transforms",
    [
        usual_transforms(),
        [v1.RandomAffine(20, (0.1, 0.1), interpolation=BILINEAR), v1.ColorJitter(0.3)],
        [v2.RandomAffine(20, (0.1, 0.1), interpolation=BILINEAR)],  # overwrites what its derivative needs
        [v2.RandomRotation(20, fill=0.4)],
        [v2.RandomPerspective(p=1.0), v2.GaussianBlur(3)],
        [lambda x: x.exp().mul_(0.3)],  # overwrites what its derivative is computed from
    ],
)
def test_gradients_pass_through(transforms):
    generator = torch.Generator().manual_seed(0)
    images = (0.3 + 0.4 * torch.rand(2, 1, 6, 6, generator=generator)).double().requires_grad_()
    weights = torch.randn(2, 1, 6, 6, generator=generator).double()

    def value(points):
        return (random_view(transforms, points, 0, "draw", 1) * weights).sum()

    (gradients,) = torch.autograd.grad(value(images), images)
    assert gradients.abs().max() > 0.5
    with torch.no_grad():
        for place in range(images.numel()):
            shift = torch.zeros(images.numel(), dtype=torch.float64)
            shift[place] = 1e-6
            shift = shift.view_as(images)
            slope = (value(images + shift) - value(images - shift)) / 2e-6
            assert abs(slope - gradients.flatten()[place]) < 1e-6


def test_a_draw_depends_on_its_keys_alone():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    views = random_view(usual_transforms(), images, 0, "evaluation", 3)
    assert torch.get_rng_state().equal(before)
    torch.testing.assert_close(random_view(usual_transforms(), images[2:], 0, "evaluation", 3), views[2:])
    for other in ((0, "evaluation", 4), (1, "evaluation", 3), (0, "step", 3)):
        assert not random_view(usual_transforms(), images, *other).equal(views)
    bright = random_view([lambda x: 3 * x], images, 0)
    assert bright.equal((3 * images).clamp(0, 1))


def test_follows_the_mean_over_the_draws():
    # Scores (0, w x): half of the draws show the first half of the pixels, half the others. One step along the mean
    # gradient moves both halves; along a single draw's it would move one.
    weights = torch.tensor([1.0, -1.0, 2.0, 0.5])
    inputs, labels = torch.full((1, 4), 0.5), torch.tensor([0])

    def model(x):
        return torch.stack((torch.full((len(x),), 3.0), x @ weights), dim=1)

    attack = ExpectationOverTransformations(0.1, steps=1, step_size=0.1, transforms=Half(), draws=20)
    moved = attack(model, inputs, labels).examples - inputs
    torch.testing.assert_close(moved, 0.1 * weights.sign()[None])
    lone = ExpectationOverTransformations(0.1, steps=1, step_size=0.1, transforms=[Half()], draws=1)
    assert (lone(model, inputs, labels).examples - inputs != 0).sum() == 2


def test_each_step_draws_anew():
    # One draw a step: after a few steps both halves have moved.
    weights = torch.tensor([1.0, -1.0, 2.0, 0.5])
    inputs, labels = torch.full((1, 4), 0.5), torch.tensor([0])
    attack = ExpectationOverTransformations(0.1, steps=12, step_size=0.1, transforms=Half(), draws=1)
    result = attack(lambda x: torch.stack((torch.full((len(x),), 3.0), x @ weights), dim=1), inputs, labels)
    torch.testing.assert_close(result.examples - inputs, 0.1 * weights.sign()[None])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_without_transformations_it_is_the_gradient_attack(norm, targeted, trained, digits):
    # log(1 - p) and -log p have parallel gradients; in double, since their lengths differ by orders of magnitude.
    inputs, labels = digits[0][1200:1300].double(), digits[1][1200:1300]
    eps, targets = 0.1 if norm == "linf" else 0.6, (labels + 1) % 10 if targeted else None
    attack = ExpectationOverTransformations(
        eps, steps=5, norm=norm, transforms=[nn.Identity()], draws=2, evaluation_draws=3
    )
    plain = PGD(eps, steps=5, norm=norm, losses=("cross_entropy",), success="last iterate")
    net = trained.double()
    try:
        found = attack(net, inputs, labels, targets=targets)
        expected = plain(net, inputs, labels, targets=targets)
    finally:
        net.float()
    torch.testing.assert_close(found.examples, expected.examples, rtol=0, atol=1e-9)
    assert found.fooled.equal(expected.fooled)
    assert found.details["survival"].equal(found.fooled.double())


def test_survives_more_transformations_than_a_plain_perturbation(trained, digits):
    inputs, labels = digits[0][1200:1400], digits[1][1200:1400]
    attack = ExpectationOverTransformations(0.12, steps=20)
    ours = attack(trained, inputs, labels)
    plain = PGD(0.12, steps=20, losses=("cross_entropy",), success="last iterate")(trained, inputs, labels)
    with frozen_eval(trained):
        clean, theirs = (attack.survivals(trained, points, labels) for points in (inputs, plain.examples))
    # Only samples that are attacked at all: right without an attack, also under most transformations.
    rows = (clean < 0.5) & (trained(inputs).argmax(1) == labels)
    assert rows.sum() > 100
    gain = (ours.details["survival"] - theirs)[rows]
    assert gain.mean() > 4 * gain.std() / rows.sum() ** 0.5
    assert ours.fooled[rows].sum() > (theirs[rows] >= 0.5).sum()
    assert ours.fooled[~rows].all()
    judged = replace(attack, transforms=nn.Identity(), draws=1, evaluation_transforms=list(usual_transforms()))
    same = judged(trained, inputs, labels).details["survival"]
    torch.testing.assert_close(same[rows].mean(), theirs[rows].mean(), rtol=0, atol=0.01)


def test_survival_is_the_share_of_draws_that_fool(trained, digits):
    inputs, labels = digits[0][1200:1240], digits[1][1200:1240]
    attack = ExpectationOverTransformations(0.15, steps=3, draws=2, evaluation_draws=5, survival=0.6, seed=4)
    result = attack(trained, inputs, labels)
    shares = torch.zeros(40, dtype=torch.float64)
    for draw in range(5):
        for row in range(40):
            view = random_view(usual_transforms(), result.examples[row, None], 4, "evaluation", draw)
            shares[row] += float(trained(view).argmax(1) != labels[row])
    assert result.details["survival"].equal(shares / 5)
    wrong = trained(inputs).argmax(1) != labels
    assert result.fooled.equal(wrong | (shares / 5 >= 0.6))
    assert 0 < result.fooled.sum() < 40


def test_samples_that_are_wrong_anyway_are_not_attacked(trained, digits):
    inputs, labels = digits[0][1200:], digits[1][1200:]
    attack = ExpectationOverTransformations(0.0, steps=1, draws=1, evaluation_draws=20)
    result = attack(trained, inputs, labels)
    wrong = trained(inputs).argmax(1) != labels
    with frozen_eval(trained):
        distorted = attack.survivals(trained, inputs, labels) >= 0.5
    assert (wrong & ~distorted).any()
    assert (distorted & ~wrong).any()
    assert result.fooled.equal(wrong | distorted)
    assert result.examples.equal(inputs)


def test_batching_does_not_matter(trained, digits):
    inputs, labels = digits[0][1200:1400].double(), digits[1][1200:1400]
    attack = ExpectationOverTransformations(0.1, steps=3, draws=2, evaluation_draws=5)
    net = trained.double()
    try:
        whole = attack(net, inputs, labels)
        parts = [attack(net, inputs[rows], labels[rows]) for rows in torch.arange(200).split([11, 150, 39])]
    finally:
        net.float()
    torch.testing.assert_close(torch.cat([part.examples for part in parts]), whole.examples, rtol=0, atol=1e-9)
    assert torch.cat([part.details["survival"] for part in parts]).equal(whole.details["survival"])


def test_images_of_another_size(trained, digits):
    inputs, labels = digits[0][1200:1220], digits[1][1200:1220]
    doubled = nn.functional.interpolate(inputs, scale_factor=2)
    attack = ExpectationOverTransformations(0.1, steps=2, transforms=v2.RandomCrop(8), draws=2, evaluation_draws=4)
    assert attack(lambda x: trained(x[..., :8, :8]), doubled, labels).examples.shape == doubled.shape


def test_leaves_the_network_alone(network, digits, unchanged):
    inputs, labels = digits[0][:20], digits[1][:20]
    attack = ExpectationOverTransformations(0.1, steps=1, draws=2, evaluation_draws=2)
    outside = unchanged(network, lambda: attack(network, inputs, labels))
    with torch.inference_mode():
        inside = attack(network, inputs.clone(), labels.clone())
    assert inside.examples.equal(outside.examples)


def never_wrong(x):
    """Class 0 by far, with a gradient."""
    return torch.stack((5 + x.flatten(1).mean(1), x.flatten(1).mean(1) / 9), dim=1)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.ToPILImage(), "ToPILImage can't take a batch of float images"),
        (v2.ToDtype(torch.uint8, scale=True), "ToDtype gave torch.uint8 of shape"),
        (lambda x: x.detach().round(), "transforms must pass gradients on, <lambda> does not"),
        (lambda x: x.size("H"), "<lambda> can't take a batch of float images"),
        (lambda x: x[:1], r"transforms must give a float image for each of 3 images, <lambda> gave torch.float32"),
        (lambda x: None, "<lambda> gave NoneType"),
    ],
)
def test_unusable_transforms(transform, message):
    attack = ExpectationOverTransformations(0.1, steps=1, draws=1, evaluation_draws=1, transforms=transform)
    with pytest.raises(UserError, match=message):
        attack(never_wrong, torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, "for 8 grey levels of 255 write 8/255"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"evaluation_draws": 0}, "evaluation_draws must be an integer of at least 1"),
        ({"survival": 0}, "use survival=0.5"),
        ({"survival": 1.5}, r"survival must lie in"),
        ({"transforms": 3}, "transforms must be transforms such as torchvision.transforms.v2.RandomRotation"),
        ({"transforms": [v2.RandomRotation]}, "transforms must be transforms such as"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        ExpectationOverTransformations(**arguments)
