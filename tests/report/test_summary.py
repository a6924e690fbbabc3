from dataclasses import replace

import pytest

from lightning_poison.report import Baseline, RunReport, summarize
from lightning_poison.report.comparison import Comparison, compare, difference
from lightning_poison.report.summary import headlines, table_keys


def test_headlines_prefer_the_test_set_and_the_radius_of_the_budget(example):
    assert [headline.key for headline in headlines(example())] == [
        "test/acc",
        "test/adv_acc",
        "poison/fitted",
        "cert/acc_at_100",
    ]


@pytest.mark.parametrize(("count", "radius"), [(0, 50), (60, 100), (100, 100), (5000, 200)])
def test_the_certified_headline_covers_the_flips_if_any_radius_does(count, radius, example):
    assert headlines(example(poison={"count": count}))[-1].key == f"cert/acc_at_{radius}"


def test_untargeted_attacks_come_first():
    report = RunReport("t", "now", metrics={"val/adv_acc_1_to_7": 0.1, "val/adv_acc": 0.2})
    assert headlines(report)[0].key == "val/adv_acc"


@pytest.mark.parametrize(
    ("metrics", "poison", "words"),
    [
        ({}, None, "Nothing was measured in this run."),
        ({}, {"count": 1}, "1 training label was flipped."),
        ({"val/adv_acc_small": 0.25}, None, "Against the attack small the victim keeps 25.0 %."),
        (
            {"poison/count": 3.0, "poison/fitted": 1.0},
            None,
            "3 training labels were flipped; the victim fitted 100.0 % of them.",
        ),
    ],
)
def test_sentences(metrics, poison, words):
    assert summarize(RunReport("t", "now", metrics=metrics, poison=poison)) == words


def test_order_of_the_table():
    metrics = dict.fromkeys(
        ["x", "cert/acc_at_100", "cert/acc_at_20", "train/loss", "train/loss_step", "val/acc", "test/acc"], 0.5
    )
    keys = table_keys(RunReport("t", "now", metrics=metrics))
    assert keys == ["test/acc", "val/acc", "cert/acc_at_20", "cert/acc_at_100", "train/loss", "x"]


def test_comparison_leaves_out_poisons_training_and_doubles():
    metrics = dict.fromkeys(["val/acc", "test/acc", "val/loss", "train/loss", "poison/fitted", "cert/acc_at_5"], 0.5)
    report = RunReport("t", "now", metrics=metrics, baseline=Baseline({**metrics, "paths/reached": 1.0}))
    assert [row.key for row in compare(report)] == ["test/acc", "val/loss", "cert/acc_at_5"]
    assert compare(replace(report, baseline=None)) == []


@pytest.mark.parametrize(
    ("row", "text", "improves"),
    [
        (Comparison("val/acc", 0.9, 0.95), "-5.0 pp", False),
        (Comparison("val/loss", 0.5, 0.75), "-0.2500", True),
        (Comparison("val/acc", 0.5, 0.5), "0.0 pp", None),
        (Comparison("val/acc", 0.9936, 0.9938), "-0.02 pp", False),
        (Comparison("paths/length_mean", 14.0, 12.5), "+1.5", True),
        (Comparison("val/f1", 2.0, 1.0), "+1", None),
        (Comparison("val/loss", float("nan"), 1.0), "-", None),
    ],
)
def test_differences(row, text, improves):
    assert difference(row) == text
    assert row.improves is improves


def test_where_the_flips_exceed_every_certificate_the_report_says_so():
    accuracies = {0: 0.9, 1: 0.8, 5: 0.6, 20: 0.2, 50: 0.0}
    metrics = {f"cert/acc_at_{radius}": accuracy for radius, accuracy in accuracies.items()}
    report = RunReport("t", "now", metrics=metrics, poison={"count": 40})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_5"]
    assert summarize(report).endswith("keeps 60.0 % if any 5 training labels change, and nothing if any 50 do.")


def test_of_several_learners_the_one_without_a_name_else_the_first_stands_at_the_top():
    named = {"cert/acc_at_0_q=0.1": 0.9, "cert/acc_at_5_q=0.1": 0.7, "cert/acc_at_5_q=0.2": 0.8}
    report = RunReport("t", "now", metrics=named, poison={"count": 3})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_5_q=0.1"]
    assert summarize(report).endswith(
        "The certified learner q=0.1 provably keeps 70.0 % if any 5 training labels change."
    )
    for note, words in (("proved; end-to-end", "provably keeps 70.0 %"), ("not proved; end-to-end", "keeps 70.0 %")):
        noted = RunReport("t", "now", metrics=named, poison={"count": 3}, notes={"cert/acc_at_5_q=0.1": note})
        doubt = "" if note.startswith("proved") else " (not proved)"
        assert summarize(noted).endswith(f"q=0.1 {words} if any 5 training labels change{doubt}.")
    report = RunReport("t", "now", metrics={**named, "cert/acc_at_2": 0.6}, poison={"count": 2})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_2"]


def test_the_smoothed_victim_is_summed_up_at_the_smallest_change():
    metrics = {"smooth/acc_at_0": 0.9, "smooth/acc_at_0.5": 0.5, "smooth/acc_at_0.25": 0.7, "smooth/acc_at_0.1_x": 0.6}
    report = RunReport("t", "now", metrics=metrics, notes={"smooth/acc_at_0.25": "the smoothed victim, sigma 0.5"})
    assert summarize(report) == "The smoothed victim keeps 70.0 % under any change of an input of l2 norm 0.25."
    (headline,) = headlines(report)
    assert headline.key == "smooth/acc_at_0.25"
    assert headline.note == "under any change of l2 norm 0.25; the smoothed victim, sigma 0.5"
