"""How a classifier votes on noisy copies of points."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_poison.attacks import class_scores, frozen_eval, is_stochastic
from lightning_poison.attacks.model import batch_layout
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite
from lightning_poison.functional.gaussian_noise import fill_gaussian

__all__ = ["NoisyVotes", "check_deterministic"]

_COPIES = 100  # drawn from one stream


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
