import pytest

from lightning_poison.report import DOCUMENTED_KEYS, describe, format_value, is_documented


@pytest.mark.parametrize(
    ("key", "label", "unit", "better"),
    [
        ("val/acc", "Accuracy (validation)", "share", True),
        ("train/loss_epoch", "Loss (training)", "nats", False),
        ("test/loss", "Loss (test)", "nats", False),
        ("test/adv_acc", "Adversarial accuracy (test)", "share", True),
        ("val/adv_acc_fgsm", "Adversarial accuracy, fgsm (validation)", "share", True),
        ("test/adv_acc_3_to_7_small", "Adversarial accuracy, 3 to 7, small (test)", "share", True),
        ("test/adv_acc_to_7", "Adversarial accuracy, to 7 (test)", "share", True),
        ("test/adv_acc_to_next", "Adversarial accuracy, to next (test)", "share", True),
        ("val/adv_acc_to_least_likely_x", "Adversarial accuracy, to least likely, x (validation)", "share", True),
        ("val/adv_acc_eps_0.05", "Adversarial accuracy at eps 0.05 (validation)", "share", True),
        ("val/adv_acc_small_eps_0.03137", "Adversarial accuracy, small at eps 0.03137 (validation)", "share", True),
        ("test/adv_acc_3_to_next_eps_1", "Adversarial accuracy, 3 to next at eps 1 (test)", "share", True),
        ("test/adv_acc_pgd-l2", "Adversarial accuracy, pgd-l2 (test)", "share", True),
        ("poison/fitted", "Poisons fitted", "share", None),
        ("poison/clean", "Poisons still predicted clean", "share", None),
        ("poison/count", "Flipped labels", "labels", None),
        ("smooth/acc_at_0.25_wide", "Smoothed victim: certified accuracy at 0.25, wide", "share", True),
        ("smooth/acc_at_0", "Smoothed victim: certified accuracy at 0", "share", True),
        ("smooth/radius_mean", "Smoothed victim: certified radius, mean", "pixels", True),
        ("smooth/abstained", "Smoothed victim: abstains", "share", False),
        ("paths/length_median", "Path length, median", "steps", True),
        ("paths/reached", "Paths that flip the prediction", "share", False),
        ("cert/acc_at_1", "Certified accuracy at 1 label", "share", True),
        ("cert/acc_at_5400", "Certified accuracy at 5,400 labels", "share", True),
        ("cert/acc_at_100_pca", "Certified accuracy at 100 labels, pca", "share", True),
        ("cert/radius_mean", "Certified radius, mean", "labels", True),
        ("val/acc/dataloader_idx_1", "Accuracy (validation), loader 1", "share", True),
    ],
)
def test_documented_keys(key, label, unit, better):
    info = describe(key)
    assert (info.label, info.unit, info.higher_is_better) == (label, unit, better)
    assert info.description.endswith(".")
    assert is_documented(key)


@pytest.mark.parametrize("key", ["val/f1", "acc", "lr-Adam", "cert/acc_at_many", "other/acc"])
def test_foreign_keys_keep_their_name(key):
    assert describe(key).label == key
    assert not is_documented(key)


def test_the_documentation_lists_every_family_once():
    written = [key for key, _ in DOCUMENTED_KEYS]
    assert len(written) == len(set(written)) == 17
    assert all(info.unit for _, info in DOCUMENTED_KEYS)


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
