"""A config that says what differs from another one: ``base: OTHER``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lightning_poison.cli.configs import find_config, read_config, shipped_configs, text_with_bases
from lightning_poison.errors import UserError

Cli = Callable[..., tuple[int, str, str]]
SHIPPED = shipped_configs()


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_mappings_are_merged_and_lists_are_not() -> None:
    write("a.yaml", "one: {x: 1, y: [1, 2], z: {deep: 1, deeper: 2}}\ntwo: 2\n")
    assert read_config(write("b.yaml", "base: a.yaml\none: {y: [3], z: {deep: null}}\nthree: 3\n")) == {
        "one": {"x": 1, "y": [3], "z": {"deep": None, "deeper": 2}},
        "two": 2,
        "three": 3,
    }


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ("{init_args: {b: 2}}", {"class_path": "A", "init_args": {"a": 1, "b": 2}}),
        ("{class_path: A, init_args: {b: 2}}", {"class_path": "A", "init_args": {"a": 1, "b": 2}}),
        ("{class_path: B, init_args: {b: 2}}", {"class_path": "B", "init_args": {"b": 2}}),
        ("B", "B"),
    ],
)
def test_arguments_of_another_class_are_not_kept(own: str, merged: object) -> None:
    write("a.yaml", "net: {class_path: A, init_args: {a: 1}}\n")
    assert read_config(write("b.yaml", f"base: a.yaml\nnet: {own}\n")) == {"net": merged}


def test_the_kind_of_a_value_is_that_of_its_file() -> None:
    """A parser that reads 1e-3 as a number still finds it without quotes, and what was quoted with them."""
    write("a.yaml", "a: 1e-3\nb: '1e-3'\n\"2\": x\nc: &c [1e-4]\nd: *c\n")
    text = text_with_bases(write("b.yaml", "base: a.yaml\ne: 2e-3\nf: ${a}\n"))
    assert text is not None
    assert [line for line in text.splitlines() if line[0] in "abef"] == ["a: 1e-3", "b: '1e-3'", "e: 2e-3", "f: ${a}"]
    assert yaml.safe_load(text) == {
        "a": "1e-3",
        "b": "1e-3",
        "2": "x",
        "c": ["1e-4"],
        "d": ["1e-4"],
        "e": "2e-3",
        "f": "${a}",
    }


def test_bases_have_bases_and_stand_beside_the_file() -> None:
    write("else/where/a.yaml", "x: 1\ny: 1\nz: 1\n")
    write("else/b.yaml", "base: where/a.yaml\ny: 2\nz: 2\n")
    write("b.yaml", "x: wrong\n")
    assert read_config(write("else/c.yaml", "base: b.yaml\nz: 3\n")) == {"x": 1, "y": 2, "z": 3}


def test_a_file_may_have_the_name_of_its_shipped_base() -> None:
    own = write("digits.yaml", "base: digits\nseed_everything: 7\n")
    assert find_config("digits.yaml") == own
    assert read_config(own) == {**yaml.safe_load(SHIPPED["digits.yaml"].read_text()), "seed_everything": 7}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "base: nope\n"}, "base in a.yaml: there is no config nope, and the shipped ones are"),
        ({"a": "base: a.yaml\n"}, "must not lead back to a file that builds on it, got a.yaml -> a.yaml"),
        ({"a": "base: b.yaml\n", "b": "base: c.yaml\n", "c": "base: a.yaml\n"}, "a.yaml -> b.yaml -> c.yaml -> a.yaml"),
        ({"a": "base: [b.yaml, c.yaml]\n"}, "base in a.yaml must name one config file; write base: digits.yaml"),
        ({"a": "base:\n"}, "base in a.yaml must name one config file"),
        ({"a": "base: b.yaml\n", "b": "- 1\n"}, "--config b.yaml must hold KEY: VALUE, got a list"),
        ({"a": "base: b.yaml\n", "b": ""}, "--config b.yaml must hold KEY: VALUE, got an empty file"),
        ({"a": "base: b.yaml\n", "b": "x: [\n"}, "base in a.yaml: b.yaml is no YAML (while parsing a flow"),
        ({"a": "base: digits.yaml\nmodle: 3\n"}, "there is no key modle; did you mean model?"),
        ({"a": "base: digits.yaml\ntrainer: {max_epochs: x}\n"}, "max_epochs must be int or null, got x"),
    ],
)
def test_mistakes_are_one_line(refused, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(f"{name}.yaml", text)
    assert message in refused("fit", "--config", "a.yaml")


@pytest.mark.parametrize("command", ["fit", "experiment"])
def test_the_parser_gets_what_the_files_say(run_cli: Cli, command: str) -> None:
    """Whole texts without bases, merged by hand, are parsed to the same."""
    name, changes = {
        "fit": (
            "digits",
            "trainer: {max_epochs: 3, callbacks: []}\nmodel: {init_args: {std: [0.5], scheduler: null}}\n",
        ),
        "experiment": (
            "experiment_digits",
            "victims: {MLP: {recipe: {lr: 1e-3}}}\nstrategies: {meta: null}\neps: [0.3]\n",
        ),
    }[command]
    whole = yaml.safe_load(SHIPPED[f"{name}.yaml"].read_text())
    if command == "fit":
        whole["trainer"] |= {"max_epochs": 3, "callbacks": []}
        whole["model"]["init_args"] |= {"std": [0.5], "scheduler": None}
    else:
        whole["victims"]["MLP"]["recipe"]["lr"] = 0.001
        whole["strategies"]["meta"] = None
        whole["eps"] = [0.3]
    write("whole.yaml", yaml.safe_dump(whole, sort_keys=False))
    write("elsewhere/own.yaml", f"base: {name}.yaml\n{changes}")
    code, expected, _ = run_cli(command, "--config", "whole.yaml", "--print_config")
    assert code == 0
    assert run_cli(command, "--config", "elsewhere/own.yaml", "--print_config")[:2] == (0, expected)


def test_a_run_saves_the_whole_config(run_cli: Cli, tmp_path: Path) -> None:
    write("own/small.yaml", "base: digits\ntrainer: {max_epochs: 1, callbacks: null}\ncompare_with_clean: false\n")
    code, out, err = run_cli("fit", "--config", "own/small.yaml", "--data.max_samples=200")
    assert code == 0, err[-2000:]
    saved = Path(out.rstrip().splitlines()[-1]).parents[1] / "config.yaml"
    assert saved.is_relative_to("runs")  # of the current folder, not of the config's
    keys = yaml.safe_load(saved.read_text())
    assert "base" not in keys
    assert keys["trainer"]["max_epochs"] == 1
    assert keys["data"]["class_path"] == "lightning_poison.datamodules.Digits"
    assert text_with_bases(saved) is None


def test_paths_in_a_config_are_relative_to_it(run_cli: Cli) -> None:
    write("own/data.yaml", "class_path: Digits\ninit_args: {batch_size: 77}\n")
    for base in ("", "base: digits\n"):
        write("own/small.yaml", f"{base}data: data.yaml\nmodel: {{class_path: Victim, init_args: {{net: MLP}}}}\n")
        code, out, _ = run_cli("fit", "--config", "own/small.yaml", "--print_config")
        assert code == 0
        assert yaml.safe_load(out)["data"]["init_args"]["batch_size"] == 77


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_config_repeats_its_base(name: str) -> None:
    own = yaml.safe_load(SHIPPED[name].read_text())
    for key in own.keys() - {"base"} if "base" in own else ():
        assert own[key] != read_config(find_config(own["base"])).get(key)


def test_an_unreadable_base_is_named() -> None:
    Path("b.yaml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"--config b\.yaml must be a YAML file in UTF-8"):
        text_with_bases(write("a.yaml", "base: b.yaml\n"))
