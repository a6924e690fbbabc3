from __future__ import annotations

import csv
import io
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


THREE = {"index": [2, 9], "old_label": [1, 0], "new_label": [0, 1]}


@pytest.mark.parametrize(
    "text",
    [
        "index,old_label,new_label\n9,0,1\n2,1,0\n",
        "index,old_label,new_label\r\n9,0,1\r\n2,1,0\r\n,,\r\n,,\r\n",
        "index,old_label,new_label\r9,0,1\r2,1,0\r",
        "index;old_label;new_label\n9;0;1\n2;1;0\n;;\n",
        "sep=;\nindex;old_label;new_label\n9;0;1\n2;1;0\n",
        "index\told_label\tnew_label\n9\t0\t1\n2\t1\t0\n",
        '"index","old_label","new_label"\n"9","0","1"\n"2", "1", "0"\n',
        '"Index"; "Old label" ;"NEW-LABEL"\n"9";"0";"1"\n"2";"1";"0"\n',
        ",index,old_label,new_label\n0,9,0,1\n1,2,1,0\n",
        ",index,old_label,new_label\n0,9.0,0.0,1.0\n1,2.,1.00,0.0\n",
        "Unnamed: 0,new_label,index,old_label\n5,1,9,0\n6,0,2,1\n",
        'file,index,old_label,new_label,note\na.png,9,0,1,"wrong, surely"\nb.png,2,1,0,"over\n two lines"\n',
        "index,old_label,new_label\n9,0,1\nindex,old_label,new_label\n# joined\n2,1,0\n",
        "index,old_label,new_label,,\n9,0,1,,\n2,1,0\n",
        "index,old_label,new_label\n+9,00,1\n 2 ,\t1,\u00a00\n\n\n  \n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_people_save_them(tmp_path, text, encoding):
    path = tmp_path / "flips.csv"
    path.write_bytes(text.encode(encoding))
    read = FlipList.read(path)
    assert {name: getattr(read, name).tolist() for name in THREE} == THREE
    assert not read.provenance


def test_rows_keep_the_numbers_of_their_lines(tmp_path):
    text = '# who: me\n\nindex;old_label;new_label;note\n\n9;0;1;"two\nlines"\n;;;\n# aside\n2;1;1;x\n'
    with pytest.raises(UserError, match=r"flips.csv, row 9: new_label equals old_label \(1\)"):
        FlipList.read(written(tmp_path, text))


@pytest.mark.parametrize("reads", [",", ";", "\t"])
@pytest.mark.parametrize("writes", [",", ";", "\t"])
def test_a_list_of_ours_that_a_spreadsheet_has_saved(tmp_path, reads, writes):
    """A spreadsheet takes every line for cells, pads them to one width, and writes them in quotes where it must."""
    strategy = 'LabelFlips(RandomPoints(count=2, classes=[0, 1]), ToClass(3)), "so to speak"'
    arguments = {"class": "LabelFlips", "select": {"count": 2, "classes": [0, 1]}, "note": 'a, "b" c'}
    provenance = {"strategy": strategy, "arguments": arguments, "seed": 3, "fingerprint": "0123456789abcdef", "x": None}
    path = flips(provenance=provenance).write(tmp_path / "flips.csv")
    cells = [_split(line, reads) for line in path.read_text().splitlines()]
    width = max(map(len, cells))
    saved = io.StringIO()
    writer = csv.writer(saved, delimiter=writes)
    writer.writerows([row + [""] * (width - len(row)) for row in cells])
    path.write_bytes(saved.getvalue().encode("utf-8-sig"))
    read = FlipList.read(path)
    assert read.same_flips(flips())
    assert dict(read.provenance) == {"format_version": 1, **provenance}


def _split(line, delimiter):
    """As a spreadsheet does: quotes count at the beginning of a cell only."""
    return next(csv.reader([line], delimiter=delimiter))


def test_the_table_of_poison_points_is_no_flip_list(tmp_path):
    text = '# norm: "l2"\nindex,old_label,new_label,distance\n4,0,1,0.5\n'
    with pytest.raises(UserError, match=r"row 2: this is the table of poison points; give the .pt file beside it"):
        FlipList.read(written(tmp_path, text))
    assert len(FlipList.read(written(tmp_path, text.partition("\n")[2]))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n\n", "is empty"),
        ("# seed: 0\n", "has no header"),
        ("1,0,1\n", "row 1: the header must read index,old_label,new_label"),
        (HEADER + "1,0\n", r"row 2, column new_label: it must be an integer such as 3, got an empty cell"),
        (HEADER + "1,0,1\n2,zero,1\n", "row 3, column old_label: it must be an integer such as 3, got 'zero'"),
        (HEADER + "1.5,0,1\n", "row 2, column index: it must be an integer such as 3, got '1.5'"),
        (
            HEADER + "99999999999999999999,0,1\n",
            "row 2, column index: the number is too large, got 9{20}$",
        ),
        (HEADER + "1,0," + "9" * 5000 + "\n", "row 2, column new_label: the number is too large, got 9{40}$"),
        (HEADER + "1,,2\n", "row 2, column old_label: .*, got an empty cell"),
        (HEADER + "\n1,0,nan\n", "row 3, column new_label: .*, got 'nan'"),
        (HEADER + "1,0,1e3\n", "row 2, column new_label: .*, got '1e3'"),
        (HEADER + "1,234,0,1\n", "row 2: it has 4 cells, and the header 3 columns"),
        (HEADER.replace(",", ";") + "1;0;1,5\n", "row 2, column new_label: .*, got '1,5'"),
        (HEADER + '1,0,1\n2,"0,1\n3,0,1\n', "row 3: its quotes do not fit together"),
        ("index,old_label\n1,0\n", "row 1: the header must read .*, got 'index,old_label', which lacks new_label"),
        ("index,index,old_label,new_label\n0,7,0,1\n", "row 1: the header has the column index twice"),
        (HEADER.replace(",", "\t") + "1\t0\n", "row 2, column new_label"),
        ("#\n" + HEADER + "3,0,1\n,,\n3,0,1\n", "row 5: index 3 is listed twice"),
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
    for data in (b"\x89PNG\r\n\x1a\n\xff", b"\xff\xfeind"):
        (tmp_path / "bytes.csv").write_bytes(data)
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
