"""Every run has a report folder that no other run writes into."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison._lightning import Callback
from lightning_poison.callbacks import AdversarialPaths, PoisonMemorization, PredictionWriter, Report
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, RandomPoints
from lightning_poison.trainer.folders import planned_report_folder, report_folder
from tests.lightning_runs import PACKAGES, data_of, model_of, small_weights, trainer_of

INPUTS = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, torch.arange(12) % 3)
POISON = LabelFlips(RandomPoints(per_class=1))

pytestmark = pytest.mark.filterwarnings("ignore")


def logger_of(package: Any, save_dir: Any, name: Any = None, version: Any = None) -> Any:
    """A logger as the trackers of others are, without a folder for each run."""

    class Tracker(package.loggers.logger.Logger):
        def __init__(self):
            super().__init__()
            self.__dict__.update(given=(save_dir, name, version))

        save_dir = property(lambda self: self.given[0])
        name = property(lambda self: self.given[1])
        version = property(lambda self: self.given[2])

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, *args, **kwargs):
            pass

    return Tracker()


def fit(package: Any, folder: Path, seed: int = 0, ckpt_path: Any = None, callbacks: Any = (), **arguments: Any) -> Any:
    data = PoisonedDataModule(data_of(package, DATA, batch_size=4), POISON, seed=seed)
    trainer = trainer_of(package, folder, Report(), *callbacks, **arguments)
    trainer.fit(model_of(package, small_weights(nn.Linear(4, 3)), lr=0.1), data, ckpt_path=ckpt_path)
    return trainer


def seed_in(folder: Path) -> int:
    return json.loads((folder / "report.json").read_text())["seeds"]["poison"]


@pytest.mark.parametrize("package", PACKAGES)
def test_runs_without_a_logger_keep_their_reports_apart(package, tmp_path):
    paths = AdversarialPaths(max_steps=2, pictures=False)
    trainers = [fit(package, tmp_path, seed, callbacks=[paths] if seed == 2 else []) for seed in (1, 2, 3)]
    folders = [tmp_path / name for name in ("report", "report_1", "report_2")]
    assert [report_folder(trainer) for trainer in trainers] == folders
    assert [seed_in(folder) for folder in folders] == [1, 2, 3]
    assert all((folder / "flips.csv").exists() for folder in folders)
    assert [(folder / "paths.csv").exists() for folder in folders] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("project", "kx31", ["logs/project/kx31/report", "logs/project/kx31/report_1"]),
        ("project", 7, ["logs/project/version_7/report", "logs/project/version_7/report_1"]),
        (None, None, ["logs/report", "logs/report_1"]),
        ("", "", ["logs/report", "logs/report_1"]),
    ],
)
def test_loggers_without_folders_of_their_own(tmp_path, name, version, expected):
    """Also where the logger says that two runs were one."""
    for seed in (1, 2):
        logger = logger_of(pytorch_lightning, str(tmp_path / "logs"), name, version)
        fit(pytorch_lightning, tmp_path / "root", seed, logger=logger)
    assert [seed_in(tmp_path / folder) for folder in expected] == [1, 2]
    assert not (tmp_path / "root").exists()


def test_a_logger_without_a_save_dir_leaves_the_trainers_folder(tmp_path):
    fit(pytorch_lightning, tmp_path, 5, logger=logger_of(pytorch_lightning, None, "project", "kx31"))
    assert seed_in(tmp_path / "project" / "kx31" / "report") == 5


@pytest.mark.parametrize("kind", ["CSVLogger", "TensorBoardLogger"])
def test_a_logger_that_numbers_its_runs_says_where_they_are(tmp_path, kind):
    pytest.importorskip("tensorboard")
    for seed in (1, 2):
        logger = getattr(pytorch_lightning.loggers, kind)(tmp_path, name="runs")
        trainer = fit(pytorch_lightning, tmp_path / "root", seed, logger=logger)
        assert report_folder(trainer) == Path(trainer.log_dir) / "report"
    assert [seed_in(tmp_path / "runs" / f"version_{number}" / "report") for number in (0, 1)] == [1, 2]
    assert not list(tmp_path.rglob(".run"))


def test_a_logger_told_to_keep_everything_in_one_folder_shares_it(tmp_path):
    for seed in (1, 2):
        logger = pytorch_lightning.loggers.CSVLogger(tmp_path, name="", version="")
        fit(pytorch_lightning, tmp_path, seed, logger=logger)
    assert [seed_in(tmp_path / name) for name in ("report", "report_1")] == [1, 2]


def test_a_folder_on_another_machine_is_told_once(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = logger_of(pytorch_lightning, "s3://bucket/logs", "project", "kx31")
        memorised = PoisonMemorization()
        trainer = fit(pytorch_lightning, tmp_path, logger=logger, callbacks=[memorised])
    (said,) = (str(warning.message) for warning in caught if "writes no files" in str(warning.message))
    assert said.startswith("lightning_poison writes no files: s3://bucket/logs/project/kx31 is not on this machine; ")
    assert report_folder(trainer) is None
    assert not list(tmp_path.rglob("*"))
    assert memorised.history


def test_fit_and_test_share_a_folder_and_so_does_the_run_that_goes_on(tmp_path):
    class Halts(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "half.ckpt")
            raise KeyError

    model = model_of(pytorch_lightning, small_weights(nn.Linear(4, 3)), lr=0.1)
    model.test_step = lambda batch, batch_idx: None
    data = PoisonedDataModule(data_of(pytorch_lightning, DATA), POISON, seed=1)
    killed = trainer_of(pytorch_lightning, tmp_path, Report(), PoisonMemorization(), Halts())
    with pytest.raises(KeyError):
        killed.fit(model, data)
    fit(pytorch_lightning, tmp_path, seed=2)  # another run in between
    resumed = fit(pytorch_lightning, tmp_path, seed=1, ckpt_path=tmp_path / "half.ckpt")
    assert [seed_in(tmp_path / name) for name in ("report", "report_1")] == [1, 2]
    (tmp_path / "report" / "report.json").unlink()
    resumed.datamodule.test_dataloader = lambda: DataLoader(DATA)
    resumed.datamodule.datamodule.test_dataloader = resumed.datamodule.test_dataloader
    resumed.test(model, resumed.datamodule, verbose=False)
    assert seed_in(tmp_path / "report") == 1
    assert not (tmp_path / "report_2").exists()
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    other = tmp_path / "other"  # where the first run's folder is not, the second has one with its name
    fit(pytorch_lightning, other, seed=3)
    fit(pytorch_lightning, other, seed=1, ckpt_path=tmp_path / "half.ckpt")
    assert [seed_in(other / name) for name in ("report", "report_1")] == [3, 1]


def test_predictions_of_runs_that_share_a_log_folder(tmp_path):
    model = model_of(pytorch_lightning, small_weights(nn.Linear(4, 3)))
    model.predict_step = lambda batch: model(batch[0]).softmax(dim=1)
    writers = [PredictionWriter(), PredictionWriter(), PredictionWriter()]
    for writer in writers[:2]:
        trainer = trainer_of(pytorch_lightning, tmp_path, Report(), writer)
        trainer.predict(model, DataLoader(DATA, 5))
    logger = pytorch_lightning.loggers.CSVLogger(tmp_path, name="own")
    trainer_of(pytorch_lightning, tmp_path, writers[2], logger=logger).predict(model, DataLoader(DATA, 5))
    places = ["report/predictions.csv", "report_1/predictions.csv", "own/version_0/predictions.csv"]
    assert [writer.path for writer in writers] == [tmp_path / place for place in places]
    assert all(len(writer.path.read_text().splitlines()) == 13 for writer in writers)


class Stub(SimpleNamespace):
    """A Trainer; like a real one it equals only itself."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def stub(folder: Path, zero: bool = True) -> Any:
    return Stub(fast_dev_run=False, is_global_zero=zero, loggers=[], default_root_dir=str(folder))


def claim(folder: Path, start: Any, found: Any) -> None:
    start.wait()
    found.put(report_folder(stub(folder)).name)


def test_runs_that_start_at_the_same_moment(tmp_path):
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=claim, args=(tmp_path / "new", start, found)) for _ in range(4)]
    for process in processes:
        process.start()
    names = [found.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(10)
    assert sorted(names) == ["report", "report_1", "report_2", "report_3"]


def test_only_rank_zero_has_a_folder_and_a_plan_makes_none(tmp_path):
    assert report_folder(stub(tmp_path, zero=False)) is None
    trainer = stub(tmp_path)
    assert planned_report_folder(trainer) == tmp_path / "report"
    assert not list(tmp_path.iterdir())
    assert report_folder(stub(tmp_path)) == tmp_path / "report"
    assert planned_report_folder(trainer) == tmp_path / "report_1" == report_folder(trainer)
    assert planned_report_folder(trainer) == tmp_path / "report_1"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write .*file/report: Not a directory; choose a folder"):
        report_folder(stub(tmp_path / "file"))
