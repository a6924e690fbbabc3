"""The IMDB reviews as vectors: the data module, and the features of words."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lightning_poison.datamodules.split_data import PointsOrShare, SplitDataModule, Vectors
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.files import check_writable, write_atomically
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["IMDB", "cache_folder", "read_reviews", "review_vectors"]

_ARCHIVES = ("aclImdb.tar.gz", "aclImdb_v1.tar.gz")
_FORMAT = 1
_RANKS = 100  # directions are computed in whole hundreds, so that a smaller number of them is a part of a larger
_PARTS = ("train", "test")
_CLASSES = ("neg", "pos")


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


# --- features of words ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewVectors:
    """Vectors of the reviews of both parts; label 0 is negative, 1 positive.

    Args:
        train: shape (n, rank), float32.
        train_labels: shape (n,), int64.
        test: shape (m, rank), float32.
        test_labels: shape (m,), int64.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def review_vectors(
    archive: Path, rank: int, min_df: int, max_df: float, seed: int, cache: str | None = None
) -> ReviewVectors:
    """TF-IDF of words and pairs of words, then the leading directions of a truncated SVD; fitted on training reviews.

    Presence counts, not how often (Pang, Lee and Vaithyanathan, 2002). No label has a part in it. Computed once for
    each setting and kept in the cache: about one minute and 1.3 GB of memory for the 50,000 reviews.

    Args:
        archive: see :func:`read_reviews`.
        rank: number of directions at least; rounded up to whole hundreds, so that smaller numbers cost nothing more.
        min_df: leave out terms of fewer training reviews.
        max_df: leave out terms of more than this share of the training reviews.
        seed: of the randomised SVD.
        cache: folder; None: see :func:`cache_folder`.

    Raises:
        UserError: the archive is missing or damaged, or the cache cannot be written.
    """
    rank = -(-rank // _RANKS) * _RANKS
    settings = (_FORMAT, _digest(archive), rank, min_df, max_df, seed)
    name = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    path = cache_folder(cache) / f"imdb_{name}.npz"
    kept = _load(path)
    if kept is None:
        check_writable(path.parent)
        kept = _computed(read_reviews(archive), rank, min_df, max_df, seed)
        stream = io.BytesIO()
        np.savez(stream, **vars(kept))
        write_atomically(path, stream.getvalue())
    return kept


def cache_folder(given: str | None) -> Path:
    """``given``, else ``lightning_poison`` in the user's cache folder.

    Example:
        >>> cache_folder("features")
        PosixPath('features')
    """
    if given is not None:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_poison"


def read_reviews(archive: Path) -> dict[str, list[tuple[int, str]]]:
    """The labelled reviews of ``aclImdb.tar.gz``, part by part, in the order of their labels and numbers.

    Args:
        archive: holds ``aclImdb/{train,test}/{neg,pos}/NUMBER_STARS.txt``; other members are passed over.

    Returns:
        "train" and "test", each a list of (label, text).

    Raises:
        UserError: the archive is damaged, or lacks reviews of a class.
    """
    found: dict[str, list[tuple[int, int, str]]] = {part: [] for part in _PARTS}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                place = Path(member.name).parts[-3:]
                if len(place) == 3 and place[0] in _PARTS and place[1] in _CLASSES and place[2].endswith(".txt"):
                    content = members.extractfile(member)
                    number = place[2].split("_")[0]
                    if content is not None and number.isdigit():
                        text = content.read().decode("utf-8", errors="replace").replace("<br />", " ")
                        found[place[0]].append((_CLASSES.index(place[1]), int(number), text))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{archive} must be a whole tar archive, got {error}; download it again") from error
    for part, reviews in found.items():
        if {label for label, _, _ in reviews} != {0, 1}:
            raise UserError(
                f"{archive} must hold reviews in aclImdb/{part}/neg and pos, got {len(reviews)}; get it whole"
            )
    return {part: [(label, text) for label, _, text in sorted(reviews)] for part, reviews in found.items()}


def _computed(
    reviews: dict[str, list[tuple[int, str]]], rank: int, min_df: int, max_df: float, seed: int
) -> ReviewVectors:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {part: [text for _, text in labelled] for part, labelled in reviews.items()}
    labels = {part: np.array([label for label, _ in labelled], dtype=np.int64) for part, labelled in reviews.items()}
    terms = TfidfVectorizer(ngram_range=(1, 2), min_df=min_df, max_df=max_df, binary=True, dtype=np.float32)
    try:
        train, test = terms.fit_transform(texts["train"]), terms.transform(texts["test"])
    except ValueError as error:  # scikit-learn: no terms remain
        raise UserError(
            f"min_df and max_df must leave terms, got {min_df} and {max_df} ({error}); widen them"
        ) from error
    svd = TruncatedSVD(min(rank, min(train.shape) - 1), random_state=mix_seed(seed, "review vectors") % 2**32)
    return ReviewVectors(
        svd.fit_transform(train).astype(np.float32),
        labels["train"],
        svd.transform(test).astype(np.float32),
        labels["test"],
    )


def _digest(archive: Path) -> str:
    try:
        return hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{archive} cannot be read ({error.strerror}); check the file") from error


def _load(path: Path) -> ReviewVectors | None:
    """What the cache holds; None where it holds nothing, or a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return ReviewVectors(**{name: stored[name] for name in ReviewVectors.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
