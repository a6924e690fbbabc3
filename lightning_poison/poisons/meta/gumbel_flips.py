"""The thesis's meta-learning of flips, as it was written: gradients through a recorded training run to the flips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.functional.fresh_networks import fresh_network
from lightning_poison.functional.losses import margin
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.nets import SmallNet
from lightning_poison.nets.building import build_net, check_net_maker
from lightning_poison.nets.defaults import mlp_for
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import BudgetedSelector, Share
from lightning_poison.poisons.meta.outer_attack import OuterAttack, input_box

__all__ = ["GumbelFlips", "gumbel_softmax", "mixed_labels", "unrolled_training"]

_ATTACK_STEPS = 10


@dataclass(frozen=True)
class GumbelFlips(BudgetedSelector):
    """Gradient ascent on flip logits through a recorded training run (thesis chapter 5): small data, for the record.

    Each flip has a logit for every point. In each update Gumbel-softmax makes almost one-hot vectors f of them, a
    network is trained from fresh weights by full-batch gradient steps on the labels y' = y (1 - f) + y_new f, all of it
    recorded; the training points are attacked on the network so trained, which is not recorded; and the logits ascend
    the loss of the attacked points with their clean labels. In the end each flip takes the point of its largest logit.

    The memory of all recorded steps is needed at once, and a short training run memorises no flip: ``MetaFlips`` solves
    the same problem better and faster.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        net: makes the network when called with ``num_classes=K``; None: a perceptron with 32 hidden neurons.
        updates: of the logits.
        rate: their length (Adam).
        temperature: of the softmax.
        steps: of the inner training.
        lr: their length.
        eps: l_inf radius in which training points are attacked.
        max_points: refuse larger data.

    Raises:
        UserError: more than one budget is given, an argument is out of its range, there are too many points, or the
            recorded training diverges.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> labels = torch.arange(8) % 2
        >>> training_set = TrainingSet(labels, 2, dataset=[(torch.rand(3), label) for label in labels.tolist()])
        >>> LabelFlips(GumbelFlips(per_class=1, updates=1)).craft(training_set, seed=0).old_label.tolist().count(0)
        1
    """

    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None
    updates: int = 30
    rate: float = 0.3
    temperature: float = 0.5
    steps: int = 30
    lr: float = 0.5
    eps: Radius = 0.05
    max_points: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_net_maker(self.net)
        for name in ("updates", "steps", "max_points"):
            check_integer_field(self, name, minimum=1)
        for name in ("rate", "temperature", "lr"):
            check_number_field(self, name, minimum=1e-6)
        check_number_field(self, "eps", minimum=0)

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Learn the logits of all shares together."""
        if all(share.budget in (0, len(share.members)) for share in shares):
            return [share.members[: share.budget] for share in shares]
        data = candidates.training_set
        if data.num_points > self.max_points:
            raise UserError(
                f"GumbelFlips records its training on all points and takes at most max_points={self.max_points}, got "
                f"{data.num_points}; use MetaFlips"
            )
        problem = _Problem(self, candidates, shares, seed)
        with data.progress("learning flips", self.updates) as advance:
            for update in range(self.updates):
                problem.ascend(update)
                advance(1)
        return [
            share.members[_by_logits(logits.detach())] for share, logits in zip(shares, problem.logits, strict=True)
        ]


