"""The commands, end to end, on every shipped config with tiny data."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_poison.cli.configs import read_config, shipped_configs

Cli = Callable[..., tuple[int, str, str]]
QUICK = ("--trainer.max_epochs=2", "--compare_with_clean=false")
DIGITS = ("--config", "digits.yaml", "--data.max_samples=300", *QUICK)
FILES = {"index.html", "report.json", "flips.csv", "paths.csv", "certificates.csv"}


def page_of(out: str) -> Path:
    page = Path(out.rstrip().splitlines()[-1])
    assert page.name == "index.html"
    assert page.is_file()
    return page


def content_of(out: str) -> dict[str, Any]:
    return json.loads((page_of(out).parent / "report.json").read_text())


def succeed(run_cli: Cli, *arguments: str) -> str:
    code, out, err = run_cli(*arguments)
    assert code == 0, err[-2000:]
    return out


def few_samples(config: dict[str, Any]) -> dict[str, Any]:
    """The callbacks of a config, measuring few samples."""
    callbacks = copy.deepcopy(config["trainer"]["callbacks"])
    limited = ("AdversarialAccuracy", "AdversarialPaths", "SmoothingCertification")
    for callback in callbacks:
        if callback["class_path"].rpartition(".")[2] in limited:
            given = callback.setdefault("init_args", {})
            given["max_samples"] = min(8, given.get("max_samples", 8))
    return {"trainer": {"callbacks": callbacks}}


@pytest.mark.parametrize("name", [name for name in shipped_configs() if not name.startswith("experiment_")])
def test_every_shipped_config_runs(
    run_cli: Cli, made_up_mnist: Path, made_up_imdb: Path, made_up_dogfish: Path, tmp_path: Path, name: str
) -> None:
    config = read_config(shipped_configs()[name])
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few_samples(config)))
    tiny: tuple[str, ...] = ("--data.val_split=0.3", "--config", "few.yaml")
    poisoned = config.get("poison") is not None
    if poisoned:
        tiny += ("--poison.select.per_class=2",)
    tiny += {
        "MNIST": (f"--data.root={made_up_mnist}",),
        "IMDB": (f"--data.root={made_up_imdb}", "--data.cache=cache", "--data.min_df=1", "--data.max_df=0.9"),
        "Dogfish": (f"--data.root={made_up_dogfish}",),
    }.get(config["data"]["class_path"].rpartition(".")[2], ())
    out = succeed(run_cli, "fit", "--config", name, *tiny, *QUICK)
    measured = {callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]}
    files = {path.name for path in page_of(out).parent.iterdir()}
    assert files >= {"index.html", "report.json", *(["flips.csv"] if poisoned else [])}
    metrics = content_of(out)["metrics"]
    assert {"val/acc", "test/acc"} <= set(metrics)
    if poisoned:
        assert metrics["poison/count"] == 2 * 10
    assert all(0 <= value <= 1 for key, value in metrics.items() if "acc" in key)
    if "PoisonMemorization" in measured:
        assert "poison/fitted" in metrics
    if "AdversarialAccuracy" in measured:
        assert {"val", "test"} <= {key.partition("/")[0] for key in metrics if "/adv_acc" in key}
    if "AdversarialPaths" in measured:
        assert any(key.startswith("paths/length_median") for key in metrics)
        assert any(file.startswith("paths") and file.endswith(".csv") for file in files)
    if "LabelFlipCertification" in measured:
        for start in ("cert/acc_at_0", "cert/acc_at_1", "cert/radius_median"):
            assert any(key.startswith(start) for key in metrics)
        assert any(file.startswith("certificates") and file.endswith(".csv") for file in files)


def test_the_digits_are_measured_in_every_way(run_cli: Cli) -> None:
    out = succeed(run_cli, "fit", *DIGITS)
    assert {path.name for path in page_of(out).parent.iterdir()} >= FILES
    metrics = content_of(out)["metrics"]
    keys = {
        "val/adv_acc",
        "test/adv_acc",
        "poison/fitted",
        "paths/length_median",
        "cert/acc_at_0",
        "cert/radius_median",
    }
    assert keys <= set(metrics)
    assert metrics["test/adv_acc"] <= metrics["test/acc"]


def test_the_clean_twin_stands_beside(run_cli: Cli) -> None:
    out = succeed(run_cli, "fit", *DIGITS[:3], *QUICK[:1])
    content = content_of(out)
    assert content["baseline"]["label"] == "clean twin"
    twin = page_of(out).parents[1] / "clean_twin"
    assert json.loads((twin / "report" / "report.json").read_text())["metrics"] == content["baseline"]["metrics"]
    # The twin is what --poison=null trains with the same seed.
    clean = content_of(succeed(run_cli, "fit", *DIGITS, "--poison=null"))
    assert clean["metrics"] == content["baseline"]["metrics"]


def test_a_saved_config_runs_again_unchanged(run_cli: Cli) -> None:
    first = succeed(run_cli, "fit", *DIGITS, "--model.optimizer.lr=2e-3")
    saved = page_of(first).parents[1] / "config.yaml"
    again = succeed(run_cli, "fit", "--config", str(saved))
    assert page_of(again) != page_of(first)
    assert content_of(again)["metrics"] == content_of(first)["metrics"]


def test_interpolation_follows_files_and_overrides(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("trainer: {max_epochs: 7}\n")
    shown = yaml.safe_load(succeed(run_cli, "fit", *DIGITS[:2], "--config", "more.yaml", "--print_config"))
    assert shown["model"]["init_args"]["scheduler"]["init_args"]["T_max"] in (7, "${trainer.max_epochs}")
    out = succeed(run_cli, "fit", *DIGITS[:3], "--config", "more.yaml", "--trainer.max_epochs=1", QUICK[1])
    checkpoint = next((page_of(out).parents[1] / "checkpoints").glob("epoch*.ckpt"))
    assert torch.load(checkpoint, weights_only=True)["lr_schedulers"][0]["T_max"] == 1


def test_short_forms(run_cli: Cli) -> None:
    out = succeed(
        run_cli,
        "fit",
        *DIGITS,
        "--poison.select=RandomPoints",
        "--poison.select.per_class=3",
        "--poison.relabel=NewClass",
        "--trainer.callbacks+=AdversarialAccuracy",
        "--trainer.callbacks.attack=PGD",
        "--trainer.callbacks.attack.eps=8/255",
        "--trainer.callbacks.attack.steps=5",
        "--trainer.callbacks.name=small",
        "--trainer.callbacks+=AdversarialAccuracy",
        "--trainer.callbacks.attack=torchattacks.FGSM",
        "--trainer.callbacks.attack.eps=0.1",
        "--trainer.callbacks.name=foreign",
    )
    metrics = content_of(out)["metrics"]
    assert metrics["poison/count"] == 30
    assert {"val/adv_acc", "val/adv_acc_small", "val/adv_acc_foreign"} <= set(metrics)
    flips = list(csv.DictReader(line for line in (page_of(out).parent / "flips.csv").open() if line[0] != "#"))
    assert {row["new_label"] for row in flips} == {"10"}


def test_poison_without_a_config_that_has_one(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text(
        "data: {class_path: Digits}\n"
        "model: {class_path: Victim, init_args: {net: {class_path: PoolCNN, init_args: {image_size: 8}}}}\n"
        "trainer: {max_epochs: 1}\n"
    )
    out = succeed(run_cli, "fit", "--config", "bare.yaml", "--poison.select=RandomPoints", "--poison.select.count=7")
    content = content_of(out)
    assert content["poison"]["count"] == 7


def test_validate_test_and_predict(run_cli: Cli) -> None:
    out = succeed(run_cli, "fit", *DIGITS)
    fitted = content_of(out)["metrics"]
    for command, key in (("validate", "val/acc"), ("test", "test/acc")):
        metrics = content_of(succeed(run_cli, command, *DIGITS, "--ckpt_path", "last"))["metrics"]
        assert metrics[key] == fitted[key]
        assert metrics[key.replace("acc", "adv_acc")] == fitted[key.replace("acc", "adv_acc")]
    predictions = Path(succeed(run_cli, "predict", *DIGITS, "--ckpt_path", "last").rstrip().splitlines()[-1])
    rows = list(csv.DictReader(predictions.open()))
    assert [int(row["index"]) for row in rows] == list(range(360))
    from lightning_poison.datamodules import Digits

    labels = [int(label) for _, label in Digits().test_dataloader().dataset]
    right = sum(int(row["prediction"]) == label for row, label in zip(rows, labels, strict=True))
    assert right / 360 == pytest.approx(fitted["test/acc"], abs=1e-7)


def test_a_flip_list_is_fed_back(run_cli: Cli, tmp_path: Path) -> None:
    first = succeed(run_cli, "fit", *DIGITS)
    flips = page_of(first).parent / "flips.csv"
    back = ("--poison.select=FromFile", f"--poison.select.path={flips}", "--poison.relabel=null")
    again = content_of(succeed(run_cli, "fit", *DIGITS, *back))
    assert again["metrics"] == content_of(first)["metrics"]
    code, _, err = run_cli("fit", *DIGITS, *back, "--data.seed=5")
    assert code == 2
    assert "flips.csv" in err.splitlines()[-1]


HALT = """
import os
from pytorch_lightning import Callback

