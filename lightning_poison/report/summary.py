"""The run in words and in a handful of numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightning_poison.report.metrics import describe, format_value
from lightning_poison.report.run_report import RunReport

__all__ = ["Headline", "headlines", "summarize", "table_keys"]

_ORDER = ("test/", "val/", "poison/", "paths/", "cert/", "train/")
_ADVERSARIAL = re.compile(r"(?P<split>test|val)/adv_acc(?P<rest>.*)")
_PROVED = "proved"  # how the note of a certificate begins that holds with certainty
_SMOOTHED = re.compile(r"smooth/acc_at_([\d.e-]+)")
_RADIUS = re.compile(r"cert/acc_at_(?P<radius>\d+)(?P<ending>(?:_.+)?)")


@dataclass(frozen=True)
class Headline:
    """One of the few numbers that stand at the top: its key, a short title and a short note."""

    key: str
    title: str
    note: str


def table_keys(report: RunReport) -> list[str]:
    """The keys of the closing table: no per-step values, in the order test, val, poison, paths, cert, train, others."""

    def place(key: str) -> tuple[int, int, int]:
        group = next((number for number, start in enumerate(_ORDER) if key.startswith(start)), len(_ORDER))
        name = key.rpartition("/")[2]
        radius = _RADIUS.match(key)
        return (
            group,
            0 if name == "acc" else 1 if name.startswith("adv_acc") else 2,
            int(radius["radius"]) if radius else -1,
        )

    return sorted((key for key in report.metrics if not key.endswith("_step")), key=place)


def headlines(report: RunReport) -> list[Headline]:
    """Accuracy, natural, adversarial and certified, and the share of poisons fitted: those that were measured."""
    found = []
    accuracy = _first(report, "test/acc", "val/acc")
    if accuracy:
        found.append(Headline(accuracy, "Natural accuracy", f"{_points(accuracy)} points, no attack"))
    adversarial = _adversarial_key(report)
    if adversarial:
        found.append(Headline(adversarial, "Adversarial accuracy", _attack(report, adversarial)))
    if "poison/fitted" in report.metrics:
        count = _count(report)
        note = "of the flipped labels" if count is None else f"of {count:,} flipped labels"
        found.append(Headline("poison/fitted", "Poisons fitted", note))
    certified = _certified_key(report)
    if certified:
        found.append(Headline(certified, "Certified accuracy", _certificate_note(report, certified)))
    smoothed = _smoothed_key(report)
    if smoothed:
        radius = _SMOOTHED.sub(r"\1", smoothed)
        note = f"under any change of l2 norm {radius}; {report.notes.get(smoothed, 'the smoothed victim')}"
        found.append(Headline(smoothed, "Certified for inputs", note))
    return found


def summarize(report: RunReport) -> str:
    """The run in one or two sentences.

    Example:
        >>> summarize(RunReport("A run", "now", metrics={"val/acc": 0.989}, poison={"count": 0}))
        'No training label was flipped. Accuracy is 98.9 % on the validation points.'
    """
    sentences = [_poison_words(report), _accuracy_words(report), _certificate_words(report), _smoothed_words(report)]
    return " ".join(sentence for sentence in sentences if sentence) or "Nothing was measured in this run."


def _poison_words(report: RunReport) -> str:
    count, total = _count(report), report.data.get("training_points")
    if count is None:
        return ""
    if count == 0:
        return "No training label was flipped."
    among = f" of {total:,}" if isinstance(total, int) else ""
    labels = "label" if count == 1 and not among else "labels"
    words = f"{count:,}{among} training {labels} {'was' if count == 1 else 'were'} flipped"
    fitted = report.metrics.get("poison/fitted")
    return f"{words}; the victim fitted {format_value(fitted, 'share')} of them." if fitted is not None else f"{words}."


def _accuracy_words(report: RunReport) -> str:
    key, adversarial = _first(report, "test/acc", "val/acc"), _adversarial_key(report)
    words = ""
    if key:
        words = f"Accuracy is {_value(report, key)}{_twin(report, key)} on the {_points(key)} points"
    if adversarial:
        against = f"against {_attack(report, adversarial)}"
        words = f"{words}; {against} it keeps" if words else f"{against.capitalize()} the victim keeps"
        words = f"{words} {_value(report, adversarial)}{_twin(report, adversarial)}"
    return f"{words}." if words else ""


def _certificate_words(report: RunReport) -> str:
    key = _certified_key(report)
    if not key:
        return ""
    radius, ending = _radius_and_ending(key)
    covering = _covering_radius(report, _radii(report, ending))
    nothing = "" if radius == covering else f", and nothing if any {covering:,} do"
    labels = "training label changes" if radius == 1 else "training labels change"
    learner = f"The certified learner {ending[1:]}" if ending else "The certified learner"
    claim = report.notes.get(key, "").partition(";")[0]
    keeps, doubt = ("keeps", f" ({claim})") if claim and claim != _PROVED else ("provably keeps", "")
    return f"{learner} {keeps} {_value(report, key)} if any {radius:,} {labels}{nothing}{doubt}."


def _smoothed_words(report: RunReport) -> str:
    key = _smoothed_key(report)
    if not key:
        return ""
    value, radius = f"{_value(report, key)}{_twin(report, key)}", _SMOOTHED.sub(r"\1", key)
    return f"The smoothed victim keeps {value} under any change of an input of l2 norm {radius}."


def _smoothed_key(report: RunReport) -> str | None:
    """Certified accuracy of the smoothed victim at the smallest radius that is a change."""
    radii = {key: float(match[1]) for key in report.metrics if (match := _SMOOTHED.fullmatch(key))}
    return min((key for key, radius in radii.items() if radius > 0), key=lambda key: radii[key], default=None)


def _adversarial_key(report: RunReport) -> str | None:
    """An untargeted attack on the test set, else whatever comes closest."""
    keys = [key for key in report.metrics if _ADVERSARIAL.fullmatch(key)]
    return min(keys, key=lambda key: (key.startswith("val/"), "_to_" in key), default=None)


def _certified_key(report: RunReport) -> str | None:
    """The radius that covers the flips; where nothing is certified there, the largest that certifies half.

    Of several learners, the one whose numbers have no name, else the first.
    """
    matches = [match for key in report.metrics if (match := _RADIUS.fullmatch(key)) and match["radius"] != "0"]
    if not matches:
        return None
    ending = "" if any(match["ending"] == "" for match in matches) else str(matches[0]["ending"])
    radii = _radii(report, ending)
    covering = _covering_radius(report, radii)
    if report.metrics[f"cert/acc_at_{covering}{ending}"] > 0:
        return f"cert/acc_at_{covering}{ending}"
    halves = [radius for radius in radii if report.metrics[f"cert/acc_at_{radius}{ending}"] >= 0.5]
    return f"cert/acc_at_{max(halves, default=radii[0])}{ending}"


def _covering_radius(report: RunReport, radii: list[int]) -> int:
    """The smallest of ``radii`` that is at least the number of flips, else the largest."""
    count = _count(report) or 0
    return next((radius for radius in radii if radius >= count), radii[-1])


def _radii(report: RunReport, ending: str) -> list[int]:
    """The positive radii at which the certified accuracy of a learner was measured."""
    found = (_RADIUS.fullmatch(key) for key in report.metrics)
    return sorted({int(match["radius"]) for match in found if match and match["ending"] == ending} - {0})


def _certificate_note(report: RunReport, key: str) -> str:
    """What may change, and whose number it is: the callback's note, else that it is not the victim's."""
    radius, _ = _radius_and_ending(key)
    whose = report.notes.get(key, "of the certified learner, not of the victim")
    return f"if any {radius:,} training {'label changes' if radius == 1 else 'labels change'}; {whose}"


def _radius_and_ending(key: str) -> tuple[int, str]:
    match = _RADIUS.fullmatch(key)
    return (int(match["radius"]), str(match["ending"])) if match else (0, "")


def _attack(report: RunReport, key: str) -> str:
    """The attack in words: the callback's note, else the key's suffix."""
    if key in report.notes:
        return report.notes[key]
    match = _ADVERSARIAL.fullmatch(key)
    suffix = match["rest"].strip("_").replace("_", " ") if match else ""
    return f"the attack {suffix}" if suffix else "the attack"


def _count(report: RunReport) -> int | None:
    count = (report.poison or {}).get("count", report.metrics.get("poison/count"))
    return None if count is None else int(count)


def _twin(report: RunReport, key: str) -> str:
    value = report.baseline_value(key)
    if report.baseline is None or value is None:
        return ""
    return f" ({report.baseline.label}: {format_value(value, describe(key).unit)})"


def _value(report: RunReport, key: str) -> str:
    return format_value(report.metrics[key], describe(key).unit)


def _points(key: str) -> str:
    return "test" if key.startswith("test/") else "validation"


def _first(report: RunReport, *keys: str) -> str | None:
    return next((key for key in keys if key in report.metrics), None)
