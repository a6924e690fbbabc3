import pytest

from lightning_poison.report.robustness import is_swept, robustness_section
from lightning_poison.report.run_report import Baseline, RunReport
from lightning_poison.report.run_sections import comparison_figure, training_section

CURVE = {
    f"{split}/adv_acc{name}_eps_{eps}": 0.5
    for split in ("val", "test")
    for name in ("", "_to_next")
    for eps in (0.05, 0.1)
}


def report(metrics, baseline):
    return RunReport("A run", "now", metrics=metrics, baseline=None if baseline is None else Baseline(baseline))


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
    (figure,) = training_section(history).figures
    assert "eps" not in figure.caption
    assert is_swept("val/adv_acc_1_to_7_mine_eps_5e-05")
    assert not is_swept("val/adv_acc_eps")
