"""What is trained again and again: a rule that makes a model of inputs and labels, of a learner or of scikit-learn."""

from __future__ import annotations

import copy
import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind
from lightning_poison.functional.workers import lasting_pickle

__all__ = ["LearnerTraining", "SklearnTraining", "TrainingProcedure"]


class TrainingProcedure(ABC):
    """A rule that makes a model of training inputs and labels, and class scores of a model and points.

    The model may be anything that can be pickled. Whatever is random must follow ``seed`` or the global generators,
    which are seeded with it: then a run is the same in every process and after every resume. Nothing else may depend
    on the certified labels.

    Attributes:
        end_to_end: whether nothing but ``train`` has seen the labels, as with starting weights that were learnt
            elsewhere.
        repeatable: whether a training that is repeated comes out the same to the last bit, without which partition
            aggregation proves nothing.
        certified: whether :meth:`certify` works.
    """

    end_to_end: bool = True
    repeatable: bool = True
    certified: bool = False

    @abstractmethod
    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> Any:
        """Make a model.

        Args:
            inputs: shape (n, ...), float: what the learner's feature map gives.
            labels: shape (n,), int64 in [0, K); some classes may be missing.
            num_classes: K.
            seed: of this run, in [0, 2^63).
        """

    @abstractmethod
    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        """Class scores of points; the largest is the prediction, the lowest index among equals.

        Args:
            model: what :meth:`train` made.
            inputs: shape (m, ...), m > 0.
            num_classes: K.

        Returns:
            shape (m, K), float.
        """

    def certify(self, model: Any, inputs: Tensor) -> LabelFlipCertificate:
        """Predictions and radii where the procedure has certificates of its own: sound against its training labels."""
        raise NotImplementedError

    def premises(self) -> tuple[str, ...]:
        """What somebody else must see to so that the procedure is end to end, each as it follows "as long as"."""
        return ()

    @abstractmethod
    def describe(self) -> str:
        """The procedure in a few words: "PoolCNN, 5 epochs of Adam"."""

    def fingerprint(self) -> str:
        """A hash of all settings, under which finished runs are kept.

        Settings that cannot be told apart from an earlier process's get another fingerprint, and runs are repeated
        rather than mixed up. The code behind the settings is part of it where it stands in the script or notebook
        that runs, and not where it is imported.
        """
        return hashlib.sha256(lasting_pickle(self)).hexdigest()


# --- certified learners -----------------------------------------------------------------------------------------------


class LearnerTraining(TrainingProcedure):
    """Fits copies of a certified learner, its feature map included.

    A fitted copy may hold its training features, so that many trainings on all points take much memory or a cache.

    Args:
        learner: not transductive: each point must be predicted on its own.

    Raises:
        UserError: the learner is transductive.

    Example:
        >>> from lightning_poison.certificates import CertifiedRidge, RawFeatures
        >>> LearnerTraining(CertifiedRidge(RawFeatures())).describe()
        'ridge regression (relative strength 0.05) on raw inputs'
    """

    def __init__(self, learner: CertifiedLearner) -> None:
        check_kind("learner", learner, CertifiedLearner, "CertifiedRidge()")
        if learner.transductive:
            raise UserError(
                f"learner must predict each point on its own, got {type(learner).__name__}, which is transductive; "
                "choose another base learner"
            )
        self.learner = learner
        self.end_to_end = learner.end_to_end
        self.certified = learner.certifies_refits

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> CertifiedLearner:  # noqa: ARG002  # learners have seeds of their own
        """A fitted copy."""
        return copy.deepcopy(self.learner).fit(inputs, labels, num_classes)

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        """Sums of vote weights where the learner has them, else 1 for the prediction and 0 for the others."""
        if isinstance(model, LabelLinearLearner):
            one_hot = torch.nn.functional.one_hot(model.labels, num_classes).double()
            features = model.transform(inputs)
            return torch.cat([weights.double() @ one_hot for weights in model.vote_chunks(features)])
        return torch.nn.functional.one_hot(model.certify(inputs).prediction, num_classes).double()

    def certify(self, model: Any, inputs: Tensor) -> LabelFlipCertificate:
        """The learner's own certificates."""
        certificate: LabelFlipCertificate = model.certify(inputs)
        return certificate

    def premises(self) -> tuple[str, ...]:
        """Those of the learner."""
        return self.learner.premises()

    def describe(self) -> str:
        """The learner and its features."""
        return f"{self.learner.describe()} on {self.learner.features.describe()}"


