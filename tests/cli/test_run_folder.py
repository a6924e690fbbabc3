"""A run's folder: made once, by one run, and gone when the run never began."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytorch_lightning import Callback, Trainer

from lightning_poison.cli.run_folder import claim_folder, discard_unbegun, loggers_for

QUICK = ("fit", "--config", "digits.yaml", "--trainer.callbacks=null", "--trainer.max_epochs=1")
QUICK += ("--compare_with_clean=false", "--data.max_samples=200")


def trainer_in(root: Path) -> Trainer:
    return Trainer(logger=loggers_for(root), accelerator="cpu", enable_checkpointing=False)


def test_two_runs_that_start_at_the_same_moment_get_a_folder_each(tmp_path: Path) -> None:
    first, second = trainer_in(tmp_path / "runs"), trainer_in(tmp_path / "runs")
    assert first.log_dir == second.log_dir
    for trainer in (first, second):
        claim_folder(trainer, tmp_path / "runs")
    assert Path(first.log_dir).name == "version_0"
    assert Path(second.log_dir).name == "version_1"
    assert {Path(logger.log_dir).name for logger in second.loggers} == {"version_1"}


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "new" / "runs")
    claim_folder(trainer, tmp_path / "new" / "runs")
    for logger in trainer.loggers:
        _ = logger.experiment
    discard_unbegun(trainer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_keeps_its_files(tmp_path: Path) -> None:
    for name in ("config.yaml", "anything.bin"):
        log_dir = tmp_path / "runs" / name.partition(".")[0]
        log_dir.mkdir(parents=True)
        (log_dir / name).write_text("")
        logger = SimpleNamespace(log_dir=str(log_dir))
        discard_unbegun(SimpleNamespace(loggers=[logger]), tmp_path)  # type: ignore[arg-type]
        assert (log_dir / name).exists()


def test_checkpoints_are_looked_at_before_there_is_a_folder(run_cli, tmp_path: Path) -> None:
    code, _, err = run_cli(*QUICK, "--checkpoint.monitor=val/acc", "--checkpoint.mode=max")
    assert code == 0, err[-2000:]
    runs = sorted(path.name for path in (tmp_path / "runs" / "digits").iterdir())
    for command, more, message in (
        ("fit", ("--data.max_samples=150",), "the flip list was drawn for other data"),
        ("fit", ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"), "the checkpoint's optimizer has no"),
        ("test", ("--model.net.width=8",), "the checkpoint runs/digits/version_0/checkpoints/last.ckpt does not fit"),
    ):
        code, _, err = run_cli(command, *QUICK[1:], "--ckpt_path=last", "--trainer.max_epochs=2", *more)
        assert code == 2
        assert message in err.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "runs" / "digits").iterdir()) == runs
    code, _, err = run_cli("validate", *QUICK[1:], "--ckpt_path=best")
    assert code == 0, err[-2000:]
    code, _, err = run_cli("validate", *QUICK[1:])
    assert code == 0
    assert "No --ckpt_path is given" in err


class Waiting(Callback):
    """Lets the test interrupt an epoch."""

    def on_train_batch_end(self, *_: object) -> None:
        Path("waiting").touch()
        time.sleep(30)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "lightning_poison", *QUICK, "--trainer.callbacks+=test_run_folder.Waiting"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "waiting").exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err[-2000:]
    assert err.rstrip().splitlines()[-1].startswith("lightning-poison: interrupted; the same command with --ckpt_path")
    assert "Traceback" not in err
