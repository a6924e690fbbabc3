from __future__ import annotations

import subprocess
import sys

import pytest

import lightning_poison
from lightning_poison.cli.configs import describe_configs, find_config, shipped_configs
from lightning_poison.cli.front import SUBCOMMANDS
from lightning_poison.errors import UserError


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_bare_help(run_cli, arguments: list[str]) -> None:
    code, out, _ = run_cli(*arguments)
    assert code == 0
    assert all(command in out for command in (*SUBCOMMANDS, "configs", "digits.yaml"))


def test_the_front_does_not_import_torch() -> None:
    code = "import sys; from lightning_poison.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_version(run_cli) -> None:
    assert run_cli("--version")[1] == f"lightning_poison {lightning_poison.__version__}\n"


def test_configs_are_listed_with_a_line_each(run_cli) -> None:
    code, out, _ = run_cli("configs")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(shipped_configs())
    assert all(len(description) > 20 for description in describe_configs().values())


def test_a_config_is_printed(run_cli) -> None:
    assert run_cli("configs", "digits.yaml")[1] == find_config("digits.yaml").read_text()
    assert run_cli("configs", "digits")[1] == find_config("digits.yaml").read_text()


@pytest.mark.parametrize("arguments", [["nope.yaml"], ["a", "b"]])
def test_configs_refuses(run_cli, arguments: list[str]) -> None:
    code, out, err = run_cli("configs", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_the_current_folder_comes_first(tmp_path) -> None:
    (tmp_path / "digits.yaml").write_text("mine: 1\n")
    assert find_config("digits.yaml").resolve() == tmp_path / "digits.yaml"
    with pytest.raises(UserError, match=r"no config nope.yaml here, and the shipped ones are .*mnist.yaml"):
        find_config("nope.yaml")
