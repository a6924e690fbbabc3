"""What the report shows of adversarial paths beside their lengths: points, planes and suspects of label noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks import decision_plane
from lightning_poison.attacks.paths import Trace
from lightning_poison.attacks.plane import DecisionPlane
from lightning_poison.callbacks.paths.walker import PathTable, PathWalker
from lightning_poison.errors import UserError
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["PathPictures", "Suspects", "find_suspects", "take_pictures"]


_EXAMPLES = 4  # of the closest and of the farthest points of a class
_MOST_CLASSES = 20  # rows of a picture
_SHOWN_STEPS = 6  # of a path


@dataclass(frozen=True)
class _Grid:
    """Images with a title each and a name for each row."""

    images: Tensor
    titles: list[str]
    rows: list[str]


@dataclass(frozen=True)
class _Ends:
    """Starts and ends of two paths a class."""

    starts: _Grid
    ends: Tensor
    titles: list[str]

    def caption(self) -> str:
        low, high = float(self.ends.min()), float(self.ends.max())
        text = (
            "Two points of each class (a quarter and three quarters up the order of length): the point, the end of its "
            "path with the class predicted there, and what changed, blue darker, red brighter, on one scale."
        )
        if low < 0 or high > 1:
            text += f" The ends reach from {low:.2f} to {high:.2f}; what is outside [0, 1] is shown clipped."
        return text


@dataclass(frozen=True)
class _Path:
    """One path: some of its images, and its curves."""

    index: int
    label: int
    goal: int
    length: int
    steps: Tensor
    images: Tensor
    label_probability: Tensor
    goal_probability: Tensor


@dataclass(frozen=True)
class _Plane:
    """The plane through a point, another one, and the end of the first one's path."""

    plane: DecisionPlane
    names: list[str]
    path: Tensor
    caption: str


@dataclass(frozen=True)
class PathPictures:
    """What the pictures show; drawn when the report asks for them."""

    examples: _Grid | None
    ends: _Ends | None
    path: _Path | None
    plane: _Plane | None

    def figures(self) -> list[ReportFigure]:
        """Those pictures that there is something for."""
        from lightning_poison import plots

        drawn = []
        if self.examples is not None:
            grid = plots.image_grid(self.examples.images, self.examples.titles, row_labels=self.examples.rows)
            caption = (
                "For each class the closest points (left half) and the farthest (right half): "
                "index in the training set and length of the path."
            )
            drawn.append(ReportFigure.from_figure("path-examples", caption, grid))
        if self.ends is not None:
            starts, ends = self.ends.starts, self.ends
            figure = plots.path_ends(
                starts.images, ends.ends, start_titles=starts.titles, end_titles=ends.titles, row_labels=starts.rows
            )
            drawn.append(ReportFigure.from_figure("path-ends", ends.caption(), figure))
        if self.path is not None:
            path = self.path
            figure = plots.path_trace(
                path.images,
                path.steps,
                path.label_probability,
                path.goal_probability,
                label_name=f"class {path.label}",
                goal_name=f"class {path.goal}",
            )
            caption = (
                f"A path of median length: point #{path.index} of class {path.label}, {path.length} steps, and the "
                f"probabilities of its class and of class {path.goal} on the way."
            )
            drawn.append(ReportFigure.from_figure("path-trace", caption, figure))
        if self.plane is not None:
            plane = self.plane.plane
            figure = plots.decision_regions(
                plane.x,
                plane.y,
                plane.predictions,
                anchors=plane.anchors,
                anchor_names=self.plane.names,
                leads=plane.lead,
                path=self.plane.path,
            )
            drawn.append(ReportFigure.from_figure("path-plane", self.plane.caption, figure))
        return drawn


def take_pictures(walker: PathWalker, table: PathTable) -> PathPictures | None:
    """Follow the few paths that are shown once more; None where the inputs are no images."""
    sample, _ = walker.fetch(table.index[:1])
    if sample.ndim != 4 or sample.shape[1] not in (1, 3):
        return None
    trace, row = _typical_trace(walker, table)
    path = None if trace is None else _shown_path(trace, int(table.index[row]))
    plane = None if trace is None else _plane(walker, table, trace, int(table.index[row]))
    return PathPictures(_examples(walker, table), _ends(walker, table), path, plane)


