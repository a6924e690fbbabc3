"""``experiment``, end to end, on every shipped config with tiny data."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_poison import poisons
from lightning_poison.cli.configs import read_config, shipped_configs

Cli = Callable[..., tuple[int, str, str]]
CONFIGS = [name for name in shipped_configs() if name.startswith("experiment_")]
QUICK = {
    "class_path": "lightning_poison.poisons.surrogates.TrainedSurrogate",
    "init_args": {"recipe": {"epochs": 8, "batch_size": 16}},
}
FILES = {"config.yaml", "experiment.json", "figure.png", "figure.svg", "results.csv", "table.csv", "table.md"}
TINY = ("--seeds=1", "--jobs=1", "--attack.steps=2", "--max_test_samples=20")


def tiny(name: str, root: Path) -> dict[str, Any]:
    """A shipped config with few epochs, flips and surrogates."""
    config = read_config(shipped_configs()[name])
    if "root" in config["data"]["init_args"]:
        config["data"]["init_args"]["root"] = str(root)
        config["data"]["init_args"].pop("max_samples", None)
    else:
        config["data"]["init_args"]["max_samples"] = 300
    for victim in config["victims"].values():
        victim["recipe"] = {"epochs": 2, "lr": 1e-3, "batch_size": 64}
    for strategy in config["strategies"].values():
        if strategy is not None:
            select = strategy["init_args"]["select"]
            select["init_args"]["per_class"] = 1
            fields = {field.name for field in dataclasses.fields(getattr(poisons, select["class_path"].split(".")[-1]))}
            if "surrogate" in fields:
                select["init_args"]["surrogate"] = QUICK
            if "recipe" in fields:
                select["init_args"]["recipe"] = {"epochs": 100, "batch_size": 16}
            if "second_space" in fields:
                select["init_args"]["second_space"] = {"class_path": "lightning_poison.poisons.FeatureSpace"}
            for place in ("space", "second_space"):
                space = select["init_args"].get(place, {})
                if space.get("class_path", "").endswith("FeatureSpace"):
                    space["init_args"] = {"surrogate": QUICK}
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_experiment_runs(run_cli: Cli, made_up_mnist: Path, tmp_path: Path, name: str) -> None:
    shipped = read_config(shipped_configs()[name])
    assert shipped["folder"] == f"runs/{name.removesuffix('.yaml')}"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(name, made_up_mnist), sort_keys=False))
    code, out, err = run_cli("experiment", "--config", "tiny.yaml", *TINY)
    assert code == 0, err[-2000:]
    folder = Path(out.rstrip().splitlines()[-1])
    assert folder == Path(shipped["folder"])
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert {row["strategy"] for row in rows} == set(shipped["strategies"])
    assert {row["victim"] for row in rows} == set(shipped["victims"])
    assert {float(row["eps"]) for row in rows} == set(shipped["eps"])
    assert all(int(row["flips"]) > 0 or row["strategy"] == "clean" for row in rows)
    table = (folder / "table.md").read_text()
    assert table in out
    assert all(strategy in table for strategy in shipped["strategies"])


@pytest.fixture
def small(tmp_path: Path) -> str:
    config = {
        "data": {"class_path": "Digits", "init_args": {"classes": [0, 1], "max_samples": 60, "val_split": 0.0}},
        "strategies": {
            "clean": None,
            "random": {
                "class_path": "LabelFlips",
                "init_args": {"select": {"class_path": "RandomPoints", "init_args": {"per_class": 1}}},
            },
        },
        "victims": {
            "MLP": {"net": {"class_path": "MLP", "init_args": {"image_size": 8}}, "recipe": {"epochs": 2}},
        },
        "attack": {"class_path": "PGD", "init_args": {"steps": 2}},
        "seeds": 2,
        "jobs": 1,
        "folder": "out",
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def runs_of(folder: str = "out") -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(folder, "runs").iterdir()}


def test_it_goes_on_and_its_config_runs_again(run_cli: Cli, small: str) -> None:
    code, first, err = run_cli("experiment", "--config", small, "--seeds=1")
    assert code == 0, err
    before = runs_of()
    code, second, _ = run_cli("experiment", "--config", small)
    assert (code, len(before), len(runs_of())) == (0, 2, 4)
    assert before.items() <= runs_of().items()
    assert "over 1 seed, or the n given;" in first
    assert "over 2 seeds" in second
    before = runs_of()
    code, again, _ = run_cli("experiment", "--config", "out/config.yaml")
    assert (code, again) == (0, second)
    assert runs_of() == before


def test_keys_can_be_typed(run_cli: Cli, small: str) -> None:
    code, _, err = run_cli(
        "experiment",
        *("-c", small),
        *("--strategies.random.select.per_class=2", "--strategies.random.relabel=NewClass"),
        *("--victims.MLP.net.hidden=[8]", "--victims.MLP.recipe.epochs=3"),
        *("--eps=[8/255,0.2]", "--source=0", "--target=1", "--seeds=[3,4]", "--folder=typed", "--figure=curve"),
    )
    assert code == 0, err
    (run,) = [json.loads(path.read_text()) for path in runs_of("typed") if '"flips": 4' in path.read_text()][:1]
    assert run["settings"]["num_classes"] == 3
    assert run["settings"]["recipe"]["epochs"] == 3
    assert run["settings"]["evaluation"]["source"] == 0
    assert run["settings"]["evaluation"]["eps"] == [pytest.approx(8 / 255), 0.2]
    assert {json.loads(path.read_text())["result"]["seed"] for path in runs_of("typed")} == {3, 4}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--baseline=medoids"], "baseline must be one of clean, random, got medoids; name one: --baseline NAME"),
        (["--strategies.random.select=Randm"], "there is no class Randm"),
        (["--strategies.random.select.per_class=x"], "per_class must be int or null, got x"),
        (["--strategies.random.select.per_class=50"], "strategy random: per_class must be at most"),
        (["--victims.MLP.recipe.epochs=0"], "epochs must be an integer of at least 1, got 0"),
        (["--victims.MLP.net.image_size=28"], "victim MLP cannot take inputs of shape (1, 8, 8)"),
        (["--eps=[8]"], "eps must lie in [0, 1] pixel units, got 8; for 8 grey levels of 255 write 8/255"),
        (["--source=1"], "needs target"),
        (["--fodler=x"], "there is no key fodler; did you mean folder"),
        (["--data=MNIST", "--data.root=nowhere", "--data.download=false"], "MNIST is not in"),
        (["--config=nope.yaml"], "there is no config nope.yaml here"),
        (["--device=warp"], "device must be one of this machine, got warp"),
        (["--method=warp"], "method must be auto, sequential or vmapped"),
    ],
)
def test_a_mistake_is_one_line(run_cli: Cli, small: str, typed: list[str], words: str) -> None:
    code, out, err = run_cli("experiment", "--config", small, *typed)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith("lightning-poison: error: ")
    assert words in err
    assert not Path("out").exists()


def test_no_arguments(run_cli: Cli) -> None:
    code, _, err = run_cli("experiment")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--config experiment_digits.yaml" in err
    code, out, _ = run_cli("experiment", "--help")
    assert code == 0
    assert "--strategies" in out


def test_other_data_in_the_folder(run_cli: Cli, small: str) -> None:
    assert run_cli("experiment", "--config", small)[0] == 0
    code, _, err = run_cli("experiment", "--config", small, "--data.max_samples=61")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "holds an experiment on other data" in err
    assert "--folder DIR" in err


def test_an_interrupted_experiment_says_that_it_goes_on(
    run_cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_poison.experiments import experiment as experiment_module

    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_module, "train_networks", interrupted)
    code, _, err = run_cli("experiment", "--config", small)
    assert code == 130
    assert "the same command goes on" in err
