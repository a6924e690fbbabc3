from __future__ import annotations

import dataclasses
import json
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from lightning_poison.attacks import PGD
from lightning_poison.datamodules import Digits
from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments import experiment as experiment_module
from lightning_poison.experiments.crafting import FlipLists
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import no_progress
from lightning_poison.nets import MLP
from lightning_poison.poisons import (
    ClassGraphDegree,
    FlipList,
    LabelFlips,
    LabelNoise,
    PlacedPoisons,
    RandomPoints,
    ToClass,
)
from tests.experiments.experiment_runs import NEW_CLASS, RECIPE, SMALL, experiment, results_of, run


def test_runs_are_what_training_and_attacking_by_hand_gives(tmp_path: Path) -> None:
    outcome = experiment(tmp_path, strategies={"clean": None, "random": LabelFlips(RandomPoints(count=4))}).run(
        no_progress
    )
    subject = Subject.of(Digits(classes=[0, 1, 2], max_samples=120, val_split=0.0), no_progress)
    assert [(r.strategy, r.seed) for r in outcome.results] == [
        *(("clean", 0), ("random", 0), ("clean", 1), ("random", 1))
    ]
    attacked = experiment(tmp_path)._evaluation.rows(subject)
    for result in outcome.results:
        flips = LabelFlips(RandomPoints(count=4)).craft(subject.training_set(), result.seed)
        labels = subject.labels if result.strategy == "clean" else flips.apply(subject.labels)
        watched = labels != subject.labels
        (victim,) = train_networks(
            SMALL, subject.inputs, labels, 3, [result.seed], RECIPE, order_seed=result.seed, method="sequential"
        )
        scores = victim.module(subject.test_inputs)
        assert result.natural == pytest.approx(float((scores.argmax(dim=1) == subject.test_labels).double().mean()))
        assert result.loss == pytest.approx(victim.loss, rel=1e-5)
        assert result.flips == int(watched.sum()) == (0 if result.strategy == "clean" else 4)
        if result.flips:
            right = victim.module(subject.inputs[watched]).argmax(dim=1) == labels[watched]
            assert result.fitted == pytest.approx(float(right.double().mean()))
        inputs, truth = subject.test_inputs[attacked], subject.test_labels[attacked]
        small = PGD(eps=0.05, steps=3)(victim.module, inputs, truth).fooled
        large = small | PGD(eps=0.2, steps=3)(victim.module, inputs, truth).fooled
        assert abs(result.withstood["0.05"] - int((~small).sum())) <= 1
        assert abs(result.withstood["0.2"] - int((~large).sum())) <= 1


def test_pairs_start_alike_and_flips_belong_to_the_seed(tmp_path: Path) -> None:
    strategies = {"random": LabelFlips(RandomPoints(per_class=1)), "new": NEW_CLASS}
    run(tmp_path, strategies=strategies)
    lists = {path.name.rsplit("_", 1)[0]: FlipList.read(path) for path in (tmp_path / "flips").iterdir()}
    assert sorted(lists) == ["new_seed_0", "new_seed_1", "random_seed_0", "random_seed_1"]
    assert torch.equal(lists["new_seed_0"].index, lists["random_seed_0"].index)
    assert (lists["new_seed_0"].new_label == 3).all()
    assert not lists["random_seed_0"].same_flips(lists["random_seed_1"])
    results = run(tmp_path / "fixed", strategies=strategies, flip_seed=1)
    assert len(list((tmp_path / "fixed" / "flips").iterdir())) == 2
    assert results[0] != results[2]
    assert results[2] == run(tmp_path, strategies=strategies)[2]


def test_a_run_of_flips_that_are_none_is_the_clean_run(tmp_path: Path) -> None:
    strategies = {"random": None, "none": LabelFlips(RandomPoints(per_class=0))}
    outcome = experiment(tmp_path, strategies=strategies).run(no_progress)
    assert [r.natural for r in outcome.results[::2]] == [r.natural for r in outcome.results[1::2]]
    assert [summary.difference.mean for summary in outcome.summaries] == [0.0] * 4


def test_training_as_one_stack_gives_nearly_the_same(tmp_path: Path) -> None:
    one, other = (experiment(tmp_path / name, method=name).run(no_progress) for name in ("sequential", "vmapped"))
    for mine, theirs in zip(one.results, other.results, strict=True):
        assert (mine.strategy, mine.seed) == (theirs.strategy, theirs.seed)
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert abs(mine.withstood["0.05"] - theirs.withstood["0.05"]) <= 1