# --- classifiers of scikit-learn, and whatever is like them -----------------------------------------------------------


class SklearnTraining(TrainingProcedure):
    """Fits clones of a classifier with ``fit`` and ``predict``, on flattened inputs.

    Scores are ``predict_proba`` where there is one, else ``decision_function`` of more than two classes, else 1 for
    the predicted class. Labels of a single class need no training: that class is predicted. ``random_state`` is set
    to the run's seed where it is a parameter.

    Args:
        estimator: a classifier, or its class path as text.
        settings: arguments for a class path.

    Raises:
        UserError: the class cannot be found or made, or has no ``fit`` and ``predict``.

    Example:
        >>> procedure = SklearnTraining("sklearn.naive_bayes.GaussianNB")
        >>> inputs, labels = torch.tensor([[0.0], [0.1], [1.0], [1.1]]), torch.tensor([0, 0, 2, 2])
        >>> procedure.scores(procedure.train(inputs, labels, 3, seed=0), inputs, 3).argmax(1).tolist()
        [0, 0, 2, 2]
    """

    def __init__(
        self, estimator: Any = "sklearn.linear_model.LogisticRegression", settings: dict[str, Any] | None = None
    ) -> None:
        check_kind("settings", settings, dict, "{'max_iter': 500}", optional=True)
        if isinstance(estimator, type):
            raise UserError(f"estimator must be a classifier, got the class {estimator.__name__}; call it")
        self.estimator = _made(estimator, settings or {}) if isinstance(estimator, str) else estimator
        if not (hasattr(self.estimator, "fit") and hasattr(self.estimator, "predict")):
            raise UserError(f"estimator must have fit and predict, got {estimator!r}; name a classifier's class path")

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> Any:  # noqa: ARG002  # the classifier counts its classes itself
        """A fitted clone, or the only class there is."""
        present = torch.unique(labels)
        if len(present) == 1:
            return int(present)
        from sklearn.base import clone

        model = clone(self.estimator)
        if "random_state" in model.get_params(deep=False):
            model.set_params(random_state=seed % 2**32)
        with self._refusing():
            return model.fit(inputs.flatten(1).numpy(), labels.numpy())

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        """Probabilities, decision values or votes, 0 (decision values: minus infinity) for classes never seen."""
        if isinstance(model, int):
            return _spread(torch.ones(len(inputs), 1), torch.tensor([model]), num_classes, 0.0)
        with self._refusing():
            return self._asked(model, inputs.flatten(1).numpy(), num_classes)

    def _asked(self, model: Any, rows: NDArray[Any], num_classes: int) -> Tensor:
        classes = torch.as_tensor(model.classes_).long()
        if hasattr(model, "predict_proba"):
            return _spread(torch.as_tensor(model.predict_proba(rows)), classes, num_classes, 0.0)
        if hasattr(model, "decision_function"):
            values = torch.as_tensor(model.decision_function(rows))
            if values.shape == (len(rows), len(classes)):
                return _spread(values, classes, num_classes, -torch.inf)
        predicted = torch.as_tensor(model.predict(rows)).long()
        return torch.nn.functional.one_hot(predicted, num_classes).double()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Data that the estimator does not take are a user's mistake."""
        try:
            yield
        except ValueError as error:
            name, reason = type(self.estimator).__name__, str(error).partition("\n")[0]
            raise UserError(f"estimator must take these features, got {name} ({reason}); scale them") from error

    def describe(self) -> str:
        """The estimator's own words in one line."""
        return " ".join(repr(self.estimator).split())


def _made(path: str, settings: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**settings)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"estimator must be the path of a class that takes the settings, got {path} ({reason}); correct it"
        ) from error


def _spread(values: Tensor, classes: Tensor, num_classes: int, others: float) -> Tensor:
    """Columns of the classes that were seen among all K."""
    scores = torch.full((len(values), num_classes), others, dtype=torch.float64)
    scores[:, classes] = values.double()
    return scores
