from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_digits

from lightning_poison.datamodules import CIFAR10, MNIST, Digits, FashionMNIST, ImageFolder, dataset_labels, fingerprint
from lightning_poison.errors import UserError


def everything(loader):
    batches = list(loader)
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def images_of(dataset) -> set[bytes]:
    return {bytes(image.numpy().tobytes()) for image in dataset.data}


def test_digits_are_split_without_overlap():
    data = Digits(seed=3)
    assert (data.num_classes, data.input_shape) == (10, (1, 8, 8))
    data.setup("fit")
    data.setup("test")
    parts = [everything(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(labels) for _, labels in parts] == [1293, 144, 360]
    inputs = torch.cat([inputs for inputs, _ in parts])
    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0, 1)
    pixels, _ = load_digits(return_X_y=True)
    rows = np.sort(inputs.reshape(-1, 64).numpy() @ np.arange(64))
    assert np.allclose(rows, np.sort(pixels / 16 @ np.arange(64)), atol=1e-3)


def test_the_test_set_does_not_depend_on_the_seed():
    first, second = Digits(seed=0), Digits(seed=1)
    assert torch.equal(everything(first.test_dataloader())[0], everything(second.test_dataloader())[0])
    assert not torch.equal(everything(first.val_dataloader())[0], everything(second.val_dataloader())[0])


def test_classes_are_renumbered_in_the_given_order():
    data = Digits(classes=[7, 1], val_split=0)
    assert data.class_names == ["7", "1"]
    data.setup("fit")
    labels = dataset_labels(data.train_dataloader().dataset)
    original = load_digits(return_X_y=True)[1]
    tested = everything(data.test_dataloader())[1]
    assert int((labels == 0).sum() + (tested == 0).sum()) == int((original == 7).sum())
    assert set(labels.tolist()) == {0, 1}
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match="val_split is 0, so there is nothing to validate on"):
        data.setup("validate")


def test_fewer_samples_are_part_of_more():
    few, more = Digits(max_samples=50), Digits(max_samples=100)
    few.setup("fit")
    more.setup("fit")
    smaller, larger = few.train_dataloader().dataset, more.train_dataloader().dataset
    assert (len(smaller), len(larger)) == (50, 100)
    assert images_of(smaller) < images_of(larger)
    assert few.val_dataloader().dataset.data.equal(more.val_dataloader().dataset.data)


def test_setup_twice_is_setup_once():
    data = Digits()
    data.setup("fit")
    first = data.train_dataloader().dataset
    data.setup("fit")
    assert data.train_dataloader().dataset is first


def test_augmentation_touches_training_images_only():
    plain, augmented = Digits(), Digits(train_transform=lambda image: image.flip(-1))
    clean, flipped = plain.train_dataloader().dataset, augmented.train_dataloader().dataset
    assert flipped[0][0].equal(clean[0][0].flip(-1))
    assert torch.equal(everything(augmented.val_dataloader())[0], everything(plain.val_dataloader())[0])
    labels = dataset_labels(clean)
    assert fingerprint(clean, labels) == fingerprint(flipped, labels)


def test_prediction_loader_gives_the_test_inputs():
    data = Digits()
    inputs = torch.cat(list(data.predict_dataloader()))
    assert inputs.equal(everything(data.test_dataloader())[0])


