"""Black box with decisions only: a substitute network, and examples that transfer from it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lightning_poison.attacks.base import Attack, AttackResult, Criterion, NormName, check_sizes
from lightning_poison.attacks.engine import Look, ball_move, network_look, walk
from lightning_poison.attacks.model import check_samples, frozen_eval
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.substitute_training import SubstituteTraining, decisions, small_network
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.functional.losses import named_loss
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Pixels, Radius
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["SubstituteTransfer"]


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
            net = small_network(inputs.shape[1:], num_classes) if self.net is None else copy.deepcopy(self.net)
            net = net.to(inputs)
            with torch.no_grad():
                width = net.eval()(inputs[:1]).shape[-1]
            if width != num_classes:
                raise UserError(
                    f"net must have one logit for each of the victim's {num_classes} classes, got {width}; "
                    f"set its number of classes to {num_classes}, or leave net out"
                )
            training = SubstituteTraining(self.rounds, self.epochs, self.lr, self.augmentation_step, self.seed)
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
    def restless(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        hit, gradients = look(points, rows, with_gradient)
        return torch.zeros_like(hit), gradients

    return restless


def _misled(found: Tensor, samples: Samples, num_classes: int) -> Tensor:
    return samples.fooled(nn.functional.one_hot(found, num_classes))
