from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from lightning_poison.experiments import Outcome
from lightning_poison.experiments.folder import RunResult
from lightning_poison.experiments.outcome import results_csv, summaries_csv, summaries_markdown, summarise


def result(strategy: str, victim: str, seed: int, adversarial: float, fitted: float = 1.0, **more) -> RunResult:
    withstood = {"0.1": round(1000 * adversarial)}
    given = {
        "flips": 5,
        "epochs": 3,
        "loss": 0.1,
        "natural": 0.9 + seed / 1000,
        "attacked": 1000,
        "withstood": withstood,
    }
    return RunResult(strategy, victim, seed, fitted=fitted, **{**given, **more})


def several(seeds: int = 6) -> list[RunResult]:
    random = np.random.default_rng(3)
    return [
        result(strategy, victim, seed, random.uniform(low, low + 0.3))
        for victim in ("A", "B")
        for strategy, low in (("random", 0.5), ("medoids", 0.4), ("clean", 0.7))
        for seed in range(seeds)
    ]


def of(summaries, strategy: str, victim: str):
    (found,) = [each for each in summaries if (each.strategy, each.victim) == (strategy, victim)]
    return found


def shares(results, strategy: str, victim: str) -> dict[int, float]:
    return {r.seed: r.withstood["0.1"] / 1000 for r in results if (r.strategy, r.victim) == (strategy, victim)}


@pytest.mark.parametrize("victim", ["A", "B"])
def test_differences_are_paired_by_seed(victim: str) -> None:
    results = several()
    shuffled = [results[i] for i in np.random.default_rng(0).permutation(len(results))]
    mine, theirs = shares(results, "medoids", victim), shares(results, "random", victim)
    peer = stats.ttest_rel([mine[s] for s in range(6)], [theirs[s] for s in range(6)])
    for given in (results, shuffled):
        summary = of(summarise(given, "random"), "medoids", victim)
        assert summary.difference.mean == pytest.approx(np.mean(list(mine.values())) - np.mean(list(theirs.values())))
        assert summary.difference.low == pytest.approx(peer.confidence_interval(0.95).low)
        assert summary.difference.high == pytest.approx(peer.confidence_interval(0.95).high)
        assert summary.adversarial.error == pytest.approx(stats.sem(list(mine.values())))
    assert of(summarise(results, "random"), "random", victim).difference.mean == 0.0


def test_runs_that_have_not_memorised_are_counted_and_left_out() -> None:
    results = several()
    for place, each in enumerate(results):
        if (each.strategy, each.victim, each.seed) in {("medoids", "A", 1), ("random", "A", 4)}:
            results[place] = result(each.strategy, each.victim, each.seed, 0.999, fitted=0.8)
    summaries = summarise(results, "random")
    medoids, random = of(summaries, "medoids", "A"), of(summaries, "random", "A")
    assert (medoids.runs, medoids.memorised, random.memorised) == (6, 5, 5)
    assert medoids.fitted == pytest.approx((5 + 0.8) / 6)
    mine, theirs = shares(results, "medoids", "A"), shares(results, "random", "A")
    assert medoids.adversarial.mean == pytest.approx(np.mean([mine[s] for s in (0, 2, 3, 4, 5)]))
    assert medoids.natural.mean == pytest.approx(np.mean([0.9 + s / 1000 for s in (0, 2, 3, 4, 5)]))
    assert medoids.difference.n == 4
    assert medoids.difference.mean == pytest.approx(np.mean([mine[s] - theirs[s] for s in (0, 2, 3, 5)]))
    everywhere = of(summaries, "medoids", "all")
    assert (everywhere.runs, everywhere.memorised, everywhere.adversarial.n, everywhere.difference.n) == (12, 11, 5, 4)
    other, base = shares(results, "medoids", "B"), shares(results, "random", "B")
    paired = [(mine[s] + other[s]) / 2 - (theirs[s] + base[s]) / 2 for s in (0, 2, 3, 5)]
    assert everywhere.difference.mean == pytest.approx(np.mean(paired))
    assert everywhere.difference.error == pytest.approx(stats.sem(paired))


def test_a_victim_without_flips_has_nothing_to_memorise_unless_it_diverged() -> None:
    clean = result("clean", "A", 0, 0.9, fitted=math.nan, flips=0)
    diverged = result("clean", "A", 1, 0.0, fitted=math.nan, flips=0, loss=math.nan, natural=math.nan)
    assert clean.memorised
    assert not diverged.memorised
    (summary,) = summarise([clean, diverged], "clean")
    assert (summary.runs, summary.memorised, summary.natural.n) == (2, 1, 1)
    assert math.isnan(summary.fitted)


def test_nothing_memorised_is_no_number() -> None:
    results = [result("random", "A", 0, 0.5, fitted=0.5), result("medoids", "A", 0, 0.4)]
    text = summaries_markdown(summarise(results, "random"), "random", seeds=1)
    row = next(line for line in text.splitlines() if "| random |" in line)
    assert row == "| 0.1 | A | random | 0 of 1, 50.0 % of flips | 3 | - | - |  |  |"
    row = next(line for line in text.splitlines() if "| medoids |" in line)
    assert row == "| 0.1 | A | medoids | 1 of 1 | 3 | 90.00 | 40.0 | - | - |"


