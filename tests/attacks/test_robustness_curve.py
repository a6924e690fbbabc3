from dataclasses import dataclass, replace

import pytest
import torch
import torchattacks

from lightning_poison.attacks import FGSM, PGD, Attack, AttackResult, from_torchattacks
from lightning_poison.attacks.robustness_curve import robustness_curve
from lightning_poison.errors import UserError
from lightning_poison.functional.norms import named_norm
from tests.counted_gradients import CountedGradients

RADII = [0.02, 0.04, 0.06, 0.09, 0.12, 0.15, 0.2, 0.3]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_victim_breaks_at_its_margin_over_the_dual_norm(norm, linear, middling):
    way = (linear.weights[0] - linear.weights[1]).detach()
    with torch.no_grad():
        linear.bias[0] -= 0.5 * way.sum()  # the boundary goes through the middle of the box
    inputs = middling[0]
    sides = inputs.flatten(1) @ way - 0.5 * way.sum()
    labels = (sides <= 0).long()
    labels[:4] = 1 - labels[:4]
    distances = sides.abs() / (way.abs().sum() if norm == "linf" else way.norm())
    distances[:4] = 0
    radii = torch.quantile(distances[4:], torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)).tolist()
    assert radii[-1] < 0.33, "else the box would be in the way"
    expected = torch.stack([distances > radius for radius in radii]).sum(dim=0)
    curve = robustness_curve(PGD(norm=norm, steps=10), radii, linear, inputs, labels)
    assert curve.broken_at.equal(expected)
    assert len(expected.unique()) == len(radii) + 1
    assert curve.accuracy.tolist() == [float((distances > radius).double().mean()) for radius in radii]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("attack", [PGD(steps=12), PGD(norm="l2", steps=12), PGD(steps=6, restarts=1), FGSM()])
def test_it_is_never_weaker_than_separate_runs_and_cheaper(attack, targeted, trained, digits):
    inputs, labels = digits[0][1200:1264], digits[1][1200:1264]
    targets = (labels + 1) % 10 if targeted else None
    radii = [8 * radius for radius in RADII] if attack.norm == "l2" else RADII
    net = CountedGradients(trained).eval()
    curve = robustness_curve(attack, radii, net, inputs, labels, targets)
    mine, net.gradients = net.gradients, 0
    fooled = torch.stack(
        [replace(attack, eps=radius)(net, inputs, labels, targets=targets).fooled for radius in radii], dim=1
    )
    by_curve = curve.broken_at[:, None] <= torch.arange(len(radii))
    if isinstance(attack, FGSM):  # one long step may overshoot where a shorter one does not: no monotone attack
        assert (fooled & ~by_curve).sum() <= 0.05 * fooled.numel()
    else:
        assert not (fooled & ~by_curve).any()
        assert mine < 0.5 * net.gradients
    broken = (curve.broken_at < len(radii)).nonzero().squeeze(1)
    predictions = trained(curve.examples[broken]).argmax(dim=1)
    assert (predictions == targets[broken] if targeted else predictions != labels[broken]).all()
    for place, radius in enumerate(radii):
        rows = (curve.broken_at == place).nonzero().squeeze(1)
        assert named_norm(attack.norm).is_inside(curve.examples[rows], inputs[rows], radius).all()


@dataclass(frozen=True)
class Wasteful(Attack):
    """Goes to the border of its ball, and only does so from a radius on."""

    eps: float = 0.1
    norm: str = "linf"
    least: float = 0.0
    survival: bool = False
    reach: float = 1.0

    def _run(self, model, samples):
        inputs, labels = samples.inputs, samples.labels
        worth = self.eps >= self.least
        examples = (inputs + min(self.eps, self.reach) * worth).clamp(0, 1)
        fooled = model(examples).argmax(dim=1) != labels
        details = {"survival": torch.ones(len(inputs))} if self.survival else {}
        return AttackResult(examples, fooled, "any iterate", details)


def brightness(inputs):
    """Class 1 where the first pixel is brighter than 0.55."""
    first = inputs.flatten(1)[:, :1]
    return torch.cat([torch.zeros_like(first), first - 0.55], dim=1)


