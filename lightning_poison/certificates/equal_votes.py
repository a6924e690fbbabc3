r"""The certificate of votes that are all of one size, exact up to ties: half the margin.

**Learner.** Training point i votes on x with a weight :math:`w_i(x) \in \{-1, 0, 1\}` that sees no label. The score of
class c is :math:`s_c = \sum_{i: y_i = c} w_i = P_c - N_c`, the votes for less the votes against it; the prediction is
the class of the largest score, the lowest index among equals.

**Adversary.** Knows everything, and replaces up to r of the n training labels by any of the K classes.

**Theorem.** Let c be the prediction, and m > 0 the least margin :math:`s_c - s_j` to a rival j. No
:math:`\lceil m / 2 \rceil - 1` changes of labels alter the prediction, and some :math:`\lceil m / 2 \rceil` bring a
rival at least level with c.

**Proof.** One change takes w_i from one class and gives it to another, so it moves each score by at most 1 and each
margin by at most 2. After r changes with 2 r < m every margin of c is still positive. Conversely let j be the rival of
margin m. As long as :math:`s_c - s_j = P_c - N_c - P_j + N_j > 0`, there is a vote for c or a vote against j. Giving
the former to j, or the latter to c, takes 2 off the margin, and leaves a vote for j or against c, which is not chosen
again. The argument starts anew: m / 2 changes, rounded up, make the margin 0 or less. QED.

So nobody gets more than half the margin out of votes of size 1, and these do; weights of different sizes fall to
changes of the largest ones. (The same number follows from the theorem of
:mod:`lightning_poison.certificates.label_linear`, whose gains are 2, 1 and 0 here.) Scores are integers, and nothing is
rounded.

**Ties** count against us, so that the radius may be one below the largest that is true: where m is even and c has a
lower index than every rival of margin m, c wins the tie that m / 2 changes make. One more alters the prediction, as
:math:`P_c + N_j \ge m` leaves a vote for c or against j to change. In every other case the radius is exact.

**How large it gets.** Votes of +1 in x's cluster and 0 elsewhere have a margin of at most the cluster's size; -1
elsewhere adds the rival's points outside: with pure clusters :math:`m = N_c + N_j` for classes of N points, the largest
that any learner can have which treats the classes alike (:func:`lightning_poison.certificates.radius_ceiling`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["certify_equal_votes"]


def certify_equal_votes(scores: Tensor, num_points: int) -> LabelFlipCertificate:
    """Certify predictions from class scores that count votes of -1, 0 and 1.

    The theorem and its proof stand at the head of this module, and what "up to ties" means.

    Args:
        scores: shape (m, K), int64: votes for each class less votes against it, one vote a training point.
        num_points: n, the number of training points; with one class it is the radius.

    Raises:
        UserError: the scores are not integers, or no n points can have given them.

    Example:
        >>> certify_equal_votes(torch.tensor([[7, 2], [0, 1], [3, 3]]), num_points=20)
        LabelFlipCertificate(prediction=tensor([0, 1, 0]), radius=tensor([2, 0, 0]))
    """
    num_points = check_integer("num_points", num_points, minimum=1)
    if scores.ndim != 2 or scores.shape[1] == 0 or scores.dtype != torch.int64:
        got = f"shape {tuple(scores.shape)}, dtype {scores.dtype}"
        raise UserError(f"scores must be an int64 matrix (points, classes), got {got}; count votes in integers")
    if (scores.abs().sum(dim=1) > num_points).any():
        largest = int(scores.abs().sum(dim=1).max())
        raise UserError(f"scores must come from at most num_points={num_points} votes a row, got {largest}")
    prediction = scores.argmax(dim=1)
    if scores.shape[1] == 1:
        return LabelFlipCertificate(prediction, torch.full_like(prediction, num_points))
    first, second = scores.topk(2, dim=1).values.unbind(dim=1)
    fewest = torch.div(first - second + 1, 2, rounding_mode="floor")
    return LabelFlipCertificate(prediction, (fewest - 1).clamp(min=0))
