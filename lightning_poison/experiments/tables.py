"""An experiment's numbers as text: every run, the summaries, and the table that people read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from lightning_poison.experiments.runs import RunResult
from lightning_poison.experiments.summary import EVERY_VICTIM, Summary
from lightning_poison.functional.student import MeanInterval

__all__ = ["results_csv", "summaries_csv", "summaries_markdown"]

_NOTHING = "-"


def results_csv(results: Sequence[RunResult]) -> str:
    """A line for each run and radius.

    Example:
        >>> result = RunResult("random", "MLP", 0, 10, 1.0, 30, 0.01, 0.98, 200, {"0.1": 120}, 1.5)
        >>> print(results_csv([result]), end="")
        victim,strategy,seed,eps,adversarial,natural,withstood,attacked,flips,fitted,memorised,epochs,loss,seconds
        MLP,random,0,0.1,0.6,0.98,120,200,10,1.0,1,30,0.01,1.5
    """
    header = (
        "victim strategy seed eps adversarial natural withstood attacked flips fitted memorised epochs loss seconds"
    )
    rows = [
        [
            *(result.victim, result.strategy, result.seed, eps, result.adversarial(eps), result.natural, withstood),
            *(result.attacked, result.flips, result.fitted, int(result.memorised), result.epochs, result.loss),
            result.seconds,
        ]
        for result in results
        for eps, withstood in result.withstood.items()
    ]
    return _csv(header.split(), rows)


def summaries_csv(summaries: Sequence[Summary]) -> str:
    """A line for each summary; shares in [0, 1]."""
    parts = ("natural", "adversarial", "difference")
    header = ["eps", "victim", "strategy", "runs", "memorised", "fitted", "epochs_least", "epochs_most"]
    header += [f"{part}{end}" for part in parts for end in ("", "_n", "_error", "_low", "_high")]
    rows = [
        [
            *(summary.eps, summary.victim, summary.strategy, summary.runs, summary.memorised, summary.fitted),
            *(summary.epochs or ("", "")),
            *(number for part in parts for number in _numbers(getattr(summary, part))),
        ]
        for summary in summaries
    ]
    return _csv(header, rows)


def summaries_markdown(summaries: Sequence[Summary], baseline: str, seeds: int) -> str:
    """The table for people, in per cent: mean ± standard error, difference with its interval.

    Args:
        summaries: the rows.
        baseline: name of the strategy that others are compared with.
        seeds: number of them; a mean over fewer says so.
    """
    lines = [
        "| eps | victim | strategy | memorised | epochs | natural acc. | adversarial acc. | minus "
        + baseline
        + " | interval |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for summary in summaries:
        difference = summary.difference
        own = summary.strategy == baseline
        cells = [
            summary.eps,
            "all, seed by seed" if summary.victim == EVERY_VICTIM else summary.victim,
            summary.strategy,
            _memorised(summary),
            _epochs(summary),
            _percent(summary.natural, 2),
            _percent(summary.adversarial, 1) + _of(summary.adversarial, seeds),
            "" if own else _percent(difference, 1, sign="+") + _of(difference, seeds),
            "" if own else _interval(difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _memorised(summary: Summary) -> str:
    share = "" if math.isnan(summary.fitted) or summary.fitted == 1 else f", {100 * summary.fitted:.1f} % of flips"
    return f"{summary.memorised} of {summary.runs}{share}"


def _epochs(summary: Summary) -> str:
    return "" if summary.epochs is None else " to ".join(str(each) for each in dict.fromkeys(summary.epochs))


def _of(interval: MeanInterval, seeds: int) -> str:
    """Over how many seeds a mean is, where it is not over all."""
    return "" if interval.n in (0, seeds) else f" (n = {interval.n})"


def _percent(interval: MeanInterval, digits: int, sign: str = "") -> str:
    if not interval.n:
        return _NOTHING
    error = "" if math.isnan(interval.error) else f" ± {100 * interval.error:.{digits}f}"
    return f"{100 * interval.mean:{sign}.{digits}f}{error}"


def _interval(interval: MeanInterval) -> str:
    return _NOTHING if math.isnan(interval.low) else f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _numbers(interval: MeanInterval) -> list[float]:
    return [interval.mean, interval.n, interval.error, interval.low, interval.high]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    with io.StringIO() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])
        return stream.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else float(f"{value:.6g}")
    return value