def test_what_a_large_radius_finds_is_cut_back_to_the_smallest_that_holds_it():
    inputs, labels = torch.full((1, 2), 0.5), torch.tensor([0])
    radii = [0.01, 0.04, 0.06, 0.1, 0.2, 0.4]
    # The attack fails below 0.4, yet its example leads from there to 0.06, the first radius above 0.05.
    curve = robustness_curve(Wasteful(least=0.4), radii, brightness, inputs, labels)
    assert curve.broken_at.tolist() == [2]
    # Whether an example survives transformations a single look cannot tell, so it counts where it was found.
    assert robustness_curve(
        Wasteful(least=0.4, survival=True), radii, brightness, inputs, labels
    ).broken_at.tolist() == [5]
    assert robustness_curve(Wasteful(survival=True), radii, brightness, inputs, labels).broken_at.tolist() == [2]


def test_an_example_counts_at_its_own_distance():
    inputs, labels = torch.full((1, 2), 0.5), torch.tensor([0])
    attack = Wasteful(least=0.4, reach=0.08, survival=True)  # no cutting back; found at 0.4, it lies within 0.1
    assert robustness_curve(attack, [0.06, 0.1, 0.2, 0.4], brightness, inputs, labels).broken_at.tolist() == [1]


def test_a_known_result_is_not_computed_again(trained, digits):
    inputs, labels = digits[0][1200:1260], digits[1][1200:1260]
    attack, net = PGD(0.09, steps=20), CountedGradients(trained).eval()
    known = attack(trained, inputs, labels)
    alone = robustness_curve(attack, [0.09], net, inputs, labels, known=known)
    assert net.gradients == 0
    assert (alone.broken_at == 0).equal(known.fooled)
    whole = robustness_curve(attack, RADII, trained, inputs, labels, known=known)
    assert ((whole.broken_at <= RADII.index(0.09)) >= known.fooled).all()


def test_at_radius_zero_stands_natural_accuracy(trained, digits):
    inputs, labels = digits
    wrong = trained(inputs[1200:]).argmax(1) != labels[1200:]
    curve = robustness_curve(PGD(steps=3), [0, 0.05], trained, inputs[1200:], labels[1200:])
    assert (curve.broken_at == 0).equal(wrong)
    assert 0 < wrong.sum() < len(wrong)


def test_the_network_is_left_alone_and_batches_do_not_matter(network, digits, unchanged):
    inputs, labels = digits[0][:30], digits[1][:30]
    attack, ids = PGD(steps=4, restarts=1), torch.arange(30)
    whole = unchanged(network, lambda: robustness_curve(attack, RADII, network, inputs, labels))
    parts = [
        robustness_curve(attack, RADII, network, inputs[part], labels[part], sample_ids=part).broken_at
        for part in ids.split(7)
    ]
    assert torch.cat(parts).equal(whole.broken_at)


def test_no_sample_at_all(trained, digits):
    curve = robustness_curve(PGD(), [0.1], trained, digits[0][:0], digits[1][:0])
    assert curve.broken_at.shape == (0,)


@pytest.mark.parametrize(
    ("attack", "radii", "message"),
    [
        (PGD(), [], r"eps_sweep must be a list of radii, got \[\]"),
        (PGD(), [0.2, 0.1], "eps_sweep must increase from radius to radius, got 0.2, 0.1; sort it"),
        (PGD(), [0.1, 0.1], "eps_sweep must increase"),
        (PGD(), [0.1, 8], "eps_sweep must lie in .0, 1. pixel units, got 8; for 8 grey levels of 255 write 8/255"),
    ],
)
def test_bad_radii(attack, radii, message, trained, digits):
    with pytest.raises(UserError, match=message):
        robustness_curve(attack, radii, trained, digits[0][:2], digits[1][:2])


def test_attacks_without_a_radius_to_set_are_refused(trained, digits):
    for maker in (torchattacks.PGD, torchattacks.DeepFool):
        with pytest.raises(UserError, match=r"needs an attack whose radius can be set, got torchattacks\.\w+; use"):
            robustness_curve(from_torchattacks(maker, trained), [0.1], trained, digits[0][:2], digits[1][:2])