def test_a_resumed_run_takes_over_the_split():
    first, second = Digits(seed=0), Digits(seed=1)
    second.setup("fit")
    second.load_state_dict(first.state_dict())
    assert everything(second.val_dataloader())[0].equal(everything(first.val_dataloader())[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [3]}, "at least two different classes"),
        ({"classes": [3, 3]}, "at least two different classes"),
        ({"classes": [3, 10]}, r"classes must be integers in \[0, 9\], got 10"),
        ({"max_samples": 0}, "max_samples must be an integer of at least 1"),
        ({"val_split": 1.0}, "val_split must lie in"),
        ({"val_split": 2.5}, "val_split must lie in"),
        ({"val_split": -3}, "val_split must be an integer of at least 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"num_workers": -1}, "num_workers must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        Digits(**arguments)


def test_more_than_there_is():
    with pytest.raises(UserError, match="max_samples must be at most the 1293 training points, got 1294"):
        Digits(max_samples=1294).setup("fit")
    with pytest.raises(UserError, match="val_split must leave points for training, got 1437 and there are 1437"):
        Digits(val_split=1437).setup("fit")


@pytest.mark.parametrize(
    ("module", "shape"), [(MNIST, (1, 28, 28)), (FashionMNIST, (1, 28, 28)), (CIFAR10, (3, 32, 32))]
)
def test_absent_data_names_the_folder_and_the_remedy(module, shape, tmp_path):
    data = module(root=str(tmp_path / "none"), download=False)
    assert (data.num_classes, data.input_shape, len(data.class_names)) == (10, shape, 10)
    with pytest.raises(UserError, match=f"{module.__name__} is not in .*none and download is false; .*--data.root"):
        data.prepare_data()
    for attempt in (lambda: data.setup("fit"), data.test_dataloader):
        with pytest.raises(UserError, match=f"{module.__name__} is not in .*none; put the files there .*--data.root"):
            attempt()


def test_a_failed_download_leaves_nothing_behind(tmp_path, monkeypatch):
    import torchvision.datasets.mnist

    def offline(*_, **__):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", offline)
    with pytest.raises(
        UserError, match=r"could not be downloaded \(.*Name or service not known\); put the files there"
    ):
        MNIST(root=str(tmp_path / "none")).prepare_data()
    assert not (tmp_path / "none").exists()


def write_small_mnist(root, image_bytes=None):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 60), ("t10k", 20)):
        images = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).tobytes()[:image_bytes]
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
    return root


def test_files_in_place_are_read_without_a_network(tmp_path):
    data = MNIST(root=str(write_small_mnist(tmp_path)), val_split=10, classes=[1, 7], max_samples=2)
    data.prepare_data()
    with pytest.raises(UserError, match="max_samples must be at most the 2 training points, got 3"):
        MNIST(root=str(tmp_path), val_split=10, classes=[1, 7], max_samples=3).setup("fit")
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 2
    inputs, labels = everything(data.test_dataloader())
    assert inputs.shape == (4, 1, 28, 28)
    assert labels.tolist() == [0, 1, 0, 1]
    stored = (np.arange(784, 2 * 784) % 256).astype(np.float32).reshape(28, 28) / 255
    assert np.allclose(inputs[0, 0].numpy(), stored)


def test_damaged_files_are_named(tmp_path):
    write_small_mnist(tmp_path, image_bytes=100)
    with pytest.raises(UserError, match=r"the files of MNIST in .* are damaged .*; remove them and download again"):
        MNIST(root=str(tmp_path)).setup("fit")
    with pytest.raises(UserError, match="are damaged"):
        MNIST(root=str(tmp_path)).prepare_data()


def test_a_class_without_images(tmp_path):
    write_small_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">II", 2049, 60) + bytes(60))
    with pytest.raises(UserError, match="class '1' has no images; leave it out of classes"):
        MNIST(root=str(tmp_path)).setup("fit")


@pytest.mark.data
def test_real_mnist(mnist_root):
    data = MNIST(root=str(mnist_root), batch_size=1000)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert len(data.train_dataloader().dataset) == 55_000
    inputs, labels = everything(data.test_dataloader())
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert inputs.mean().item() == pytest.approx(0.13251, abs=1e-4)


@pytest.mark.data
def test_real_mnist_pairs_have_the_published_sizes(mnist_root):
    data = MNIST(root=str(mnist_root), classes=[1, 7], val_split=0)
    assert len(data.train_dataloader().dataset) == 13_007
    assert len(data.test_dataloader().dataset) == 2_163


def write_folder(root, parts=("train",), classes=("cat", "dog"), count=6):
    stream = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = stream.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return str(root)


