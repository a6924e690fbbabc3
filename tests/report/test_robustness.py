import pytest

from lightning_poison.report.comparison import comparison_figure, robustness_section
from lightning_poison.report.run_report import Baseline, RunReport
from lightning_poison.report.run_sections import training_section
from tests.report.described_metrics import DESCRIBED, attack

SWEPT = {
    f"{split}/{name}_eps_{eps}": attack(f"{split}/{name}_eps_{eps}", headline=False, series=name, radius=eps)
    for split in ("val", "test")
    for name in ("adv_acc", "adv_acc_to_next")
    for eps in (0.05, 0.1)
}
CURVE = dict.fromkeys(SWEPT, 0.5)


def report(metrics, baseline, **facts):
    other = None if baseline is None else Baseline(baseline)
    return RunReport("A run", "now", metrics=metrics, baseline=other, described=DESCRIBED | SWEPT, **facts)


def test_each_curve_that_both_runs_have_is_drawn_once():
    section = robustness_section(report(CURVE, CURVE))
    assert [figure.name for figure in section.figures] == [
        "robustness-test-adv_acc",
        "robustness-test-adv_acc_to_next",
    ]
    assert all(figure.size[0] > 100 for figure in section.figures)


def test_validation_curves_are_drawn_without_a_test_set():
    metrics = {key: value for key, value in CURVE.items() if key.startswith("val")}
    assert len(robustness_section(report(metrics, CURVE)).figures) == 2


@pytest.mark.parametrize("baseline", [None, {}, {"test/adv_acc_eps_0.05": 0.5, "test/acc": 1.0}])
def test_nothing_to_compare(baseline):
    assert robustness_section(report(CURVE, baseline)) is None


def test_points_of_a_curve_are_in_no_other_picture():
    assert comparison_figure(report(CURVE, CURVE)) is None
    history = {key: [(0, 0.1), (1, 0.2)] for key in (*CURVE, "val/acc")}
    (figure,) = training_section(report({}, None, history=history)).figures
    assert "eps" not in figure.caption
