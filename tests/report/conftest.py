"""A report with something of everything."""

import pytest
from matplotlib.figure import Figure

from lightning_poison.report import Baseline, ReportFigure, ReportTable, RunReport, Section
from tests.report.described_metrics import DESCRIBED, attack, described

NASTY = "<script>alert('x')</script> & \"quotes\""


@pytest.fixture
def nasty():
    """Text that would be markup if it were not escaped."""
    return NASTY


@pytest.fixture
def example():
    """Makes a report; keyword arguments replace its fields."""
    return make_example


def make_example(**changes):
    picture = ReportFigure.from_figure("picture", f"A picture of {NASTY}", Figure(figsize=(1, 1)))
    section = Section(
        f"Section {NASTY}",
        (f"Text {NASTY}",),
        (ReportTable("A table", ("name", "share", "number"), ((NASTY, "98.5 %", 1234), ("b", "-", None))),),
        (picture,),
    )
    values = {
        "title": f"Title {NASTY}",
        "created": "2024-05-06T07:08:09+00:00",
        "command": f"python -m x {NASTY}",
        "metrics": {
            "val/acc": 0.989,
            "test/acc": 0.5,
            "test/adv_acc": 0.365,
            "poison/count": 100.0,
            "poison/fitted": 0.93,
            "cert/acc_at_0": 0.97,
            "cert/acc_at_50": 0.9,
            "cert/acc_at_100": 0.8,
            "cert/acc_at_200": 0.7,
            "train/loss": float("nan"),
            NASTY: 1.5,
        },
        "history": {"val/acc": [(0, 0.9), (1, 0.989)], "train/loss": [(0, 0.1), (1, float("inf"))]},
        "baseline": Baseline({"test/acc": 0.6, "test/adv_acc": 0.612, "poison/fitted": 1.0}, source=NASTY),
        "seeds": {"everything": 0, "poison": 7},
        "versions": {"python": "3.11", "torch": "2.15"},
        "data": {"fingerprint": "abc", "num_classes": 10, "training_points": 55_000},
        "poison": {"count": 100, "strategy": NASTY},
        "described": DESCRIBED | described(attack("test/adv_acc", note="PGD, linf, eps 0.1")),
        "sections": (section, section),
        "config": f"key: {NASTY}",
        "extra_files": ("flips.csv",),
    }
    return RunReport(**{**values, **changes})
