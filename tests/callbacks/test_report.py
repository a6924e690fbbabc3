import json

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison._lightning import Callback, lightning_packages
from lightning_poison.callbacks.report import Report
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, NextClass, RandomPoints
from lightning_poison.report import LoggedMetric, ReportFigure, ReportTable, Section

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (1).to_bytes(4, "big") * 2
PACKAGES = lightning_packages()


def make_model(package):
    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def training_step(self, batch, _):
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
            return loss

        def validation_step(self, batch, _):
            self.log("val/acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

        def test_step(self, batch, batch_idx):
            self.log("test/acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    return Model()


def make_data(package, points=20):
    class Data(package.LightningDataModule):
        def loader(self):
            inputs = torch.linspace(0, 1, 2 * points).reshape(points, 2)
            return DataLoader(TensorDataset(inputs, torch.arange(points) % 2), batch_size=10)

        train_dataloader = val_dataloader = test_dataloader = loader

    return Data()


class EverySecondEpoch(Callback):
    """Logs at the very end of every second training epoch, and contributes a section."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch % 2 == 0:
            pl_module.log("paths/length_mean", float(trainer.current_epoch))

    def report_sections(self):
        figure = ReportFigure("picture", "A picture.", PNG)
        return [Section("Measured", ("In words.",), (ReportTable("t", ("a",), ((1,),)),), (figure,))]

    def report_metrics(self):
        return [LoggedMetric("paths/length_mean", "Length", "steps", note="steps of 0.01")]


def make_trainer(package, root, report, *callbacks, **arguments):
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    settings = {"max_epochs": 3, "logger": False, "num_sanity_val_steps": 1, "enable_checkpointing": False}
    return package.Trainer(default_root_dir=root, callbacks=[report, *callbacks], **{**settings, **silent, **arguments})


def read(root):
    return json.loads((root / "report" / "report.json").read_text())


def run(root, package=PACKAGES[0], report=None, poisoned=True, **arguments):
    report = report or Report()
    trainer = make_trainer(package, root, report, EverySecondEpoch(), **arguments)
    poison = LabelFlips(RandomPoints(per_class=2), NextClass()) if poisoned else None
    model, data = make_model(package), PoisonedDataModule(make_data(package), poison, seed=5)
    trainer.fit(model, data)
    return report, trainer, model, data


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_fit_then_test_share_one_report(package, tmp_path, capsys):
    _, trainer, model, data = run(tmp_path, package)
    fitted = read(tmp_path)
    trainer.test(model, data)

    content = read(tmp_path)
    names = {"index.html", "report.json", "flips.csv", "flips.png", "picture.png", "training-accuracy.png"}
    assert names <= set(content["files"])
    assert set(content["files"]) == {file.name for file in (tmp_path / "report").glob("[!.]*")}
    assert set(content["metrics"]) == {"val/acc", "train/loss", "paths/length_mean", "test/acc"}
    assert {key: content["metrics"][key] for key in fitted["metrics"]} == fitted["metrics"]
    assert content["data"]["training_points"] == 20
    assert content["data"]["num_classes"] == 2
    assert content["data"]["data_module"] == "Data"
    assert content["data"]["fingerprint"]
    assert content["poison"]["count"] == 4
    assert content["seeds"]["poison"] == 5
    assert content["title"] == "Data with 4 flipped labels"
    assert [section["title"] for section in content["sections"]] == ["Flipped labels", "Training", "Measured"]
    assert content["metric_info"]["paths/length_mean"]["measured_with"] == "steps of 0.01"
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "report" / "index.html")
    assert lines.count(lines[-1]) == 2


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_history_holds_each_epoch_in_which_a_key_was_logged(package, tmp_path):
    run(tmp_path, package, max_epochs=4)
    history = read(tmp_path)["history"]
    assert [point["epoch"] for point in history["val/acc"]] == [0, 1, 2, 3]
    assert [point["epoch"] for point in history["train/loss"]] == [0, 1, 2, 3]
    assert history["paths/length_mean"] == [{"epoch": 0, "value": 0.0}, {"epoch": 2, "value": 2.0}]


def test_a_resumed_run_reports_what_the_uninterrupted_one_does(tmp_path):
    run(tmp_path / "whole", max_epochs=4)
    _, trainer, *_ = run(tmp_path / "first", max_epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")

    report = Report()
    resumed = make_trainer(PACKAGES[0], tmp_path / "second", report, EverySecondEpoch(), max_epochs=4)
    poison = LabelFlips(RandomPoints(per_class=2), NextClass())
    data = PoisonedDataModule(make_data(PACKAGES[0]), poison, seed=5)
    resumed.fit(make_model(PACKAGES[0]), data, ckpt_path=tmp_path / "two.ckpt")

    whole, second = read(tmp_path / "whole"), read(tmp_path / "second")
    assert second["metric_info"] == whole["metric_info"]
    assert second["history"] == whole["history"]
    assert {key: second["metrics"][key] for key in ("val/acc", "train/loss")} == {
        key: whole["metrics"][key] for key in ("val/acc", "train/loss")
    }


def test_state_is_plain_python_and_comes_back(tmp_path):
    report, *_ = run(tmp_path)
    state = report.state_dict()
    torch.save(state, tmp_path / "state.pt")
    other = Report()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.state_dict() == state
    assert len(state["history"]["val/acc"]) == 3


def test_a_new_fit_forgets_the_last_one(tmp_path):
    report, *_ = run(tmp_path / "a", max_epochs=3)
    run(tmp_path / "b", report=report, max_epochs=1, poisoned=False)
    content = read(tmp_path / "b")
    assert [point["epoch"] for point in content["history"]["val/acc"]] == [0]
    assert content["poison"]["count"] == 0
    assert content["title"] == "Data with clean labels"


def test_validate_alone_writes_a_report(tmp_path):
    trainer = make_trainer(PACKAGES[0], tmp_path, Report(title="Mine"))
    trainer.validate(make_model(PACKAGES[0]), make_data(PACKAGES[0]), verbose=False)
    content = read(tmp_path)
    assert list(content["metrics"]) == ["val/acc"]
    assert content["title"] == "Mine"
    assert content["poison"] is None


def test_raw_loaders_are_enough(tmp_path):
    trainer = make_trainer(PACKAGES[0], tmp_path, Report())
    data = make_data(PACKAGES[0], points=30)
    trainer.fit(make_model(PACKAGES[0]), data.loader(), data.loader())
    assert read(tmp_path)["data"] == {"training_points": 30}
    assert read(tmp_path)["title"] == "Model"


def test_fast_dev_run_prints_the_table_and_writes_nothing(tmp_path, capsys):
    run(tmp_path, fast_dev_run=True)
    assert list(tmp_path.rglob("*.*")) == []
    assert "Accuracy (validation)" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_writes_no_report(tmp_path, error, capsys):
    class Interrupts(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise error

    trainer = make_trainer(PACKAGES[0], tmp_path, Report(), Interrupts())
    with pytest.raises((error, SystemExit)):
        trainer.fit(make_model(PACKAGES[0]), make_data(PACKAGES[0]))
    assert not (tmp_path / "report").exists()
    assert "Metric" not in capsys.readouterr().out


def test_a_baseline_is_compared_with(tmp_path, capsys):
    run(tmp_path / "clean", poisoned=False)
    run(tmp_path / "poisoned", report=Report(baseline=tmp_path / "clean"))
    content = read(tmp_path / "poisoned")
    assert content["baseline"]["metrics"] == read(tmp_path / "clean")["metrics"]
    assert content["baseline"]["source"] == str(tmp_path / "clean" / "report" / "report.json")
    assert "comparison.png" in content["files"]
    assert "Compared with the clean twin" in (tmp_path / "poisoned" / "report" / "index.html").read_text()
    assert "Clean twin" in capsys.readouterr().out


def test_a_baseline_on_other_data_is_refused_before_training(tmp_path):
    run(tmp_path / "clean", poisoned=False)
    trainer = make_trainer(PACKAGES[0], tmp_path / "other", Report(baseline=tmp_path / "clean"))
    model, data = make_model(PACKAGES[0]), PoisonedDataModule(make_data(PACKAGES[0], points=40), None, seed=5)
    with pytest.raises(UserError, match="baseline must be a run on the same data"):
        trainer.fit(model, data)
    assert trainer.global_step == 0


def test_a_missing_baseline_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="baseline must be an existing"):
        Report(baseline=tmp_path / "nowhere")


def test_a_driver_prints_once_at_the_end(tmp_path, capsys):
    report = Report()
    report.quiet, report.command = True, "my command"
    _, trainer, model, data = run(tmp_path, report=report)
    trainer.test(model, data, verbose=False)
    assert "Metric" not in capsys.readouterr().out
    assert read(tmp_path)["baseline"] is None

    report.compare_with({"test/acc": 0.25}, "twin")
    assert report.write(trainer) == tmp_path / "report" / "index.html"
    assert read(tmp_path)["baseline"] == {"label": "twin", "source": None, "metrics": {"test/acc": 0.25}}
    assert read(tmp_path)["command"] == "my command"
    report.print(trainer)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "report" / "index.html")
    assert any("Twin" in line for line in lines)
    assert report.metrics["test/acc"] == read(tmp_path)["metrics"]["test/acc"]


def test_the_saved_configuration_is_shown(tmp_path):
    (tmp_path / "config.yaml").write_text("trainer:\n  max_epochs: 3  # <&>\n")
    run(tmp_path)
    assert "max_epochs: 3  # &lt;&amp;&gt;" in (tmp_path / "report" / "index.html").read_text()


def test_on_a_terminal_the_progress_bar_ends_before_the_table(tmp_path, capsys, monkeypatch):
    from pytorch_lightning.callbacks import RichProgressBar

    printed = []

    class Bar(RichProgressBar):
        def teardown(self, *arguments, **keywords):
            printed.append(capsys.readouterr().out)
            super().teardown(*arguments, **keywords)

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    trainer = make_trainer(PACKAGES[0], tmp_path, Report(), Bar(), enable_progress_bar=True)
    trainer.validate(make_model(PACKAGES[0]), make_data(PACKAGES[0]), verbose=False)
    assert "index.html" not in printed[0]
    assert "index.html" in "".join(printed[1:]) + capsys.readouterr().out