def test_every_mean_over_fewer_seeds_says_over_how_many() -> None:
    """Of eight seeds, four kinds miss one each, all different: four are left for the mean over the kinds."""
    missing = {("medoids", "A", 0), ("medoids", "B", 2), ("medoids", "C", 5), ("medoids", "D", 7)}
    results = [
        result(strategy, victim, seed, adversarial, fitted=0.8 if (strategy, victim, seed) in missing else 1.0)
        for victim in "ABCD"
        for strategy, adversarial in (("random", 0.5), ("medoids", 0.4))
        for seed in range(8)
    ]
    text = summaries_markdown(summarise(results, "random"), "random", seeds=8)
    rows = {tuple(line.split(" | ")[1:3]): line for line in text.splitlines()[2:]}
    assert len(rows) == 10
    for victim, n in (*((victim, 7) for victim in "ABCD"), ("all, seed by seed", 4)):
        assert f"| 40.0 ± 0.0 (n = {n}) | -10.0 ± 0.0 (n = {n}) |" in rows[victim, "medoids"]
        assert "(n = " not in rows[victim, "random"]


def test_a_difference_is_of_the_seeds_that_both_have() -> None:
    results = [
        result(strategy, "A", seed, 0.5, fitted=0.8 if (strategy, seed) in {("random", 1), ("medoids", 2)} else 1.0)
        for strategy in ("random", "medoids")
        for seed in range(4)
    ]
    text = summaries_markdown(summarise(results, "random"), "random", seeds=4)
    assert "| 50.0 ± 0.0 (n = 3) | +0.0 ± 0.0 (n = 2) |" in next(
        line for line in text.splitlines() if "medoids" in line
    )


def test_epochs_of_each_row_from_the_least_to_the_most() -> None:
    results = [
        result(strategy, victim, seed, 0.5, epochs=129 if (strategy, victim, seed) == ("random", "A", 1) else 60)
        for victim in ("A", "B")
        for strategy in ("random", "medoids")
        for seed in range(3)
    ]
    text = summaries_markdown(summarise(results, "random"), "random", seeds=3)
    assert "| A | random | 3 of 3 | 60 to 129 | " in text
    assert text.count("| 3 of 3 | 60 | ") == 3
    assert text.count("| all, seed by seed | ") == text.count(" | 6 of 6 |  | ") == 2
    rows = list(csv.DictReader(io.StringIO(summaries_csv(summarise(results, "random")))))
    assert [(row["epochs_least"], row["epochs_most"]) for row in rows] == [
        *(("60", "129"), ("60", "60"), ("60", "60"), ("60", "60"), ("", ""), ("", ""))
    ]


def test_below_the_table_stands_what_qualifies_its_numbers() -> None:
    results = several()
    usual = Outcome(results, "random").markdown
    assert "over 6 seeds, or the n given" in usual
    for words in ("are in no mean", "recipe's end", "the same in every seed"):
        assert words not in usual
    fixed = Outcome(results, "random", fixed=["medoids", "degree"]).markdown
    assert "The flips of medoids and degree are the same in every seed: their ± is that of training alone." in fixed
    longer = [*results[1:], result("random", "A", 0, 0.5, epochs=4)]
    late = Outcome(longer, "random", planned={"A": 3, "B": 3}).markdown
    assert "1 run went on after its recipe's end, as flips were not yet fitted." in late
    unfitted = Outcome([*results[1:], result("random", "A", 0, 0.5, fitted=0.8)], "random").markdown
    assert "1 of 36 runs have not memorised every flip and are in no mean, which flatters strategies" in unfitted
    assert "Every run has memorised every flip." not in unfitted


def test_tables_hold_every_number() -> None:
    results = several()
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert len(rows) == len(results)
    assert [float(row["adversarial"]) for row in rows] == [each.adversarial("0.1") for each in results]
    summaries = summarise(results, "random")
    table = list(csv.DictReader(io.StringIO(summaries_csv(summaries))))
    assert [(row["victim"], row["strategy"]) for row in table] == [(each.victim, each.strategy) for each in summaries]
    assert [row["victim"] for row in table][-3:] == ["all"] * 3
    for row, summary in zip(table, summaries, strict=True):
        assert float(row["difference"]) == pytest.approx(summary.difference.mean, rel=1e-5, abs=1e-12)
        assert int(row["difference_n"]) == 6
    markdown = Outcome(results, "random", title="A title", note="A note.").markdown
    assert markdown.startswith("# A title\n")
    assert "Every run has memorised every flip." in markdown
    assert markdown.endswith("A note.\n")
    medoids = of(summaries, "medoids", "A")
    shown = f"| {100 * medoids.difference.mean:+.1f} ± {100 * medoids.difference.error:.1f} |"
    assert shown in markdown


@pytest.mark.parametrize("figure", ["points", "curve"])
def test_figures_show_the_summaries(tmp_path, figure: str) -> None:
    results = several()
    outcome = Outcome(results, "random", figure=figure)
    outcome.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results.csv", "table.csv", "table.md", "figure.png", "figure.svg")
    }
    drawn = {round(float(x), 9) for axes in outcome.draw().axes for line in axes.lines for x in line.get_xdata()}
    heights = {round(float(y), 9) for axes in outcome.draw().axes for line in axes.lines for y in line.get_ydata()}
    for summary in outcome.summaries:
        if figure == "points" and summary.strategy != "random":
            assert {round(summary.difference.mean, 9), round(summary.difference.low, 9)} <= drawn
        if figure == "curve" and summary.victim != "all":
            assert round(summary.adversarial.mean, 9) in heights


def test_a_figure_of_nothing_still_draws(tmp_path) -> None:
    for figure in ("points", "curve"):
        Outcome([result("random", "A", 0, 0.5, fitted=0.0)], "random", figure=figure).write(tmp_path)
