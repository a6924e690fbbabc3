"""Classifiers of scikit-learn, and whatever is like them, as training procedures."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind

__all__ = ["SklearnTraining"]


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
