"""Means and paired differences over the seeds of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_poison.experiments.runs import RunResult
from lightning_poison.functional.student import MeanInterval, mean_interval

__all__ = ["EVERY_VICTIM", "Summary", "summarise"]

EVERY_VICTIM = "all"

_Value = Callable[[RunResult], float]


@dataclass(frozen=True)
class Summary:
    """One strategy against one kind of victim at one radius.

    Runs that have not memorised their flips are counted, and left out of everything else.

    Args:
        strategy: its name.
        victim: name of the kind; "all": seed by seed the mean over the kinds, of seeds whose runs are all memorised.
        eps: the radius, as text.
        runs: number of runs.
        memorised: how many of them have memorised every flip.
        fitted: mean share of the flips that is fitted, over all runs; NaN without flips.
        epochs: the smallest and the largest number of epochs of a run; None where several kinds are averaged.
        natural: natural accuracy.
        adversarial: adversarial accuracy.
        difference: adversarial accuracy minus the baseline's, seed by seed; of seeds where both have memorised.
    """

    strategy: str
    victim: str
    eps: str
    runs: int
    memorised: int
    fitted: float
    epochs: tuple[int, int] | None
    natural: MeanInterval
    adversarial: MeanInterval
    difference: MeanInterval


def summarise(results: Sequence[RunResult], baseline: str) -> list[Summary]:
    """The summaries, in the order of the results: by radius, victim, strategy; "all" last where there are several.

    Args:
        results: finished runs.
        baseline: the strategy to compare with.
    """
    victims = list(dict.fromkeys(result.victim for result in results))
    strategies = list(dict.fromkeys(result.strategy for result in results))
    radii = list(dict.fromkeys(eps for result in results for eps in result.withstood))
    groups = [[victim] for victim in victims] + ([victims] if len(victims) > 1 else [])
    return [
        _summary(results, strategy, group, eps, baseline)
        for eps in radii
        for group in groups
        for strategy in strategies
    ]


def _summary(results: Sequence[RunResult], strategy: str, victims: list[str], eps: str, baseline: str) -> Summary:
    own = [result for result in results if result.strategy == strategy and result.victim in victims]
    others = [result for result in results if result.strategy == baseline and result.victim in victims]

    def adversarial(result: RunResult) -> float:
        return result.adversarial(eps)

    mine, theirs = _by_seed(own, victims, adversarial), _by_seed(others, victims, adversarial)
    natural = _by_seed(own, victims, lambda result: result.natural)
    paired = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    shares = [result.fitted for result in own if result.flips]
    return Summary(
        strategy=strategy,
        victim=victims[0] if len(victims) == 1 else EVERY_VICTIM,
        eps=eps,
        runs=len(own),
        memorised=sum(result.memorised for result in own),
        fitted=sum(shares) / len(shares) if shares else float("nan"),
        epochs=(min(result.epochs for result in own), max(result.epochs for result in own))
        if len(victims) == 1
        else None,
        natural=mean_interval(list(natural.values())),
        adversarial=mean_interval(list(mine.values())),
        difference=mean_interval(paired),
    )


def _by_seed(results: Sequence[RunResult], victims: list[str], value: _Value) -> dict[int, float]:
    """The mean over the victims of each seed at which all have memorised."""
    seeds: dict[int, list[float]] = {}
    for result in results:
        if result.memorised:
            seeds.setdefault(result.seed, []).append(value(result))
    return {seed: sum(values) / len(values) for seed, values in seeds.items() if len(values) == len(victims)}
