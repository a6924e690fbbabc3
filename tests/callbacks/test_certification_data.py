"""Training inputs as certified learners read them: no label decides order, draws or which points there are."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certification_runs import trainer, victim
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_poison.callbacks import LabelFlipCertification
from lightning_poison.callbacks.certification_data import TrainingInputs
from lightning_poison.callbacks.certification_methods import fit_methods
from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedRidge,
    KernelRidge,
    LabelFlipCertificate,
    PartitionAggregation,
    RandomConvFeatures,
    RawFeatures,
)
from lightning_poison.datamodules import ImageFolder
from lightning_poison.datamodules.labels import dataset_labels
from lightning_poison.errors import UserError
from lightning_poison.functional.progress import no_progress

STREAM = torch.Generator().manual_seed(0)
CLASSES, COUNT, SIDE = 3, 45, 6
TRUTH = torch.arange(COUNT) % CLASSES
PIXELS = torch.randint(0, 120, (COUNT, SIDE, SIDE), generator=STREAM).to(torch.uint8)
PIXELS[torch.arange(COUNT), 2 * TRUTH] += 90
POINTS = torch.rand(25, 1, SIDE, SIDE, generator=STREAM) / 2
POINTS[torch.arange(25), 0, 2 * (torch.arange(25) % CLASSES)] += 0.4


def learners() -> dict[str, CertifiedLearner]:
    convolutions = RandomConvFeatures(filters=10, patch_size=3)
    return {
        "default": CertifiedRidge(convolutions),
        "landmarks": KernelRidge(convolutions, landmarks=10),
        "parts": PartitionAggregation(parts=9, features=RawFeatures()),
    }


def fitted(dataset: Any, num_classes: int = CLASSES, workers: int = 0) -> dict[str, LabelFlipCertificate]:
    """Certificates as the callback computes them."""
    labels = dataset_labels(dataset)
    methods = learners()
    loader = DataLoader(dataset, num_workers=workers)
    fit_methods(methods, TrainingInputs(loader, range(len(dataset))), labels, num_classes, no_progress)
    return {name: learner.certify(POINTS) for name, learner in methods.items()}


def write_folder(root: Path, labels: Tensor) -> Path:
    for number, (pixels, label) in enumerate(zip(PIXELS, labels.tolist(), strict=True)):
        folder = root / "train" / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / f"{number:03d}.png")
    return root


def module(root: Path, **arguments: Any) -> ImageFolder:
    settings = {"image_size": SIDE, "grayscale": True, "val_split": 0.2, "test_split": 0.1}
    return ImageFolder(str(root), **{**settings, **arguments})


def moved(point: int) -> Tensor:
    labels = TRUTH.clone()
    labels[point] = (labels[point] + 1) % CLASSES
    return labels


def test_a_file_that_is_moved_to_another_class_is_one_changed_label(tmp_path: Path) -> None:
    before = fitted(module(write_folder(tmp_path / "clean", TRUTH)).train_dataloader().dataset)
    assert all((certificate.radius >= 1).any() for certificate in before.values())
    for point in (0, 7, 23, 44):
        dataset = module(write_folder(tmp_path / str(point), moved(point))).train_dataloader().dataset
        for name, after in fitted(dataset).items():
            kept = before[name].radius >= 1
            assert torch.equal(after.prediction[kept], before[name].prediction[kept]), name


def test_a_file_that_is_moved_stays_in_its_part_of_the_data(tmp_path: Path) -> None:
    def parts(root: Path) -> list[set[str]]:
        data = module(root)
        sets = data.train_dataloader().dataset, data.val_dataloader().dataset, data.test_dataloader().dataset
        return [{Path(path).name for path, _ in each.samples} for each in sets]

    clean = parts(write_folder(tmp_path / "clean", TRUTH))
    assert [len(names) for names in clean] == [32, 8, 5]
    assert len(set.union(*clean)) == COUNT
    for point in (0, 7, 44):
        assert parts(write_folder(tmp_path / str(point), moved(point))) == clean
    other = [{Path(path).name for path, _ in module(tmp_path / "clean", seed=1).train_dataloader().dataset.samples}]
    assert other[0] != clean[0]


class Augmented(Dataset[Any]):
    """Files sorted by class, each turned and made brighter or not by a generator of the data set's own."""

    def __init__(self, labels: Tensor, kind: str) -> None:
        order = labels.argsort(stable=True)
        self.images, self.targets = PIXELS[order].float()[:, None] / 255, labels[order].tolist()
        self.stream: Any = {
            "torch": torch.Generator().manual_seed(0),
            "numpy": np.random.default_rng(0),
            "python": random.Random(0),
        }.get(kind)
        self.kind, self.count = kind, 0

    def __len__(self) -> int:
        return len(self.targets)

    def number(self) -> float:
        if self.kind == "torch":
            return float(torch.rand(1, generator=self.stream))
        if self.kind == "global":
            return float(torch.rand(1)) / 2 + np.random.rand() / 4 + random.random() / 4  # noqa: NPY002
        if self.kind == "counter":
            self.count += 1
            return self.count % 7 / 7
        return float(self.stream.random())

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        return (image.flip(1) if self.number() < 0.5 else image) * (0.5 + self.number()), self.targets[index]


