"""Metrics with their meaning, as the callbacks make them."""

from lightning_poison.report import LoggedMetric
from lightning_poison.victims.victim import classifier_metrics


def described(*metrics):
    return {metric.key: metric for metric in metrics}


def attack(key, **facts):
    """As AdversarialAccuracy describes it."""
    facts = {"kind": "adversarial", "headline": True, "higher_is_better": True, **facts}
    return LoggedMetric(key, key, "share", split=key.partition("/")[0], **facts)


def certified(radius, name="", **facts):
    """As CertifiedPoints describes it."""
    key, label = f"cert/acc_at_{radius}{name and '_'}{name}", f"Certified accuracy at {radius} labels"
    facts = {
        "kind": "certified",
        "description": "Share certified.",
        "headline": True,
        "series": name,
        "radius": radius,
        **facts,
    }
    return LoggedMetric(key, label, "share", **facts)


DESCRIBED = described(
    *classifier_metrics(),
    attack("val/adv_acc"),
    attack("test/adv_acc"),
    LoggedMetric("poison/fitted", "Poisons fitted", "share", kind="poison", headline=True),
    LoggedMetric("poison/count", "Flipped labels", "labels", kind="poison"),
    LoggedMetric("paths/length_mean", "Path length, mean", "steps", kind="paths", higher_is_better=True),
    *(certified(radius) for radius in (0, 1, 2, 5, 20, 50, 100, 200)),
)
