"""Black box with decisions only: a substitute network trained on them, and examples that transfer from it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_poison.attacks.base import Attack, AttackResult, Criterion, NormName, check_sizes
from lightning_poison.attacks.engine import Look, ball_move, network_look, walk
from lightning_poison.attacks.model import check_samples, class_scores, frozen_eval, input_gradients
from lightning_poison.attacks.samples import Samples
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.functional.losses import named_loss
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Pixels, Radius
from lightning_poison.functional.random_streams import generator, kept_random_state, mix_seed

__all__ = ["SubstituteTransfer", "augmented", "decisions"]

_QUERIES_AT_ONCE = 256
_BATCH_SIZE = 64


@dataclass(frozen=True)
class SubstituteTransfer(Attack):
    """Train a network on the victim's decisions, attack that one, and hope that its examples fool the victim too.

    Papernot et al., "Practical black-box attacks against machine learning", 2017. The attacker sees decisions alone:
    of the victim's scores only the largest one's place is used, and their number, since the classes among which a
    service decides are no secret. :meth:`prepare` asks the victim about ``own_inputs`` inputs that are not
    evaluated, trains the substitute on the answers, and ``rounds`` times adds to each point another one, a step along
    the sign of the gradient of its class's score, and its answer. Examples are then made by steps on the substitute
    that go on to the end, past its own border: those that just cross it transfer less.

    A sample counts as fooled if the victim decides wrongly on the clean input or on the example. ``details`` hold
    "queries" (1, and for samples that were right 2; the queries of the training are the prepared attack's
    ``training_queries``), "agreement" (1 where the substitute decides as the victim on the clean input) and
    "transferred" (among samples that the victim has right and whose example fools the substitute, 1 where it fools
    the victim).

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        steps: number of steps on the substitute.
        step_size: length of a step in pixel units; None: ``2.5 * eps / steps``.
        norm: "linf", "l2" or "l1".
        loss: of the substitute, what the steps ascend.
        net: the substitute before training, which is a copy of it, with one logit a class; None: a small network made
            for the inputs' shape.
        own_inputs: how many inputs the attacker has to begin with.
        rounds: how often their number is doubled: ``own_inputs * 2**rounds`` queries in all.
        epochs: of training in each round.
        lr: learning rate of the training.
        augmentation_step: length of the steps that make new points, the paper's lambda, in pixel units.
        seed: of the substitute's first weights and of the order in training.
        substitute: the trained network, which :meth:`prepare` fills in; or any other network of one's own, from which
            examples are to transfer.
        training_queries: how many decisions the training took, filled in likewise.

    Raises:
        UserError: an argument is out of its range; on the call: the attack has not been prepared.

    Example:
        >>> victim = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> attack = SubstituteTransfer(eps=0.2, own_inputs=20, rounds=1).prepare(victim, torch.rand(20, 1, 2, 2))
        >>> attack.training_queries
        40
        >>> sorted(attack(victim, torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)).details)
        ['agreement', 'queries', 'transferred']
    """

    eps: Radius = 0.1
    steps: int = 40
    step_size: Radius | None = None
    norm: NormName = "linf"
    loss: str = "cross_entropy"
    net: nn.Module | None = field(default=None, repr=False)
    own_inputs: int = 150
    rounds: int = 4
    epochs: int = 10
    lr: float = 2e-3
    augmentation_step: Pixels = 0.1
    seed: int = 0
    substitute: nn.Module | None = field(default=None, repr=False, compare=False)
    training_queries: int = field(default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)
        object.__setattr__(self, "augmentation_step", float(Pixels(self.augmentation_step)))
        check_integer_field(self, "steps", minimum=1, remedy="use steps=40")
        check_integer_field(self, "own_inputs", minimum=2, remedy="use own_inputs=150")
        check_integer_field(self, "rounds", minimum=0)
        check_integer_field(self, "epochs", minimum=1)
        check_number_field(self, "lr", minimum=1e-8, maximum=1, remedy="use lr=0.002")
        named_loss(self.loss)
        for name, net in (("net", self.net), ("substitute", self.substitute)):
            if net is not None and not isinstance(net, nn.Module):
                raise UserError(
                    f"{name} must be a torch.nn.Module, got {type(net).__name__}; make one, or leave it out"
                )

    @property
    def success(self) -> Criterion:
        """Only the clean input and the end of the way are shown to the victim."""
        return "last iterate"

    def prepare(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> SubstituteTransfer:
        """Train the substitute; the victim and the global random state are left as they were found.

        Args:
            model: the victim, of which decisions are used.
            inputs: shape (:attr:`own_inputs`, ...), float, in [0, 1].

        Returns:
            a copy of this attack that holds the substitute; the attack itself if it has one already.

        Raises:
            UserError: there are fewer than 2 inputs, or the substitute doesn't have one logit for each class.
        """
        if self.substitute is not None:
            return self
        if len(inputs) < 2:
            raise UserError(f"a substitute needs at least 2 inputs of the attacker's own, got {len(inputs)}; give more")
        with frozen_eval(model), kept_random_state(mix_seed(self.seed, "substitute"), inputs.device):
            inputs = inputs.detach().clone()
            inputs = check_samples(inputs, torch.zeros(len(inputs), dtype=torch.int64), None)
            labels, num_classes = decisions(model, inputs)
            net = _small_network(inputs.shape[1:], num_classes) if self.net is None else copy.deepcopy(self.net)
            net = net.to(inputs)
            with torch.no_grad():
                width = net.eval()(inputs[:1]).shape[-1]
            if width != num_classes:
                raise UserError(
                    f"net must have one logit for each of the victim's {num_classes} classes, got {width}; "
                    f"set its number of classes to {num_classes}, or leave net out"
                )
            training = _SubstituteTraining(self.rounds, self.epochs, self.lr, self.augmentation_step, self.seed)
            net, queries = training.run(net, lambda points: decisions(model, points)[0], inputs, labels)
        return replace(self, substitute=net, training_queries=queries)

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        if self.substitute is None:
            raise UserError(
                "SubstituteTransfer has no substitute yet; call attack = attack.prepare(victim, inputs) with inputs "
                "that are not evaluated, and use what it returns"
            )
        examples, transferred = samples.inputs.clone(), torch.full_like(samples.labels, torch.nan, dtype=torch.float64)
        agreement, queries = torch.zeros_like(transferred), torch.ones_like(transferred)
        fooled = torch.zeros_like(samples.labels, dtype=torch.bool)
        if len(samples):
            clean, num_classes = decisions(model, samples.inputs)
            agreement = (clean == decisions(self.substitute, samples.inputs)[0]).double()
            fooled = _misled(clean, samples, num_classes)
            rows = (~fooled | samples.stochastic).nonzero().squeeze(1)
        if len(samples) and len(rows):
            right = samples[rows]
            examples[rows], crossed = self._craft(self.substitute, right)
            crossed &= ~fooled[rows]
            fooled[rows] = _misled(decisions(model, examples[rows])[0], right, num_classes)
            transferred[rows[crossed]] = fooled[rows[crossed]].double()
            queries[rows] = 2
        details = {"queries": queries, "agreement": agreement, "transferred": transferred}
        return AttackResult(examples, fooled, self.success, details)

    def _craft(self, substitute: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
        """Examples by steps on the substitute, and which of them fool it."""
        step_size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        move = ball_move(named_norm(self.norm), samples.inputs, self.eps, step_size)
        with frozen_eval(substitute):
            look = _to_the_end(network_look(substitute, samples, named_loss(self.loss)))
            ends = walk(samples.inputs, look, move, max_steps=self.steps).ends
            examples = samples.inputs if ends is None else ends
            found, num_classes = decisions(substitute, examples)
        return examples, _misled(found, samples, num_classes)


def _to_the_end(look: Look) -> Look:
    """The same look, which finds nobody at the goal."""

    def restless(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        hit, gradients = look(points, rows, with_gradient)
        return torch.zeros_like(hit), gradients

    return restless


def _misled(found: Tensor, samples: Samples, num_classes: int) -> Tensor:
    """Which samples these decisions, shape (n,), fool."""
    return samples.fooled(nn.functional.one_hot(found, num_classes))


# --- training the substitute ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SubstituteTraining:
    """Rounds of asking, training and augmenting; each round but the last doubles the points.

    Attributes:
        rounds: how often the points are augmented.
        epochs: over all points so far, after each asking.
        lr: of Adam.
        step: of the augmentation, in pixel units.
        seed: of the order of the points.
    """

    rounds: int
    epochs: int
    lr: float
    step: float
    seed: int

    def run(
        self, net: nn.Module, ask: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor
    ) -> tuple[nn.Module, int]:
        """Train ``net`` in place, within gradients enabled.

        Args:
            net: the substitute.
            ask: gives the victim's decisions on points (n, ...), shape (n,).
            inputs: shape (N, ...), in [0, 1]: the attacker's own points.
            labels: shape (N,), int64: the victim's decisions on them.

        Returns:
            the trained network, in eval mode and frozen; how many decisions were asked for, ``labels`` included.
        """
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        order = generator(self.seed, "substitute order")
        self._fit(net, optimizer, inputs, labels, order)
        for _ in range(self.rounds):
            net.eval().requires_grad_(False)
            more = augmented(net, inputs, labels, self.step)
            inputs, labels = torch.cat((inputs, more)), torch.cat((labels, ask(more)))
            self._fit(net, optimizer, inputs, labels, order)
        return net.eval().requires_grad_(False), len(inputs)

    def _fit(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, order: torch.Generator
    ) -> None:
        net.train().requires_grad_(True)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(inputs), generator=order).to(inputs.device), _BATCH_SIZE):
                loss = cross_entropy(class_scores(net, inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # of torch
                optimizer.step()
        optimizer.zero_grad()


def augmented(net: nn.Module, inputs: Tensor, labels: Tensor, step: float) -> Tensor:
    """Where to ask next: ``clip(x + step * sign(d F_c(x) / dx))``, F_c the score of the class c that x was given.

    Jacobian-based augmentation (Papernot et al., 2017, section 4.2): the new points lie where the substitute's
    decision changes most.

    Args:
        net: the substitute, its weights frozen.
        inputs: shape (N, ...), in [0, 1].
        labels: shape (N,), int64: the victim's decisions.
        step: the paper's lambda, in pixel units.

    Returns:
        shape (N, ...), in [0, 1].

    Example:
        >>> net = nn.Linear(2, 2, bias=False).requires_grad_(False)
        >>> _ = net.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
        >>> augmented(net, torch.tensor([[0.5, 0.0]]), torch.tensor([0]), 0.1)
        tensor([[0.6000, 0.0000]])
    """
    parts = []
    for rows in torch.split(torch.arange(len(inputs), device=inputs.device), _QUERIES_AT_ONCE):
        points = inputs[rows].requires_grad_()
        own_scores = class_scores(net, points).gather(1, labels[rows, None]).sum()
        parts.append((points.detach() + step * input_gradients(own_scores, points).sign()).clamp(0, 1))
    return torch.cat(parts)


def decisions(model: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, int]:
    """What the model decides, and among how many classes; nothing else of its scores leaves this function.

    Args:
        model: maps (n, ...) to scores (n, K).
        inputs: shape (N, ...), N >= 1.

    Returns:
        classes, shape (N,), int64; the number of classes K.

    Example:
        >>> decisions(lambda x: x, torch.tensor([[0.1, 0.9], [0.8, 0.3]]))
        (tensor([1, 0]), 2)
    """
    with torch.no_grad():
        scores = [class_scores(model, part) for part in torch.split(inputs, _QUERIES_AT_ONCE)]
        return torch.cat([part.argmax(dim=1) for part in scores]), scores[0].shape[1]


def _small_network(shape: torch.Size, num_classes: int) -> nn.Module:
    """Two 3x3 convolutions with max pooling for images, two hidden layers for anything else.

    Args:
        shape: of one input.
        num_classes: number of logits.

    Example:
        >>> _small_network(torch.Size([1, 28, 28]), 10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    if len(shape) == 3 and min(shape[1:]) >= 4:
        channels, height, width = shape
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), num_classes),
        )
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape.numel(), 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )
