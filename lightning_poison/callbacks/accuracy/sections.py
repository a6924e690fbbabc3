"""The report's section on accuracy under attack."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from lightning_poison.attacks import Attack, StochasticVictimWarning
from lightning_poison.attacks.base import MASKED_SHARE, MASKING_REMEDY
from lightning_poison.attacks.torchattacks_adapter import TorchAttack
from lightning_poison.callbacks.accuracy.counts import AttackedSamples, interval
from lightning_poison.functional.pixels import in_grey_levels
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["attack_section", "describe_attack", "doubts", "masking_warnings"]

_DETAIL_WORDS = {
    "queries": "queries to the victim per sample",
    "zero_gradient": "samples whose first gradient is exactly zero",
    "l2": "l2 size of the perturbation, pixel units",
    "survival": "random transformations under which the example fools",
    "agreement": "samples on which substitute and victim agree",
    "transferred": "examples against the substitute that fool the victim too",
}
_SHARES = ("zero_gradient", "survival", "agreement", "transferred")

_AFRESH = "natural accuracy is of one draw, attacks go their whole way, and one fresh evaluation of each example counts"
"""How a stochastic victim is counted."""
_DATA = {"val": "validation", "test": "test"}
_WORST = "worst case"


def attack_section(
    title: str,
    text: str,
    key: str,
    attacks: Mapping[str, Attack],
    latest: Sequence[AttackedSamples],
    history: Sequence[AttackedSamples],
    radii: Sequence[float],
    *,
    targeted: bool = False,
    remarks: Sequence[str] = (),
) -> Section:
    """Words, tables and curves of what one callback measured.

    Args:
        title: of the section.
        text: what the share means.
        key: the logged key without its first part, from which the pictures' names are made.
        attacks: by short name.
        latest: the last measurement of each split.
        history: those of ``fit``.
        radii: of the sweep; empty without one.
        targeted: whether the attacks have a target, so that the share at radius 0 isn't the natural accuracy.
        remarks: further sentences that a reader has to mind.
    """
    sentences = [*remarks, *(sentence for entry in latest for sentence in doubts(entry))]
    warnings = [f"Mind that {sentence}." for sentence in dict.fromkeys(sentences)]
    tables = [_attack_table(attacks, stochastic=any(entry.stochastic for entry in latest)), _result_table(latest)]
    details = _detail_table(latest)
    if details is not None:
        tables.append(details)
    swept = [entry for entry in latest if entry.curve]
    tables += [_curve_table(entry, radii) for entry in swept]
    if len(history) > 1:
        tables.append(_history_table(history))
    norm = next(iter(attacks.values())).norm or ""
    figures = tuple(_curve_figure(entry, radii, key, norm, targeted) for entry in swept)
    return Section(title, (text, *warnings), tuple(tables), figures)


def describe_attack(attack: Attack, eps: float | None = None) -> str:
    """An attack in one line; with another radius where ``eps`` is given.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> describe_attack(PGD(eps=0.1))
        'PGD, linf, eps 0.1 (25.5/255), 40 steps'
    """
    steps = getattr(attack, "steps", None)
    eps = attack.eps if eps is None else eps
    radius = [attack.norm or "no norm", f"eps {eps:.4g} ({in_grey_levels(eps)})"]
    asked = getattr(attack, "training_queries", 0)
    parts = [attack.name, *(radius if attack.norm else []), *([] if steps is None else [f"{steps} steps"])]
    return ", ".join([*parts, *([f"trained on {asked:,} decisions of the victim"] if asked else [])])


def doubts(measured: AttackedSamples) -> list[str]:
    """A sentence for everything that speaks against taking the shares at their word."""
    return [*([str(StochasticVictimWarning(_AFRESH))] if measured.stochastic else []), *masking_warnings(measured)]


def masking_warnings(measured: AttackedSamples) -> list[str]:
    """A sentence for each attack that found no slope to follow on many samples."""
    shares = {name: figures.get("zero_gradient", (0.0, 0))[0] for name, figures in measured.details.items()}
    return [
        f"the gradient is exactly zero on {100 * share:.1f} % of the {measured.split} samples that {name} attacked, so "
        f"it cannot tell one step from another and the victim may be less robust than it looks (gradient masking); "
        f"{MASKING_REMEDY}"
        for name, share in shares.items()
        if share > MASKED_SHARE
    ]


# --- tables -----------------------------------------------------------------------------------------------------------


def _attack_table(attacks: Mapping[str, Attack], *, stochastic: bool = False) -> ReportTable:
    """The settings of each attack; with their short names where there are several.

    Args:
        attacks: by short name.
        stochastic: whether the victim's scores differ from pass to pass.
    """
    several = len(attacks) > 1
    rows = []
    for name, attack in attacks.items():
        steps = getattr(attack, "steps", None)
        criterion = "last iterate" if isinstance(attack, TorchAttack) else getattr(attack, "success", "any iterate")
        if stochastic:
            criterion = "fresh evaluation"
        bounded = math.isfinite(attack.eps)
        eps = (f"{attack.eps:.4g}", in_grey_levels(attack.eps)) if bounded else (None, None)
        rows.append((*([name] if several else []), attack.name, attack.norm, *eps, steps, criterion))
    columns = ("attack", "norm", "eps, pixel units", "eps, grey levels", "steps", "success")
    if several:
        return ReportTable("The attacks", ("name", *columns), tuple(rows))
    return ReportTable("The attack", columns, tuple(rows))


def _result_table(latest: Sequence[AttackedSamples]) -> ReportTable:
    """The last measurement of each split, with an exact binomial interval; the worst case and each of several."""
    columns = ("data", "samples", "natural accuracy", "adversarial accuracy", "95 % interval (exact)")
    several = any(len(entry.each) > 1 for entry in latest)
    rows = []
    for entry in latest:
        counts = {"all of them (worst case)": entry.withstood, **(entry.each if several else {})}
        for name, count in counts.items():
            natural = _percent(entry.correct, entry.samples)
            row = (entry.split, entry.samples, natural, _percent(count, entry.samples), _interval(count, entry.samples))
            rows.append((row[0], name, *row[1:]) if several else row)
    return ReportTable("Last measurement", (columns[0], "attack", *columns[1:]) if several else columns, tuple(rows))


def _detail_table(latest: Sequence[AttackedSamples]) -> ReportTable | None:
    """Means of what the attacks tell of single samples; None where they tell nothing."""
    rows = tuple(
        (entry.split, name, _DETAIL_WORDS[figure], f"{100 * mean:.1f} %" if figure in _SHARES else mean, count)
        for entry in latest
        for name, figures in entry.details.items()
        for figure, (mean, count) in figures.items()
    )
    columns = ("data", "attack", "figure", "mean", "of samples")
    return ReportTable("What the attacks needed and did", columns, rows) if rows else None


def _history_table(history: Sequence[AttackedSamples]) -> ReportTable:
    """One row a measurement."""
    # A reader counts epochs from 1, as the curves do.
    rows = tuple(
        (
            entry.epoch + 1,
            entry.split,
            entry.samples,
            _percent(entry.correct, entry.samples),
            _percent(entry.withstood, entry.samples),
        )
        for entry in history
    )
    columns = ("epoch", "data", "samples", "natural accuracy", "adversarial accuracy")
    return ReportTable("Over the epochs of training", columns, rows)


def _percent(count: int, samples: int) -> str:
    return f"{100 * count / samples:.2f} %"


def _interval(count: int, samples: int) -> str:
    low, high = interval(count, samples)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


# --- curves -----------------------------------------------------------------------------------------------------------


def _series(entry: AttackedSamples) -> dict[str, tuple[int, ...]]:
    """Withstanding samples by curve: each attack, and the worst case of several."""
    return {_WORST: entry.curve, **entry.curves} if len(entry.curves) > 1 else dict(entry.curves)


def _curve_table(entry: AttackedSamples, radii: Sequence[float]) -> ReportTable:
    series = _series(entry)
    rows = []
    for place, radius in enumerate(radii):
        shares = [_percent(counts[place], entry.samples) for counts in series.values()]
        rows.append((f"{radius:.4g}", in_grey_levels(radius), *shares, _interval(entry.curve[place], entry.samples)))
    names = tuple(series) if len(series) > 1 else ("adversarial accuracy",)
    last = "95 % interval (exact)" if len(series) == 1 else f"95 % interval (exact), {_WORST}"
    columns = ("eps, pixel units", "eps, grey levels", *names, last)
    return ReportTable(f"Accuracy against the radius, {_DATA[entry.split]} points", columns, tuple(rows))


def _curve_figure(entry: AttackedSamples, radii: Sequence[float], key: str, norm: str, targeted: bool) -> ReportFigure:
    from lightning_poison.plots import robustness_curve_figure

    series = _series(entry)
    figure = robustness_curve_figure(
        radii,
        {name: [count / entry.samples for count in counts] for name, counts in series.items()},
        intervals={name: [interval(count, entry.samples) for count in counts] for name, counts in series.items()},
        natural_accuracy=None if targeted else entry.correct / entry.samples,
        norm=norm,
        ylabel="not driven to the target" if targeted else "accuracy",
    )
    name = re.sub(r"[^A-Za-z0-9_-]", "-", f"robustness-curve-{entry.split}-{key}")
    share = "Share of the {} points not driven to the target" if targeted else "Accuracy on the {} points"
    caption = (
        f"{share.format(_DATA[entry.split])} against the radius within which the attacker may change a point; "
        "the band is the 95 % interval of the share."
    )
    return ReportFigure.from_figure(name, caption, figure)
