"""Selectors that look through a network, from the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lightning_poison.poisons import FlipList

Cli = Callable[..., tuple[int, str, str]]
SHORT = ("--data.max_samples=200", "--trainer.max_epochs=1", "--compare_with_clean=false", "--trainer.callbacks=[]")
QUICKLY = ("--poison.select.surrogate=TrainedSurrogate", "--poison.select.surrogate.recipe.epochs=100")


def flips_of(run_cli: Cli, tmp_path, *arguments: str) -> FlipList:
    code, _, err = run_cli("fit", "--config", "digits.yaml", *SHORT, *arguments)
    assert code == 0, err[-2000:]
    (path,) = tmp_path.rglob("flips.csv")
    return FlipList.read(str(path))


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (
            ("PathLengthBucket", "--poison.select.bucket=2", "--poison.select.num_buckets=3", *QUICKLY),
            "bucket=2, num_buckets=3, edges='quantile'",
        ),
        (("NearestToBoundary", "--poison.select.step=8/255", *QUICKLY), "step=0.03137"),
        (("HighestLoss", *QUICKLY), "TrainedSurrogate(TrainingRecipe(100"),
        (
            (
                "InfluenceScore",
                "--poison.select.attack=PGD",
                "--poison.select.attack.eps=0.05",
                "--poison.select.outer_classes=[1,2]",
                *QUICKLY,
            ),
            "PGD(eps=0.05",
        ),
        (("ForgettingEvents", "--poison.select.recipe.epochs=20", "--poison.select.runs=2"), "runs=2"),
        (("TrajectoryMatching", "--poison.select.recipe.epochs=4", *QUICKLY), "checkpoints=5"),
    ],
)
def test_by_name_with_their_options(run_cli: Cli, tmp_path, arguments: tuple[str, ...], written: str) -> None:
    flips = flips_of(
        run_cli, tmp_path, f"--poison.select={arguments[0]}", *arguments[1:], "--poison.select.per_class=1"
    )
    assert flips.old_label.tolist().count(4) == 1
    assert len(flips) == 10
    assert written in flips.provenance["strategy"]


def test_label_noise(run_cli: Cli, tmp_path) -> None:
    flips = flips_of(run_cli, tmp_path, "--poison.select=LabelNoise", "--poison.select.rate=0.2")
    assert 15 < len(flips) < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("PathLengthBucket", "--poison.select.bucket=6"), "bucket must lie in [0, 5], got 6"),
        (("PathLengthBucket", "--poison.select.per_class=9"), "but 9 must be drawn from it"),
        (
            (
                "HighestLoss",
                "--poison.select.surrogate=CheckpointSurrogate",
                "--poison.select.surrogate.path=nowhere.ckpt",
            ),
            "there is no checkpoint at nowhere.ckpt",
        ),
    ],
)
def test_mistakes_are_one_line(refused: Callable[..., str], arguments: tuple[str, ...], message: str) -> None:
    select, *options = arguments
    assert message in refused("fit", "--config", "digits.yaml", *SHORT, f"--poison.select={select}", *options)
