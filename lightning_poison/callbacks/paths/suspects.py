"""Training points whose given label the victim hardly believes: suspects of label noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.callbacks.paths.table import PathTable
from lightning_poison.callbacks.paths.walker import PathWalker
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["Suspects", "find_suspects"]

_COUNT = 100  # rows of the file
_SHOWN = 12  # rows of the report's table, and pictures
_BLOCK = 2048


@dataclass(frozen=True)
class Suspects:
    """The points nearest to losing their label, the most suspicious first.

    Attributes:
        index: shape (m,), int64: position in the training set.
        label: shape (m,), int64.
        rival: shape (m,), int64: the path's target; untargeted, the most probable class but the label.
        length: shape (m,), int64, steps.
        label_probability: shape (m,), float.
        rival_probability: shape (m,), float.
        images: shape (at most 12, C, H, W), of the first ones; None where they are no images.
    """

    index: Tensor
    label: Tensor
    rival: Tensor
    length: Tensor
    label_probability: Tensor
    rival_probability: Tensor
    images: Tensor | None

    def as_csv(self) -> str:
        """The content of ``suspects.csv``."""
        lines = (
            f"{index},{label},{rival},{length},{p:.6g},{q:.6g}" for index, label, rival, length, p, q in self._rows()
        )
        return "\n".join(["index,label,rival,length,label_probability,rival_probability", *lines]) + "\n"

    def section(self, title: str, file: str, *, pictures: bool) -> Section:
        """What the report says of them."""
        words = (
            "The training points with the shortest paths from their given label, equal lengths in the order of the "
            "label's probability; points whose label was flipped on purpose are left out. A short path means that the "
            "victim hardly tells the point from its rival class: the label may be wrong, the image ambiguous, or the "
            "victim mistaken. They are suspects for a person to look at, and this is no verdict. A victim that has "
            "memorised its training labels no longer suspects them."
        )
        text = (words, f"{file} lists {len(self.index)} of them.")
        shown = self._rows()[:_SHOWN]
        columns = ("index", "label", "rival", "steps", "probability of the label", "of the rival")
        rows = tuple((str(row[0]), *row[1:4], _percent(row[4]), _percent(row[5])) for row in shown)
        figures = []
        if pictures and self.images is not None:
            from lightning_poison import plots

            titles = [f"#{index}: {label} or {rival}?" for index, label, rival, *_ in shown]
            grid = plots.image_grid(self.images, titles, columns=min(4, len(titles)))
            caption = "The first of them: index in the training set, given label, and rival class."
            figures.append(ReportFigure.from_figure("path-suspects", caption, grid))
        return Section(title, text, (ReportTable("The most suspicious", columns, rows),), tuple(figures))

    def _rows(self) -> list[tuple[int, int, int, int, float, float]]:
        columns = (self.index, self.label, self.rival, self.length, self.label_probability, self.rival_probability)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def find_suspects(walker: PathWalker, table: PathTable) -> Suspects | None:
    """The unflipped points with the shortest paths; None where every path is too long, or leads far away on purpose.

    Args:
        walker: followed the paths.
        table: what it measured.
    """
    if walker.target == "least_likely":
        return None
    order = table.by_length(table.reached & ~table.flipped)
    if not len(order):
        return None
    limit = table.length[order[:_COUNT]].max()
    order = order[table.length[order] <= limit]  # with all that are tied with the last
    beliefs = [_beliefs(walker, table, rows) for rows in torch.split(order, _BLOCK)]
    rival, label_probability, rival_probability = (torch.cat(column) for column in zip(*beliefs, strict=True))
    # A stable sort by probability, then one by length: equal lengths are in the order of probability.
    rank = label_probability.argsort(stable=True)
    rank = rank[table.length[order[rank]].argsort(stable=True)][:_COUNT]
    rows = order[rank]
    inputs, _ = walker.fetch(table.index[rows[:_SHOWN]])
    images = inputs.float().cpu() if inputs.ndim == 4 and inputs.shape[1] in (1, 3) else None
    return Suspects(
        table.index[rows],
        table.label[rows],
        rival[rank],
        table.length[rows],
        label_probability[rank],
        rival_probability[rank],
        images,
    )


def _beliefs(walker: PathWalker, table: PathTable, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rival, probability of the label, probability of the rival, of each row."""
    inputs, _ = walker.fetch(table.index[rows])
    probabilities, labels = walker.probabilities(inputs), table.label[rows, None]
    likeliest = probabilities.scatter(1, labels, -1.0).argmax(dim=1)
    rivals = torch.where(table.target[rows] < 0, likeliest, table.target[rows])
    return rivals, probabilities.gather(1, labels).squeeze(1), probabilities.gather(1, rivals[:, None]).squeeze(1)


def _percent(share: float) -> str:
    """Of a probability, two digits where it is small.

    Example:
        >>> _percent(0.4321), _percent(0.000721)
        ('43.2 %', '0.072 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"
