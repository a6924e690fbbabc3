"""Lengths of the adversarial paths of training points."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lightning_poison.attacks import StochasticVictimWarning
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.natural_accuracy import ForwardCheck
from lightning_poison.callbacks.paths.pictures import PathPictures, Suspects, find_suspects, take_pictures
from lightning_poison.callbacks.paths.walker import PathTable, PathTarget, PathWalker
from lightning_poison.callbacks.training_points import drawn_positions, the_training_loader, trained_on
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer, check_number
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.pixels import Pixels
from lightning_poison.report import LoggedMetric, ReportFigure, Section
from lightning_poison.trainer.folders import report_folder
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero
from lightning_poison.trainer.weights import evaluated_weights

__all__ = ["AdversarialPaths"]

_TRIED = 4  # points of a trial
_STOCHASTIC = str(StochasticVictimWarning("a path ends where most of nine further passes find the prediction flipped"))


class AdversarialPaths(Measurement, ForwardCheck):
    """How many sign-gradient steps the decision boundary is away from training points.

    Paths start at the points as the training set gives them (without weights ever moving) and lead away from the
    clean class: where a label was flipped, the clean label counts. Logs ``paths/length_median``,
    ``paths/length_mean`` (a path that doesn't end within ``max_steps`` counts as ``max_steps``) and
    ``paths/reached``, the share that ends; writes ``LOG_DIR/report/paths.csv`` (index in the training set, clean
    label, target or -1, length, reached as 1 or 0) and ``suspects.csv``: the unflipped points whose label is lost
    soonest, which a person should look at (not where the target is the least likely class).

    The points are drawn with a fixed seed from all that are trained on (those that the training loader's sampler
    yields), so that sorted data are covered evenly and every epoch, run and number of ranks measures the same ones.
    Random augmentation of the training set draws from streams of its own, so training goes on undisturbed.

    Args:
        target: "untargeted", "next" (the cyclically next class), "least_likely" (the class of the point's lowest
            score) or a class, whose own points are left out.
        step: length of a step in pixel units.
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer.
        max_samples: how many points; None: all.
        every_n_epochs: measure after every n-th epoch; None: only after the last.
        name: told apart from others of its kind in the same run by it: ends log keys, file names and titles.
        output: where the class scores stand in what the victim's forward returns: a position in a tuple or a key of a
            mapping; None: it returns them alone.
        pictures: show points, ends of paths, a whole path and the plane that it lies on in the report.

    Raises:
        UserError: an argument is out of its range, or the training data can't be read by index.

    Example:
        >>> AdversarialPaths("next", max_samples=1000, name="next").file
        'paths_next.csv'
    """

    def __init__(
        self,
        target: PathTarget = "untargeted",
        step: Pixels = 0.01,
        max_steps: int = 200,
        clip: bool = False,
        max_samples: int | None = 10_000,
        every_n_epochs: int | None = None,
        name: str | None = None,
        output: int | str | None = None,
        pictures: bool = True,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        if isinstance(target, str):
            check_choice("target", target, ("untargeted", "next", "least_likely"))
        else:
            target = check_integer(
                "target", target, minimum=0, remedy="write untargeted, next, least_likely or a class number"
            )
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UserError(f"name must be made of letters, digits, '_' and '-', got {name!r}; it ends a file's name")
        self.target = target
        self.step = check_number("step", float(Pixels(step)), minimum=1e-6, remedy="steps of 0.01 are usual")
        self.max_steps = check_integer("max_steps", max_steps, minimum=1)
        self.clip = clip
        self.name = name
        self.output = output
        self.pictures = pictures
        self.history: list[dict[str, float]] = []
        self._paths: PathTable | None = None
        self._stochastic = False
        self._suspects: Suspects | None = None
        self._pictures: PathPictures | None = None
        self._sections: list[Section] | None = None  # drawn once a measurement: a fit, a test and a twin each ask

    @property
    def file(self) -> str:
        """Name of the file with the lengths."""
        return f"paths{self._suffix}.csv"

    @property
    def state_key(self) -> str:
        """Tells the states of several of these callbacks apart in a checkpoint."""
        arguments = f"target={self.target!r}, step={self.step!r}, clip={self.clip!r}"
        name = "" if self.name is None else f", name={self.name!r}"
        return f"{type(self).__qualname__}({arguments}{name})"

    def state_dict(self) -> dict[str, Any]:
        """The history, in plain Python."""
        return {"history": list(self.history)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = list(state_dict["history"])

    def forget(self) -> None:
        """Nothing was measured in this run."""
        super().forget()
        self.history = []
        self._paths = self._suspects = self._pictures = self._sections = None
        self._stochastic = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a second one of the same name, which would write the same file."""
        super().setup(trainer, pl_module, stage)
        others = [other for other in trainer.callbacks if isinstance(other, AdversarialPaths)]
        twins = sum(other.file.lower() == self.file.lower() for other in others)
        if twins > 1:
            raise UserError(f"{twins} AdversarialPaths callbacks write {self.file}; give each its own name")

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Refuse training data without indices, inputs that no path can start from, and a class that isn't there."""
        walker = self._walker(trainer, pl_module)
        walker.try_out(drawn_positions(trained_on(trainer, walker.loader), _TRIED))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Follow the paths, log their lengths, write ``paths.csv``."""
        if self.is_due(trainer):
            with evaluated_weights(trainer, pl_module):
                values = self.attempt(trainer, lambda: self._measure(trainer, pl_module, trainer.current_epoch))
            self.log_metrics(trainer, pl_module, values or [])

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Follow the paths of the weights that are left."""
        self.log_at_end(trainer, self._measure(trainer, pl_module, trainer.current_epoch - 1))

    def report_sections(self) -> list[Section]:
        """Lengths by class, their histogram, points and paths as pictures; suspects of label noise."""
        if self._sections is None:
            self._sections = [] if self._paths is None else self._drawn(self._paths)
        return list(self._sections)

    def _drawn(self, paths: PathTable) -> list[Section]:
        from lightning_poison import plots

        histogram = plots.path_length_histogram(
            paths.length, paths.label, reached=paths.reached, class_names=paths.class_names()
        )
        caption = "Sign-gradient steps until the prediction flips, by clean class."
        figures = [ReportFigure.from_figure("path-lengths", caption, histogram)]
        if self._pictures is not None:
            figures += self._pictures.figures()
        title = "" if self.name is None else f", {self.name.replace('_', ' ')}"
        sections = [Section(f"Adversarial paths{title}", self._in_words(paths), (paths.by_class(),), tuple(figures))]
        if self._suspects is not None:
            heading, file = f"Suspects of label noise{title}", f"suspects{self._suffix}.csv"
            sections.append(self._suspects.section(heading, file, pictures=self.pictures))
        return [self._named(section) for section in sections]

    def _named(self, section: Section) -> Section:
        """The section with figures whose file names end with this callback's name."""
        if self.name is None:
            return section
        return replace(section, figures=tuple(replace(one, name=f"{one.name}-{self.name}") for one in section.figures))

    @property
    def _suffix(self) -> str:
        return "" if self.name is None else f"_{self.name}"

    def _walker(self, trainer: Any, pl_module: Any) -> PathWalker:
        model = selected_output(pl_module, self.output)
        loader = the_training_loader(trainer.train_dataloader, "AdversarialPaths")
        return PathWalker(trainer, pl_module, model, loader, self.target, self.step, self.max_steps, self.clip)

    def _measure(self, trainer: Any, pl_module: Any, epoch: int) -> list[LoggedMetric]:
        """The values to log; none where every point was left out."""
        self.note_measured(trainer, pl_module)
        walker = self._walker(trainer, pl_module)
        positions = drawn_positions(trained_on(trainer, walker.loader), self.max_samples)
        mine = positions[trainer.global_rank :: trainer.world_size]
        rows, stochastic = zip(*from_all_ranks(trainer, lambda: walker.follow(mine)), strict=True)
        paths = PathTable.of(rows)
        if any(stochastic) and not self._stochastic:
            rank_zero_warn(_STOCHASTIC)
        self._stochastic = any(stochastic)
        if not len(paths.index):
            rank_zero_warn(f"no adversarial path was measured: every point drawn belongs to the target {self.target}")
            return []
        self._paths, self._sections = paths, None
        metrics = paths.summary(self._suffix)
        values = {metric.key: metric.value for metric in metrics}
        self.history = [entry for entry in self.history if entry["epoch"] != epoch] + [{"epoch": epoch, **values}]

        def show() -> None:
            with walker.undisturbed():
                self._suspects = find_suspects(walker, paths)
                self._pictures = take_pictures(walker, paths) if self.pictures else None
            folder = report_folder(trainer)
            if folder is not None:
                write_atomically(folder / self.file, paths.as_csv())
                if self._suspects is not None:
                    write_atomically(folder / f"suspects{self._suffix}.csv", self._suspects.as_csv())

        from_rank_zero(trainer, show)
        return metrics

    def _in_words(self, paths: PathTable) -> tuple[str, ...]:
        whither = {
            "untargeted": "out of their class",
            "next": "to the cyclically next class",
            "least_likely": "to the class that the victim holds least likely",
        }
        aim = whither.get(str(self.target), f"to class {self.target}")
        box = "kept within" if self.clip else "free to leave"
        what = (
            f"Paths of {len(paths.index):,} training points {aim}: steps of {self.step:g} along the sign of the "
            f"gradient, {box} [0, 1], at most {self.max_steps}. A short path means that the boundary is near."
        )
        text = [what]
        if count := int(paths.flipped.sum()):
            text.append(f"{count:,} of these points carry a flipped label; their paths lead away from the clean class.")
        if self._stochastic:
            text.append(f"Mind: {_STOCHASTIC}.")
        if self.other_function is not None:
            text.append(f"Mind: {self.other_function}.")
        return tuple(text)
