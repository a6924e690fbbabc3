import json

import pytest

from lightning_poison.errors import UserError
from lightning_poison.report import write_report


def test_the_folder_holds_what_the_json_lists(tmp_path, example):
    (tmp_path / "flips.csv").write_text("index,old_label,new_label\n")
    page = write_report(tmp_path, example())
    assert page == tmp_path / "index.html"
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert sorted(files) == sorted(file.name for file in tmp_path.iterdir())
    assert "picture.png" in files
    assert "picture-2.png" in files, "two callbacks of one class must not overwrite each other's figures"
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_repeated_titles_get_numbers(tmp_path, example):
    write_report(tmp_path, example())
    titles = [section["title"] for section in json.loads((tmp_path / "report.json").read_text())["sections"]]
    assert titles == [titles[0], f"{titles[0]} 2"]


def test_a_second_writing_replaces_the_first(tmp_path, example):
    write_report(tmp_path, example())
    write_report(tmp_path, example(title="Second"))
    assert json.loads((tmp_path / "report.json").read_text())["title"] == "Second"


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path, example):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "file" / "report", example())
