"""What came out of an experiment, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_poison.experiments.remarks import remarks
from lightning_poison.experiments.runs import RunResult
from lightning_poison.experiments.summary import EVERY_VICTIM, Summary, summarise
from lightning_poison.experiments.tables import results_csv, summaries_csv, summaries_markdown
from lightning_poison.functional.files import write_atomically
from lightning_poison.plots import strategy_curve, strategy_intervals
from lightning_poison.plots.strategies import IntervalPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Outcome"]


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
        sentences = [self.measured, *remarks(self.results, seeds, self.planned, self.fixed)]
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
            with BytesIO() as stream:
                figure.savefig(stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
                write_atomically(folder / f"figure.{kind}", stream.getvalue())

    def _points(self) -> Figure:
        panels: dict[str, dict[str, dict[str, IntervalPoint]]] = {}
        for summary in self.summaries:
            if summary.strategy != self.baseline and summary.difference.n:
                rows = panels.setdefault(f"eps {summary.eps}", {}).setdefault(summary.strategy, {})
                name = "mean of all" if summary.victim == EVERY_VICTIM else summary.victim
                rows[name] = _point(summary, "difference")
        return strategy_intervals(panels, xlabel=f"adversarial accuracy minus {self.baseline}, points")

    def _curve(self) -> Figure:
        panels: dict[str, dict[str, IntervalPoint]] = {}
        levels: dict[str, IntervalPoint] = {}
        for summary in self.summaries:
            if summary.victim == EVERY_VICTIM or not summary.adversarial.n:
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
