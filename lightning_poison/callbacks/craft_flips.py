"""Flip lists that are crafted with the network that a run has trained."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import Subset

from lightning_poison.attacks import StochasticVictimWarning, frozen_eval, is_stochastic
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.callbacks.natural_accuracy import ForwardCheck
from lightning_poison.callbacks.training_points import trained_on
from lightning_poison.datamodules import (
    PoisonedDataModule,
    PoisonedDataset,
    dataset_labels,
    find_poisoned_dataset,
    fingerprint,
)
from lightning_poison.datamodules.train_loader import check_train_loader
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_kind, declared_classes
from lightning_poison.functional.files import check_file
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.nets.building import device_of
from lightning_poison.poisons import Poison, PoisonList, TrainingSet
from lightning_poison.poisons.description import describe
from lightning_poison.poisons.from_file import restored_poisons
from lightning_poison.poisons.points import PointPoison
from lightning_poison.poisons.points.poison_points import check_points_path
from lightning_poison.poisons.surrogates import check_output, looks_through_network
from lightning_poison.report import ReportFigure, Section
from lightning_poison.report.run_sections import flip_counts, flip_figure
from lightning_poison.trainer.evaluation import without_logging
from lightning_poison.trainer.folders import note_run, planned_report_folder, recall_run, report_folder
from lightning_poison.trainer.progress import progress
from lightning_poison.trainer.ranks import from_rank_zero, shards_weights
from lightning_poison.trainer.weights import on_root_device

__all__ = ["CraftFlips", "clean_training_set"]

_PICTURES = 16
_STOCHASTIC = str(StochasticVictimWarning("the strategy sees one draw of them; other draws may choose others"))


class CraftFlips(ForwardCheck):
    """Chooses flips with the network of a clean run, at the end of ``fit``, and writes them down.

    Three lines in anybody's project::

        from lightning_poison.callbacks import CraftFlips
        from lightning_poison.poisons import LabelFlips, NearestToBoundary

        trainer = Trainer(callbacks=[CraftFlips(LabelFlips(NearestToBoundary(per_class=10)))])

    The strategy sees the points that the run trains on and a frozen copy of the network that it leaves; weights, modes
    and random streams of the run stay as they are. The list belongs to these training data and is applied to them by
    ``LabelFlips(FromFile(path))``. With several processes rank zero crafts, and every rank learns the list. ``fit``
    of a finished run (``ckpt_path`` of its last checkpoint) crafts with the network as it was saved; a list in that
    checkpoint is written again instead.

    Args:
        poison: the strategy.
        seed: of the strategy's draws.
        name: ends the file's name and tells several of these callbacks apart.
        output: where the logits stand in what the model's forward returns: a position in a tuple or a key of a
            mapping; None: the forward returns the logits.
        file: where the list is written; None: ``LOG_DIR/report/crafted_flips.csv`` (``crafted_flips_NAME.csv``).

    Attributes:
        flips: the list; None before the end of ``fit``, and under ``fast_dev_run``.

    Raises:
        UserError: a name or file is not fit for the poisons; (when ``fit`` begins) labels are flipped in this run, the
            strategy does not fit the data, two callbacks share a name or a file, the model gives no class scores where
            the strategy looks through it, or the weights are sharded; (at its end, when the lists of all others are
            written) the strategy fails, such as on a network that has not learnt the data.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, NearestToBoundary
        >>> CraftFlips(LabelFlips(NearestToBoundary(per_class=5)), name="nearest").flips is None
        True
    """

    def __init__(
        self,
        poison: Poison,
        seed: int = 0,
        name: str | None = None,
        output: int | str | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__()
        check_kind("poison", poison, Poison, "LabelFlips(Medoids())")
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)):
            raise UserError(f"name must be letters, digits, '_' and '-', got {name!r}; it ends the file's name")
        if output is not None and (isinstance(output, bool) or not isinstance(output, (int, str))):
            raise UserError(f"output must be a position or a name in what the model returns, got {output!r}")
        if file is not None and not isinstance(file, (str, Path)):
            raise UserError(f"file must be a path such as flips.csv, got {file!r}; it says where the list is written")
        if file is not None and isinstance(poison, PointPoison):
            check_points_path(file)
        self.poison = poison
        self.seed = check_integer("seed", seed, minimum=0)
        self.name = name
        self.output = output
        self.file = file
        self.flips: PoisonList | None = None
        self._path: Path | None = None
        self._step: int | None = None
        self._finished = False
        self._training_set: TrainingSet | None = None
        self._positions: Tensor | None = None
        self._pictures: ReportFigure | None = None
        self._stochastic = False

    @property
    def state_key(self) -> str:
        """Tells the states of several of these callbacks apart in a checkpoint."""
        return f"{type(self).__qualname__}({self.name}, {describe(self.poison)}, {self.seed})"

    def state_dict(self) -> dict[str, Any]:
        """The list, and after how many steps it was crafted."""
        return {"flips": None if self.flips is None else self.flips.state_dict(), "step": self._step}

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note whose folder is this run's, for the run that goes on from here."""
        note_run(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        recall_run(trainer, checkpoint)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the list of the run that is resumed."""
        self._step = state_dict["step"]
        self.flips = None if state_dict["flips"] is None else restored_poisons(state_dict["flips"])

    # --- hooks --------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Nothing was crafted in this run."""
        super().forget()
        self._stochastic = False
        self.flips = self._step = self._training_set = self._pictures = self._positions = None
        self._finished = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse, before anything expensive, what can be seen to end badly without looking at an input."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.forget()
        folder = planned_report_folder(trainer)
        self._path = None if trainer.fast_dev_run else self._path_in(folder)
        self._check_run(trainer)
        from_rank_zero(trainer, lambda: self._check_files(trainer, folder))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse classes and budgets that the data do not hold, and a model that does not give class scores."""
        self._note_positions(trainer)
        from_rank_zero(trainer, lambda: self._check_data(trainer, pl_module))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Craft with the network that the fit leaves, also if the run was finished before it was resumed."""
        if trainer.fast_dev_run:
            return
        if self._positions is None:
            self._note_positions(trainer)
        with on_root_device(trainer, pl_module):
            self._finish(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the inputs."""
        self._training_set = self._positions = None

    def report_sections(self) -> list[Section]:
        """How many labels of which class the list flips, and some of the points."""
        if self.flips is None:
            return []
        provenance = self.flips.provenance
        title = "Crafted flips" if self.name is None else f"Crafted flips ({self.name})"
        how = f"{provenance.get('strategy')} with seed {provenance.get('seed')}"
        through = ", chosen with this run's network, which was trained on clean labels"
        text = [f"{self.flips.short()} by {how}{through if looks_through_network(self.poison) else ''}."]
        if self._path is not None:
            text.append(f"{self.flips.reader} applies {self._path.name} to the same training data.")
        if self._stochastic:
            text.append(f"Mind: {_STOCHASTIC}.")
        if self.other_function is not None and looks_through_network(self.poison):
            text.append(f"Mind: {self.other_function}.")
        if not len(self.flips):
            return [Section(title, tuple(text))]
        suffix = "" if self.name is None else f"-{self.name}"
        figures = [flip_figure(self.flips, provenance.get("num_classes_after"), f"crafted-flips{suffix}")]
        if self._pictures is not None:
            figures.append(self._pictures)
        return [Section(title, tuple(text), flip_counts(self.flips), tuple(figures))]

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def _file_name(self) -> str:
        plain = Path(f"crafted_{self.poison.file_name}")
        return plain.name if self.name is None else f"{plain.stem}_{self.name}{plain.suffix}"

    def _path_in(self, folder: Path | None) -> Path | None:
        if self.file is not None:
            return Path(self.file)
        return None if folder is None else folder / self._file_name

    def _written(self, folder: Path | None) -> set[Path]:
        """The list, and the table beside it where it holds points."""
        path = self._path_in(folder)
        if path is None:
            return set()
        paths = [path, path.with_suffix(".csv")] if isinstance(self.poison, PointPoison) else [path]
        return {path.resolve() for path in paths}

    def _check_files(self, trainer: Any, folder: Path | None) -> None:
        for other in trainer.callbacks:
            if isinstance(other, CraftFlips) and other is not self:
                for path in sorted(self._written(folder) & other._written(folder)):
                    raise UserError(f"file must be another for each CraftFlips callback, got two that write {path}")
        if self._path is not None:
            check_file(self._path)

    def _check_run(self, trainer: Any) -> None:
        names = [other.name for other in trainer.callbacks if isinstance(other, CraftFlips)]
        if names.count(self.name) > 1:
            raise UserError(
                f"{names.count(self.name)} CraftFlips callbacks have the name {self.name!r}; give each its own"
            )
        if shards_weights(trainer):
            raise UserError(
                f"CraftFlips needs the whole network on one rank, got {type(trainer.strategy).__name__}, which shards "
                "it; train with strategy ddp, or craft afterwards on one device (ckpt_path=...)"
            )
        flips_labels = [other.training_flips for other in trainer.callbacks if isinstance(other, FlipLabels)]
        if isinstance(trainer.datamodule, PoisonedDataModule):
            flips_labels.append(trainer.datamodule.training_flips)
        for training_flips in flips_labels:
            if training_flips.poison is not None:
                raise UserError(
                    f"CraftFlips needs a run on clean labels, got poison {describe(training_flips.poison)}; "
                    "take the poison out (--poison=null) and craft again"
                )

    def _check_data(self, trainer: Any, pl_module: Any) -> None:
        training_set = self._shared_training_set(trainer)
        self.poison.check(training_set, self.seed)
        if not looks_through_network(self.poison):
            return
        network = _copy_of(pl_module, self.output)
        if pl_module in (network, getattr(network, "model", None)):
            return  # not a copy: it is left alone before its training
        first = TrainingSet(
            training_set.labels[:1], training_set.num_classes, dataset=Subset(training_set.dataset, [0])
        )
        with self._looking_on(pl_module, network):
            check_output(network, first.inputs)

    def _note_positions(self, trainer: Any) -> None:
        """Which points are trained on; every rank must ask."""
        owner = trainer.lightning_module if trainer.datamodule is None else trainer.datamodule
        self._positions = trained_on(trainer, check_train_loader(trainer.train_dataloader, type(owner).__name__))

    def _finish(self, trainer: Any, pl_module: Any) -> None:
        if self._finished:
            return
        self._finished = True
        restored = self.flips is not None and self._step == int(trainer.global_step)
        try:
            crafted = from_rank_zero(trainer, lambda: self._crafted(trainer, pl_module, restored))
        except UserError:
            self._let_others_finish(trainer, pl_module)
            raise
        self.flips, self._step = restored_poisons(crafted), int(trainer.global_step)
        if "remark" in self.flips.provenance:
            rank_zero_warn(self.flips.provenance["remark"])
        if self._path is not None:
            rank_zero_info(f"{self._path}: {self.flips.short()}, for {self.flips.reader} and the same training data")

    @staticmethod
    def _let_others_finish(trainer: Any, pl_module: Any) -> None:
        """After a long training, one strategy's mistake is not to cost the lists of the others."""
        for other in trainer.callbacks:
            if isinstance(other, CraftFlips) and not other._finished:
                with suppress(UserError):  # one at a time is told
                    other._finish(trainer, pl_module)

    def _crafted(self, trainer: Any, pl_module: Any, restored: bool) -> dict[str, Any]:
        """On rank zero: the list as it stands in checkpoints, written to its file."""
        training_set = self._shared_training_set(trainer, None if restored else pl_module)
        if restored and self.flips is not None:
            flips: PoisonList = self.flips.check(training_set)
        else:
            network = training_set.network or pl_module
            with self._looking_on(pl_module, network), warnings.catch_warnings():
                try:
                    if self._is_stochastic(training_set, network):
                        rank_zero_warn(_STOCHASTIC)
                        warnings.simplefilter("ignore", StochasticVictimWarning)  # said once, not by each attack
                    flips = self.poison.craft(training_set, self.seed)
                except UserError as error:
                    raise UserError(f"{describe(self.poison)}: {error}") from error
        if self._path is not None:
            self._path = self._path_in(report_folder(trainer) if self.file is None else None)
        if self._path is not None:
            flips.write(self._path)
        self._pictures = self._picture(_loader_dataset(training_set), flips)
        return flips.state_dict()

    @staticmethod
    @contextmanager
    def _looking_on(pl_module: Any, network: nn.Module) -> Iterator[None]:
        """Leave the module as it is: a copied forward may still run parts of the module that it was copied from."""
        with (
            kept_random_state(None, pl_module.device),
            without_logging(pl_module),
            without_logging(network),
            frozen_eval(pl_module),
            frozen_eval(network),
        ):
            yield

    def _is_stochastic(self, training_set: TrainingSet, network: nn.Module) -> bool:
        """Whether the strategy looks at scores that differ from pass to pass."""
        labels = training_set.labels[:3]
        few = TrainingSet(labels, training_set.num_classes, dataset=Subset(training_set.dataset, range(len(labels))))
        self._stochastic = False
        if looks_through_network(self.poison):
            with suppress(UserError):  # the strategy says better what is wrong with the network
                self._stochastic = is_stochastic(network, few.inputs.to(device_of(network)))
        return self._stochastic

    def _shared_training_set(self, trainer: Any, pl_module: Any = None) -> TrainingSet:
        """One for all of these callbacks, so that they read inputs and run the module's network once."""
        alike = [other for other in trainer.callbacks if isinstance(other, CraftFlips) and other.output == self.output]
        first = alike[0]
        assert self._positions is not None  # noqa: S101  # the hooks saw to it
        found = clean_training_set(trainer, self._positions, first._training_set)
        if pl_module is not None and found.network is None:
            found = replace(found, network=_copy_of(pl_module, self.output))
        first._training_set = found
        return found

    def _picture(self, dataset: Any, flips: PoisonList) -> ReportFigure | None:
        found = _poison_pictures(dataset, flips, _PICTURES) if len(flips) else None
        if found is None:
            return None
        from lightning_poison.plots import image_grid

        suffix = "" if self.name is None else f"-{self.name}"
        caption = "Some points of the list: clean label → flipped label."
        return ReportFigure.from_figure(f"crafted-points{suffix}", caption, image_grid(*found))


# --- what a strategy looks at -----------------------------------------------------------------------------------------


def clean_training_set(trainer: Any, positions: Tensor, known: TrainingSet | None = None) -> TrainingSet:
    """The training data of a run without flips, with the fingerprint that a later run finds.

    Args:
        trainer: has a training loader.
        positions: the points that are trained on, shape (m,), int64.
        known: what was found before; it is returned if the data are the same.

    Raises:
        UserError: labels are flipped, there are several loaders, or the labels cannot be read.
    """
    owner = trainer.lightning_module if trainer.datamodule is None else trainer.datamodule
    loader = check_train_loader(trainer.train_dataloader, type(owner).__name__)
    dataset: Any = loader.dataset
    poisoned = find_poisoned_dataset(dataset)
    if poisoned is not None and len(poisoned.flips):
        raise UserError(
            f"CraftFlips needs a run on clean labels, got one with {len(poisoned.flips)} poisons; "
            "take the poison out (--poison=null) and craft again"
        )
    if isinstance(dataset, PoisonedDataset):
        dataset = dataset.dataset
    whole = len(positions) == len(dataset)
    if known is not None and _loader_dataset(known) is dataset:
        before = torch.arange(known.num_points) if known.positions is None else known.positions
        if before.equal(positions):
            return known
    shown = partial(progress, trainer)
    labels = dataset_labels(dataset, shown)[positions]
    return TrainingSet(
        labels,
        declared_classes(trainer.datamodule) or int(labels.max()) + 1,
        fingerprint(dataset, labels, None if whole else positions),
        dataset if whole else Subset(dataset, positions.tolist()),
        progress=shown,
        positions=None if whole else positions,
    )


def _loader_dataset(training_set: TrainingSet) -> Any:
    """The data set that the training loader reads."""
    return training_set.dataset if training_set.positions is None else training_set.dataset.dataset


def _copy_of(pl_module: nn.Module, output: int | str | None = None) -> nn.Module:
    """A network like the module, in single precision; the module itself where it cannot be copied.

    Args:
        pl_module: the trained module.
        output: where the logits stand in what its forward returns; None: it returns the logits.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> copied = _copy_of(module)
        >>> copied is module, torch.equal(copied.weight, module.weight)
        (False, True)
    """
    try:
        network = copy.deepcopy(pl_module).float()
    except Exception:  # noqa: BLE001  # somebody's module may hold whatever cannot be copied, and say so in any way
        network = pl_module
    return selected_output(network, output)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _poison_pictures(dataset: Any, flips: PoisonList, count: int) -> tuple[Tensor, list[str]] | None:
    """Some poisons from all over the list, and which class becomes which; None where they are no pictures.

    Args:
        dataset: the clean data.
        flips: at least one poison.
        count: how many at most.

    Returns:
        shape (m, C, H, W) in [0, 1], and m titles.
    """
    rows = sorted(set(torch.linspace(0, len(flips) - 1, count, dtype=torch.float64).long().tolist()))
    poisoned = PoisonedDataset(dataset, flips)
    positions = flips.positions(len(dataset))
    with kept_random_state(0):
        found = [poisoned[int(positions[row])][0] for row in rows]
    if not all(isinstance(picture, Tensor) and picture.ndim == 3 for picture in found):
        return None
    if len({picture.shape for picture in found}) > 1 or len(found[0]) not in (1, 3):
        return None
    pictures = torch.stack(found).float()
    low, high = min(0.0, float(pictures.min())), max(1.0, float(pictures.max()))
    titles = [f"{int(flips.old_label[row])} → {int(flips.new_label[row])}" for row in rows]
    return (pictures - low) / (high - low), titles
