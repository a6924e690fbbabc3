r"""Smoothing over random label flips by training many times: Algorithm 2 of Rosenfeld et al. (2020), for K classes.

**Classifier.** Train on labels of which each is flipped with probability q, to one of the other K - 1 classes at
random, and predict. Let :math:`p_c` be the probability that class c comes out, over the flips and over whatever else
is random in the training. The smoothed prediction at x is a class with :math:`p_c > 1/2`.

**Certificate.** N trainings with fresh flips; class c comes out :math:`k_c` times, most often of all. With
:math:`\underline{p}` the Clopper-Pearson lower bound on :math:`p_c` at level :math:`\delta = \alpha / 2`: abstain
unless :math:`\underline{p} > 1/2`, else answer c with the radius of :math:`\underline{p}`
(:mod:`lightning_poison.certificates.smoothing.thresholds`).

**Theorem.** The probability that a point gets an answer whose bound is larger than its :math:`p_c` is at most
:math:`\alpha`, although the class is chosen with the very runs that bound it, and whatever K is.

**Proof.** Let :math:`k^*` be the least count with a bound above 1/2; an answer c needs :math:`k_c \ge k^* > N/2`. A
class with :math:`p_c > 1/2` (there is one at most) has too large a bound with probability at most :math:`\delta`. The
other classes are wrong answers at most with probability :math:`t(p_c)`, :math:`t(p) = P[Bin(N, p) \ge k^*]`. On
[0, 1/2], t is convex, as its derivative is proportional to :math:`p^{k^*-1} (1-p)^{N-k^*}`, which grows up to
:math:`(k^*-1)/(N-1) \ge 1/2`; and t(0) = 0, :math:`t(1/2) \le \delta`, so that :math:`t(p) \le 2 p \delta`. Without a
class above 1/2 all this adds up to at most :math:`\sum 2 p_c \delta = 2 \delta`; with one, c', to at most
:math:`\delta + 2 (1 - p_{c'}) \delta < 2 \delta`. QED.

The runs are shared by all points, so certificates of different points are not independent; each holds with
probability :math:`1 - \alpha` on its own. For all of m points at once :math:`\alpha / m` is used (Bonferroni).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures, RawFeatures, UnchangedInputs
from lightning_poison.certificates.guarantee import Certainty
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance, CertifiedLearner
from lightning_poison.certificates.retraining.engine import NoisyLabels, TrainedModels, TrainingSets, train_all
from lightning_poison.certificates.retraining.procedure import LearnerTraining, TrainingProcedure
from lightning_poison.certificates.smoothing.thresholds import kl_radius, tight_radius
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_integer, check_number, kind_shown
from lightning_poison.functional.files import check_writable
from lightning_poison.functional.intervals import log_binomial_upper

__all__ = ["MonteCarloSmoothing", "RetrainedLearner", "Tick", "certify_counts"]

_REMEDY = "clean the inputs or change the feature map"

Tick = Callable[[], object]
"""Called after each step of the work."""
Radius = Literal["tight", "kl"]


# --- learners that are made of many trainings -------------------------------------------------------------------------


class RetrainedLearner(CertifiedLearner):
    """A learner that trains many models and counts what they say.

    ``fit`` only takes note of the data: the trainings run when the first points are certified, or in :meth:`train`.

    Args:
        procedure: what is trained; a certified learner stands for fitting copies of it.
        features: the feature map below the learner.
        seed: of everything random.
        jobs: processes that train side by side; -1: one for each core. The result does not depend on it.
        cache: folder for finished runs, so that a job that was killed goes on where it stood; None: none. The files
            are pickles: use a folder that nobody else can write to, and clear it when you change the code of what is
            trained.

    Raises:
        UserError: ``jobs`` is 0 or less than -1, or ``procedure`` is no procedure.
    """

    _trained: ClassVar[str] = "procedure"
    """What the argument is called."""

    def __init__(
        self,
        procedure: CertifiedLearner | TrainingProcedure,
        features: LabelFreeFeatures | None,
        seed: int,
        jobs: int,
        cache: str | None,
    ) -> None:
        super().__init__(features)
        if isinstance(procedure, CertifiedLearner):
            procedure = LearnerTraining(procedure)
        if not isinstance(procedure, TrainingProcedure):
            got = kind_shown(procedure)
            raise UserError(f"{self._trained} must be a TrainingProcedure or a CertifiedLearner, got {got}; make one")
        self.procedure = procedure
        self.seed = check_integer("seed", seed, minimum=0)
        self.jobs = jobs if jobs == -1 else check_integer("jobs", jobs, minimum=1, remedy="-1 means every core")
        if not isinstance(cache, (str, PathLike, NoneType)):
            raise UserError(f"cache must be the path of a folder, got {kind_shown(cache)}; None keeps models in memory")
        self.cache = cache
        self._inputs = torch.empty(0)
        self._models: TrainedModels | None = None

    def check_size(self, num_points: int, num_classes: int) -> None:  # noqa: ARG002  # for those who need them
        """Refuse a cache that cannot be written, before any training."""
        if self.cache is not None:
            check_writable(Path(self.cache).expanduser())

    def _fit(self, features: Tensor) -> None:
        self.check_size(self.num_points, self.num_classes)
        self._inputs = check_finite("features", features, remedy=_REMEDY)
        self._models = None

    def train(self, advance: Advance = lambda _: None) -> TrainedModels:
        """Train every model that is not trained yet.

        Args:
            advance: called with the number of runs that are ready, until they add up to all.

        Raises:
            UserError: the learner is not fitted, or the cache cannot be written.
        """
        self._check_fitted()
        if self._models is None:
            cache = None if self.cache is None else Path(self.cache).expanduser()
            self._models = train_all(
                self.procedure,
                self._inputs,
                self._training_sets(),
                self.num_classes,
                seed=self.seed,
                jobs=self.jobs,
                cache=cache,
                advance=advance,
            )
        return self._models

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known; trains first if need be.

        Args:
            features: shape (m, ...).
            advance: moves by shares of the whole work, in units of points; the numbers add up to m.
        """
        self._check_features(features)
        if not len(features):
            return LabelFlipCertificate(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
        check_finite("features", features, remedy=_REMEDY)
        blocks = torch.split(features, self._rows_at_once())
        runs, trained = len(self._training_sets()), self._models is not None
        progress = _Shares(advance, len(features), (len(blocks) + (not trained)) * runs)
        models = self.train(progress)
        parts = [self._certify_block(models, block, lambda: progress(1)) for block in blocks]
        return LabelFlipCertificate(
            torch.cat([part.prediction for part in parts]), torch.cat([part.radius for part in parts])
        )

    @abstractmethod
    def _training_sets(self) -> TrainingSets:
        """What each run is trained on."""

    @abstractmethod
    def _certify_block(self, models: TrainedModels, features: Tensor, tick: Tick) -> LabelFlipCertificate:
        """Certify points; ``tick`` after each model that was asked."""

    def _rows_at_once(self) -> int:
        """How many points are certified together."""
        return 2**31

    @property
    def end_to_end(self) -> bool:
        """Whether the features and the procedure are."""
        return self.features.end_to_end and self.procedure.end_to_end

    def premises(self) -> tuple[str, ...]:
        """Those of the features and of the procedure, each once."""
        return tuple(dict.fromkeys((*self.features.premises(), *self.procedure.premises())))

    def _describe_procedure(self) -> str:
        """The procedure; that a base learner takes the features as they are goes without saying."""
        procedure = self.procedure
        if isinstance(procedure, LearnerTraining) and isinstance(
            procedure.learner.features, (RawFeatures, UnchangedInputs)
        ):
            return procedure.learner.describe()
        return procedure.describe()


class _Shares:
    """Tells ``advance`` about steps of the work as shares of ``total``."""

    def __init__(self, advance: Advance, total: int, steps: int) -> None:
        self._advance, self._total, self._steps = advance, total, steps
        self._done = self._told = 0

    def __call__(self, steps: int) -> None:
        self._done += steps
        now = self._total * self._done // self._steps
        if now > self._told:
            self._advance(now - self._told)
            self._told = now


# --- smoothing over random label flips --------------------------------------------------------------------------------


class MonteCarloSmoothing(RetrainedLearner):
    """Random-flip smoothing of any training procedure: a certificate for whatever can be trained many times.

    Args:
        procedure: what is trained: any :class:`TrainingProcedure` (networks:
            ``certificates.networks.LightningTraining``), or a certified learner, whose own certificates are far larger,
            for comparison.
        q: probability with which each label is flipped, below (K - 1) / K. More noise gives larger radii to
            predictions that outlast it.
        runs: N, the number of trainings. The radius can't exceed what N agreeing runs prove.
        alpha: probability of a wrong certificate.
        points: None: ``alpha`` holds for each point on its own. Otherwise for all points that are certified in one
            call, of which there may be up to so many: each gets ``alpha / points``. A callback certifies the points of
            all ranks in one call.
        features: a label-free map in front; None: the inputs as they are.
        radius: ``"tight"`` (Neyman-Pearson) or ``"kl"`` (eq. 10 and 25 of the paper, smaller).
        seed: of flips and trainings. Nobody who chooses training labels may know it.
        jobs: processes that train side by side; -1: one for each core.
        cache: folder for finished runs, so that a job that was killed goes on where it stood.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> from lightning_poison.certificates.retraining import SklearnTraining
        >>> inputs, labels = torch.arange(40.0)[:, None], torch.arange(40) // 20
        >>> learner = MonteCarloSmoothing(SklearnTraining("sklearn.naive_bayes.GaussianNB"), q=0.2, runs=30, alpha=0.01)
        >>> learner.fit(inputs, labels, num_classes=2).certify(torch.tensor([[0.0], [19.5], [39.0]])).radius.tolist()
        [0, -1, 0]
    """

    certifies_refits = False

    def __init__(
        self,
        procedure: TrainingProcedure | CertifiedLearner,
        q: float = 0.1,
        runs: int = 1000,
        alpha: float = 0.001,
        points: int | None = None,
        features: LabelFreeFeatures | None = None,
        radius: Radius = "tight",
        seed: int = 0,
        jobs: int = 1,
        cache: str | None = None,
    ) -> None:
        super().__init__(procedure, features if features is not None else UnchangedInputs(), seed, jobs, cache)
        self.q = check_number("q", q, minimum=1e-12, maximum=1 - 1e-12)
        self.runs = check_integer("runs", runs, minimum=1)
        self.alpha = check_number("alpha", alpha, minimum=1e-300, maximum=0.5)
        self.points = None if points is None else check_integer("points", points, minimum=1)
        self.radius: Radius = "tight" if check_choice("radius", radius, ("tight", "kl")) == "tight" else "kl"

    def check_size(self, num_points: int, num_classes: int) -> None:
        """Refuse noise that leaves no information, and a cache that cannot be written."""
        super().check_size(num_points, num_classes)
        highest = 1 - 1 / num_classes
        if self.q >= highest:
            raise UserError(
                f"q must be below (K - 1) / K = {highest:g}, got {self.q:g}; labels would hold no information"
            )

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known; of at most ``points`` of them where alpha is shared.

        Raises:
            UserError: there are more.
        """
        if self.points is not None and len(features) > self.points:
            raise UserError(f"points must be at least the number of points, got {self.points} for {len(features)}")
        return super().certify_features(features, advance)

    def _training_sets(self) -> NoisyLabels:
        return NoisyLabels(self.labels, self.num_classes, self.q, self.runs, self.seed, self._own.first)

    def _certify_block(self, models: TrainedModels, features: Tensor, tick: Tick) -> LabelFlipCertificate:
        counts = torch.zeros(len(features), self.num_classes, dtype=torch.int64)
        for scores in models.scores(features):
            votes = torch.where(scores.isnan(), -torch.inf, scores).argmax(1, keepdim=True)
            counts.scatter_add_(1, votes, torch.ones_like(votes))
            tick()
        return certify_counts(counts, self.q, self.alpha / (self.points or 1), self.num_points, self.radius)

    def describe(self) -> str:
        """The procedure and its noise."""
        return (
            f"majority of {self.runs} trainings under random label flips (q = {self.q:g}): {self._describe_procedure()}"
        )

    def choices(self) -> tuple[str, ...]:
        """Everything about the trainings."""
        return ("the training procedure with its settings and starting weights", "q")

    @property
    def needs_all_points(self) -> bool:
        """Whether the probability holds for all of them at once, so that they must be counted."""
        return self.points is not None

    def certainty(self) -> Certainty:
        """What the probability is, and for how many points it holds."""
        return Certainty(
            "probability",
            "Its draws are the random flips and trainings, so that the adversary must not know the seed. Where the "
            "majority is too small the method abstains, which counts as wrong at every r. What is certified is the "
            "majority over all flips, of which the trainings are a sample.",
            probability=1 - self.alpha,
            points=self.points,
        )


def certify_counts(
    counts: Tensor, q: float, alpha: float, num_labels: int, radius: Radius = "tight"
) -> LabelFlipCertificate:
    """Certify the most frequent class of many trainings; theorem and proof stand at the head of this module.

    Args:
        counts: shape (m, K), int64: how often each class came out for each point, in the same number of trainings.
        q: probability with which each label was flipped.
        alpha: probability, for each point, of a wrong certificate.
        num_labels: n; no radius is larger.
        radius: ``"tight"`` (Neyman-Pearson) or ``"kl"``.

    Returns:
        prediction, and radius, -1 where the method abstains.

    Example:
        >>> certify_counts(torch.tensor([[0, 1000], [480, 520]]), q=0.2, alpha=0.001, num_labels=100)
        LabelFlipCertificate(prediction=tensor([1, 1]), radius=tensor([ 3, -1]))
    """
    found, prediction = counts.max(1)
    log_error = log_binomial_upper(counts.sum(1) - found, counts.sum(1), alpha / 2)
    radii = tight_radius if check_choice("radius", radius, ("tight", "kl")) == "tight" else kl_radius
    certified = radii(log_error, q, counts.shape[1], num_labels)
    below_half = log_error < torch.log(torch.tensor(0.5, dtype=torch.float64))
    return LabelFlipCertificate(prediction, torch.where(below_half, certified, -1))
