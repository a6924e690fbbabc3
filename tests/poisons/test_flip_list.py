from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, TrainingSet

HEADER = "index,old_label,new_label\n"


def flips(index=(4, 1), old=(0, 1), new=(1, 2), **more) -> FlipList:
    return FlipList(torch.tensor(index), torch.tensor(old), torch.tensor(new), **more)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flips.csv"
    path.write_text(text)
    return path


def test_rows_are_sorted_and_applied_to_a_copy():
    labels = torch.tensor([2, 1, 2, 2, 0])
    flipped = flips().apply(labels)
    assert flipped.tolist() == [2, 2, 2, 2, 1]
    assert labels.tolist() == [2, 1, 2, 2, 0]
    assert flips().index.tolist() == [1, 4]
    assert flips().old_label.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"index": (4, 4)}, "row 1: index 4 is listed twice"),
        ({"index": (4, -1)}, "index must be at least 0, got -1"),
        ({"new": (0, 2)}, "new_label equals old_label"),
        ({"new": (1, -2)}, "new_label must be at least 0"),
        ({"index": (1, 2, 3)}, "must have one length, got index 3, old_label 2, new_label 2"),
        ({"index": (0.5, 1.0)}, "index must be a vector of integers"),
    ],
)
def test_malformed_columns(columns, message):
    with pytest.raises(UserError, match=message):
        flips(**columns)


def test_check_names_the_row_of_the_first_misfit():
    data = TrainingSet(torch.tensor([2, 1, 2, 2, 0]), 3, "aaaa")
    assert flips().check(data) is not None
    with pytest.raises(UserError, match=r"row 1: index 7 is outside of the training set; its 5 points"):
        flips(index=(1, 7), old=(1, 0), new=(2, 2)).check(data)
    with pytest.raises(UserError, match=r"row 0: old_label is 0, but training point 1 has label 1"):
        flips(index=(1, 4), old=(0, 0), new=(2, 2)).check(data)
    with pytest.raises(UserError, match=r"row 1: new_label 4 is out of range; 4 classes are numbered 0 to 3"):
        flips(new=(4, 2)).check(data)
    with pytest.raises(UserError, match=r"new_label 3 is out of range"):
        flips(new=(3, 2)).check(data, num_classes_after=3)
    with pytest.raises(UserError, match="fingerprint is bbbb, this training set's is aaaa"):
        flips(provenance={"fingerprint": "bbbb"}).check(data)


def test_csv_round_trip(tmp_path):
    provenance = {"strategy": 'a "quoted" rule', "arguments": {"x": [1, None]}, "seed": 3, "note": "é: b", "ok": True}
    path = flips(provenance=provenance).write(tmp_path / "new" / "flips.csv")
    back = FlipList.read(path)
    assert back.same_flips(flips())
    assert dict(back.provenance) == {"format_version": 1, **provenance}
    lines = path.read_text().splitlines()
    assert lines[1] == f"# strategy: {json.dumps(provenance['strategy'])}"
    assert lines[-3:] == ["index,old_label,new_label", "1,1,2", "4,0,1"]
    again = back.write(tmp_path / "again.csv")
    assert again.read_text() == path.read_text()


def test_empty_list_round_trip(tmp_path):
    assert len(FlipList.read(FlipList.empty({"strategy": None}).write(tmp_path / "flips.csv"))) == 0


def test_a_list_written_by_hand(tmp_path):
    text = "\ufeff# drawn by me\r\n# who: me\r\nindex, old_label, new_label\r\n9, 0 ,1\r\n\r\n# aside\r\n2,1,0\r\n"
    read = FlipList.read(written(tmp_path, text))
    assert read.index.tolist() == [2, 9]
    assert dict(read.provenance) == {"who": "me"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n\n", "is empty"),
        ("# seed: 0\n", "has no header"),
        ("1,0,1\n", "row 1: the header must read index,old_label,new_label"),
        (HEADER + "1,0\n", r"row 2: a row has three integers .* got '1,0'"),
        (HEADER + "1,0,1\n2,zero,1\n", "row 3: a row has three integers"),
        (HEADER + "1.5,0,1\n", "row 2: a row has three integers"),
        (HEADER + "99999999999999999999,0,1\n", "row 2: a number is too large"),
        (HEADER + "7,0,1\n3,0,1\n7,1,2\n", "row 4: index 7 is listed twice"),
        (HEADER + "-3,0,1\n", "row 2: index must be at least 0, got -3"),
        (HEADER + "1,0,1\n2,3,3\n", "row 3: new_label equals old_label"),
        ("# format_version: 2\n" + HEADER, "row 1: format_version must be 1, got 2"),
    ],
)
def test_malformed_file(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        FlipList.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_misfits_of_a_file_name_its_line(tmp_path):
    read = FlipList.read(written(tmp_path, "# seed: 0\n" + HEADER + "4,0,1\n1,2,0\n"))
    with pytest.raises(UserError, match=r"flips.csv, row 4: old_label is 2, but training point 1 has label 1"):
        read.check(TrainingSet(torch.tensor([2, 1, 2, 2, 0]), 3))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="there is no flip list at"):
        FlipList.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot read the flip list"):
        FlipList.read(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00index")
    with pytest.raises(UserError, match="cannot read the flip list"):
        FlipList.read(tmp_path / "bytes.csv")


def test_state_survives_a_weights_only_load(tmp_path):
    torch.save(flips(provenance={"seed": 1, "arguments": {"a": [1]}}).state_dict(), tmp_path / "state.pt")
    back = FlipList.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert back.same_flips(flips())
    assert back.provenance["arguments"] == {"a": [1]}


def test_columns_as_a_person_writes_them():
    import numpy as np

    written = FlipList([4, 1], (0, 1), np.array([1, 2], dtype=np.uint8))
    assert written.same_flips(flips())
    assert len(FlipList([], [], [])) == 0
    for wrong in (["a"], [0.5], [[1]], 3, None, [2**70]):
        with pytest.raises(UserError, match="index must be a vector of integers, got"):
            FlipList(wrong, [0], [1])


def test_labels_of_a_training_set_are_int64_whatever_came():
    assert TrainingSet(torch.tensor([0, 2], dtype=torch.uint16), 3).labels.dtype == torch.int64
    data = TrainingSet(torch.tensor([127, 3], dtype=torch.int8), 128)
    from lightning_poison.poisons import NewClass, NextClass

    assert NextClass().new_labels(data, torch.arange(2), seed=0).tolist() == [0, 4]
    assert NewClass().new_labels(data, torch.arange(2), seed=0).tolist() == [128, 128]


def test_training_set_refuses_labels_out_of_range():
    with pytest.raises(UserError, match="labels must lie in"):
        TrainingSet(torch.tensor([0, 3]), 3)