@pytest.mark.parametrize("kind", ["torch", "numpy", "python", "global"])
def test_what_augmentation_draws_for_a_point_depends_on_no_label(kind: str) -> None:
    data = Augmented(TRUTH, kind)
    before = fitted(data)
    again = fitted(Augmented(TRUTH, kind))
    assert torch.equal(before["default"].radius, again["default"].radius)
    for point in (0, 7, 44):
        for name, after in fitted(Augmented(moved(point), kind)).items():
            kept = before[name].radius >= 1
            assert kept.any()
            assert torch.equal(after.prediction[kept], before[name].prediction[kept]), name


@pytest.mark.parametrize("kind", ["torch", "numpy", "python", "global"])
def test_points_have_draws_of_their_own_and_generators_go_on_where_they_were(kind: str) -> None:
    data, other = Augmented(TRUTH, kind), Augmented(TRUTH, kind)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    dataset_labels(data)
    batches, own = TrainingInputs(DataLoader(data), range(COUNT)).in_own_order(torch.tensor(data.targets))
    first, second = torch.cat(list(batches)), torch.cat(list(batches))
    assert torch.equal(first, second)
    brightness = first.amax((1, 2, 3)) / data.images[own.order].amax((1, 2, 3))
    assert len(torch.unique(brightness)) > COUNT / 2
    assert brightness.std() > 0.1
    after = data[0][0]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    assert torch.equal(after, other[0][0])


def test_two_workers_read_what_none_reads() -> None:
    data = Augmented(TRUTH, "numpy")
    alone, workers = fitted(data), fitted(data, workers=2)
    for name in alone:
        assert torch.equal(alone[name].prediction, workers[name].prediction)
        assert torch.equal(alone[name].radius, workers[name].radius)


def test_inputs_that_nobody_can_repeat_are_refused() -> None:
    with pytest.raises(UserError, match=r"training inputs must be the same whenever they are read .* at point \d+"):
        fitted(Augmented(TRUTH, "counter"))


def test_a_collate_function_that_mixes_points_is_refused() -> None:
    def mixed(items: list[Any]) -> tuple[Tensor, Tensor]:
        inputs, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
        return (inputs + inputs.roll(1, 0)) / 2, labels

    data = TensorDataset(PIXELS.float()[:, None] / 255, TRUTH)
    inputs = TrainingInputs(DataLoader(data, collate_fn=mixed), range(COUNT))
    with pytest.raises(UserError, match="collate_fn take each point on its own"):
        fit_methods(learners(), inputs, TRUTH, CLASSES, no_progress)


class Turned:
    """Augmentation that draws from a generator of its own."""

    def __init__(self) -> None:
        self.stream = np.random.default_rng(5)

    def __call__(self, image: Tensor) -> Tensor:
        return (image.flip(1) if self.stream.random() < 0.5 else image) * float(0.5 + self.stream.random())


def test_in_a_run_neither_a_moved_file_nor_augmentation_alters_a_certified_prediction(
    package: Any, tmp_path: Path
) -> None:
    def tables(root: Path) -> dict[str, dict[str, tuple[int, int]]]:
        data = module(root, train_transform=Turned(), val_split=0.4)
        callback = LabelFlipCertification(learners(), any_label=True)
        run = trainer(package, callback, default_root_dir=root)
        run.validate(victim(package, SIDE * SIDE), datamodule=data, verbose=False)
        names = [Path(path).name for path, _ in data.val_dataloader().dataset.samples]
        found = {}
        for path in Path(run.log_dir).rglob("certificates_*.csv"):
            rows = list(csv.DictReader(path.open()))
            found[path.stem] = {names[int(row["index"])]: (int(row["prediction"]), int(row["radius"])) for row in rows}
        return found

    before = tables(write_folder(tmp_path / "clean", TRUTH))
    assert len(before) == 6
    assert any(radius >= 1 for table in before.values() for _, radius in table.values())
    for point in (1, 8, 30):
        for name, table in tables(write_folder(tmp_path / str(point), moved(point))).items():
            for image, (prediction, radius) in before[name].items():
                assert radius < 1 or table[image][0] == prediction
