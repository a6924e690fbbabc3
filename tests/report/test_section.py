import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import lightning_poison
from lightning_poison.errors import UserError
from lightning_poison.report import ReportFigure, ReportTable


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".png"])
def test_figure_names_are_file_names(name):
    with pytest.raises(UserError, match="name must"):
        ReportFigure(name, "", b"")


def test_rows_must_fill_the_columns():
    with pytest.raises(UserError, match="row 1 of table 't' must have 2 cells, got 1"):
        ReportTable("t", ("a", "b"), ((1, 2), (1,)))


def test_a_figure_becomes_a_png_of_its_size():
    figure = ReportFigure.from_figure("x", "", Figure(figsize=(2, 1)), dots_per_inch=50)
    assert figure.size == (100, 50)
    assert ReportFigure("x", "", b"no picture").size == (0, 0)


def test_importing_is_cheap():
    code = "import sys, lightning_poison.report; print({'torch', 'matplotlib', 'rich', 'jinja2'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(lightning_poison.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"