def test_flips_that_are_not_fitted_are_trained_on_or_counted(tmp_path: Path, trained: list[int]) -> None:
    flips = {"random": LabelFlips(RandomPoints(per_class=3))}
    short = {"strategies": flips, "seeds": 1}
    (result,) = experiment(tmp_path, **short).run(no_progress).results
    assert (result.epochs, result.memorised) == (4, False)
    assert "1 of 1 runs have not memorised" in (tmp_path / "table.md").read_text()

    def longer(extra: int):
        recipe = TrainingRecipe(epochs=4, lr=1e-2, batch_size=32, schedule="constant", extra_epochs=extra)
        return {**short, "victims": {"MLP": VictimPlan(SMALL, recipe)}}

    trained.clear()
    (none,) = experiment(tmp_path, **longer(0)).run(no_progress).results
    (long,) = experiment(tmp_path, **longer(400)).run(no_progress).results
    assert (none.epochs, none.memorised, long.memorised) == (4, False, True)
    assert 4 < long.epochs < 400
    assert sum(trained) == 2
    # What is memorised within the epochs stays; what took longer than allowed, or could go on, is done again.
    (same,) = experiment(tmp_path, **longer(500)).run(no_progress).results
    assert (same, sum(trained)) == (long, 2)
    (again,) = experiment(tmp_path, **longer(1)).run(no_progress).results
    assert (again.epochs, again.memorised, sum(trained)) == (5, False, 3)


@pytest.mark.parametrize("lr", [1e6, 1e18, 1e30])  # a loss that is large, infinite, no number
@pytest.mark.parametrize("extra", [0, 3])
def test_a_failed_training_is_counted_and_not_repeated(tmp_path: Path, trained: list[int], lr, extra) -> None:
    recipe = TrainingRecipe(epochs=3, lr=lr, batch_size=64, schedule="constant", extra_epochs=extra)
    victims = {"MLP": VictimPlan(SMALL, recipe)}
    outcome = experiment(tmp_path, victims=victims, seeds=1).run(no_progress)
    assert [(result.strategy, result.epochs) for result in outcome.results] == [("clean", 3), ("random", 3 + extra)]
    assert all(math.isnan(result.loss) and not result.memorised for result in outcome.results)
    assert all(math.isnan(result.natural) and result.attacked == 0 for result in outcome.results)
    assert "In 2 of 2 runs training failed (loss above that of guessing): lower its lr." in outcome.markdown
    assert str(outcome) == outcome.markdown
    for path in (tmp_path / "runs").iterdir():
        json.loads(path.read_text(), parse_constant=pytest.fail)  # called with NaN and Infinity, which JSON lacks
    trained.clear()
    assert results_of(experiment(tmp_path, victims=victims, seeds=1).run(no_progress)) == results_of(outcome)
    assert trained == []


@pytest.mark.parametrize(("loss", "succeeded"), [(1.99, True), (2.01, False), (math.inf, False), (math.nan, False)])
def test_a_loss_above_twice_that_of_guessing_is_a_failure(tmp_path: Path, monkeypatch, loss, succeeded) -> None:
    """The loss of guessing one of K classes is log K; a new class makes K larger. Flips may be fitted all the same."""
    calls = []

    def faked(net, inputs, labels, num_classes, *more, **named):
        calls.append(num_classes)
        trained = train_networks(net, inputs, labels, num_classes, *more, **named)
        changes = {"loss": loss * math.log(num_classes), "fitted": 1.0, "epochs": 4}
        return [dataclasses.replace(each, **changes) for each in trained]

    monkeypatch.setattr(experiment_module, "train_networks", faked)
    recipe = dataclasses.replace(RECIPE, extra_epochs=2)
    small = {
        "strategies": {"random": None, "new": NEW_CLASS},
        "victims": {"MLP": VictimPlan(SMALL, recipe)},
        "seeds": 1,
    }
    outcome = experiment(tmp_path, **small).run(no_progress)
    assert [result.memorised for result in outcome.results] == [succeeded, succeeded]
    assert [not math.isnan(result.natural) for result in outcome.results] == [succeeded, succeeded]
    assert results_of(experiment(tmp_path, **small).run(no_progress)) == results_of(outcome)
    assert calls == [3, 4]


