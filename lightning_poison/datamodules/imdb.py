"""The IMDB reviews as vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lightning_poison.datamodules.review_features import ReviewVectors, review_vectors
from lightning_poison.datamodules.split_data import SplitDataModule
from lightning_poison.datamodules.splits import PointsOrShare
from lightning_poison.datamodules.vectors import Vectors
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number

__all__ = ["IMDB"]

_ARCHIVES = ("aclImdb.tar.gz", "aclImdb_v1.tar.gz")


class IMDB(SplitDataModule):
    """Film reviews, negative or positive (Maas et al., 2011): 25,000 + 25,000 vectors made from the raw texts.

    TF-IDF of the words and pairs of words that occur, then ``dim`` leading directions of a truncated SVD, less the
    training mean, of unit length. All of it is fitted on the training reviews without their labels, once: the result is
    kept in the cache. ``dim`` is a dial: certificates of vote learners fall with it and clean accuracy rises.

    Args:
        root: folder that holds ``aclImdb.tar.gz`` (or ``aclImdb_v1.tar.gz``, as published).
        dim: length of the vectors.
        min_df: leave out terms of fewer training reviews.
        max_df: leave out terms of more than this share of the training reviews.
        feature_seed: of the randomised SVD.
        cache: folder for the computed vectors; None: ``lightning_poison`` in the user's cache folder.
        max_samples: number of training points, drawn at random with ``seed``; None: all.
        val_split: training points held out for validation: how many (an integer) or which share (a float below 1).
        batch_size: of every loader.
        num_workers: worker processes of each loader.
        seed: of the split.

    Raises:
        UserError: an argument is out of range.

    Example:
        >>> data = IMDB(dim=11)
        >>> data.num_classes, data.class_names, data.input_shape
        (2, ['negative', 'positive'], (11,))
    """

    def __init__(
        self,
        root: str = "data",
        dim: int = 50,
        min_df: int = 20,
        max_df: float = 0.1,
        feature_seed: int = 0,
        cache: str | None = None,
        max_samples: int | None = None,
        val_split: PointsOrShare = 0,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.dim = check_integer("dim", dim, minimum=1)
        names = ("negative", "positive")
        super().__init__(names, (dim,), None, max_samples, val_split, batch_size, num_workers, seed, None)
        self.root = str(root)
        self.min_df = check_integer("min_df", min_df, minimum=1)
        self.max_df = check_number("max_df", max_df, minimum=1e-6, maximum=1)
        self.feature_seed = check_integer("feature_seed", feature_seed, minimum=0)
        self.cache = cache
        self._vectors: ReviewVectors | None = None

    def prepare_data(self) -> None:
        """Compute the vectors where the cache lacks them; Lightning calls this in one process only.

        Raises:
            UserError: the archive is missing or damaged, or the cache cannot be written.
        """
        self._load()

    def load_training(self) -> Vectors:
        """The training reviews."""
        vectors = self._load()
        return Vectors(self._scaled(vectors.train), torch.from_numpy(vectors.train_labels))

    def load_test(self) -> Vectors:
        """The test reviews."""
        vectors = self._load()
        return Vectors(self._scaled(vectors.test), torch.from_numpy(vectors.test_labels))

    def _load(self) -> ReviewVectors:
        if self._vectors is None:
            archive = self._archive()
            found = review_vectors(archive, self.dim, self.min_df, self.max_df, self.feature_seed, self.cache)
            if found.train.shape[1] < self.dim:
                raise UserError(
                    f"dim must be at most {found.train.shape[1]} for these reviews, got {self.dim}; lower dim"
                )
            self._vectors = found
        return self._vectors

    def _scaled(self, rows: np.ndarray) -> torch.Tensor:
        """Leading coordinates, centred by the training mean, of unit length."""
        mean = self._load().train[:, : self.dim].mean(axis=0, dtype=np.float64)
        return torch.nn.functional.normalize(torch.from_numpy(rows[:, : self.dim] - mean)).float()

    def _archive(self) -> Path:
        folder = Path(self.root).absolute()
        for name in _ARCHIVES:
            if (folder / name).is_file():
                return folder / name
        raise UserError(
            f"the IMDB reviews are not in {folder}: {' or '.join(_ARCHIVES)}; "
            "put the archive there or name its folder: --data.root DIR"
        )
