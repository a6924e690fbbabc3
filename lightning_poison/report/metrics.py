"""What each metric key means: its label, its unit, and a sentence about it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["DOCUMENTED_KEYS", "MetricInfo", "describe", "format_value", "is_documented"]


@dataclass(frozen=True)
class MetricInfo:
    """The meaning of a metric.

    Args:
        label: its name in a table.
        unit: "share" (of 1, shown in per cent), "steps", "labels", "points", "pixels", "nats", or "" where unknown.
        description: one sentence.
        higher_is_better: from the victim's point of view; None where neither is.
    """

    label: str
    unit: str
    description: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class _Pattern:
    """A family of keys: how it is written in the documentation, what matches it, and what it means."""

    written: str
    regex: re.Pattern[str]
    info: Callable[[re.Match[str]], MetricInfo]


_DATA = {"train": "training", "val": "validation", "test": "test"}
_SPLIT = r"(?P<split>train|val|test)"
_SUFFIX = r"(?:_(?P<suffix>.+))?"
_SWEPT = r"(?:_(?P<suffix>.+?))??(?:_eps_(?P<eps>[\d.e-]+))?"
_TARGET_RULES = {"next": "the class after its own", "least_likely": "the class that the victim finds least likely"}


def describe(key: str) -> MetricInfo:
    """Say what a metric key means; a foreign key gets its own name as label and no unit.

    Example:
        >>> describe("test/adv_acc_0_to_1").label
        'Adversarial accuracy, 0 to 1 (test)'
        >>> describe("cert/acc_at_100").unit
        'share'
        >>> describe("val/f1").label
        'val/f1'
    """
    base, _, loader = key.partition("/dataloader_idx_")
    for pattern in _PATTERNS:
        match = pattern.regex.fullmatch(base.removesuffix("_epoch"))
        if match:
            info = pattern.info(match)
            return replace(info, label=f"{info.label}, loader {loader}") if loader else info
    return MetricInfo(key, "", "Logged by the model or by another callback.")


def is_documented(key: str) -> bool:
    """Whether the dictionary knows ``key``.

    Example:
        >>> is_documented("val/acc"), is_documented("val/f1")
        (True, False)
    """
    return describe(key).unit != ""


def format_value(value: float | None, unit: str) -> str:
    """A value in words a reader takes in at a glance; a dash for None, NaN and infinity.

    Example:
        >>> format_value(0.98765, "share"), format_value(5654.0, "labels"), format_value(float("nan"), "share")
        ('98.8 %', '5,654', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if unit == "share":
        return f"{_percent(value)} %"
    if unit == "nats" and 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if unit in ("steps", "labels", "points") else f"{value:.4g}"


def _percent(share: float) -> str:
    """One decimal, but never "100.0" or "0.0" for a share that is not quite."""
    text = f"{100 * share:.1f}"
    if text in ("100.0", "0.0") and share not in (0.0, 1.0):
        return ">99.9" if share > 0.5 else "<0.1"
    return text


def _of(suffix: str | None) -> str:
    return f", {suffix}" if suffix else ""


def _at(match: re.Match[str]) -> str:
    """The radius of a sweep."""
    return f" at eps {match['eps']}" if match["eps"] else ""


def _accuracy(match: re.Match[str]) -> MetricInfo:
    split = match["split"]
    if split == "train":
        text = "Share of training points predicted as their label, flipped or not."
    else:
        text = f"Natural accuracy: share of {_DATA[split]} points classified correctly, without attack."
    return MetricInfo(f"Accuracy ({_DATA[split]})", "share", text, higher_is_better=True)


def _loss(match: re.Match[str]) -> MetricInfo:
    data = _DATA[match["split"]]
    return MetricInfo(f"Loss ({data})", "nats", f"Mean cross-entropy on the {data} points.", higher_is_better=False)


def _targeted(match: re.Match[str]) -> MetricInfo:
    data, source, target = _DATA[match["split"]], match["source"], match["target"]
    named = target.replace("_", " ")
    steered = f"{source} to {named}" if source else f"to {named}"
    label = f"Adversarial accuracy, {steered}{_of(match['suffix'])}{_at(match)} ({data})"
    whose = f"points of class {source}" if source else "points of other classes"
    text = f"Share of {data} {whose} that the attack cannot turn into class {target}."
    if target in _TARGET_RULES:
        whose = f"points of class {source}" if source else "points"
        text = f"Share of {data} {whose} that the attack cannot turn into {_TARGET_RULES[target]}."
    return MetricInfo(label, "share", text, higher_is_better=True)


def _untargeted(match: re.Match[str]) -> MetricInfo:
    data = _DATA[match["split"]]
    label = f"Adversarial accuracy{_of(match['suffix'])}{_at(match)} ({data})"
    text = f"Share of {data} points classified correctly even after the attack changed their pixels."
    return MetricInfo(label, "share", text, higher_is_better=True)


def _certified(match: re.Match[str]) -> MetricInfo:
    radius = int(match["radius"])
    label = f"Certified accuracy at {radius:,} {'label' if radius == 1 else 'labels'}{_of(match['suffix'])}"
    text = (
        "Share of evaluation points that the certified learner (not the victim) classifies correctly, however up to so "
        "many training labels are changed: to other declared classes, or, if the name ends in any_label, to any label "
        "at all. The note beside the number says how certain that is."
        if radius
        else "Accuracy of the certified learner, with the training labels as they are."
    )
    return MetricInfo(label, "share", text, higher_is_better=True)


def _smoothed(match: re.Match[str]) -> MetricInfo:
    label = f"Smoothed victim: certified accuracy at {match['radius']}{_of(match['suffix'])}"
    text = (
        "Share of evaluation points that the victim, smoothed with Gaussian noise, classifies correctly, certified for "
        "every change of the input of at most so much in l2, in pixel units."
    )
    return MetricInfo(label, "share", text, higher_is_better=True)


def _fixed(label: str, unit: str, text: str, better: bool | None) -> Callable[[re.Match[str]], MetricInfo]:
    return lambda match: MetricInfo(
        f"{label}{_of(match.groupdict().get('suffix'))}", unit, text, higher_is_better=better
    )


def _pattern(written: str, regex: str, info: Callable[[re.Match[str]], MetricInfo]) -> _Pattern:
    return _Pattern(written, re.compile(regex), info)


def _named(key: str, label: str, unit: str, text: str, better: bool | None = None, suffix: str = _SUFFIX) -> _Pattern:
    return _pattern(key, re.escape(key) + suffix, _fixed(label, unit, text, better))


_PATTERNS = (
    _pattern("{train,val,test}/acc", f"{_SPLIT}/acc", _accuracy),
    _pattern("{train,val,test}/loss", f"{_SPLIT}/loss", _loss),
    _pattern(
        "{val,test}/adv_acc[_A]_to_{B,next,least_likely}[_SUFFIX][_eps_R]",
        rf"{_SPLIT}/adv_acc(?:_(?P<source>[^_]+))?_to_(?P<target>least_likely|[^_]+){_SWEPT}",
        _targeted,
    ),
    _pattern("{val,test}/adv_acc[_SUFFIX][_eps_R]", f"{_SPLIT}/adv_acc{_SWEPT}", _untargeted),
    _named("poison/count", "Flipped labels", "labels", "How many training labels were flipped.", suffix=""),
    _named(
        "poison/fitted",
        "Poisons fitted",
        "share",
        "Share of the flipped training points that the victim predicts as their flipped label.",
        suffix="",
    ),
    _named(
        "poison/clean",
        "Poisons still predicted clean",
        "share",
        "Share of the flipped training points that the victim still predicts as their clean label.",
        suffix="",
    ),
    _named(
        "paths/length_median",
        "Path length, median",
        "steps",
        "Median number of steps of an adversarial path: unbounded sign-gradient steps until the prediction flips.",
        True,
    ),
    _named(
        "paths/length_mean",
        "Path length, mean",
        "steps",
        "Mean number of steps of an adversarial path; one whose prediction never flipped counts with the limit.",
        True,
    ),
    _named(
        "paths/reached",
        "Paths that flip the prediction",
        "share",
        "Share of the points whose prediction flipped within the allowed steps.",
        False,
    ),
    _pattern("cert/acc_at_R", rf"cert/acc_at_(?P<radius>\d+){_SUFFIX}", _certified),
    _named(
        "cert/radius_median",
        "Certified radius, median",
        "labels",
        "Median, over the evaluation points, of the number of training labels that may change without changing the "
        "certified learner's prediction: to other declared classes, or, where the name ends in any_label, to any label "
        "at all.",
        True,
    ),
    _named("cert/radius_mean", "Certified radius, mean", "labels", "The same radius, averaged.", True),
    _named(
        "cert/abstained",
        "Certified learner abstains",
        "share",
        "Share of evaluation points for which too few trainings agreed; their radius counts as 0 in median and mean.",
        False,
    ),
    _pattern("smooth/acc_at_R", rf"smooth/acc_at_(?P<radius>[\d.e-]+){_SUFFIX}", _smoothed),
    _named(
        "smooth/radius_mean",
        "Smoothed victim: certified radius, mean",
        "pixels",
        "Mean l2 radius, in pixel units, of the smoothed victim's certificates; 0 where it abstains.",
        True,
    ),
    _named(
        "smooth/abstained",
        "Smoothed victim: abstains",
        "share",
        "Share of evaluation points for which the noisy copies decided for no class.",
        False,
    ),
)

DOCUMENTED_KEYS: tuple[tuple[str, MetricInfo], ...] = tuple(
    (pattern.written, describe(example))
    for pattern, example in zip(
        _PATTERNS,
        (
            "val/acc",
            "train/loss",
            "val/adv_acc_A_to_B",
            "val/adv_acc",
            "poison/count",
            "poison/fitted",
            "poison/clean",
            "paths/length_median",
            "paths/length_mean",
            "paths/reached",
            "cert/acc_at_100",
            "cert/radius_median",
            "cert/radius_mean",
            "cert/abstained",
            "smooth/acc_at_0.25",
            "smooth/radius_mean",
            "smooth/abstained",
        ),
        strict=True,
    )
)
"""Every documented family of keys, in the order of the documentation, with the meaning of an example of it."""