def test_strategies_that_flip_the_same_in_every_seed_are_named(tmp_path: Path) -> None:
    strategies = {
        "clean": None,
        "random": LabelFlips(RandomPoints(per_class=1)),
        "degree": LabelFlips(ClassGraphDegree(per_class=1)),
        "rare": LabelFlips(LabelNoise(0.003)),  # flips something in one of the two seeds only
    }
    several, one = (experiment(tmp_path, strategies=strategies, seeds=seeds).run(no_progress) for seeds in (2, 1))
    assert "The flips of degree are the same in every seed" in several.markdown
    assert "the same in every seed" not in one.markdown
    one_draw = experiment(tmp_path, strategies=strategies, flip_seed=3).run(no_progress)
    assert list(one_draw.fixed)[:2] == ["random", "degree"]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    shown: dict[str, list[int]] = {}

    def progress(description, total):
        steps = shown.setdefault(description, [total])
        return nullcontext(steps.append)

    experiment(tmp_path).run(progress)
    for description in ("crafting flips", "training 4 victims, per cent"):
        total, *steps = shown[description]
        assert sum(steps) == total
    shown.clear()
    experiment(tmp_path).run(progress)
    assert not [name for name in shown if name.startswith(("crafting", "training "))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"baseline": "medoids"}, "baseline must be one of clean, random, got medoids"),
        ({"baseline": "rndom"}, "did you mean random"),
        ({"strategies": {}}, "strategies must name at least one"),
        ({"victims": {}}, "victims must name at least one"),
        ({"seeds": 0}, "seeds must be an integer of at least 1"),
        ({"seeds": [1, 1]}, "different"),
        ({"seeds": []}, "different"),
        ({"jobs": 0}, "jobs must be"),
        ({"flip_seed": -1}, "flip_seed"),
        ({"figure": "pie"}, "one of points, curve"),
        ({"source": 1}, "needs target"),
    ],
)
def test_refused_at_once(tmp_path: Path, arguments, words: str) -> None:
    with pytest.raises(UserError, match=words):
        experiment(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"strategies": {"random": LabelFlips(RandomPoints(per_class=500))}},
            "strategy random: per_class must be at most",
        ),
        ({"strategies": {"random": LabelFlips(RandomPoints(), ToClass(5))}}, r"ToClass.label must lie in \[0, 2\]"),
        (
            {"strategies": {"random": PlacedPoisons(distance=1.0)}},
            "random: PlacedPoisons.* makes inputs",
        ),
        ({"victims": {"big": VictimPlan(MLP)}}, r"victim big cannot take inputs of shape \(1, 8, 8\)"),
        ({"victims": {"odd": VictimPlan(lambda num_classes: SMALL(num_classes=7))}}, "victim odd must give 3 logits"),
        ({"source": 3, "target": 1}, "one of the 3 classes"),
    ],
)
def test_refused_before_anything_is_written(tmp_path: Path, arguments, words: str) -> None:
    folder = tmp_path / "new"
    with pytest.raises(UserError, match=words):
        experiment(folder, **arguments).run(no_progress)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": Digits}, "data must be a LightningDataModule, got the class Digits"),
        ({"data": None}, "data must be a LightningDataModule, got None"),
        ({"strategies": {"random": RandomPoints()}}, r"strategy random must be a poison.* LabelFlips\(RandomPoints"),
        ({"strategies": {"random": "x"}}, "strategy random must be a poison, or null for clean labels, got 'x'"),
        ({"strategies": {"random": None, 5: None}}, "names of strategies must be texts .* got 5; put it in quotes"),
        ({"strategies": {"random": None, "a|b": None}}, r"without bars and line breaks, got 'a\|b'"),
        ({"strategies": ["random"]}, "strategies must map names"),
        ({"victims": {"MLP": SMALL}}, "victim MLP must be a VictimPlan"),
        ({"eps": 0.1}, r"eps must be a list of radii, got 0.1; write \[0.1\]"),
        ({"attack": "PGD"}, "attack must be an attack, got 'PGD'"),
    ],
)
def test_what_is_of_another_kind_is_refused_at_once(tmp_path: Path, arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        experiment(tmp_path, **arguments)


@pytest.mark.parametrize("arguments", [{"net": "MLP"}, {"net": SMALL, "recipe": None}, {"net": SMALL, "recipe": {}}])
def test_a_plan_needs_a_net_and_a_recipe(arguments) -> None:
    with pytest.raises(UserError, match=r"(net|recipe) must be a"):
        VictimPlan(**arguments)


def test_counts_and_lists_of_other_libraries(tmp_path):
    given = {"seeds": OmegaConf.create([0, 1]), "eps": OmegaConf.create([0.05, 0.2]), "jobs": np.int64(1)}
    other = experiment(tmp_path, **given, flip_seed=np.int64(4), max_test_samples=torch.tensor(40))
    plain = experiment(tmp_path, seeds=[0, 1], flip_seed=4)
    assert json.dumps(other._description()) == json.dumps(plain._description())
    assert (type(other.jobs), type(other.flip_seed)) == (int, int)
    assert experiment(tmp_path, seeds=np.int64(3))._seeds == [0, 1, 2]
    for wrong in ("12", True, [np.float64(1)]):
        with pytest.raises(UserError, match="seeds must be"):
            experiment(tmp_path, seeds=wrong)


def test_flips_to_classes_that_nobody_has_are_told(tmp_path):
    labels = torch.tensor([0, 5, 7] * 4)
    subject = Subject(torch.rand(12, 4), labels, torch.rand(12, 4), labels, 8, "", "digest")
    lists = FlipLists(tmp_path, subject, {"clean": None, "next": LabelFlips(RandomPoints(fraction=1.0))})
    with pytest.warns(UserWarning, match="strategy next: flips lead to classes 1 and 6, which no training point has"):
        lists.craft([0, 1], 1, no_progress)
    assert lists.of("next", 0).new_label.tolist() == [1, 6, 0] * 4