class _Problem:
    """The bilevel problem in float64, so that last bits do not decide."""

    def __init__(self, rule: GumbelFlips, candidates: Candidates, shares: list[Share], seed: int) -> None:
        self.rule, self.shares, self.seed = rule, shares, seed
        data = candidates.training_set
        self.inputs, self.labels = data.inputs.double(), candidates.labels
        classes = max(data.num_classes, int(candidates.new_labels.max()) + 1)
        self.clean = functional.one_hot(self.labels, classes).double()
        new_labels = torch.where(candidates.eligible, candidates.new_labels, self.labels)
        self.flipped = functional.one_hot(new_labels, classes).double()
        net = rule.net or mlp_for(data.inputs.shape[1:], (32,))
        self.net, self.classes = net, classes
        self.attack = OuterAttack(float(rule.eps), _ATTACK_STEPS, *input_box(data.inputs))
        self.logits = [torch.zeros(share.budget, len(share.members)).double().requires_grad_() for share in shares]
        self.optimizer = torch.optim.Adam(self.logits, lr=rule.rate, maximize=True)

    def ascend(self, update: int) -> None:
        """One step of the logits."""
        stream = generator(self.seed, "GumbelFlips", update)
        seed = mix_seed(self.seed, "GumbelFlips", "weights", update)
        network = fresh_network(partial(build_net, self.net, self.classes), seed, name="net").double()
        with torch.enable_grad():
            weights = unrolled_training(
                network,
                {name: weight.detach() for name, weight in network.named_parameters()},
                self.inputs,
                mixed_labels(self.clean, self.flipped, self._flips(stream)),
                self.rule.steps,
                self.rule.lr,
            )
            attacked = self._attacked(network, {name: weight.detach() for name, weight in weights.items()})
            loss = functional.cross_entropy(functional_call(network, weights, (attacked,)), self.labels)
            slopes = torch.autograd.grad(loss, self.logits)
        for logits, slope in zip(self.logits, slopes, strict=True):
            logits.grad = slope
        self.optimizer.step()
        # Adam squares the slopes, and a step of slope / infinity is none.
        if not all(slope.square().isfinite().all() for slope in (*slopes, *map(Tensor.detach, self.logits))):
            raise UserError(
                f"lr must be lower, got {self.rule.lr:g}: update {update + 1} of GumbelFlips overflows (rate is "
                f"{self.rule.rate:g}); the defaults are lr=0.5, rate=0.3"
            )

    def _flips(self, stream: torch.Generator) -> Tensor:
        """Where each flip falls: (flips, n), with a graph to the logits."""
        rows = []
        for share, logits in zip(self.shares, self.logits, strict=True):
            uniform = torch.rand(logits.shape, generator=stream, dtype=torch.float64).clamp_min(1e-300)
            chosen = gumbel_softmax(logits, -(-uniform.log()).log(), self.rule.temperature)
            rows.append(chosen.new_zeros(len(logits), len(self.labels)).index_copy(1, share.members, chosen))
        return torch.cat(rows)

    def _attacked(self, network: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        def value(inputs: Tensor, rows: Tensor) -> Tensor:
            return -margin(functional_call(network, weights, (inputs,)), self.labels[rows])

        return self.attack.descend(self.inputs, value)


def _by_logits(logits: Tensor) -> Tensor:
    """For each flip in turn the free point of its largest logit, the first of equals: (b,) from (b, m)."""
    free = torch.zeros(logits.shape[1], dtype=torch.float64)
    chosen = []
    for row in logits:
        chosen.append(int((row + free).argmax()))
        free[chosen[-1]] = -torch.inf
    return torch.tensor(chosen, dtype=torch.int64)


# --- recorded training ------------------------------------------------------------------------------------------------


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    r"""Almost one-hot vectors: :math:`f_i = e^{(h_i + g_i) / \tau} / \sum_j e^{(h_j + g_j) / \tau}`.

    Source: Jang, Gu and Poole, 2017, eq. (2); thesis chapter 5.

    Args:
        logits: shape (..., n): h.
        noise: shape (..., n): g, draws of the Gumbel distribution, -log(-log(u)) with u uniform on (0, 1).
        temperature: tau, positive; small ones are closer to one-hot.

    Example:
        >>> import torch
        >>> gumbel_softmax(torch.tensor([0.0, 1.0]), torch.zeros(2), temperature=0.5)
        tensor([0.1192, 0.8808])
    """
    return ((logits + noise) / temperature).softmax(dim=-1)


def mixed_labels(clean: Tensor, flipped: Tensor, chosen: Tensor) -> Tensor:
    """Labels between clean and flipped: y' = y (1 - f) + y_new f (thesis chapter 5, where y_new = 1 - y).

    Args:
        clean: shape (n, K), float: one-hot y.
        flipped: shape (n, K), float: one-hot y_new.
        chosen: shape (b, n), float in [0, 1]: of each of b flips where it falls. A point counts as flipped unless every
            flip misses it: f = 1 - (1 - f_1) ... (1 - f_b), for a single flip f_1.

    Example:
        >>> import torch
        >>> mixed_labels(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25]]))
        tensor([[0.7500, 0.2500]])
    """
    flip = 1 - (1 - chosen).prod(dim=0)[:, None]
    return clean * (1 - flip) + flipped * flip


def unrolled_training(
    network: nn.Module, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor, steps: int, lr: float
) -> dict[str, Tensor]:
    """Weights after gradient steps on the cross-entropy of all points, as a differentiable function of the labels.

    Args:
        network: maps (n, ...) to logits (n, K); its own weights are not used.
        weights: to start from.
        inputs: shape (n, ...).
        labels: shape (n, K): the target distributions; a graph leads from the result to them.
        steps: how many.
        lr: their length.

    Returns:
        the weights by name.
    """

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(functional_call(network, weights, (inputs,)), labels)

    for _ in range(steps):
        slopes = grad(loss)(weights)
        weights = {name: weight - lr * slopes[name] for name, weight in weights.items()}
    return weights
