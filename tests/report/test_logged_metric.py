import pytest

from lightning_poison.report.logged_metric import LoggedMetric, describe, format_value
from lightning_poison.victims.victim import classifier_metrics

KNOWN = {metric.key: metric for metric in classifier_metrics()}


@pytest.mark.parametrize(
    ("key", "label", "unit", "better"),
    [
        ("val/acc", "Accuracy (validation)", "share", True),
        ("train/loss_epoch", "Loss (training)", "nats", False),
        ("test/loss", "Loss (test)", "nats", False),
        ("val/acc/dataloader_idx_1", "Accuracy (validation), loader 1", "share", True),
    ],
)
def test_what_lightning_makes_of_a_key_means_the_same(key, label, unit, better):
    metric = describe(key, KNOWN)
    assert (metric.key, metric.label, metric.unit, metric.higher_is_better) == (key, label, unit, better)
    assert metric.headline == (key == "val/acc"), "one loader of several, or a doubled key, is no headline"
    assert metric.description.endswith(".")


@pytest.mark.parametrize(("key", "split"), [("val/f1", "val"), ("acc", ""), ("cert/acc_at_1", ""), ("val", "")])
def test_what_nobody_described_stands_under_its_key(key, split):
    assert describe(key, KNOWN) == LoggedMetric(key, key, split=split)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9999, "share", ">99.9 %"),
        (0.0001, "share", "<0.1 %"),
        (1.0, "share", "100.0 %"),
        (0.0, "share", "0.0 %"),
        (12345.0, "labels", "12,345"),
        (12.34, "steps", "12.3"),
        (0.123456, "nats", "0.1235"),
        (float("inf"), "nats", "-"),
        (None, "share", "-"),
    ],
)
def test_format_value(value, unit, text):
    assert format_value(value, unit) == text
