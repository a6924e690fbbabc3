"""What is trained again and again: a rule that makes a model of inputs and labels."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.functional.lasting_pickle import lasting_pickle

__all__ = ["TrainingProcedure"]


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
