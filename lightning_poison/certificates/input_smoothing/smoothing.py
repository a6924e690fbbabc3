r"""Randomised smoothing of a classifier's input: votes on noisy copies, predict and certify.

The certificate of a vote is that of :func:`l2_radius`, where theorem and proof stand. The votes are looked at before
all are in, which does not spoil it:

A look at n_i copies, f_i of them against the class, gives an upper bound u_i on the probability of another class that
fails with probability at most alpha_i. All bounds hold at once with probability at least :math:`1 - \sum_i \alpha_i =
1 - \alpha` (union bound), whenever and for whatever reason drawing stops. So the smallest one counts, and the rule that
stops may be anything; it costs power only.

Here the last look has half of alpha, the others share the rest, and each look has about twice as many copies as the one
before. A point is done as soon as every radius asked about is either reached or out of reach.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy.special import betainc, ndtri
from torch import Tensor, nn

from lightning_poison.attacks import class_scores, frozen_eval, is_stochastic
from lightning_poison.attacks.model import batch_layout
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer_field, check_number
from lightning_poison.functional.intervals import binomial_lower, binomial_upper
from lightning_poison.functional.random_streams import fill_gaussian

__all__ = ["InputSmoothing", "InputSmoothingCertificate", "Looks", "NoisyVotes", "check_deterministic", "l2_radius"]

_ABSTAINED = -1
"""Stands for a prediction where the votes allow none."""
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
        return InputSmoothingCertificate(torch.where(certain, chosen, _ABSTAINED), radius.clamp(min=0), draws)

    def _predict(self, votes: NoisyVotes, rows: Tensor) -> InputSmoothingCertificate:
        top = votes.count(rows, 0, self.n, "predict").topk(2, dim=1)
        first, second = top.values.double().unbind(1)
        tail = torch.as_tensor(betainc(first.numpy(), second.numpy() + 1, 0.5))  # P[Bin(first + second, 1/2) >= first]
        prediction = torch.where(2 * tail <= self.alpha, top.indices[:, 0], _ABSTAINED)
        return InputSmoothingCertificate(prediction, torch.zeros_like(first), torch.full_like(rows, self.n))


@dataclass(frozen=True)
class InputSmoothingCertificate:
    """Predictions of a smoothed classifier, with the size of the changes that cannot alter them.

    Args:
        prediction: shape (m,), int64; -1 where it abstains.
        radius: shape (m,), float64, in pixel units: no change of the input with an l2 norm of at most so much alters
            the prediction of the smoothed classifier, but for the error probability alpha; 0 where it abstains.
        draws: shape (m,), int64: noisy copies that went through the network.
    """

    prediction: Tensor
    radius: Tensor
    draws: Tensor

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def abstained(self) -> Tensor:
        """Where it makes no prediction: shape (m,), bool."""
        return self.prediction == _ABSTAINED


def l2_radius(error: Tensor, sigma: float) -> Tensor:
    r"""The certified radius :math:`\sigma \Phi^{-1}(1 - u)`, rounded down; -1 where u is 1/2 or more.

    Theorem (Cohen, Rosenfeld and Kolter, 2019, "Certified adversarial robustness via randomized smoothing", theorem 1
    with the runner-up bounded by 1 - p): if the class has probability p > 1/2 under noise N(0, sigma^2 I), then it is
    the likeliest for every input at a distance less than :math:`\sigma \Phi^{-1}(p)`. Proof: by the Neyman-Pearson
    lemma the least probability that the class can have at distance d is :math:`\Phi(\Phi^{-1}(p) - d / \sigma)`, that
    of a half-space; it exceeds 1/2 up to the radius. A tie at the radius itself is excluded by rounding down.

    Args:
        error: shape (m,), float64: upper bound u on 1 - p.
        sigma: standard deviation of the noise, in pixel units.

    Returns:
        shape (m,), float64, in pixel units.

    Example:
        >>> l2_radius(torch.tensor([0.001, 0.4, 0.5], dtype=torch.float64), sigma=1.0)
        tensor([ 3.0902,  0.2533, -1.0000], dtype=torch.float64)
    """
    quantile = -torch.as_tensor(ndtri(error.numpy()))  # of 1 - u, without forming it
    radius = sigma * quantile * (1 - _ROUNDING) - _ROUNDING * sigma
    return torch.where((error < 0.5) & (radius > 0), radius, -1.0)


# --- looks at the votes -----------------------------------------------------------------------------------------------

_SMALLEST = 300  # copies of the first look, at least
_HOPE = 1e-3  # a radius is given up that only this share of equally good points could still reach
_ROUNDING = 1e-12


class Looks:
    """When to look, and what each look says.

    Args:
        n: copies in all.
        alpha: probability that any bound is wrong.
        sigma: standard deviation of the noise.
        radii: what is asked about; empty: look once, at the end.

    Attributes:
        sizes: number of copies at each look, increasing; the last one is ``n``.
        levels: the error probability of each look; they add up to at most alpha.

    Example:
        >>> Looks(3000, 0.001, 0.25, radii=[0.5]).sizes
        [300, 700, 1500, 3000]
    """

    def __init__(self, n: int, alpha: float, sigma: float, radii: Sequence[float] = ()) -> None:
        self.sizes, size = [n], n
        while radii and size // 2 >= _SMALLEST:
            size //= 2
            self.sizes.insert(0, size // 100 * 100)
        early = len(self.sizes) - 1
        self.levels = [*[alpha / 2 / early] * early, alpha / 2] if early else [alpha]
        self._sigma, self._radii = sigma, torch.tensor(sorted({0.0, *radii}), dtype=torch.float64)

    def bound(self, look: int, against: Tensor) -> Tensor:
        """Upper bound on the probability of the other classes, float64, from the number of votes against."""
        return binomial_upper(against, self.sizes[look], self.levels[look])

    def undecided(self, look: int, against: Tensor, bound: Tensor) -> Tensor:
        """Where more copies may still reach one of the radii: shape (m,), bool.

        Args:
            look: the present look.
            against: shape (m,), integers: votes for other classes so far.
            bound: shape (m,), float64: the smallest upper bound so far.
        """
        if look == len(self.sizes) - 1:
            return torch.zeros(len(against), dtype=torch.bool)
        reached = l2_radius(bound, self._sigma)
        possible = torch.minimum(
            l2_radius(self.bound(len(self.sizes) - 1, against), self._sigma),  # no vote against any more
            l2_radius(binomial_lower(against, self.sizes[look], _HOPE), self._sigma),
        )
        asked = self._radii[None, :]
        return ((asked > reached[:, None]) & (asked <= possible[:, None])).any(1)


# --- votes on noisy copies --------------------------------------------------------------------------------------------

_COPIES = 100  # drawn from one stream


class NoisyVotes:
    """Counts, for each point, how often each class is predicted on copies with Gaussian noise.

    The noise of a copy belongs to the point and to the number of the copy: it does not depend on how points are
    batched or spread over ranks. One buffer holds the copies of a batch; noise is drawn into it and the points are
    added, so that memory is that of one batch.

    Args:
        model: maps (N, ...) to logits (N, K); it is put into eval mode while it votes.
        inputs: shape (m, ...), float.
        sample_ids: shape (m,), integers: what the noise of a point depends on, such as its position in the data set.
        sigma: standard deviation of the noise, in pixel units.
        seed: of the noise.
        batch_size: copies that go through the model at once.

    Raises:
        UserError: inputs are not finite, or the ids don't match them.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, sample_ids: Tensor, sigma: float, seed: int, batch_size: int
    ) -> None:
        if not inputs.is_floating_point() or inputs.ndim < 2:
            raise UserError(f"inputs must be a batch of floats, got shape {tuple(inputs.shape)}, dtype {inputs.dtype}")
        if sample_ids.shape != inputs.shape[:1]:
            raise UserError(f"sample_ids must have one entry for each of {len(inputs)} inputs, got {len(sample_ids)}")
        self._model, self._sigma, self._seed, self._batch_size = model, sigma, seed, batch_size
        self._ids: list[int] = sample_ids.tolist()
        with _voting(model):  # tensors made in inference mode could not be written to
            self._inputs = check_finite("inputs", inputs.clone(), remedy="remove the broken samples")
            self._buffer = self._inputs.new_empty(max(batch_size, _COPIES), *inputs.shape[1:])
            self._layout = batch_layout(model, self._inputs)
            self.num_classes = check_deterministic(model, self._inputs) if len(inputs) else 2

    def count(
        self, rows: Tensor, first: int, last: int, stream: str, advance: Callable[[int], object] = lambda _: None
    ) -> Tensor:
        """Votes of the copies with numbers in [``first``, ``last``).

        Args:
            rows: shape (m',), int64: which points.
            first: a multiple of 100.
            last: number of the last copy, plus 1.
            stream: tells the noise of one purpose from another's.
            advance: called with the number of copies voted on, batch by batch.

        Returns:
            shape (m', K), int64, on the CPU.
        """
        pieces = deque(
            (place, row, begin, min(_COPIES, last - begin))
            for place, row in enumerate(rows.tolist())
            for begin in range(first, last, _COPIES)
        )
        with _voting(self._model):
            votes = torch.zeros(len(rows) * self.num_classes, dtype=torch.int64, device=self._inputs.device)
            while pieces:
                held, owners = 0, []
                while pieces and held + pieces[0][3] <= len(self._buffer):
                    place, row, begin, copies = pieces.popleft()
                    part = self._buffer[held : held + copies]
                    fill_gaussian(part, self._sigma, self._seed, stream, self._ids[row], begin).add_(self._inputs[row])
                    owners.append(torch.full((copies,), place * self.num_classes))
                    held += copies
                votes += self._votes(held, torch.cat(owners), len(votes))
                advance(held)
        return votes.reshape(len(rows), self.num_classes).cpu()

    def _votes(self, held: int, owners: Tensor, size: int) -> Tensor:
        batches = torch.split(self._buffer[:held], self._batch_size)
        predictions = [class_scores(self._model, self._layout(batch)).argmax(1) for batch in batches]
        return torch.bincount(owners.to(self._inputs.device) + torch.cat(predictions), minlength=size)


@contextmanager
def _voting(model: nn.Module) -> Iterator[None]:
    with frozen_eval(model), torch.no_grad():
        yield


def check_deterministic(model: nn.Module, inputs: Tensor) -> int:
    """The number of a model's classes, if its scores of an input depend on nothing but that input.

    The theorem is about the function that is smoothed: its copies' votes must be independent draws.

    Args:
        model: maps (n, ...) to logits (n, K); call it within ``frozen_eval(model)``.
        inputs: shape (m, ...), float, at least one.

    Raises:
        UserError: the scores of the same inputs differ from pass to pass, or in other company.
    """
    company = torch.cat([inputs[:3], 0.5 * inputs[:1], 1 - inputs[:1]])[:3]
    if is_stochastic(model, company):
        raise UserError(
            "the victim's scores of the same input differ from pass to pass (noise, dropout or augmentation that stay "
            "on in eval mode, or statistics of the batch), so that there is no function to certify; switch that off in "
            "eval mode, the smoothing draws its own noise"
        )
    return class_scores(model, inputs[:1]).shape[1]
