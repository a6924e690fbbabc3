"""Partition aggregation: learners on separate labels vote, so one changed label moves few votes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures, RawFeatures
from lightning_poison.certificates.guarantee import Certainty
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners.linear import CertifiedRidge
from lightning_poison.certificates.partitions.elections import (
    Adversary,
    OneVote,
    PricedVotes,
    SharedParts,
    certify_plurality,
    certify_run_off,
    integers_up_to,
    rank_classes,
)
from lightning_poison.certificates.retraining.engine import PartsOfData, TrainedModels
from lightning_poison.certificates.retraining.monte_carlo import RetrainedLearner, Tick
from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer
from lightning_poison.functional.point_order import OwnOrder, point_keys
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.functional.scale import IN_FLOAT32, unit_of

__all__ = ["PartitionAggregation", "deal_parts", "users_of_parts"]

Election = Literal["plurality", "run_off"]

Dealing = Literal["order", "hash", "clusters"]
"""How points are dealt out to parts."""
_BYTES_AT_ONCE = 2**29
_ANY_DIM = 2**31


class PartitionAggregation(RetrainedLearner):
    """Learners on parts of the training data vote; the prediction outlasts label changes that cannot overturn the vote.

    Features and parts are made without labels, as in SS-DPA (Levine and Feizi, 2021). The theorems stand in
    :mod:`~lightning_poison.certificates.partitions.elections`.

    With a certified base learner a vote costs as many label changes as the base learner's own certificate demands for
    it, which makes radii larger than those of the literature, where every vote costs one. With one part this is the
    base learner's own certificate, with n parts the plain vote.

    Training on a part must be the same whenever it is repeated, as it is on a CPU; where the procedure says that it
    need not be, the certificates are no proof and say so.

    Args:
        base: what is trained on each part: a certified learner or any procedure (networks:
            ``certificates.networks.LightningTraining``); None: ridge regression.
        parts: how many times as many points there are in all as a base learner sees. Capped at the number of
            different points: equal ones are in one part.
        spread: each base learner sees ``spread`` of ``parts * spread`` small parts, and there are as many learners
            (finite aggregation, Wang, Levine and Feizi, 2022). 1: plain aggregation.
        election: ``"plurality"``, or ``"run_off"`` between the two first classes (Rezaei et al., 2023), which pays off
            where many classes share the votes and the base learner has scores.
        dealing: how points are dealt out to parts: ``"hash"`` of their features, random ``"order"``, or
            ``"clusters"``, which gives every part points of all kinds.
        own_radii: let votes cost what the base learner's certificates demand, where there are any and the election
            is a plurality without spread.
        features: the feature map below the base learners, fitted to all training inputs; None: the default of
            ``RandomConvFeatures``.
        seed: of the parts and the trainings.
        jobs: processes that train side by side; -1: one for each core.
        cache: folder for finished runs, so that a job that was killed goes on where it stood.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> inputs, labels = torch.arange(12.0).reshape(12, 1) - 5.5, torch.arange(12) // 6
        >>> learner = PartitionAggregation(parts=3, features=RawFeatures()).fit(inputs, labels, num_classes=2)
        >>> learner.certify(torch.tensor([[-9.0], [9.0]]))
        LabelFlipCertificate(prediction=tensor([0, 1]), radius=tensor([2, 1]))
    """

    _trained = "base"

    def __init__(
        self,
        base: CertifiedLearner | TrainingProcedure | None = None,
        parts: int = 1000,
        spread: int = 1,
        election: Election = "plurality",
        dealing: Dealing = "hash",
        own_radii: bool = True,
        features: LabelFreeFeatures | None = None,
        seed: int = 0,
        jobs: int = 1,
        cache: str | None = None,
    ) -> None:
        base = base if base is not None else CertifiedRidge(RawFeatures(), max_dim=_ANY_DIM)
        super().__init__(base, features, seed, jobs, cache)
        self.parts = check_integer("parts", parts, minimum=1)
        self.spread = check_integer("spread", spread, minimum=1)
        check_choice("election", election, ("plurality", "run_off"))
        check_choice("dealing", dealing, ("order", "hash", "clusters"))
        self.election, self.dealing = election, dealing
        self.own_radii = own_radii and self.procedure.certified and spread == 1 and election == "plurality"
        self._part_of = torch.empty(0, dtype=torch.int64)

    def check_size(self, num_points: int, num_classes: int) -> None:
        """Refuse more uses of a part than there are points, and a cache that cannot be written."""
        super().check_size(num_points, num_classes)
        if self.spread > num_points:
            raise UserError(f"spread must be at most the number of points, got {self.spread} for {num_points} points")

    def _fit(self, features: Tensor) -> None:
        super()._fit(features)
        self._part_of = deal_parts(features, self._voters, self.dealing, self.seed)

    @property
    def _voters(self) -> int:
        """As many as parts of the data, small ones under finite aggregation."""
        return min(self.parts * self.spread, self._own.different) if self.num_points else self.parts * self.spread

    def _training_sets(self) -> PartsOfData:
        return PartsOfData(self.labels, self._part_of, users_of_parts(self._voters, self.spread, self.seed))

    def _rows_at_once(self) -> int:
        ballot, cost = self._ballot.itemsize, integers_up_to(self.num_points + 1).itemsize
        bytes_a_vote = ballot * self.num_classes if self.election == "run_off" else ballot + cost
        return max(_BYTES_AT_ONCE // (bytes_a_vote * self._voters), 1)

    @property
    def _ballot(self) -> torch.dtype:
        """What holds a class number."""
        return integers_up_to(self.num_classes - 1)

    def _certify_block(self, models: TrainedModels, features: Tensor, tick: Tick) -> LabelFlipCertificate:
        if self.own_radii:
            return self._with_own_radii(models, features, tick)
        users = users_of_parts(self._voters, self.spread, self.seed)
        adversary: Adversary = OneVote() if self.spread == 1 else SharedParts(users)
        run_off = self.election == "run_off"
        shape = (len(features), len(models), *([self.num_classes] if run_off else []))
        ballots = torch.empty(shape, dtype=self._ballot)
        for voter, scores in enumerate(models.scores(features)):
            ranks = rank_classes(scores)
            ballots[:, voter] = ranks if run_off else ranks.argmin(1)
            tick()
        if run_off:
            return certify_run_off(ballots, adversary, self.num_points)
        return certify_plurality(ballots, self.num_classes, adversary, self.num_points)

    def _with_own_radii(self, models: TrainedModels, features: Tensor, tick: Tick) -> LabelFlipCertificate:
        votes = torch.empty(len(features), len(models), dtype=self._ballot)
        costs = torch.empty(len(features), len(models), dtype=integers_up_to(self.num_points + 1))
        sizes = self._part_of.bincount(minlength=len(models)).tolist()
        for voter, certificate in enumerate(models.certificates(features)):
            votes[:, voter] = certificate.prediction
            whatever = certificate.radius >= sizes[voter]  # all labels of the part may change
            costs[:, voter] = torch.where(whatever, self.num_points + 1, certificate.radius.clamp(min=0) + 1)
            tick()
        return certify_plurality(votes, self.num_classes, PricedVotes(costs), self.num_points)

    def describe(self) -> str:
        """The election, its voters and how they came to their points."""
        dealt = {"hash": "a hash of the features", "order": "a random order", "clusters": "clusters of the features"}
        vote = "run-off election" if self.election == "run_off" else "plurality vote"
        shares = "parts" if self.spread == 1 else f"parts, each used by {self.spread}"
        prices = ", votes priced by their own certificates" if self.own_radii else ""
        return (
            f"{vote} of {self._voters} learners on {shares} dealt out by {dealt[self.dealing]}{prices}: "
            f"{self._describe_procedure()}"
        )

    def certainty(self) -> Certainty:
        """A proof where trainings repeat themselves."""
        if self.procedure.repeatable:
            return Certainty()
        return Certainty(
            "not proved",
            "The certificate needs trainings that repeat themselves to the last bit, which those on an accelerator "
            "need not do: a learner whose labels are unchanged could vote otherwise.",
        )

    def choices(self) -> tuple[str, ...]:
        """The parts and what is trained on them."""
        return ("the number of parts", "the base learner with its settings")


# --- dealing points out to parts --------------------------------------------------------------------------------------


def deal_parts(features: Tensor, count: int, dealing: Dealing = "hash", seed: int = 0) -> Tensor:
    """Deal training points out to ``count`` parts of nearly equal size.

    The points are put into an order that no label moves, wherever they stand, and dealt out in turn, as a pack of
    cards:

    * ``"hash"``: by a hash of each point's features, as in SS-DPA (Levine and Feizi, 2021);
    * ``"order"``: shuffled;
    * ``"clusters"``: by the cluster that k-means finds, as many clusters as a part has points, and by hash within:
      every part gets a sample of all kinds of points.

    Points of equal features are dealt out as one: nothing but the order in which they are given tells them apart, and
    that may depend on labels. Were they in several parts, one changed label could change the labels of all of these.

    Args:
        features: shape (n, ...), any dtype.
        count: number of parts P.
        dealing: the order.
        seed: of the order, the hash and the clusters.

    Returns:
        shape (n,), int64 in [0, P): the part of each point; no part is empty.

    Raises:
        UserError: ``dealing`` is unknown, or there are more parts than different points.

    Example:
        >>> deal_parts(torch.arange(6.0)[:, None], 3).bincount().tolist()
        [2, 2, 2]
    """
    check_choice("dealing", dealing, ("order", "hash", "clusters"))
    own = OwnOrder.by_keys(point_keys(features, seed.to_bytes(16, "little", signed=True)), torch.zeros(len(features)))
    first = own.alike(torch.arange(len(features)))
    different, which = torch.unique(first, return_inverse=True)
    if check_integer("parts", count, minimum=1) > len(different):
        got = f"{count} for {len(different)} different points"
        raise UserError(f"parts must be at most the number of training points, got {got}")
    turn = torch.arange(len(different))
    if dealing == "order":
        turn = torch.randperm(len(different), generator=generator(seed, "order of parts"))
    elif dealing == "clusters":
        turn = _clusters(features[own.order], -(-len(features) // count), seed)[different].argsort(stable=True)
    of_different, parts = torch.empty_like(different), torch.empty(len(features), dtype=torch.int64)
    of_different[turn] = torch.arange(len(different)) % count
    parts[own.order] = of_different[which]
    return parts


def users_of_parts(count: int, spread: int, seed: int = 0) -> Tensor:
    """The voters that are trained on each part, under finite aggregation.

    There are as many voters as parts, and part p goes to voters p + s for each of ``spread`` random steps s, modulo
    their number (Wang, Levine and Feizi, 2022, section 3.2). So every voter has ``spread`` parts as well.

    Args:
        count: number of parts P, and of voters.
        spread: d, how many voters use a part.
        seed: of the steps.

    Returns:
        shape (P, d), int64.

    Raises:
        UserError: ``spread`` is larger than ``count``.

    Example:
        >>> users_of_parts(3, 1).tolist()
        [[0], [1], [2]]
    """
    if check_integer("spread", spread, minimum=1) > check_integer("parts", count, minimum=1):
        raise UserError(f"spread must be at most the number of parts, got {spread} for {count} parts")
    others = 1 + torch.randperm(count - 1, generator=generator(seed, "steps of parts"))[: spread - 1]
    steps = torch.cat([torch.zeros(1, dtype=torch.int64), others])
    return (torch.arange(count)[:, None] + steps) % count


def _clusters(features: Tensor, count: int, seed: int) -> Tensor:
    from sklearn.cluster import MiniBatchKMeans

    points = features.detach().cpu().flatten(1)
    rows = points.double().mul(unit_of(points, ordinary=IN_FLOAT32)).float().numpy()
    means = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=mix_seed(seed, "clusters") % 2**32)
    return torch.as_tensor(means.fit_predict(rows)).long()