class Halt(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            os._exit(9)
"""


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(run_cli: Cli, tmp_path: Path) -> None:
    arguments = ["fit", *DIGITS[:3], "--trainer.max_epochs=4", QUICK[1]]
    whole = content_of(succeed(run_cli, *arguments))
    (tmp_path / "halting.py").write_text(HALT)
    killed = subprocess.run(
        [sys.executable, "-m", "lightning_poison", *arguments, "--trainer.callbacks+=halting.Halt"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
    )
    assert killed.returncode == 9, killed.stderr.decode()[-2000:]
    # Another seed on the second call changes nothing: flips, order and random numbers are those of the first.
    resumed = succeed(run_cli, *arguments, "--ckpt_path", "last", "--seed_everything=99")
    assert (page_of(resumed).parent / "flips.csv").read_text() == (
        Path("runs/digits/version_0/report/flips.csv")
    ).read_text()
    assert content_of(resumed)["metrics"] == whole["metrics"]
    assert content_of(resumed)["history"] == whole["history"]


def test_a_checkpoint_that_does_not_fit(run_cli: Cli) -> None:
    succeed(run_cli, "fit", *DIGITS)
    code, _, err = run_cli("test", *DIGITS, "--ckpt_path", "last", "--model.net.width=8")
    assert code == 2
    assert "last.ckpt does not fit the model (net.features.0.weight is [16, 1, 5, 5] in the file" in err
    code, _, err = run_cli("fit", *DIGITS, "--ckpt_path", "last", "--poison.relabel=NewClass")
    assert code == 2
    assert "resume with the same poison" in err.splitlines()[-1] or "does not fit" in err.splitlines()[-1]


def test_fast_dev_run_writes_nothing(run_cli: Cli, tmp_path: Path) -> None:
    succeed(run_cli, "fit", *DIGITS, "--trainer.fast_dev_run=true")
    assert list(tmp_path.iterdir()) == []


def test_nan_in_the_data_is_one_line(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import torch\nfrom lightning_poison.datamodules import Digits\n\n\n"
        "class Broken(Digits):\n"
        "    def train_dataloader(self):\n"
        "        loader = super().train_dataloader()\n"
        "        loader.collate_fn = lambda items: (torch.full((len(items), 1, 8, 8), torch.nan), "
        "torch.tensor([label for _, label in items]))\n"
        "        return loader\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "lightning_poison", "fit", *DIGITS[:2], *QUICK, "--data=broken.Broken"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
    )
    assert ran.returncode == 2
    said = r"inputs must be finite, got (\d+) NaN or infinite of \1 values; remove the broken samples"
    assert re.search(said, ran.stderr.splitlines()[-1])
    assert "Traceback" not in ran.stderr
