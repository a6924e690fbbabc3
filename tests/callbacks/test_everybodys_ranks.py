"""Two processes measure what one does, whatever deals the samples, and none of them waits for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from everybodys_ranks import TRAINED
from rank_runs import run_on_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_on_ranks(Path(__file__).with_name("everybodys_ranks.py"), tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["dealt", "shuffled", "own halves", "each the whole"])
def test_two_processes_measure_what_one_does(ranks: dict[str, Any], loader: str) -> None:
    one, first, second = (ranks[name][loader] for name in ("one", "first", "second"))
    assert first == second
    assert first["samples"] == one["samples"] == 31
    assert first["flips"] == one["flips"]
    assert set(one["flips"]) <= set(TRAINED)
    drawn = [key for key in one["metrics"] if key.startswith("smooth/") or key.endswith("_few")]
    exact = [key for key in one["metrics"] if key not in drawn]
    assert {"val/adv_acc", "paths/length_mean", "poison/fitted", "cert/acc_at_1"} <= set(exact)
    assert [first["metrics"][key] for key in exact] == pytest.approx([one["metrics"][key] for key in exact], abs=1e-6)
    if loader == "dealt":
        assert [first["metrics"][key] for key in drawn] == pytest.approx([one["metrics"][key] for key in drawn])


@pytest.mark.slow
def test_an_order_that_ranks_draw_apart_is_refused_by_all(ranks: dict[str, Any]) -> None:
    assert "metrics" in ranks["one"]["own order"]
    for name in ("first", "second"):
        assert (
            "cannot tell which rank evaluates which point, as SubsetRandomSampler" in ranks[name]["own order"]["error"]
        )


@pytest.mark.slow
def test_ranks_that_share_some_samples_are_told_so_at_the_end(ranks: dict[str, Any]) -> None:
    assert ranks["one"]["overlapping"]["samples"] == 20
    for name in ("first", "second"):
        assert "some are the same and some are not" in ranks[name]["overlapping"]["error"]


@pytest.mark.slow
def test_what_breaks_on_one_rank_is_raised_on_all_at_the_end(ranks: dict[str, Any]) -> None:
    assert ranks["one"]["broken"]["error"] == "RuntimeError: this rank has no memory left"
    assert ranks["second"]["broken"]["error"] == "RuntimeError: this rank has no memory left"
    assert "this rank has no memory left" in ranks["first"]["broken"]["error"]
