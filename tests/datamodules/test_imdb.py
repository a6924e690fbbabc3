"""IMDB reviews: from a small archive of raw texts to vectors, without labels, through the cache."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from lightning_poison.certificates import CertifiedRidge, KernelSigns, RawFeatures
from lightning_poison.datamodules import IMDB, dataset_labels
from lightning_poison.datamodules.imdb import cache_folder, read_reviews, review_vectors
from lightning_poison.errors import UserError

GOOD, BAD = ["splendid", "wonderful", "moving", "brilliant"], ["dreadful", "boring", "clumsy", "awful"]
FILLER = [f"word{number}" for number in range(40)]


def text(draw: np.random.Generator, positive: bool) -> str:
    words = [*draw.choice(GOOD if positive else BAD, 3), *draw.choice(FILLER, 8)]
    return "<br />".join(draw.permutation(words))


def archive(
    folder: Path, name: str = "aclImdb.tar.gz", count: int = 30, classes: tuple[str, ...] = ("neg", "pos")
) -> Path:
    draw = np.random.default_rng(0)
    path = folder / name
    with tarfile.open(path, "w:gz") as members:
        for part in ("train", "test"):
            for label in classes:
                for number in reversed(range(count)):
                    content = text(draw, label == "pos").encode()
                    member = tarfile.TarInfo(f"aclImdb/{part}/{label}/{number}_7.txt")
                    member.size = len(content)
                    members.addfile(member, io.BytesIO(content))
        for extra in ("aclImdb/README", "aclImdb/train/unsup/0_0.txt", "aclImdb/train/pos/urls.txt"):
            members.addfile(tarfile.TarInfo(extra), io.BytesIO())
    return path


def module(folder: Path, **changes: object) -> IMDB:
    arguments = {"root": str(folder), "cache": str(folder / "cache"), "dim": 5, "min_df": 1, "max_df": 0.9}
    return IMDB(**{**arguments, **changes})


def test_reviews_come_in_the_order_of_labels_and_numbers(tmp_path: Path) -> None:
    reviews = read_reviews(archive(tmp_path, count=12))
    assert [label for label, _ in reviews["train"]] == [0] * 12 + [1] * 12
    assert len(reviews["test"]) == 24
    assert not any("<br" in review for _, review in reviews["train"])
    with tarfile.open(tmp_path / "aclImdb.tar.gz") as members:
        stored = members.extractfile("aclImdb/train/neg/10_7.txt")
        assert stored is not None
        assert stored.read().decode().replace("<br />", " ") == reviews["train"][10][1]


def test_vectors_are_the_svd_of_the_training_reviews_alone(tmp_path: Path) -> None:
    path = archive(tmp_path)
    vectors = review_vectors(path, 5, 1, 0.9, 0, str(tmp_path / "cache"))
    reviews = read_reviews(path)
    terms = TfidfVectorizer(ngram_range=(1, 2), max_df=0.9, binary=True)
    matrix = terms.fit_transform([review for _, review in reviews["train"]]).toarray()
    directions = np.linalg.svd(matrix)[2][:5]
    assert np.allclose(np.abs(vectors.train[:, :5]), np.abs(matrix @ directions.T), atol=2e-2)
    new = terms.transform([review for _, review in reviews["test"]]).toarray()
    assert np.allclose(np.abs(vectors.test[:, :5]), np.abs(new @ directions.T), atol=2e-2)
    assert vectors.train_labels.tolist() == [label for label, _ in reviews["train"]]


def test_the_module_gives_centred_vectors_of_unit_length_with_labels(tmp_path: Path) -> None:
    archive(tmp_path)
    data = module(tmp_path, val_split=10, batch_size=7)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    train = data.train_dataloader().dataset
    assert (len(train), len(data.val_dataloader().dataset), len(data.test_dataloader().dataset)) == (50, 10, 60)
    inputs, labels = next(iter(data.train_dataloader()))
    assert inputs.shape == (7, 5)
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs.norm(dim=1), torch.ones(7), atol=1e-5)
    assert set(labels.tolist()) <= {0, 1}
    assert torch.equal(dataset_labels(train), train.targets)
    assert train[3][1] == int(train.targets[3])
    learner = CertifiedRidge(RawFeatures(), 0.1).fit(train.data, train.targets, 2)
    tested = data.test_dataloader().dataset
    assert (learner.certify(tested.data).prediction == tested.targets).double().mean() > 0.8


def test_a_smaller_dim_is_a_part_of_a_larger_before_scaling_and_shares_the_cache(tmp_path: Path) -> None:
    archive(tmp_path)
    few, many = module(tmp_path, dim=2), module(tmp_path, dim=6)
    few.prepare_data()
    many.prepare_data()
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    assert few._load().train.shape == many._load().train.shape
    module(tmp_path, feature_seed=1).prepare_data()
    module(tmp_path, max_df=0.5).prepare_data()
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_the_cache_is_read_mended_and_bound_to_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path)
    first = module(tmp_path)._load()
    stored = next((tmp_path / "cache").iterdir())
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    assert np.array_equal(module(tmp_path)._load().train, first.train)
    assert stored.read_bytes() == whole
    with monkeypatch.context() as patched:
        patched.setattr("lightning_poison.datamodules.imdb._computed", None)
        assert np.array_equal(module(tmp_path)._load().test, first.test)
    archive(tmp_path, count=25)
    assert len(module(tmp_path)._load().train) == 50


def test_labels_have_no_part_in_the_vectors(tmp_path: Path) -> None:
    """The same texts under exchanged labels give the same vectors, in the order of the labels."""
    path = archive(tmp_path)
    vectors = review_vectors(path, 5, 1, 0.9, 0, str(tmp_path / "cache"))
    other = tmp_path / "exchanged.tar.gz"
    with tarfile.open(path) as members, tarfile.open(other, "w:gz") as written:
        for member in members:
            content = members.extractfile(member)
            if "neg" in member.name or "pos" in member.name:
                new = member.name.replace("neg", "xxx").replace("pos", "neg").replace("xxx", "pos")
                member.name = new if "urls" not in new else member.name
            written.addfile(member, content)
    exchanged = review_vectors(other, 5, 1, 0.9, 0, str(tmp_path / "cache"))
    signs = np.sign((vectors.train * np.roll(exchanged.train, 30, axis=0)).sum(0))[:5]
    assert np.allclose(vectors.train[:, :5], np.roll(exchanged.train, 30, axis=0)[:, :5] * signs, atol=2e-2)


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder(None) == Path("/somewhere/lightning_poison")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path.home() / ".cache" / "lightning_poison"


def test_the_published_name_is_found_too(tmp_path: Path) -> None:
    archive(tmp_path, "aclImdb_v1.tar.gz", count=8)
    assert len(module(tmp_path).load_test()) == 16


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reviews are not in .*aclImdb.tar.gz or aclImdb_v1.tar.gz"):
        module(tmp_path).prepare_data()
    archive(tmp_path, classes=("pos",))
    with pytest.raises(UserError, match="must hold reviews in aclImdb/train/neg and pos, got 30"):
        module(tmp_path).prepare_data()
    archive(tmp_path)
    with pytest.raises(UserError, match="dim must be at most 59 for these reviews, got 70"):
        module(tmp_path, dim=70).prepare_data()
    with pytest.raises(UserError, match="min_df and max_df must leave terms, got 50 and"):
        module(tmp_path, min_df=50, max_df=0.1).prepare_data()
    whole = (tmp_path / "aclImdb.tar.gz").read_bytes()
    (tmp_path / "aclImdb.tar.gz").write_bytes(whole[:2000])
    with pytest.raises(UserError, match="must be a whole tar archive"):
        module(tmp_path).prepare_data()
    with pytest.raises(UserError, match="max_df must lie in"):
        module(tmp_path, max_df=1.5)


@pytest.mark.data
@pytest.mark.slow
def test_real_reviews_reach_the_certified_rows(tmp_path: Path) -> None:
    """Signs of ridge weights on 8 directions, every tenth test review: clean, r = 100 and r = 1,000."""
    root = Path(os.environ.get("LIGHTNING_POISON_DATA", "nowhere"))
    if not (root / "aclImdb.tar.gz").is_file():
        pytest.skip(f"there is no aclImdb.tar.gz in LIGHTNING_POISON_DATA={root}")
    data = IMDB(str(root), dim=8, cache=str(tmp_path))
    train, test = data.load_training(), data.load_test()
    assert (len(train), len(test)) == (25000, 25000)
    learner = KernelSigns(CertifiedRidge(RawFeatures(), 1e-3, intercept=False)).fit(train.data, train.targets, 2)
    certificate = learner.certify(test.data[::10])
    right = certificate.prediction == test.targets[::10]
    kept = [float((right & (certificate.radius >= radius)).double().mean()) for radius in (0, 100, 1000)]
    assert all(share >= least for share, least in zip(kept, (0.83, 0.82, 0.68), strict=True))


def test_a_cache_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(tmp_path, root=str(archive(tmp_path).parent), cache="/proc/none")
    monkeypatch.setattr("lightning_poison.datamodules.imdb.read_reviews", None)
    with pytest.raises(UserError, match="cannot write /proc/none"):
        data.prepare_data()