def _examples(walker: PathWalker, table: PathTable) -> _Grid | None:
    """The closest and the farthest points of each class."""
    chosen: list[int] = []
    names: list[str] = []
    for label in torch.unique(table.label).tolist()[:_MOST_CLASSES]:
        order = table.by_length((table.label == label) & table.reached).tolist()
        if len(order) >= 2 * _EXAMPLES:
            chosen += order[:_EXAMPLES] + order[-_EXAMPLES:]
            names.append(f"class {label}")
    if not chosen:
        return None
    images, _ = walker.fetch(table.index[chosen])
    titles = [f"#{int(table.index[row])}: {int(table.length[row])}" for row in chosen]
    return _Grid(images.float().cpu(), titles, names)


def _ends(walker: PathWalker, table: PathTable) -> _Ends | None:
    """Two paths of each class that has two of at least one step."""
    chosen: list[int] = []
    names: list[str] = []
    for label in torch.unique(table.label).tolist()[:_MOST_CLASSES]:
        order = table.by_length(_moved(table) & (table.label == label)).tolist()
        if len(order) >= 2:
            chosen += [order[len(order) // 4], order[3 * len(order) // 4]]
            names.append(f"class {label}")
    if not chosen:
        return None
    starts, ends = walker.ends(table, torch.tensor(chosen))
    seen = walker.probabilities(ends).argmax(dim=1).tolist()
    titles = [f"#{int(table.index[row])}" for row in chosen]
    lengths = table.length[chosen].tolist()
    reached = [f"{predicted} in {length} steps" for predicted, length in zip(seen, lengths, strict=True)]
    return _Ends(_Grid(starts.float(), titles, names), ends.float(), reached)


def _moved(table: PathTable) -> Tensor:
    """Which paths ended, with a step at least."""
    return table.reached & (table.length > 0)


def _typical_trace(walker: PathWalker, table: PathTable) -> tuple[Trace | None, int]:
    """The path of median length of the first class that has one."""
    for label in torch.unique(table.label).tolist():
        order = table.by_length(_moved(table) & ~table.flipped & (table.label == label)).tolist()
        if order:
            row = order[len(order) // 2]
            return walker.trace(table, row), row
    return None, -1


def _shown_path(trace: Trace, index: int) -> _Path:
    steps = torch.unique(torch.linspace(0, trace.length, _SHOWN_STEPS).round().long())
    return _Path(
        index,
        trace.label,
        trace.goal,
        trace.length,
        steps,
        trace.points[steps].float(),
        trace.label_probability.float(),
        trace.goal_probability.float(),
    )


def _plane(walker: PathWalker, table: PathTable, trace: Trace, index: int) -> _Plane | None:
    """The plane through a path's ends and a typical point of the class that it reaches."""
    others = table.by_length(table.reached & ~table.flipped & (table.label == trace.goal))
    if not len(others):
        others = table.by_length(table.index != index)
    if not len(others):
        return None
    row = int(others[len(others) // 2])
    inputs, _ = walker.fetch(table.index[[row]])
    try:
        device = inputs.device
        plane = decision_plane(walker.model, trace.points[0].to(device), inputs[0], trace.points[-1].to(device))
    except UserError:  # the points lie on one line, or the scores so far from any image are not finite
        return None
    label, other = int(table.label[row]), int(table.index[row])
    caption = (
        f"What the victim predicts on the plane through point #{index} of class {trace.label}, point #{other} of class "
        f"{label} and the end of the first one's path. The line is the path's shadow on the plane, which it leaves "
        "between its ends. Most of the plane lies outside [0, 1], where there are no images."
    )
    names = [f"#{index}, class {trace.label}", f"#{other}, class {label}", "end of the path"]
    return _Plane(plane, names, plane.project(trace.points), caption)


# --- suspects of label noise ------------------------------------------------------------------------------------------

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
