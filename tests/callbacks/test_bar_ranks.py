"""A bar asks on rank zero for metrics that the ranks share, and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from bar_ranks import BARS

from tests.rank_runs import run_on_ranks

SCRIPT = Path(__file__).with_name("bar_ranks.py")
OWN = {"train/own_epoch", "train/own_loss_epoch", "val/own", "train/after"}
OURS = {"val/adv_acc", "poison/fitted", "paths/length_mean", "cert/acc_at_1", "smooth/acc_at_0.1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bars")


@pytest.fixture(scope="module")
def runs(folder):
    return run_on_ranks(SCRIPT, folder, timeout=150)


@pytest.mark.slow
@pytest.mark.parametrize("bar", BARS)
def test_every_measurement_beside_a_bar_gives_the_numbers_of_one_process(runs, bar):
    one = runs["one"][bar]
    assert {*OWN, *OURS, *(f"bar {key}" for key in OWN)} <= set(one)
    assert {f"validate {key}" for key in ("val/own", "val/shared", "val/adv_acc", "cert/acc_at_1")} <= set(one)
    for rank in ("first", "second"):
        assert runs[rank][bar] == pytest.approx(one, abs=1e-6)
        assert values(runs[rank][f"{bar} history"]) == pytest.approx(values(runs["one"][f"{bar} history"]), abs=1e-6)


def values(history):
    return {(key, epoch): value for key, curve in history.items() for epoch, value in curve if "_step" not in key}


@pytest.mark.slow
def test_flips_are_crafted_beside_a_bar(runs):
    assert runs["first"]["crafted"] == runs["second"]["crafted"] == runs["one"]["crafted"]
    assert len(runs["one"]["crafted"]) == 6


@pytest.mark.slow
def test_a_victim_shares_its_metrics_beside_a_bar(runs):
    one = runs["one"]["victim"]
    assert one["train/shared"] == 1
    assert {"train/acc", "val/acc"} <= set(one)
    for rank in ("first", "second"):
        assert runs[rank]["victim"] == pytest.approx(one, abs=1e-6)


@pytest.mark.slow
def test_the_ranks_write_one_report(runs, folder):
    for bar in BARS:
        for devices in "12":
            assert [path.name for path in (folder / bar / devices).iterdir()] == ["report"]
        one, two = ({path.name for path in (folder / bar / devices / "report").iterdir()} for devices in "12")
        assert {"index.html", "flips.csv", "paths.csv", "certificates.csv", "smoothing.csv"} <= one == two


@pytest.mark.slow
def test_predictions_of_two_ranks(runs):
    assert len(runs["one"]["predicted"].splitlines()) == 8
    assert runs["first"]["predicted"] == runs["one"]["predicted"]
    assert runs["second"]["predicted"] is None
