"""Certificates on two ranks are those of one, and so are the errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from certification_runs import RADII, TRAIN, VAL, Together, expected, same, with_repeats
from torch.utils.data import TensorDataset

import lightning_poison
from lightning_poison.certificates import (
    CertifiedPoints,
    RawFeatures,
)
from lightning_poison.trainer.positions import draw_positions

TWO_RANKS = """
import json, sys
import torch
import certification_runs as t
from lightning_poison.certificates import RawFeatures
from lightning_poison.errors import UserError
import pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    torch.set_num_threads(1)
    case = sys.argv[1]
    method = {
        "together": t.Together(RawFeatures(), 0.1),
        "repeats": t.with_repeats(),
        "points": t.monte_carlo(points=30),
    }.get(case)
    every = case in ("repeats", "points")  # 31 points: the sampler gives the second rank a repeat of the first
    run = t.trainer(pl, t.certification(method=method, max_samples=None if every else 29), strategy="ddp", devices=2)
    inputs, labels = t.VAL.tensors
    if case == "nan":
        inputs = inputs.clone()
        inputs[1] = float("nan")  # a sample of rank one
    try:
        run.fit(t.victim(pl), DataLoader(t.TRAIN, 16), DataLoader(TensorDataset(inputs, labels), 5))
    except UserError as error:
        open(f"error{run.global_rank}.txt", "w").write(str(error))
    else:
        open(f"found{run.global_rank}.json", "w").write(json.dumps(t.certified(run)))
"""


def run_two_ranks(case: str) -> None:
    Path("two_ranks.py").write_text(TWO_RANKS)
    paths = [str(Path(lightning_poison.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run(
        [sys.executable, "two_ranks.py", case], capture_output=True, timeout=300, check=True, env=environment
    )


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one_and_count_repeats_once() -> None:
    run_two_ranks("numbers")
    drawn = draw_positions(len(VAL), 29, VAL.tensors[1])
    wanted = expected(points=TensorDataset(*(part[drawn] for part in VAL.tensors)))
    for rank in (0, 1):
        assert same(json.loads(Path(f"found{rank}.json").read_text()), wanted)
    (table,) = Path.cwd().rglob("certificates.csv")
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == [str(row) for row in drawn.tolist()]


@pytest.mark.slow
def test_two_ranks_give_a_transductive_method_all_points() -> None:
    run_two_ranks("together")
    drawn = draw_positions(len(VAL), 29, VAL.tensors[1])
    inputs, labels = (part[drawn] for part in VAL.tensors)
    learner = Together(RawFeatures(), 0.1).fit(*TRAIN.tensors, 3)
    wanted = CertifiedPoints(drawn, labels, learner.certify(inputs)).values(RADII)
    for rank in (0, 1):
        assert same(json.loads(Path(f"found{rank}.json").read_text()), wanted)


@pytest.mark.slow
def test_each_of_an_odd_number_of_points_counts_once_on_two_ranks() -> None:
    """Also where one call certifies all, as inputs are seen together or alpha is shared: 31 points and no more."""
    run_two_ranks("repeats")
    inputs, labels = VAL.tensors
    wanted = {}
    for name, learner in with_repeats().items():
        certificate = learner.fit(*TRAIN.tensors, 3).certify(inputs)
        wanted.update(CertifiedPoints(torch.arange(31), labels, certificate).values(RADII, f"_{name}"))
    for rank in (0, 1):
        assert same(json.loads(Path(f"found{rank}.json").read_text()), wanted)
    for table in Path.cwd().rglob("certificates_*.csv"):
        assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == [str(row) for row in range(31)]


@pytest.mark.slow
def test_more_points_on_all_ranks_than_share_the_alpha_are_refused() -> None:
    run_two_ranks("points")
    for rank in (0, 1):
        message = "points must be at least the number of points, got 30 for 31"
        assert message in Path(f"error{rank}.txt").read_text()


@pytest.mark.slow
def test_an_error_on_one_rank_is_heard_on_all() -> None:
    run_two_ranks("nan")
    for rank in (0, 1):
        assert "must be finite" in Path(f"error{rank}.txt").read_text()
