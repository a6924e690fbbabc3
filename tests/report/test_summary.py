from dataclasses import replace

import pytest

from lightning_poison.report import Baseline, LoggedMetric, RunReport, summarize
from lightning_poison.report.comparison import Comparison, compare, difference
from lightning_poison.report.run_report import headlines, table_keys
from tests.report.described_metrics import DESCRIBED, attack, certified, described


def a_report(metrics, *more, **facts):
    return RunReport("t", "now", metrics=metrics, described=DESCRIBED | described(*more), **facts)


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
    report = a_report({"val/adv_acc_1_to_7": 0.1, "val/adv_acc": 0.2}, attack("val/adv_acc_1_to_7", kind="targeted"))
    assert headlines(report)[0].key == "val/adv_acc"


@pytest.mark.parametrize(
    ("metrics", "poison", "words"),
    [
        ({}, None, "Nothing was measured in this run."),
        ({}, {"count": 1}, "1 training label was flipped."),
        ({"val/adv_acc": 0.25}, None, "Against the attack the victim keeps 25.0 %."),
        (
            {"poison/count": 3.0, "poison/fitted": 1.0},
            None,
            "3 training labels were flipped; the victim fitted 100.0 % of them.",
        ),
    ],
)
def test_sentences(metrics, poison, words):
    assert summarize(a_report(metrics, poison=poison)) == words


def test_order_of_the_table():
    metrics = dict.fromkeys(
        ["x", "cert/acc_at_100", "cert/acc_at_20", "train/loss", "train/loss_step", "val/acc", "test/acc"], 0.5
    )
    keys = table_keys(a_report(metrics, certified(20)))
    assert keys == ["test/acc", "val/acc", "cert/acc_at_20", "cert/acc_at_100", "train/loss", "x"]


def test_comparison_leaves_out_poisons_training_and_doubles():
    metrics = dict.fromkeys(["val/acc", "test/acc", "val/loss", "train/loss", "poison/fitted", "cert/acc_at_5"], 0.5)
    report = a_report(metrics, baseline=Baseline({**metrics, "paths/reached": 1.0}))
    assert [row.metric.key for row in compare(report)] == ["test/acc", "val/loss", "cert/acc_at_5"]
    assert compare(replace(report, baseline=None)) == []


@pytest.mark.parametrize(
    ("key", "value", "other", "text", "improves"),
    [
        ("val/acc", 0.9, 0.95, "-5.0 pp", False),
        ("val/loss", 0.5, 0.75, "-0.2500", True),
        ("val/acc", 0.5, 0.5, "0.0 pp", None),
        ("val/acc", 0.9936, 0.9938, "-0.02 pp", False),
        ("paths/length_mean", 14.0, 12.5, "+1.5", True),
        ("val/f1", 2.0, 1.0, "+1", None),
        ("val/loss", float("nan"), 1.0, "-", None),
    ],
)
def test_differences(key, value, other, text, improves):
    row = Comparison(a_report({}).about(key), value, other)
    assert difference(row) == text
    assert row.improves is improves


def test_where_the_flips_exceed_every_certificate_the_report_says_so():
    accuracies = {0: 0.9, 1: 0.8, 5: 0.6, 20: 0.2, 50: 0.0}
    metrics = {f"cert/acc_at_{radius}": accuracy for radius, accuracy in accuracies.items()}
    report = a_report(metrics, poison={"count": 40})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_5"]
    assert summarize(report).endswith("keeps 60.0 % if any 5 training labels change, and nothing if any 50 do.")


def test_of_several_learners_the_one_without_a_name_else_the_first_stands_at_the_top():
    learners = [certified(0, "q=0.1"), certified(5, "q=0.1"), certified(5, "q=0.2")]
    named = {"cert/acc_at_0_q=0.1": 0.9, "cert/acc_at_5_q=0.1": 0.7, "cert/acc_at_5_q=0.2": 0.8}
    report = a_report(named, *learners, poison={"count": 3})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_5_q=0.1"]
    assert summarize(report).endswith(
        "The certified learner q=0.1 provably keeps 70.0 % if any 5 training labels change."
    )
    for note, words in (("proved; end-to-end", "provably keeps 70.0 %"), ("not proved; end-to-end", "keeps 70.0 %")):
        noted = a_report(named, *learners, certified(5, "q=0.1", note=note), poison={"count": 3})
        doubt = "" if note.startswith("proved") else " (not proved)"
        assert summarize(noted).endswith(f"q=0.1 {words} if any 5 training labels change{doubt}.")
    report = a_report({**named, "cert/acc_at_2": 0.6}, *learners, poison={"count": 2})
    assert [headline.key for headline in headlines(report)] == ["cert/acc_at_2"]


def test_the_smoothed_victim_is_summed_up_at_the_smallest_change():
    metrics = {"smooth/acc_at_0": 0.9, "smooth/acc_at_0.5": 0.5, "smooth/acc_at_0.25": 0.7, "smooth/acc_at_0.1_x": 0.6}
    note = "the smoothed victim, sigma 0.5"
    points = [(0.0, ""), (0.5, ""), (0.25, ""), (0.1, "_x")]
    keys = zip(metrics, points, strict=True)
    smoothed = [
        LoggedMetric(key, key, "share", kind="smoothed", radius=radius, headline=not name, note=note)
        for key, (radius, name) in keys
    ]
    report = a_report(metrics, *smoothed)
    assert summarize(report) == "The smoothed victim keeps 70.0 % under any change of an input of l2 norm 0.25."
    (headline,) = headlines(report)
    assert headline.key == "smooth/acc_at_0.25"
    assert headline.note == "under any change of l2 norm 0.25; the smoothed victim, sigma 0.5"
