"""The LightningCLI: a data module, a poison around it, a victim linked to both, a report at the end."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger

# Imported for their names: jsonargparse resolves short class names among the classes that are loaded.
import lightning_poison.attacks
import lightning_poison.certificates.networks
import lightning_poison.nets
import lightning_poison.victims  # noqa: F401  # see above
from lightning_poison.callbacks import EpochSeed, LineProgress, PredictionWriter, Report
from lightning_poison.cli.checkpoints import resolve_checkpoint
from lightning_poison.cli.parser import ConfigFile, Parser
from lightning_poison.cli.preflight import (
    check_data,
    check_known,
    check_launcher,
    check_root,
    check_seed,
    look_ahead,
    num_classes_for,
)
from lightning_poison.cli.run_folder import SaveConfig, claim_folder, discard_unbegun, loggers_for
from lightning_poison.cli.wording import instantiation_line, twins_line
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, Poison

__all__ = ["CLEAN_TWIN", "PoisonCLI"]

DEFAULT_ROOT = "runs"
CLEAN_TWIN = "clean_twin"


class PoisonCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` with a ``poison`` section.

    Args:
        args: as typed after the program's name.

    Raises:
        UserError: jsonargparse lacks what Lightning's command line asks of it.
    """

    trainer: Trainer
    report: Report

    def __init__(self, args: Sequence[str]) -> None:
        self._twin_folder: Path | None = None
        self._numbered_root: str | None = None
        Parser.arguments = list(args)
        try:
            super().__init__(
                args=list(args),
                save_config_callback=SaveConfig,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                parser_class=Parser,
                parser_kwargs={"prog": "lightning-poison"},
                auto_configure_optimizers=False,
            )
        except AttributeError as error:
            if not isinstance(error.obj, Parser):
                raise
            raise UserError(
                f"jsonargparse {version('jsonargparse')} has no {error.name}, which the command line of "
                f"pytorch_lightning {version('pytorch-lightning')} needs; install one that it knows: "
                "pip install 'jsonargparse<5'"
            ) from error

    # --- the parser -------------------------------------------------------------------------------------------------

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that finds the shipped configs by name."""
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="A YAML file, or the name of a shipped one; several are merged."
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning's CLI does not know."""
        parser.add_argument(
            "--poison", type=LabelFlips | Poison | None, default=None, help="Which labels to flip; null: the clean run."
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=True, help="Measure the test set when fit ends, if there is one."
        )
        parser.add_argument(
            "--compare_with_clean",
            type=bool,
            default=False,
            help="Train the clean twin too (same seed, same order of the data, no flips) and compare in the report.",
        )
        parser.add_lightning_class_args(Report, "report")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_on_train_epoch_end": True})
        parser.link_arguments(
            ("data", "poison"), "model.init_args.num_classes", compute_fn=self._num_classes, apply_on="instantiate"
        )

    def _num_classes(self, data: Any, poison: Poison | None) -> int | None:
        model = self._get(self.config, "model")
        number = num_classes_for(data, poison, model.get("init_args", {}).get("num_classes"))
        return check_known(number, data, model["class_path"])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and find the checkpoint before anything expensive is made."""
        super().parse_arguments(parser, args)
        command = self.config[self.config.subcommand]
        root = command.trainer.default_root_dir or DEFAULT_ROOT
        twin = self.config.subcommand == "fit" and command.compare_with_clean and command.poison is not None
        check_seed(command.seed_everything, twin)
        command.ckpt_path = resolve_checkpoint(command.ckpt_path, root)
        check_data(command.get("data"), command.model, command.poison)
        self._existing_folder = check_root(root)

    # --- from the config to objects -----------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Make data, poison, victim and Trainer; a class that refuses its arguments is the user's mistake.

        Raises:
            UserError: a class refused its arguments.
        """
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            line = instantiation_line(error)
            if line is None:
                raise
            raise UserError(line) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer with the run's folder, checkpoints, report and progress."""
        seed = self._get(self.config, "seed_everything")
        if self.datamodule is not None:
            poison = self._get(self.config_init, "poison")
            self.datamodule = PoisonedDataModule(self.datamodule, poison, seed=int(seed))
        self.report = self._get(self.config_init, "report")
        self.predictions = PredictionWriter()
        config = {**self._get(self.config_init, "trainer")}
        self._numbered_root = None
        root = config["default_root_dir"] = config["default_root_dir"] or DEFAULT_ROOT
        if self._twin_folder is not None:
            config["logger"] = CSVLogger(str(self._twin_folder.parent), name="", version=self._twin_folder.name)
        elif config["logger"] in (None, True) and not config["barebones"]:
            config["logger"] = loggers_for(root)
            self._numbered_root = None if config["fast_dev_run"] else root
        extra = [self.report, EpochSeed(int(seed)), self.predictions]
        if config["enable_checkpointing"] is not False and not config["barebones"] and not config["fast_dev_run"]:
            extra.append(self._get(self.config_init, "checkpoint"))
        extra += _progress_callbacks(config, config["callbacks"] or [])
        try:
            trainer = self._instantiate_trainer({**config, **kwargs}, extra)
        except (TypeError, ValueError) as error:  # two options that exclude each other
            raise UserError(str(error)) from error
        except RuntimeError as error:
            line = twins_line(error)
            if line is None:
                raise
            raise UserError(line) from error
        if self.config.subcommand == "fit":
            check_launcher(trainer)
        return trainer

    # --- the commands -------------------------------------------------------------------------------------------------

    def fit(self, **kwargs: Any) -> None:
        """Train and measure; then the test set, the clean twin and the report."""
        self.report.quiet = True
        with self._all_or_nothing("fit", kwargs.get("ckpt_path")):
            self._fit_and_test(**kwargs)
        if self._get(self.config, "compare_with_clean") and self._get(self.config, "poison") is not None:
            if self.trainer.is_global_zero:
                print("Now the clean twin: same seed, same order of the data, no flips.", file=sys.stderr, flush=True)
            self.report.compare_with(self._clean_twin_metrics(kwargs), "clean twin")
            self.report.write(self.trainer)
        self.report.print(self.trainer)

    @contextmanager
    def _all_or_nothing(self, stage: str, ckpt_path: str | None) -> Iterator[None]:
        """Leave no folder behind where data, poison, model and checkpoint turn out not to fit each other."""
        try:
            look_ahead(self.datamodule, self.model, stage, ckpt_path, self._get(self.config, "test_after_fit"))
            if self._numbered_root is not None and getattr(rank_zero_only, "rank", 0) == 0:
                claim_folder(self.trainer, self._numbered_root)
            yield
        except BaseException:
            discard_unbegun(self.trainer, self._existing_folder)
            raise

    def _fit_and_test(self, **kwargs: Any) -> None:
        self.trainer.fit(**kwargs)
        if self._get(self.config, "test_after_fit") and self._has_test_data():
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)

    def _has_test_data(self) -> bool:
        return self.datamodule is not None and self.datamodule.has_loader("test_dataloader")

    def _clean_twin_metrics(self, fit_arguments: dict[str, Any]) -> dict[str, float]:
        """Train the same victim on the same data in the same order without flips."""
        poisoned = vars(self).copy()
        log_dir = self.trainer.log_dir
        try:
            self._twin_folder = None if log_dir is None else Path(log_dir) / CLEAN_TWIN
            self.config = copy.deepcopy(self.config)
            self.config[self.subcommand].poison = None
            self.config[self.subcommand].ckpt_path = None
            self._set_seed()
            self.instantiate_classes()
            self.report.quiet = True
            self._fit_and_test(
                **{**fit_arguments, "model": self.model, "datamodule": self.datamodule, "ckpt_path": None}
            )
            return self.report.metrics
        finally:
            vars(self).update(poisoned)

    def validate(self, **kwargs: Any) -> None:
        """Measure the validation set; the report's table stands for Lightning's."""
        with self._all_or_nothing("validate", kwargs.get("ckpt_path")):
            self.trainer.validate(**{**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """Measure the test set; the report's table stands for Lightning's."""
        with self._all_or_nothing("test", kwargs.get("ckpt_path")):
            self.trainer.test(**{**kwargs, "verbose": False})

    def predict(self, **kwargs: Any) -> None:
        """Predict and say where the predictions are."""
        with self._all_or_nothing("predict", kwargs.get("ckpt_path")):
            self.trainer.predict(**{**kwargs, "return_predictions": False})
        if self.predictions.path is not None:
            print(self.predictions.path)


def _progress_callbacks(trainer_config: Mapping[str, Any], callbacks: Iterable[Any]) -> list[Callback]:
    """A bar on a terminal, whole lines in a pipe."""
    if trainer_config.get("enable_progress_bar") is False or trainer_config.get("barebones"):
        return []
    if sys.stdout.isatty() or any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    return [LineProgress()]
