"""What came out of an experiment: means, differences, tables, remarks, and the files that say so."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_poison.experiments.folder import RunResult
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.intervals import MeanInterval, mean_interval
from lightning_poison.plots import strategy_curve, strategy_intervals
from lightning_poison.plots.accuracy import IntervalPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Outcome", "results_csv", "summaries_csv", "summaries_markdown", "summarise"]

_EVERY_VICTIM = "all"  # in place of a kind of victim: the mean over the kinds
_NOTHING = "-"
_Value = Callable[[RunResult], float]


# --- the outcome ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The finished runs of an experiment.

    Args:
        results: of every run.
        baseline: the strategy that others are compared with.
        measured: what adversarial accuracy is here, as a sentence.
        title: of the experiment.
        note: a sentence for below the table.
        figure: "points": differences from the baseline; "curve": adversarial accuracy from strategy to strategy.
        fixed: the strategies that have flipped the same points in every seed.
        planned: for each kind of victim the epochs of its recipe.
    """

    results: Sequence[RunResult]
    baseline: str
    measured: str = ""
    title: str = ""
    note: str = ""
    figure: str = "points"
    fixed: Sequence[str] = ()
    planned: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def summaries(self) -> list[Summary]:
        """Means and paired differences."""
        return summarise(self.results, self.baseline)

    @property
    def markdown(self) -> str:
        """The table, and how to read it."""
        heading = f"# {self.title}\n\n" if self.title else ""
        seeds = len({result.seed for result in self.results})
        table = summaries_markdown(self.summaries, self.baseline, seeds)
        sentences = [self.measured, *_remarks(self.results, seeds, self.planned, self.fixed)]
        note = f"\n{self.note}\n" if self.note else ""
        return f"{heading}{table}\n{' '.join(filter(None, sentences))}\n{note}"

    def __str__(self) -> str:
        """The table."""
        return self.markdown

    def draw(self) -> Figure:
        """The figure."""
        return self._curve() if self.figure == "curve" else self._points()

    def write(self, folder: Path) -> None:
        """Write ``results.csv``, ``table.md``, ``table.csv``, ``figure.png`` and ``figure.svg``.

        Raises:
            UserError: the folder cannot be written.
        """
        write_atomically(folder / "results.csv", results_csv(self.results))
        write_atomically(folder / "table.csv", summaries_csv(self.summaries))
        write_atomically(folder / "table.md", self.markdown)
        figure = self.draw()
        for kind in ("png", "svg"):
            with io.BytesIO() as stream:
                figure.savefig(stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
                write_atomically(folder / f"figure.{kind}", stream.getvalue())

    def _points(self) -> Figure:
        panels: dict[str, dict[str, dict[str, IntervalPoint]]] = {}
        for summary in self.summaries:
            if summary.strategy != self.baseline and summary.difference.n:
                rows = panels.setdefault(f"eps {summary.eps}", {}).setdefault(summary.strategy, {})
                name = "mean of all" if summary.victim == _EVERY_VICTIM else summary.victim
                rows[name] = _point(summary, "difference")
        return strategy_intervals(panels, xlabel=f"adversarial accuracy minus {self.baseline}, points")

    def _curve(self) -> Figure:
        panels: dict[str, dict[str, IntervalPoint]] = {}
        levels: dict[str, IntervalPoint] = {}
        for summary in self.summaries:
            if summary.victim == _EVERY_VICTIM or not summary.adversarial.n:
                continue
            panel = f"{summary.victim}, eps {summary.eps}"
            if summary.strategy == self.baseline:
                levels[panel] = _point(summary, "adversarial")
            else:
                panels.setdefault(panel, {})[summary.strategy] = _point(summary, "adversarial")
        return strategy_curve(panels, levels, level_name=self.baseline)


def _point(summary: Summary, part: str) -> IntervalPoint:
    interval = getattr(summary, part)
    return IntervalPoint(interval.mean, interval.low, interval.high)


# --- summaries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One strategy against one kind of victim at one radius.

    Runs that have not memorised their flips are counted, and left out of everything else.

    Args:
        strategy: its name.
        victim: name of the kind; "all": seed by seed the mean over the kinds, of seeds whose runs are all memorised.
        eps: the radius, as text.
        runs: number of runs.
        memorised: how many of them have memorised every flip.
        fitted: mean share of the flips that is fitted, over all runs; NaN without flips.
        epochs: the smallest and the largest number of epochs of a run; None where several kinds are averaged.
        natural: natural accuracy.
        adversarial: adversarial accuracy.
        difference: adversarial accuracy minus the baseline's, seed by seed; of seeds where both have memorised.
    """

    strategy: str
    victim: str
    eps: str
    runs: int
    memorised: int
    fitted: float
    epochs: tuple[int, int] | None
    natural: MeanInterval
    adversarial: MeanInterval
    difference: MeanInterval


def summarise(results: Sequence[RunResult], baseline: str) -> list[Summary]:
    """The summaries, in the order of the results: by radius, victim, strategy; "all" last where there are several.

    Args:
        results: finished runs.
        baseline: the strategy to compare with.
    """
    victims = list(dict.fromkeys(result.victim for result in results))
    strategies = list(dict.fromkeys(result.strategy for result in results))
    radii = list(dict.fromkeys(eps for result in results for eps in result.withstood))
    groups = [[victim] for victim in victims] + ([victims] if len(victims) > 1 else [])
    return [
        _summary(results, strategy, group, eps, baseline)
        for eps in radii
        for group in groups
        for strategy in strategies
    ]


def _summary(results: Sequence[RunResult], strategy: str, victims: list[str], eps: str, baseline: str) -> Summary:
    own = [result for result in results if result.strategy == strategy and result.victim in victims]
    others = [result for result in results if result.strategy == baseline and result.victim in victims]

    def adversarial(result: RunResult) -> float:
        return result.adversarial(eps)

    mine, theirs = _by_seed(own, victims, adversarial), _by_seed(others, victims, adversarial)
    natural = _by_seed(own, victims, lambda result: result.natural)
    paired = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    shares = [result.fitted for result in own if result.flips]
    return Summary(
        strategy=strategy,
        victim=victims[0] if len(victims) == 1 else _EVERY_VICTIM,
        eps=eps,
        runs=len(own),
        memorised=sum(result.memorised for result in own),
        fitted=sum(shares) / len(shares) if shares else math.nan,
        epochs=(min(result.epochs for result in own), max(result.epochs for result in own))
        if len(victims) == 1
        else None,
        natural=mean_interval(list(natural.values())),
        adversarial=mean_interval(list(mine.values())),
        difference=mean_interval(paired),
    )


def _by_seed(results: Sequence[RunResult], victims: list[str], value: _Value) -> dict[int, float]:
    """The mean over the victims of each seed at which all have memorised."""
    seeds: dict[int, list[float]] = {}
    for result in results:
        if result.memorised:
            seeds.setdefault(result.seed, []).append(value(result))
    return {seed: sum(values) / len(values) for seed, values in seeds.items() if len(values) == len(victims)}


# --- tables -----------------------------------------------------------------------------------------------------------


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
            "all, seed by seed" if summary.victim == _EVERY_VICTIM else summary.victim,
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


# --- remarks ----------------------------------------------------------------------------------------------------------


def _remarks(
    results: Sequence[RunResult], seeds: int, planned: Mapping[str, int], fixed: Sequence[str] = ()
) -> list[str]:
    """How to read the numbers, and what qualifies them.

    Args:
        results: of every run.
        seeds: number of them.
        planned: for each kind of victim the epochs of its recipe.
        fixed: the strategies that have flipped the same points in every seed.

    Returns:
        sentences.

    Example:
        >>> result = RunResult("random", "MLP", 0, 10, 1.0, 30, 0.01, 0.98, 200, {"0.1": 120})
        >>> _remarks([result], 1, {"MLP": 20})[1:]
        ['Every run has memorised every flip.', "1 run went on after its recipe's end, as flips were not yet fitted."]
    """
    every = len(results)
    failed = sum(math.isnan(result.loss) for result in results)
    unfitted = sum(not result.memorised for result in results) - failed
    late = sum(result.epochs > planned.get(result.victim, result.epochs) for result in results)
    over = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    reading = (
        f"Per cent, mean ± standard error over {over}, or the n given; differences are paired seed by seed (same "
        "initial weights, same order of the points), with Student's 95 % interval."
    )
    sentences = [reading]
    if failed:
        sentences.append(f"In {failed} of {every} runs training failed (loss above that of guessing): lower its lr.")
    if unfitted:
        sentences.append(
            f"{unfitted} of {every} runs have not memorised every flip and are in no mean, which flatters strategies "
            "whose flips are hard to memorise; give the recipe more epochs or extra_epochs."
        )
    elif not failed:
        sentences.append("Every run has memorised every flip.")
    if late:
        runs = "1 run went on after its recipe's end" if late == 1 else f"{late} runs went on after their recipe's end"
        sentences.append(f"{runs}, as flips were not yet fitted.")
    if fixed:
        sentences.append(
            f"The flips of {' and '.join(fixed)} are the same in every seed: their ± is that of training alone."
        )
    return sentences
