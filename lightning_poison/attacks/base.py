"""What every attack is: a value that, called with a model and a batch, returns adversarial examples."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.attacks.model import frozen_eval
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import StochasticVictimWarning, fresh_verdicts, is_stochastic
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice
from lightning_poison.functional.norms import NORMS, named_norm
from lightning_poison.functional.pixels import Radius

__all__ = [
    "MASKED_SHARE",
    "MASKING_REMEDY",
    "Attack",
    "AttackResult",
    "Criterion",
    "GradientMaskingWarning",
    "NormName",
    "check_sizes",
    "checked_radius",
]

Criterion = Literal["any iterate", "last iterate", "fresh evaluation"]
NormName = Literal["linf", "l2", "l1"]

MASKED_SHARE = 0.1
"""Share of samples with a first gradient of exactly zero above which a measurement is doubted."""
MASKING_REMEDY = (
    "use losses margin or dlr, let the network return logits rather than probabilities, attack in float64 "
    "(--trainer.precision=64-true), or take FiniteDifferences with a larger sigma or torchattacks.Square"
)
_MASKED = (
    "the gradient is exactly zero on more than a tenth of the samples (gradient masking), so the attack is blind there "
    f"and overstates the robustness; {MASKING_REMEDY}"
)
_FRESH = "attacks go their whole way, and one fresh evaluation of each final example counts"
_BLOCK = 2048  # samples at once: of them there are a few copies


class GradientMaskingWarning(UserWarning):
    """The network's gradients say nothing on many samples (gradient masking).

    Source: Athalye et al., "Obfuscated gradients give a false sense of security", 2018.
    """


@dataclass(frozen=True)
class AttackResult:
    """Adversarial examples and whether they succeed.

    Attributes:
        examples: shape (N, ...), each within the attack's ball and [0, 1].
        fooled: shape (N,), bool. Untargeted: the prediction is not the label. Targeted: it is the target.
        criterion: which points of an attack's way are looked at: any of them, or its start and its end; or, of a
            stochastic victim, its end in a pass of its own.
        details: more figures, each of shape (N,), float, NaN where a sample has none:
            "queries": how often the network was asked for the sample's scores or decision;
            "zero_gradient": 1 where the first gradient was exactly zero, with several losses that of each;
            "l2": Euclidean size of the perturbation, in pixel units;
            "survival": share of random transformations under which the example fools;
            "agreement": 1 where a substitute network predicts the clean sample as the victim does;
            "transferred": of the examples that fool the substitute, 1 where they fool the victim.
    """

    examples: Tensor
    fooled: Tensor
    criterion: Criterion
    details: Mapping[str, Tensor] = field(default_factory=dict)


class Attack(ABC):
    """Base of the attacks; concrete ones are frozen dataclasses.

    Attributes:
        eps: radius in pixel units of [0, 1]; infinite where the attack has no bound.
        norm: of the ball; None where the attack has no bound.
    """

    eps: float
    norm: str | None

    @property
    def name(self) -> str:
        """What tables call the attack."""
        return type(self).__name__

    @property
    def own_inputs(self) -> int:
        """How many inputs of the attacker's own :meth:`prepare` wants; 0 where there is nothing to prepare."""
        return 0

    def prepare(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Attack:  # noqa: ARG002  # for overriders
        """Learn what the attack has to know of the model before it attacks anything.

        Args:
            model: the victim.
            inputs: shape (:attr:`own_inputs`, ...): inputs that are not evaluated.

        Returns:
            the attack, ready to be called.
        """
        return self

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        inputs: Tensor,
        labels: Tensor,
        *,
        targets: Tensor | None = None,
        sample_ids: Tensor | None = None,
        stochastic: bool | None = None,
    ) -> AttackResult:
        """Attack samples, however many: memory beyond the examples is bounded.

        The model is put in eval mode and left exactly as found; the attack draws nothing from the global random state,
        though a stochastic model may. Warns where the first gradient is exactly zero on more than a tenth of the
        samples (:class:`GradientMaskingWarning`).

        Where the model's scores of the same inputs differ from pass to pass, one of many iterates would fool it by
        luck. It is found out (and said: :class:`~lightning_poison.attacks.stochastic.StochasticVictimWarning`), the
        attack goes its whole way, and what counts is one fresh evaluation of each final example.

        Args:
            model: maps (N, ...) in [0, 1] to logits (N, K).
            inputs: shape (N, ...), float, in [0, 1].
            labels: shape (N,), integer: the true classes.
            targets: shape (N,), integer: the classes to reach; None: any but the label.
            sample_ids: shape (N,), integer: each sample's position in its data set, which random starts are drawn
                from, so that batching doesn't change them; None: 0 to N-1.
            stochastic: whether the model's scores differ from pass to pass; None: find out by a few passes.

        Raises:
            UserError: the inputs, the labels or the model's output are unusable.
        """
        with frozen_eval(model):
            samples = Samples.checked(inputs, labels, targets, sample_ids)
            if stochastic is None:
                stochastic = is_stochastic(model, samples.inputs)
                if stochastic:
                    warnings.warn(StochasticVictimWarning(_FRESH), stacklevel=2)
            result = self._run_in_blocks(model, replace(samples, stochastic=stochastic))
            if stochastic:
                result = _judged_afresh(result, self.judge(model, result.examples, samples))
        if _share_of_zero_gradients(result) > MASKED_SHARE:
            warnings.warn(_MASKED, GradientMaskingWarning, stacklevel=2)
        return result

    def _run_in_blocks(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        """Run block by block and verify each; what comes out is laid down in place, as memory is not to grow."""
        examples, fooled = torch.empty_like(samples.inputs), torch.empty_like(samples.labels, dtype=torch.bool)
        criterion: Criterion = "any iterate"
        details: dict[str, Tensor] = {}
        for first in range(0, max(1, len(samples)), _BLOCK):
            block = slice(first, first + _BLOCK)
            part = self._run(model, samples[block])
            self._verify(part.examples, samples.inputs[block])
            examples[block], fooled[block], criterion = part.examples, part.fooled, part.criterion
            for key, values in part.details.items():
                details.setdefault(key, values.new_full((len(samples),), torch.nan))[block] = values
        return AttackResult(examples, fooled, criterion, details)

    def judge(self, model: Callable[[Tensor], Tensor], examples: Tensor, samples: Samples) -> Tensor:
        """Whether examples fool in a fresh evaluation, shape (N,), bool; call it within ``frozen_eval(model)``.

        Args:
            model: the victim.
            examples: shape (N, ...).
            samples: what they were made of.
        """
        return fresh_verdicts(model, examples, samples)

    @abstractmethod
    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        """Attack checked samples, with the model in eval mode and gradients on.

        Of ``samples.stochastic`` only the examples count: nobody is to be left out, or to stop, for one lucky draw.
        """

    def _verify(self, examples: Tensor, inputs: Tensor) -> None:
        if self.norm is None:
            inside = ((examples >= 0) & (examples <= 1)).flatten(1).all(dim=1)
        else:
            inside = named_norm(self.norm).is_inside(examples, inputs, self.eps)
        if not inside.all():
            count = int((~inside).sum())
            raise UserError(
                f"{self.name} left the {self.norm} ball of radius {self.eps:g} or the box [0, 1] on {count} of "
                f"{len(inputs)} samples, so its success says nothing; use another attack"
            )


def _judged_afresh(result: AttackResult, fooled: Tensor) -> AttackResult:
    """The same examples with other verdicts, in the details too."""
    details = dict(result.details)
    if "l2" in details:
        details["l2"] = details["l2"].masked_fill(~fooled, torch.nan)
    if "transferred" in details:
        crossed = details["transferred"]
        details["transferred"] = torch.where(crossed.isnan(), crossed, fooled.to(crossed))
    return AttackResult(result.examples, fooled, "fresh evaluation", details)


def _share_of_zero_gradients(result: AttackResult) -> float:
    zero = result.details.get("zero_gradient")
    return 0.0 if zero is None or not len(zero) else float(zero.nanmean())


def check_sizes(attack: Attack, norm: str) -> None:
    """Put the checked values of an attack's ``eps`` and ``step_size``, where it has one, in their places.

    Raises:
        UserError: one is not a size in pixel units.
    """
    for name in ("eps", "step_size"):
        value = getattr(attack, name, None)
        if value is not None:
            object.__setattr__(attack, name, checked_radius(name, value, norm))


def checked_radius(name: str, value: float, norm: str) -> float:
    """``value`` as a radius that the norm can have: at most 1 for l_inf.

    Raises:
        UserError: it is not a size in pixel units.

    Example:
        >>> checked_radius("eps", 8, "linf")
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: eps must lie in [0, 1] pixel units, got 8; for 8 grey levels of 255 write \
8/255
    """
    check_choice("norm", norm, NORMS)
    radius = float(Radius(value))
    if norm == "linf" and radius > 1:
        raise UserError(
            f"{name} must lie in [0, 1] pixel units, got {radius:g}; "
            f"for {radius:g} grey levels of 255 write {radius:g}/255"
        )
    return radius
