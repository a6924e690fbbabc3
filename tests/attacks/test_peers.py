"""Against torchattacks at the same budget: the same examples where the method is the same, else never weaker."""

import pytest
import torch
import torchattacks

from lightning_poison.attacks import BIM, FGSM, PGD

RADII = {"linf": (0.05, 0.1, 0.15), "l2": (0.3, 0.6, 0.9)}


@pytest.fixture
def test_points(digits):
    return digits[0][1200:1500], digits[1][1200:1500]


def keeps_label(net, examples, labels):
    with torch.no_grad():
        return net(examples).argmax(1) == labels


def aimed(peer):
    peer.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % 10)
    return peer


@pytest.mark.parametrize("eps", RADII["linf"])
def test_fgsm_gives_the_peers_examples(eps, trained, test_points):
    inputs, labels = test_points
    theirs = torchattacks.FGSM(trained, eps=eps)(inputs, labels)
    ours = FGSM(eps)(trained, inputs, labels)
    right = keeps_label(trained, inputs, labels)  # the others need no attack
    torch.testing.assert_close(ours.examples[right], theirs[right], rtol=0, atol=1e-6)
    assert ours.fooled.equal(~keeps_label(trained, theirs, labels) | ~right)


@pytest.mark.parametrize("eps", RADII["linf"])
@pytest.mark.parametrize("targeted", [False, True])
def test_bim_and_pgd_give_the_peers_examples_in_linf(eps, targeted, trained, test_points):
    inputs, labels = test_points
    targets = (labels + 1) % 10 if targeted else None
    for alpha, ours, peer in (
        (
            eps / 10,
            BIM(eps, steps=10, success="last iterate"),
            torchattacks.BIM(trained, eps=eps, alpha=eps / 10, steps=10),
        ),
        (
            eps / 4,
            PGD(eps, steps=10, step_size=eps / 4, losses=("cross_entropy",), success="last iterate"),
            torchattacks.PGD(trained, eps=eps, alpha=eps / 4, steps=10, random_start=False),
        ),
    ):
        theirs = (aimed(peer) if targeted else peer)(inputs, labels)
        found = ours(trained, inputs, labels, targets=targets)
        with torch.no_grad():
            clean, attacked = trained(inputs).argmax(1), trained(theirs).argmax(1)
        done = (clean == targets) if targeted else (clean != labels)
        reached = (attacked == targets) if targeted else (attacked != labels)
        # Where a gradient is zero up to rounding its sign is a coin's: a few pixels of a few samples.
        same = ((found.examples - theirs).flatten(1).abs().amax(dim=1) < 1e-5)[~done]
        assert same.float().mean() > 0.98, f"step {alpha}"
        assert (found.fooled != (reached | done)).sum() <= 1


@pytest.mark.parametrize("eps", RADII["l2"])
def test_pgd_in_l2_is_not_weaker_than_the_peer(eps, trained, test_points):
    # The peer projects onto the ball first and clips to the box then, which lands inside the ball where the nearest
    # point lies on its border: the ways differ wherever a pixel meets the box.
    inputs, labels = test_points
    peer = torchattacks.PGDL2(trained, eps=eps, alpha=eps / 4, steps=10, random_start=False)
    theirs = keeps_label(trained, peer(inputs, labels), labels) & keeps_label(trained, inputs, labels)
    attack = PGD(eps, steps=10, step_size=eps / 4, norm="l2", losses=("cross_entropy",), success="last iterate")
    ours = ~attack(trained, inputs, labels).fooled
    assert ours.sum() <= theirs.sum() + 1
    assert 0 < ours.sum() < len(ours)


@pytest.mark.parametrize(("norm", "eps"), [(norm, eps) for norm in RADII for eps in RADII[norm]])
def test_the_worst_case_over_losses_is_never_weaker(norm, eps, trained, test_points):
    inputs, labels = test_points
    attack = PGD(eps, steps=20, norm=norm, losses=("cross_entropy", "margin", "dlr"))
    ours = ~attack(trained, inputs, labels).fooled
    peer = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    theirs = peer(trained, eps=eps, alpha=2.5 * eps / 20, steps=20, random_start=False)(inputs, labels)
    assert ours.sum() <= keeps_label(trained, theirs, labels).sum()
    assert not (ours & ~keeps_label(trained, theirs, labels)).sum() > 1


@pytest.mark.parametrize("eps", [0.1, 0.15])
def test_automatic_attack_of_the_peer_finds_little_more(eps, trained, test_points):
    # An ensemble with a black-box part and a hundred steps: what is left to find beyond the worst case over losses.
    inputs, labels = test_points[0][:60], test_points[1][:60]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = keeps_label(trained, torchattacks.APGD(trained, eps=eps, steps=50, loss="dlr")(inputs, labels), labels)
    ours = ~PGD(eps, steps=50, losses=("cross_entropy", "margin", "dlr"))(trained, inputs, labels).fooled
    assert ours.sum() <= theirs.sum() + 1
