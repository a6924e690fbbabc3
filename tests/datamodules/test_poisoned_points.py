"""Points that are added to the training data, or replace some of them, on their way to the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import RandomSampler, Subset, TensorDataset, WeightedRandomSampler

from lightning_poison.callbacks import CraftFlips, FlipLabels, PoisonMemorization, Report
from lightning_poison.callbacks.training_points import clean_labels
from lightning_poison.datamodules import PoisonedDataModule, PoisonedDataset, dataset_labels, fingerprint
from lightning_poison.datamodules.train_loader import EpochShuffle
from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    CleanLabelPerturbation,
    PlacedPoisons,
    PointsFromFile,
    PoisonPoints,
    RandomPoints,
    TrainingSet,
)
from tests import lightning_runs
from tests.lightning_runs import PACKAGES, model_of, small_weights, trainer_of

LABELS = torch.arange(30) % 3
INPUTS = 0.3 * torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) + 0.6 * torch.eye(3, 4)[LABELS]
DATA = TensorDataset(INPUTS, LABELS)
PLACED = PlacedPoisons(distance=0.4, per_class=2)
POINTS = PLACED.craft(TrainingSet(LABELS, 3, fingerprint(DATA, LABELS), DATA), seed=3)
MIXED = PoisonPoints(
    torch.tensor([-1, 4, -1]), torch.full((3, 4), 0.5), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
]


def fit(package: Any, folder: Any, data: Any, *callbacks: Any, epochs: int = 2, ckpt_path: Any = None) -> Any:
    model = model_of(package, small_weights(nn.Linear(4, 3)), lr=1.0)
    trainer_of(package, folder, *callbacks, max_epochs=epochs).fit(model, data, ckpt_path=ckpt_path)
    return model


def data_of(package: Any, **loader: Any) -> Any:
    data = lightning_runs.data_of(package, DATA, **loader)
    data.num_classes = 3
    return data


def rows(inputs: torch.Tensor, labels: torch.Tensor) -> set[tuple[Any, ...]]:
    return {(*row.tolist(), int(label)) for row, label in zip(inputs, labels, strict=True)}


def expected() -> set[tuple[Any, ...]]:
    return rows(INPUTS, LABELS) | rows(POINTS.inputs, POINTS.new_label)


def test_a_data_set_with_added_and_replaced_points():
    poisoned = PoisonedDataset(DATA, MIXED)
    assert len(poisoned) == 32
    labels = [int(label) for _, label in poisoned]
    assert labels == MIXED.apply(LABELS).tolist() == dataset_labels(poisoned).tolist()
    assert labels[4] == 2
    assert labels[30:] == [1, 0]
    assert all(float(poisoned[position][0].mean()) == 0.5 for position in (4, 30, 31, -1, -2, -28))
    assert torch.equal(poisoned[-32][0], INPUTS[0])
    with pytest.raises(IndexError):
        poisoned[32]
    assert [label for _, label in Subset(poisoned, [31, 4, 0])] == [0, 2, 0]
    assert fingerprint(poisoned, dataset_labels(poisoned)) != fingerprint(DATA, LABELS)
    with pytest.raises(UserError, match="training point 4 has label 1, but the poison points says 0"):
        PoisonedDataset(DATA, PoisonPoints(torch.tensor([4]), INPUTS[:1], LABELS[:1], LABELS[:1]))[4]


def test_batched_access_keeps_the_order():
    class Batched(TensorDataset):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    poisoned = PoisonedDataset(Batched(INPUTS, LABELS), MIXED)
    order = [31, 0, 4, 30, 7]
    for item, position in zip(poisoned.__getitems__(order), order, strict=True):
        assert torch.equal(item[0], poisoned[position][0])
        assert int(item[1]) == int(poisoned[position][1])
    assert len(poisoned.__getitems__([30, 31])) == 2


def test_items_keep_their_types():
    clean = [[np.zeros(4, dtype=np.float32), np.int64(label)] for label in LABELS.tolist()]
    item = PoisonedDataset(clean, MIXED)[30]
    assert isinstance(item, list)
    assert isinstance(item[0], np.ndarray)
    assert item[0].dtype == np.float32
    assert isinstance(item[1], np.int64)


def test_the_clean_labels_behind_them():
    poisoned = PoisonedDataset(DATA, MIXED)
    positions = torch.tensor([31, 4, 3, 30])
    labels = dataset_labels(poisoned)[positions]
    assert clean_labels(poisoned, positions, labels).tolist() == [2, 1, 0, 0]


def test_added_points_are_shuffled_in_and_the_others_keep_their_order():
    for epoch in range(3):
        plain, mixed = EpochShuffle(20, seed=1), EpochShuffle(20, seed=1, added=5)
        plain.set_epoch(epoch)
        mixed.set_epoch(epoch)
        order = list(mixed)
        assert sorted(order) == list(range(25))
        assert [position for position in order if position < 20] == list(plain)
        parts = [EpochShuffle(20, seed=1, num_replicas=2, rank=rank, added=5) for rank in range(2)]
        for part in parts:
            part.set_epoch(epoch)
        dealt = [list(part) for part in parts]
        assert [dealt[place % 2][place // 2] for place in range(26)] == [*order, order[0]]
    places = torch.zeros(25)
    for epoch in range(2000):
        mixed.set_epoch(epoch)
        places[torch.tensor(list(mixed)) == 22] += 1
    assert abs(places / 2000 - 1 / 25).max() < 0.02  # five standard deviations are 0.022


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("through_callback", [False, True])
def test_every_epoch_sees_every_point_once(package, through_callback, tmp_path):
    if through_callback:
        callback = FlipLabels(PLACED, seed=3)
        model = fit(package, tmp_path, data_of(package), callback)
        drawn = callback.flips
    else:
        data = PoisonedDataModule(data_of(package), PLACED, seed=3)
        model = fit(package, tmp_path, data)
        drawn = data.flips
        assert data.num_classes == 3
    assert drawn.same_points(POINTS)
    for epoch in model.seen:
        assert len(epoch) == 36
        assert set(epoch) == expected()
    assert PoisonPoints.read(tmp_path / "report" / "points.pt").same_points(POINTS)
    assert (tmp_path / "report" / "points.csv").exists()


def test_loaders_in_order_and_loaders_that_draw(tmp_path):
    model = fit(
        PACKAGES[0], tmp_path, PoisonedDataModule(data_of(PACKAGES[0], shuffle=False), PLACED, seed=3), epochs=1
    )
    assert model.seen[0] == [(*row.tolist(), int(label)) for row, label in PoisonedDataset(DATA, POINTS)]
    for sampler in (WeightedRandomSampler(torch.ones(30), 30), RandomSampler(DATA, replacement=True)):
        data = PoisonedDataModule(data_of(PACKAGES[0], shuffle=None, sampler=sampler), PLACED)
        with pytest.raises(UserError, match="points can be added to a training loader with shuffle=True or False"):
            fit(PACKAGES[0], tmp_path, data)
    moved = CleanLabelPerturbation(RandomPoints(count=3), eps=0.1)
    sampler = WeightedRandomSampler(torch.ones(30), 30)
    data = PoisonedDataModule(data_of(PACKAGES[0], shuffle=None, sampler=sampler), moved)
    assert len(fit(PACKAGES[0], tmp_path, data, epochs=1).seen[0]) == 30


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    package = PACKAGES[0]
    whole = fit(package, tmp_path, PoisonedDataModule(data_of(package), PLACED, seed=3), epochs=3)
    half = fit(package, tmp_path, PoisonedDataModule(data_of(package), PLACED, seed=3), epochs=1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    data = PoisonedDataModule(data_of(package), PLACED, seed=77)
    resumed = fit(package, tmp_path, data, epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.seen == whole.seen[1:]
    assert torch.equal(resumed.net.weight, whole.net.weight)
    assert data.flips.same_points(POINTS)


def test_their_memorisation_and_the_report(tmp_path, capsys):
    package = PACKAGES[0]
    counted = PoisonMemorization()
    report = Report()
    model = fit(package, tmp_path, PoisonedDataModule(data_of(package), PLACED, seed=3), counted, report)
    predictions = model(POINTS.inputs).argmax(dim=1)
    assert counted.history[-1]["poison/count"] == 6
    assert counted.history[-1]["poison/fitted"] == pytest.approx(
        float((predictions == POINTS.new_label).float().mean())
    )
    assert counted.history[-1]["poison/clean"] == pytest.approx(float((predictions == POINTS.old_label).float().mean()))
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Data with 6 poison points" in page
    assert "6 training points were added by PlacedPoisons(" in page


def test_kept_labels_are_counted_once():
    from lightning_poison.callbacks.poison_memorization import rows_by_class

    kept = PoisonPoints(torch.tensor([0, 1]), INPUTS[:2], LABELS[:2], LABELS[:2])
    assert list(rows_by_class(kept.old_label, kept.new_label, torch.tensor([0, 2]))) == [
        (0, 1, 1, 0, 0),
        (1, 1, 0, 0, 1),
    ]


def test_points_are_crafted_at_the_end_of_a_clean_run(tmp_path):
    package = PACKAGES[0]
    callback = CraftFlips(CleanLabelPerturbation(RandomPoints(per_class=2), eps=0.2, total=0.9), name="moved")
    fit(package, tmp_path, data_of(package), callback, epochs=4)
    file = tmp_path / "report" / "crafted_points_moved.pt"
    points = PoisonPoints.read(file)
    assert points.same_points(callback.flips)
    assert float(points.distance.sum()) <= 0.9
    data = PoisonedDataModule(data_of(package), PointsFromFile(str(file)))
    model = fit(package, tmp_path / "poisoned", data)
    for epoch in model.seen:
        assert set(epoch) >= rows(points.inputs, points.new_label)
        assert len(epoch) == 30
