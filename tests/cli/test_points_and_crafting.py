"""Poisons that are points, from the command line: made, written, read again, and crafted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_poison.poisons import FlipList, PoisonPoints

Cli = Callable[..., tuple[int, str, str]]
DIGITS = (
    "--config",
    "digits.yaml",
    "--data.max_samples=300",
    "--trainer.max_epochs=1",
    "--compare_with_clean=false",
    "--trainer.callbacks=null",
    "--trainer.callbacks+=PoisonMemorization",
)


def fit(run_cli: Cli, *arguments: str) -> Path:
    code, out, err = run_cli("fit", *DIGITS, *arguments)
    assert code == 0, err[-2000:]
    return Path(out.rstrip().splitlines()[-1]).parent


def test_points_are_placed_written_and_read_again(run_cli: Cli) -> None:
    first = fit(
        run_cli,
        "--poison=PlacedPoisons",
        "--poison.distance=1.5",
        "--poison.relabel=ToClass",
        "--poison.relabel.label=3",
    )
    points = PoisonPoints.read(first / "points.pt")
    assert len(points) == 18
    assert points.provenance["arguments"]["relabel"] == {"class": "ToClass", "label": 3}
    content = json.loads((first / "report.json").read_text())
    assert content["metrics"]["poison/count"] == 18
    assert content["title"] == "Digits with 18 poison points"
    again = fit(run_cli, "--poison=PointsFromFile", f"--poison.path={first / 'points.pt'}")
    assert PoisonPoints.read(again / "points.pt").same_points(points)
    assert json.loads((again / "report.json").read_text())["metrics"] == content["metrics"]


def test_inputs_are_moved_within_their_budgets(run_cli: Cli) -> None:
    folder = fit(
        run_cli,
        "--poison=CleanLabelPerturbation",
        "--poison.select=RandomPoints",
        "--poison.select.per_class=3",
        "--poison.eps=0.5",
        "--poison.total=4",
        "--poison.toward=NextClass",
    )
    points = PoisonPoints.read(folder / "points.pt")
    assert points.distance.max() <= 0.5
    assert points.distance.sum() <= 4
    assert (points.old_label == points.new_label).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--poison=PlacedPoisons",), "poison.distance is missing, which PlacedPoisons needs"),
        (("--poison=PlacedPoisons", "--poison.distance=abc"), "poison.distance must be float, got abc"),
        (("--poison=PlacedPoisons", "--poison.distance=-1"), "distance must lie in"),
        (
            (
                "--poison=CleanLabelPerturbation",
                "--poison.select=RandomPoints",
                "--poison.toward=NewClass",
            ),
            "toward must name a class that the surrogate knows",
        ),
        (("--poison=PointsFromFile", "--poison.path=none.pt"), "there is no file of poison points at none.pt"),
    ],
)
def test_mistakes_are_one_line(refused: Callable[..., str], arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("fit", *DIGITS, *arguments)


def test_two_lists_are_crafted_by_name(run_cli: Cli, refused: Callable[..., str]) -> None:
    folder = fit(
        run_cli,
        "--poison=null",
        "--trainer.max_epochs=4",
        "--trainer.callbacks+=CraftFlips",
        "--trainer.callbacks.poison=LabelFlips",
        "--trainer.callbacks.poison.select=Medoids",
        "--trainer.callbacks.poison.select.per_class=2",
        "--trainer.callbacks.name=medoids",
        "--trainer.callbacks+=CraftFlips",
        "--trainer.callbacks.poison=CleanLabelPerturbation",
        "--trainer.callbacks.poison.select=RandomPoints",
        "--trainer.callbacks.name=moved",
    )
    assert len(FlipList.read(folder / "crafted_flips_medoids.csv")) == 20
    assert len(PoisonPoints.read(folder / "crafted_points_moved.pt")) == 100
    titles = [section["title"] for section in json.loads((folder / "report.json").read_text())["sections"]]
    assert {"Crafted flips (medoids)", "Crafted flips (moved)"} <= set(titles)
    line = refused(
        "fit",
        *DIGITS,
        "--trainer.callbacks+=CraftFlips",
        "--trainer.callbacks.poison=LabelFlips",
        "--trainer.callbacks.poison.select=RandomPoints",
    )
    poison = "LabelFlips(RandomPoints(per_class=5), NextClass())"
    assert f"CraftFlips needs a run on clean labels, got poison {poison}" in line
