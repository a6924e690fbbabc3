"""Randomised smoothing of a classifier's input: predict and certify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.special import betainc
from torch import Tensor, nn

from lightning_poison.certificates.input_smoothing.certificate import ABSTAINED, InputSmoothingCertificate
from lightning_poison.certificates.input_smoothing.looks import Looks, l2_radius
from lightning_poison.certificates.input_smoothing.votes import NoisyVotes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number

__all__ = ["InputSmoothing"]

_POINTS = 64  # that share batches


@dataclass(frozen=True)
class InputSmoothing:
    """The smoothed classifier of Cohen, Rosenfeld and Kolter (2019), for any network.

    The smoothed classifier predicts the class that the network most often predicts when Gaussian noise is added to the
    input. Noisy pixels are not cut back to [0, 1]. Both methods are Monte Carlo: each answer is wrong with probability
    at most ``alpha``, over the drawing of the noise, point by point.

    Args:
        sigma: standard deviation of the noise in pixel units; more of it gives larger radii and fewer right answers.
            Train the network with as much (``noise_std`` of the victim).
        n0: noisy copies that choose the class to be certified.
        n: noisy copies that certify it, others than those.
        alpha: probability of a wrong certificate, or of a wrong prediction.
        seed: of the noise.
        batch_size: copies that go through the network at once.
        stop_early: stop drawing for a point once the radii asked about are decided; its certificate stays valid and
            may be smaller than with all copies.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> smoothing = InputSmoothing(sigma=0.5, n=1000)
        >>> smoothing.certify(net, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).prediction
        tensor([ 0, -1])
    """

    sigma: float = 0.25
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    seed: int = 0
    batch_size: int = 250
    stop_early: bool = True

    def __post_init__(self) -> None:
        if check_number("sigma", self.sigma, minimum=0) == 0:
            raise UserError("sigma must be positive, got 0; without noise nothing is certified")
        if not 0 < check_number("alpha", self.alpha, minimum=0, maximum=1) < 1:
            raise UserError(f"alpha must lie strictly between 0 and 1, got {self.alpha:g}; 0.001 is usual")
        for name in ("n0", "n", "batch_size"):
            check_integer_field(self, name, minimum=1)

    def certify(
        self,
        model: nn.Module,
        inputs: Tensor,
        sample_ids: Tensor | None = None,
        radii: Sequence[float] = (),
        advance: Callable[[int], object] = lambda _: None,
    ) -> InputSmoothingCertificate:
        """Predictions of the smoothed classifier with certified radii (CERTIFY of the paper).

        Args:
            model: maps (N, ...) to logits (N, K); eval mode and weights are as before afterwards.
            inputs: shape (m, ...), float, on the model's device.
            sample_ids: shape (m,), integers: positions in the data set, so that the noise does not depend on batching;
                None: 0, 1, 2, ...
            radii: the radii asked about, in pixel units; only used to ``stop_early``.
            advance: called with the number of points done; the numbers add up to m.

        Raises:
            UserError: inputs or scores are not finite, or the model returns no scores.
        """
        return self._each_group(
            model, inputs, sample_ids, lambda votes, rows: self._certify(votes, rows, radii), advance
        )

    def predict(
        self,
        model: nn.Module,
        inputs: Tensor,
        sample_ids: Tensor | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Tensor:
        """Predictions of the smoothed classifier without radii (PREDICT of the paper), -1 where it abstains.

        The class with the most of n votes is returned if a two-sided binomial test against the second one rejects, at
        level ``alpha``, that both are equally likely (Hung and Fithian, 2019).

        Args:
            model: maps (N, ...) to logits (N, K).
            inputs: shape (m, ...), float.
            sample_ids: as in :meth:`certify`.
            advance: called with the number of points done.

        Returns:
            shape (m,), int64.
        """
        return self._each_group(model, inputs, sample_ids, self._predict, advance).prediction

    def _each_group(
        self,
        model: nn.Module,
        inputs: Tensor,
        sample_ids: Tensor | None,
        task: Callable[[NoisyVotes, Tensor], InputSmoothingCertificate],
        advance: Callable[[int], object],
    ) -> InputSmoothingCertificate:
        ids = torch.arange(len(inputs)) if sample_ids is None else sample_ids
        votes = NoisyVotes(model, inputs, ids, self.sigma, self.seed, self.batch_size)
        parts = []
        for rows in torch.split(torch.arange(len(inputs)), _POINTS):
            parts.append(task(votes, rows))
            advance(len(rows))
        return InputSmoothingCertificate(
            torch.cat([part.prediction for part in parts]),
            torch.cat([part.radius for part in parts]),
            torch.cat([part.draws for part in parts]),
        )

    def _certify(self, votes: NoisyVotes, rows: Tensor, radii: Sequence[float]) -> InputSmoothingCertificate:
        looks = Looks(self.n, self.alpha, self.sigma, radii if self.stop_early else ())
        chosen = votes.count(rows, 0, self.n0, "choose").argmax(1)
        against, bound = torch.zeros_like(rows), torch.ones(len(rows), dtype=torch.float64)
        draws, active = torch.full_like(rows, self.n0), torch.arange(len(rows))
        done = 0
        for look, size in enumerate(looks.sizes):
            counts = votes.count(rows[active], done, size, "certify")
            against[active] += (size - done) - counts.gather(1, chosen[active][:, None])[:, 0]
            bound[active] = torch.minimum(bound[active], looks.bound(look, against[active]))
            draws[active] += size - done
            done = size
            active = active[looks.undecided(look, against[active], bound[active])]
            if not len(active):
                break
        radius = l2_radius(bound, self.sigma)
        certain = radius > 0
        return InputSmoothingCertificate(torch.where(certain, chosen, ABSTAINED), radius.clamp(min=0), draws)

    def _predict(self, votes: NoisyVotes, rows: Tensor) -> InputSmoothingCertificate:
        top = votes.count(rows, 0, self.n, "predict").topk(2, dim=1)
        first, second = top.values.double().unbind(1)
        tail = torch.as_tensor(betainc(first.numpy(), second.numpy() + 1, 0.5))  # P[Bin(first + second, 1/2) >= first]
        prediction = torch.where(2 * tail <= self.alpha, top.indices[:, 0], ABSTAINED)
        return InputSmoothingCertificate(prediction, torch.zeros_like(first), torch.full_like(rows, self.n))
