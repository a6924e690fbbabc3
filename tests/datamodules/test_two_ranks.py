from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_poison.poisons import FlipList
from tests.rank_runs import run_on_ranks

SCRIPT = Path(__file__).with_name("two_ranks.py")
POINTS = 25


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return folder, run_on_ranks(SCRIPT, folder)


@pytest.mark.slow
def test_every_rank_has_the_flips_of_a_single_process(runs):
    folder, reports = runs
    one = reports["one"]
    assert len(one["flips"][0]) == 6
    assert all(report["flips"] == one["flips"] for report in reports.values())
    assert all(report["same_flips"] for report in reports.values())
    assert FlipList.read(folder / "report" / "flips.csv").index.tolist() == one["flips"][0]


@pytest.mark.slow
def test_the_ranks_share_the_order_of_a_single_process(runs):
    _, reports = runs
    for epoch in range(3):
        whole = reports["one"]["seen"][epoch]
        dealt = [reports[rank]["seen"][epoch] for rank in ("first", "second")]
        together = [dealt[position % 2][position // 2] for position in range(26)]
        assert together == [*whole, whole[0]]


@pytest.mark.slow
def test_labels_are_flipped_in_an_unshuffled_loader_too(runs):
    _, reports = runs
    index, labels = reports["one"]["flips"]
    expected = torch.arange(POINTS) % 3
    expected[index] = torch.tensor(labels)
    for report in reports.values():
        assert all(label == expected[position] for position, label in report["in_order"][0])
    assert {position for rank in ("first", "second") for position, _ in reports[rank]["in_order"][0]} == set(range(25))


@pytest.mark.slow
def test_resumed_runs_equal_uninterrupted_ones_whatever_the_seed(runs):
    for report in runs[1].values():
        assert report["same_weights"]
        assert report["resumed"] == report["seen"][2:]


@pytest.mark.slow
def test_the_numbers_are_the_same_on_both_ranks(runs):
    _, reports = runs
    assert reports["first"]["metrics"] == reports["second"]["metrics"]
    assert reports["first"]["metrics"]["poison/count"] == reports["one"]["metrics"]["poison/count"] == 6
