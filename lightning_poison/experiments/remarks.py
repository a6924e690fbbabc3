"""What has to be said below an experiment's table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_poison.experiments.runs import RunResult

__all__ = ["remarks"]


def remarks(
    results: Sequence[RunResult], seeds: int, planned: Mapping[str, int], fixed: Sequence[str] = ()
) -> list[str]:
    """How to read the numbers, and what qualifies them.

    Args:
        results: of every run.
        seeds: number of them.
        planned: for each kind of victim the epochs of its recipe.
        fixed: the strategies that have flipped the same points in every seed.

    Returns:
        sentences.

    Example:
        >>> result = RunResult("random", "MLP", 0, 10, 1.0, 30, 0.01, 0.98, 200, {"0.1": 120})
        >>> remarks([result], 1, {"MLP": 20})[1:]
        ['Every run has memorised every flip.', "1 run went on after its recipe's end, as flips were not yet fitted."]
    """
    every = len(results)
    failed = sum(math.isnan(result.loss) for result in results)
    unfitted = sum(not result.memorised for result in results) - failed
    late = sum(result.epochs > planned.get(result.victim, result.epochs) for result in results)
    over = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    reading = (
        f"Per cent, mean ± standard error over {over}, or the n given; differences are paired seed by seed (same "
        "initial weights, same order of the points), with Student's 95 % interval."
    )
    sentences = [reading]
    if failed:
        sentences.append(f"In {failed} of {every} runs training failed (loss above that of guessing): lower its lr.")
    if unfitted:
        sentences.append(
            f"{unfitted} of {every} runs have not memorised every flip and are in no mean, which flatters strategies "
            "whose flips are hard to memorise; give the recipe more epochs or extra_epochs."
        )
    elif not failed:
        sentences.append("Every run has memorised every flip.")
    if late:
        runs = "1 run went on after its recipe's end" if late == 1 else f"{late} runs went on after their recipe's end"
        sentences.append(f"{runs}, as flips were not yet fitted.")
    if fixed:
        sentences.append(
            f"The flips of {' and '.join(fixed)} are the same in every seed: their ± is that of training alone."
        )
    return sentences
