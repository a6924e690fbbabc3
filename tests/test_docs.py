"""What the documents show runs."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

import lightning_poison
from lightning_poison.__main__ import main
from lightning_poison.cli.configs import shipped_configs
from lightning_poison.datamodules import Digits
from lightning_poison.poisons import LabelFlips, TrainingSet
from lightning_poison.victims import Victim

ROOT = Path(lightning_poison.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[list[str]]:
    pages = (README, (ROOT / "docs" / "flips.md").read_text(encoding="utf-8"))
    lines = (line for page in pages for block in blocks(page, "bash") for line in block.splitlines())
    typed = (shlex.split(line, comments=True) for line in lines)
    programs = (["lightning-poison"], ["python", "-m", "lightning_poison"])
    return [words[len(name) :] for words in typed for name in programs if words[: len(name)] == name]


def test_there_are_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_readme_commands_parse(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if command[0] == "configs":
        assert main(command) == 0
        return
    with pytest.raises(SystemExit) as exited:
        main([*command, "--print_config"])
    assert exited.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("target", ["demo", "test"])
def test_readme_shows_targets_that_the_makefile_has(target: str) -> None:
    assert f"make {target}" in README
    printed = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("fit --config digits.yaml" if target == "demo" else "pytest") in printed


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_readme_three_lines(package: str) -> None:
    lightning = pytest.importorskip(package)

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.net(inputs)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    (code,) = blocks(README, "python")
    made = []

    def trainer(**kwargs: object) -> pl.Trainer:
        made.append(
            lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, **kwargs)
        )
        return made[0]

    exec(code, {"MyDataModule": Digits, "my_model": Model(), "Trainer": trainer})
    keys = {"val/acc", "val/adv_acc", "paths/length_median", "cert/acc_at_0"}
    assert keys <= set(made[0].callback_metrics)


def test_the_page_about_attacks_runs(tmp_path: Path) -> None:
    data = Digits(max_samples=60)
    data.setup("fit")
    torch.manual_seed(0)
    images, labels = next(iter(data.train_dataloader()))[:2]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(50):  # an untrained one may see the first digit as the next class, and its path has no length
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    codes = blocks((ROOT / "docs" / "attacks.md").read_text(encoding="utf-8"), "python")
    assert len(codes) == 3
    for code in codes:
        exec(code, {"model": model, "images": images[:8], "labels": labels[:8]})
    assert (tmp_path / "regions.png").stat().st_size > 1000


def test_the_page_about_certificates_runs() -> None:
    data = Digits(max_samples=200)
    data.setup("fit")
    images, labels = (torch.cat(parts) for parts in zip(*data.train_dataloader(), strict=True))
    codes = blocks((ROOT / "docs" / "certificates.md").read_text(encoding="utf-8"), "python")
    assert len(codes) == 4
    for code in codes:
        exec(code, {"train_images": images, "train_labels": labels, "test_images": images[:5]})


def test_the_page_about_flips_runs(tmp_path: Path) -> None:
    codes = blocks((ROOT / "docs" / "flips.md").read_text(encoding="utf-8"), "python")
    assert len(codes) == 3
    for code in codes:
        exec(code, {"folder": str(tmp_path / "experiment")})
    assert (tmp_path / "experiment" / "table.md").read_text(encoding="utf-8").count("medoids") >= 1


def test_the_pages_name_every_config_once() -> None:
    named = [
        set(re.findall(r"`(\w+\.yaml)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))
        for page in ("attacks.md", "certificates.md", "flips.md")
    ]
    assert set().union(*named) == set(shipped_configs()) - {"digits.yaml", "mnist.yaml"}
    assert sum(map(len, named)) == len(set().union(*named))


@pytest.mark.parametrize("where", ["README.md", "CONTRIBUTING.md", "docs", "configs"])
def test_names_that_are_shown_are_public(where: str) -> None:
    """Whoever copies a class path or an import of ours finds it in its package's ``__all__``."""
    files = [ROOT / where] if where.endswith(".md") else [*(ROOT / where).glob("*.md"), *(ROOT / where).glob("*.yaml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    shown = set(re.findall(r"\blightning_poison\.([a-z_.]+)\.([A-Z]\w+)", text))
    for package, names in re.findall(r"from lightning_poison\.([a-z_.]+) import ([\w, ]+)", text):
        shown |= {(package, name.strip()) for name in names.split(",")}
    assert shown
    for package, name in shown:
        assert name in importlib.import_module(f"lightning_poison.{package}").__all__, f"{package}.{name}"


def test_readme_callback_in_a_cli_of_ones_own(tmp_path: Path) -> None:
    from pytorch_lightning.cli import LightningCLI

    (code,) = blocks(README, "yaml")
    (tmp_path / "mine.yaml").write_text(code)
    net = {"class_path": "lightning_poison.nets.PoolCNN", "init_args": {"image_size": 8}}
    cli = LightningCLI(
        Victim,
        Digits,
        args=["fit", "--config", "mine.yaml", f"--model.net={net}", "--model.num_classes=10", "--trainer.max_epochs=1"],
    )
    metrics = cli.trainer.callback_metrics
    assert {"val/adv_acc", "val/acc"} <= set(metrics)
    assert len(list(tmp_path.rglob("flips.csv"))) == 1
    assert len(list(tmp_path.rglob("index.html"))) == 1


def test_contributing_selector_runs() -> None:
    (code,) = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    scope: dict[str, object] = {"__name__": "contributed"}
    exec(code, scope)
    training_set = TrainingSet(torch.arange(20) % 4, 4, "made up", None)
    flips = LabelFlips(scope["EveryOther"]()).craft(training_set, seed=0)
    assert len(flips) == 10
    assert "EveryOther()" in str(flips.provenance)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in target or ((ROOT / name).parent / target).exists(), target


def test_the_makefile_names_tests_that_are_there() -> None:
    named = re.findall(r"\btests/[\w/.]+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ["docs/design.md", "CONTRIBUTING.md"])
def test_files_that_are_shown_are_there(name: str) -> None:
    """Below the package, the repository, or a room that the sentence is about."""
    text = (ROOT / name).read_text(encoding="utf-8")
    shown = re.findall(r"`([a-z_]+/(?:[a-z_/]*|[\w/]+\.(?:py|css|html\.jinja)))`", text)
    assert len(shown) > 5
    package = ROOT / "lightning_poison"
    places = (package, ROOT, package / "certificates", package / "poisons")
    assert [path for path in shown if not any((place / path).exists() for place in places)] == []


def test_the_module_runs_as_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "lightning_poison", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("lightning_poison ")
