import json

import pytest

from lightning_poison.errors import UserError
from lightning_poison.report import read_baseline, report_json, write_report

KEYS = [
    "title",
    "created",
    "command",
    "metrics",
    "metric_info",
    "baseline",
    "history",
    "seeds",
    "versions",
    "data",
    "poison",
    "sections",
    "files",
]


def refuse(constant):
    raise AssertionError(constant)


def test_schema_and_values(example, nasty):
    content = json.loads(report_json(example(), ["index.html"]), parse_constant=refuse)
    assert list(content) == KEYS
    assert content["metrics"]["val/acc"] == 0.989
    assert content["metrics"]["train/loss"] is None
    assert content["history"]["train/loss"] == [{"epoch": 0, "value": 0.1}, {"epoch": 1, "value": None}]
    assert content["metric_info"]["test/adv_acc"]["unit"] == "share"
    assert content["metric_info"]["test/adv_acc"]["measured_with"] == "PGD, linf, eps 0.1"
    assert content["metric_info"][nasty]["label"] == nasty
    assert set(content["metric_info"]) == set(content["metrics"]) | set(content["history"])
    assert content["baseline"]["metrics"]["test/acc"] == 0.6
    assert content["sections"][0]["tables"][0]["rows"][1] == ["b", "-", None]
    assert content["files"] == ["index.html"]
    assert content["seeds"] == {"everything": 0, "poison": 7}


def test_without_baseline(example):
    assert json.loads(report_json(example(baseline=None)))["baseline"] is None


@pytest.mark.parametrize("place", ["file", "folder", "log folder"])
def test_a_report_is_a_baseline(tmp_path, place, example):
    folder = tmp_path / "report"
    write_report(folder, example())
    path = {"file": folder / "report.json", "folder": folder, "log folder": tmp_path}[place]
    baseline = read_baseline(path)
    assert baseline.metrics["test/adv_acc"] == 0.365
    assert "train/loss" not in baseline.metrics
    assert baseline.fingerprint == "abc"


NO_REPORTS = [
    "not json",
    "[]",
    "{}",
    '{"metrics": {"val/acc": "much"}}',
    '{"metrics": {"x": 1}, "metric_info": {"x": {"unit": ""}}}',
]


@pytest.mark.parametrize("content", NO_REPORTS)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match="baseline must"):
        read_baseline(tmp_path)


def test_a_missing_baseline_is_refused(tmp_path):
    with pytest.raises(UserError, match="baseline must be an existing report"):
        read_baseline(tmp_path / "nowhere")