def test_image_folder_with_all_parts(tmp_path):
    data = ImageFolder(write_folder(tmp_path, ("train", "val", "test")), image_size=8)
    assert (data.num_classes, data.input_shape, data.class_names) == (2, (3, 8, 8), ["cat", "dog"])
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        inputs, labels = everything(loader)
        assert inputs.shape == (12, 3, 8, 8)
        assert labels.bincount().tolist() == [6, 6]
        assert 0 <= inputs.min() < inputs.max() <= 1


@pytest.mark.parametrize("parts", [("train",), ("",)])
def test_image_folder_that_is_split(tmp_path, parts):
    root = write_folder(tmp_path, parts)
    data = ImageFolder(root, image_size=8, grayscale=True, test_split=3, val_split=2)
    sets = [loader.dataset for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(part) for part in sets] == [7, 2, 3]
    assert len({path for part in sets for path, _ in part.samples}) == 12
    assert sets[0][0][0].shape == (1, 8, 8)
    other = ImageFolder(root, image_size=8, test_split=3, val_split=2, seed=1)
    assert other.test_dataloader().dataset.samples == sets[2].samples
    assert dataset_labels(sets[0]).tolist() == sets[0].targets.tolist()


def test_image_folder_keeps_pixels(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    data = ImageFolder(str(tmp_path), image_size=4, test_split=0, val_split=0)
    image, _ = data.train_dataloader().dataset[0]
    assert np.allclose(image.permute(1, 2, 0).numpy() * 255, np.arange(48).reshape(4, 4, 3))
    with pytest.raises(UserError, match="no folder test and test_split is 0"):
        data.setup("test")


def test_image_folder_errors(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; --data.root DIR"):
        ImageFolder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="sub-folder for each of two or more classes, got 0"):
        ImageFolder(str(tmp_path / "empty"))
    root = write_folder(tmp_path / "data", ("train", "test"))
    (tmp_path / "data" / "train" / "eel").mkdir()
    with pytest.raises(UserError, match=r"class folder .*eel holds no image"):
        ImageFolder(root).setup("fit")
    (tmp_path / "data" / "train" / "eel").rmdir()
    (tmp_path / "data" / "test" / "fox").mkdir()
    with pytest.raises(UserError, match="has a class 'fox' that is not among cat, dog"):
        ImageFolder(root).setup("test")
    (tmp_path / "data" / "train" / "cat" / "0.png").write_bytes(b"no picture")
    files = ImageFolder(root, image_size=8, val_split=0).train_dataloader().dataset
    with pytest.raises(UserError, match=r"cannot read the image .*0.png"):
        list(files)


def test_a_compressed_copy_alone_is_not_enough(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(UserError, match="MNIST is not in"):
        MNIST(root=str(tmp_path), download=False).prepare_data()


def test_colour_images_are_stored_channels_first(monkeypatch):
    import torchvision.datasets

    class Stored:
        def __init__(self, root, train=True, download=False):
            self.data = np.arange(4 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 32, 32, 3)
            self.targets = [0, 1, 0, 1]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stored)
    data = CIFAR10(classes=[1, 0], val_split=1)
    inputs, labels = everything(data.test_dataloader())
    assert labels.tolist() == [1, 0, 1, 0]
    assert np.allclose(inputs.permute(0, 2, 3, 1).numpy() * 255, Stored("").data, atol=1e-4)


@pytest.mark.parametrize("kind", [list, tuple, OmegaConf.create])
def test_classes_and_counts_of_any_kind(kind):
    plain = Digits(classes=[3, 1], max_samples=20, val_split=10)
    other = Digits(classes=kind([3, 1]), max_samples=np.int64(20), val_split=torch.tensor(10), batch_size=np.int32(5))
    assert other.classes == [3, 1]
    assert (type(other.max_samples), type(other.val_split), type(other.batch_size)) == (int, int, int)
    for data in (plain, other):
        data.setup()
    assert plain.train_dataloader().dataset.targets.equal(other.train_dataloader().dataset.targets)
    assert len(other.val_dataloader().dataset) == 10
    with pytest.raises(UserError, match=r"classes must be a list such as \[0, 1\], got 3"):
        Digits(classes=3)
