"""Mistakes inside a config file: each is one line that names the key, what it must be and what to write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., tuple[int, str, str]]
NET = {"class_path": "MLP", "init_args": {"image_size": 8}}
CONFIG: dict[str, Any] = {
    "data": {"class_path": "Digits", "init_args": {"classes": [0, 1], "max_samples": 60, "val_split": 0.0}},
    "strategies": {"clean": None, "random": {"select": {"class_path": "RandomPoints", "init_args": {"per_class": 1}}}},
    "victims": {"MLP": {"net": NET, "recipe": {"epochs": 2}}},
    "folder": "out",
}
RANDOM = "lightning_poison.poisons.RandomPoints"
ONE_A_CLASS = {"per_class": 1}
NO_CLASSES = "victims.A.net must take num_classes, got"
A_VICTIM = "victims.A must have a net and may have a recipe, got"


def one_strategy(value: Any) -> dict[str, Any]:
    return {"strategies": {"clean": None, "random": value}}


def selecting(name: str, **arguments: Any) -> dict[str, Any]:
    return one_strategy({"select": {"class_path": name, "init_args": arguments}})


def one_victim(value: Any) -> dict[str, Any]:
    return {"victims": {"B": CONFIG["victims"]["MLP"], "A": value}}


@pytest.mark.parametrize(
    ("changed", "typed", "message"),
    [
        (one_strategy("RandomPoints"), [], "strategies.random cannot be RandomPoints, which only chooses points; put"),
        (one_strategy({"class_path": RANDOM}), [], "put it under select, as in {select: lightning_poison.poisons.Rand"),
        ({}, ["--strategies.random=Medoids"], "write --strategies.random.select=Medoids"),
        (one_strategy(3), [], "strategies.random must be null or a poison, got 3; write a selector, as in {select: Ra"),
        (one_strategy(["x"]), [], "strategies.random must be null or a poison, got ['x']; write a selector"),
        ({"strategies": ["x"]}, [], "strategies must be names with what they stand for, got ['x']; write strategies:"),
        (one_strategy({"selct": "RandomPoints"}), [], "no key selct; did you mean select? (LabelFlips takes select, r"),
        (one_strategy({"selct": {"class_path": RANDOM}}), [], "there is no key selct; did you mean select?"),
        (
            one_strategy({"class_path": "LabelFlips", "init_arg": {"select": RANDOM}}),
            [],
            "key init_arg; did you mean init_args?",
        ),
        (
            one_strategy({"class_path": "LabelFlips", "select": RANDOM}),
            [],
            "a class_path may have only init_args beside",
        ),
        (
            one_strategy({"select": {"class_path": RANDOM, "per_class": 3}}),
            [],
            "select must name a Selector by its cla",
        ),
        (selecting("LabelNoise", per_class=2), [], "no key per_class; did you mean classes? (LabelNoise takes rate, c"),
        (
            {
                "strategies": {
                    "ok": {"select": {"class_path": "RandomPoints", "init_args": ONE_A_CLASS}},
                    "noise": {"select": {"class_path": "LabelNoise", "init_args": ONE_A_CLASS}},
                }
            },
            ["--baseline=ok"],
            "strategies.noise: there is no key per_class; did you mean classes? (LabelNoise",
        ),
        (selecting("NearestToBoundary", surrogate="CheckpointSurrogate"), [], "missing, which CheckpointSurrogate nee"),
        (one_victim("PoolCNN"), [], f"{A_VICTIM} PoolCNN; write the network under net, as in {{net: PoolCNN}}"),
        (one_victim(NET), [], f"{A_VICTIM} MLP; write the network under net, as in {{net: MLP}}"),
        (one_victim(3), [], f"{A_VICTIM} 3; write the network under net, as in {{net: MLP}}"),
        (one_victim(None), [], f"{A_VICTIM} null"),
        (one_victim({"recipe": {"epochs": 2}}), [], "victims.A.net is missing, which a victim needs; write net: MLP"),
        ({}, ["--victims.A.recipe.epochs=3"], "victims.A.net is missing"),
        (one_victim({"net": "torch.nn.Linear"}), [], f"{NO_CLASSES} Linear, which does not; give its constructor an a"),
        (
            one_victim({"net": {"class_path": "torch.nn.Flatten", "init_args": {"width": 2}}}),
            [],
            f"{NO_CLASSES} Flatten",
        ),
        (one_victim({"net": NET, "recipe": "long"}), [], "victims.A.recipe must be keys with values, got long; its ke"),
        ({}, ["--eps", "0.1"], "eps must be list, got 0.1; write [0.1]"),
        ({"eps": 0.1}, [], "eps must be list, got 0.1; write [0.1]"),
        ({"fodler": "x"}, [], "there is no key fodler; did you mean folder?"),
        ({"attack": 3}, [], "attack must be the class path of an Attack, got 3"),
    ],
)
@pytest.mark.parametrize("own", [None, "base: bad.yaml\n"], ids=["", "in the base"])
def test_an_experiment(refused, changed: dict[str, Any], typed: list[str], message: str, own: str | None) -> None:
    Path("bad.yaml").write_text(yaml.safe_dump({**copy.deepcopy(CONFIG), **changed}, sort_keys=False))
    Path("own.yaml").write_text(own or Path("bad.yaml").read_text())
    assert message in refused("experiment", "--config", "own.yaml", *typed)
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["fit", "experiment"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "--config bad.yaml must hold KEY: VALUE, got an empty file; begin with a shipped one"),
        (b"# only this\n", "got an empty file"),
        (b"- 1\n", "--config bad.yaml must hold KEY: VALUE, got a list"),
        (bytes(range(128, 256)), "--config bad.yaml must be a YAML file in UTF-8, got one that is no text"),
        (b"PK\x00\x01", "got one that is no text"),
    ],
)
def test_a_file_without_keys(refused, command: str, content: bytes, message: str) -> None:
    Path("bad.yaml").write_bytes(content)
    assert message in refused(command, "--config", "bad.yaml")


def test_the_remedies_are_true(run_cli: Cli) -> None:
    Path("good.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    typed = ["--strategies.random.select=Medoids", "--strategies.random.select.per_class=1", "--eps", "[0.1]"]
    code, _, err = run_cli("experiment", "--config", "good.yaml", *typed, "--seeds=1", "--jobs=1", "--attack.steps=1")
    assert code == 0, err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["fit", "--poison.select.help", "RandomPoints"], "--poison.select.count"),
        (["fit", "--config", "digits.yaml", "--model.net.help=MLP"], "--model.net.image_size"),
        (["experiment", "--attack.help", "PGD"], "--attack.eps"),
        (["experiment", "--help"], "Compare strategies over victims and seeds."),
    ],
)
def test_help_names_whole_keys(run_cli: Cli, typed: list[str], words: str) -> None:
    code, out, _ = run_cli(*typed)
    assert code == 0
    assert words in out
    assert "Lightning Trainer command line tool" not in out
    assert " --select" not in out
