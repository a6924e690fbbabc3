from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, PointsFromFile, PoisonPoints, TrainingSet
from lightning_poison.poisons.from_file import restored_poisons

LABELS = torch.arange(12) % 3
DATA = TrainingSet(LABELS, 3, "abc", TensorDataset(torch.zeros(12, 2, 2), LABELS))


def points(**changes):
    columns = {
        "index": torch.tensor([-1, 4, -1, 0]),
        "inputs": torch.arange(16.0).view(4, 2, 2),
        "old_label": torch.tensor([2, 1, 0, 0]),
        "new_label": torch.tensor([0, 1, 1, 2]),
        "distance": torch.tensor([0.5, 1.0, 1.5, 2.0]),
        "provenance": {"strategy": "by hand", "fingerprint": "abc", "seed": 0},
    }
    return PoisonPoints(**{**columns, **changes})


def test_where_they_stand_and_what_they_are_labelled():
    assert points().positions(12).tolist() == [12, 4, 13, 0]
    assert points().num_added == 2
    assert points().apply(LABELS).tolist() == [2, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    assert LABELS.tolist() == [0, 1, 2] * 4
    assert points().short() == "4 poison points"
    assert points().in_words() == "2 training points were added and 2 training points were replaced"


def test_inputs_take_the_type_of_clean_ones():
    assert points().input_at(1, torch.zeros(2, 2, dtype=torch.float64)).dtype == torch.float64
    array = points().input_at(1, np.zeros((2, 2), dtype=np.float32))
    assert array.dtype == np.float32
    assert array.tolist() == [[4, 5], [6, 7]]


def test_they_come_back_from_files_and_checkpoints(tmp_path):
    points().write(tmp_path / "mine.pt")
    read = PoisonPoints.read(tmp_path / "mine.pt")
    assert read.same_points(points())
    assert read.provenance == points().provenance
    assert torch.load(tmp_path / "mine.pt", weights_only=True)["format_version"] == 1
    assert (tmp_path / "mine.csv").read_text().splitlines() == [
        "# format_version: 1",
        '# strategy: "by hand"',
        '# fingerprint: "abc"',
        "# seed: 0",
        "index,old_label,new_label,distance",
        "-1,2,0,0.5",
        "4,1,1,1",
        "-1,0,1,1.5",
        "0,0,2,2",
    ]
    torch.save({"list": points().state_dict()}, tmp_path / "state.ckpt")
    restored = restored_poisons(torch.load(tmp_path / "state.ckpt", weights_only=True)["list"])
    assert isinstance(restored, PoisonPoints)
    assert restored.same_points(points())
    assert isinstance(restored_poisons(FlipList.empty().state_dict()), FlipList)


def test_a_file_is_a_strategy(tmp_path):
    points().write(tmp_path / "mine.pt")
    strategy = PointsFromFile(str(tmp_path / "mine.pt"))
    assert strategy.craft(DATA, seed=3).same_points(points())
    assert strategy.num_classes_after(3) == 3
    other = TrainingSet(LABELS, 3, "xyz")
    with pytest.raises(UserError, match=r"mine\.pt were made for other data: their fingerprint is abc"):
        strategy.craft(other, seed=0)


def test_files_that_are_no_points(tmp_path):
    with pytest.raises(UserError, match="there is no file of poison points at"):
        PoisonPoints.read(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("index,old_label\n")
    with pytest.raises(UserError, match="cannot read the poison points in"):
        PoisonPoints.read(tmp_path / "text.pt")
    for text in ("a,b\n1,2\n", "", "]", "epoch: 3\n", "0"):
        (tmp_path / "text.pt").write_text(text)
        with pytest.raises(UserError, match=r"cannot read the poison points in|holds no poison points"):
            PoisonPoints.read(tmp_path / "text.pt")
    state = {"format_version": 1, **points().state_dict()}
    for name in ("index", "old_label", "new_label", "distance", "provenance"):
        torch.save({key: value for key, value in state.items() if key != name}, tmp_path / "less.pt")
        with pytest.raises(
            UserError, match=f"less.pt: {name} must be a (tensor, which is not there|dict); give a file"
        ):
            PoisonPoints.read(tmp_path / "less.pt")
    torch.save({**state, "inputs": [1.0]}, tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list.pt: inputs must be a tensor, got list"):
        PoisonPoints.read(tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"path must name a \.pt file of poison points, got 3"):
        PointsFromFile(3)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no poison points"):
        PoisonPoints.read(tmp_path / "other.pt")
    torch.save({"format_version": 2, "inputs": torch.zeros(2)}, tmp_path / "later.pt")
    with pytest.raises(UserError, match="format_version must be 1, got 2"):
        PoisonPoints.read(tmp_path / "later.pt")


class Harmful:
    """Runs code where a file that holds it is read carelessly."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({**points().state_dict(), "format_version": 1, "more": Harmful(tmp_path / "done")}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="cannot read the poison points in"):
        PoisonPoints.read(tmp_path / "bad.pt")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": torch.tensor([-1, 4, -2, 0])}, "index must be -1 for an added point"),
        ({"index": torch.tensor([-1, 4, 4, 0])}, "no point may be replaced twice"),
        ({"index": torch.tensor([0.0, 1.0, 2.0, 3.0])}, "index must be a vector of integers"),
        ({"old_label": torch.tensor([1, 2])}, "must have the length of index, 4"),
        ({"new_label": torch.tensor([0, 1, -1, 2])}, "labels must be at least 0"),
        ({"inputs": torch.full((4, 2), torch.nan)}, "inputs must be finite floats"),
    ],
)
def test_columns_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        points(**changes)


def test_points_for_other_data():
    assert points().check(DATA) is not None
    with pytest.raises(UserError, match="index 4 is outside of the training set of 3 points"):
        points().check(TrainingSet(LABELS[:3], 3))
    with pytest.raises(UserError, match="old_label is 0, but training point 0 has label 2"):
        points().apply(LABELS.flip(0))
    with pytest.raises(UserError, match="new_label 2 is out of range; 2 classes"):
        points().check(DATA, 2)
    wide = TrainingSet(LABELS, 3, "abc", TensorDataset(torch.zeros(12, 5), LABELS))
    with pytest.raises(UserError, match=r"shape of the training inputs, \(5,\), got \(2, 2\)"):
        points().check(wide)
    three = TrainingSet(LABELS, 3, "abc", TensorDataset(torch.zeros(12, 2, 2), LABELS, LABELS))
    with pytest.raises(UserError, match="items only, got items of 3 values"):
        points().check(three)
