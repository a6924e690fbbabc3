"""PGD with 40 steps against its peers, at identical adversarial accuracy.

Peers that are not installed are left out; ``pip install '.[benchmarks]'`` brings all of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import NETWORKS, trained_network
from lightning_poison.attacks import PGD

__all__ = ["run"]

POINTS, BATCH, STEPS = 384, 128, 40
EARLY_EXIT = {0.1: 1 / 2.5, 0.2: 1 / 4}


@dataclass(frozen=True)
class Peer:
    """Somebody's PGD with cross-entropy from the clean image.

    Attributes:
        title: as tables call it.
        package: what has to be installed.
        make: from network, radius and step to a function from images and labels to examples.
    """

    title: str
    package: str
    make: Callable[[nn.Module, float, float], Callable[[Tensor, Tensor], Tensor]]


def run() -> list[Row]:
    """The whole attack (last iterate) against every peer, and early exit (any iterate) against torchattacks."""
    rows = []
    for kind in NETWORKS:
        net, images, labels = trained_network(kind)
        images, labels = images[:POINTS], labels[:POINTS]
        installed = [peer for peer in PEERS if importlib.util.find_spec(peer.package) is not None]
        rows += [_row(kind, net, images, labels, peer, 0.1, early_exit=False) for peer in installed]
        rows += [_row(kind, net, images, labels, PEERS[0], eps, early_exit=True) for eps in EARLY_EXIT]
    return rows


def _row(kind: str, net: nn.Module, images: Tensor, labels: Tensor, peer: Peer, eps: float, *, early_exit: bool) -> Row:
    ours = PGD(
        eps=eps,
        steps=STEPS,
        losses=("cross_entropy",),
        success="any iterate" if early_exit else "last iterate",
    )
    theirs = peer.make(net, eps, 2.5 * eps / STEPS)
    batches = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    mine = torch.cat([~ours(net, *part).fooled for part in batches]).double().mean()
    other = torch.cat([net(theirs(*part)).argmax(1) == part[1] for part in batches]).double().mean()
    engine, opponent = paired_seconds(
        lambda: [ours(net, *part) for part in batches], lambda: [theirs(*part) for part in batches], rounds=3
    )
    how = "any iterate, early exit" if early_exit else "last iterate"
    subject = f"{kind}, PGD-{STEPS}, eps {eps}, {how} (adversarial accuracy {mine:.4f})"
    target = EARLY_EXIT[eps] if early_exit else 1 / 2
    return row("attacks", subject, f"{peer.title} ({other:.4f})", median_ratio(engine, opponent), target)


def _torchattacks(net: nn.Module, eps: float, step: float) -> Callable[[Tensor, Tensor], Tensor]:
    attack: Callable[[Tensor, Tensor], Tensor] = torchattacks.PGD(
        net, eps=eps, alpha=step, steps=STEPS, random_start=False
    )
    return attack


def _foolbox(net: nn.Module, eps: float, step: float) -> Callable[[Tensor, Tensor], Tensor]:
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=STEPS, random_start=False)
    return lambda images, labels: attack.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=eps)


def _art(net: nn.Module, eps: float, step: float) -> Callable[[Tensor, Tensor], Tensor]:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(
        model, eps=eps, eps_step=step, max_iter=STEPS, num_random_init=0, batch_size=BATCH, verbose=False
    )
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


PEERS = (
    Peer("torchattacks.PGD", "torchattacks", _torchattacks),
    Peer("foolbox LinfPGD", "foolbox", _foolbox),
    Peer("ART ProjectedGradientDescent", "art", _art),
)
