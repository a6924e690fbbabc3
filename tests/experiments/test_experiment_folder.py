from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from lightning_poison.attacks import PGD
from lightning_poison.datamodules import Digits
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import no_progress
from lightning_poison.poisons import FromFile, LabelFlips, RandomPoints, ToClass
from tests.experiments.experiment_runs import NEW_CLASS, RECIPE, SMALL, run


def test_a_second_time_nothing_is_trained(tmp_path: Path, trained: list[int]) -> None:
    first = run(tmp_path)
    assert sum(trained) == 4
    lists = {path: path.stat().st_mtime_ns for path in (tmp_path / "flips").iterdir()}
    assert len(lists) == 2
    trained.clear()
    assert run(tmp_path) == first
    assert trained == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "flips").iterdir()} == lists


def test_more_seeds_strategies_and_victims_are_added_to_what_is_there(tmp_path: Path, trained: list[int]) -> None:
    first = run(tmp_path)
    trained.clear()
    strategies = {"clean": None, "random": LabelFlips(RandomPoints(per_class=1)), "new": NEW_CLASS}
    victims = {"other": VictimPlan(partial(SMALL, hidden=(8,)), RECIPE), "MLP": VictimPlan(SMALL, RECIPE)}
    larger = run(tmp_path, strategies=strategies, victims=victims, seeds=[1, 0, 5])
    assert sum(trained) == 3 * 3 * 2 - 4
    assert set(first) < set(larger)
    trained.clear()
    assert sorted(run(tmp_path)) == sorted(first)
    assert trained == []


@pytest.mark.parametrize(
    "changed",
    [
        {"eps": [0.05]},
        {"attack": PGD(steps=4)},
        {"target": "next"},
        {"max_test_samples": 39},
        {"flip_seed": 7},
        {"strategies": {"clean": None, "random": LabelFlips(RandomPoints(per_class=2))}},
        {"strategies": {"clean": None, "random": LabelFlips(RandomPoints(per_class=1), ToClass(0))}},
        {"victims": {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=5, lr=1e-2, batch_size=32))}},
        {"victims": {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=4, lr=2e-2, batch_size=32))}},
        {"victims": {"MLP": VictimPlan(partial(SMALL, hidden=(17,)), RECIPE)}},
    ],
)
def test_what_has_changed_is_measured_again(tmp_path: Path, trained: list[int], changed) -> None:
    first = run(tmp_path)
    trained.clear()
    second = run(tmp_path, **changed)
    clean = {result for result in first if result.startswith("['clean'")}
    kept = clean if "strategies" in changed or "flip_seed" in changed else set()
    assert kept <= set(second)
    assert sum(trained) == 4 - len(kept)
    trained.clear()
    assert run(tmp_path) == first
    assert trained == []


def test_names_decide_nothing(tmp_path: Path, trained: list[int]) -> None:
    run(tmp_path)
    trained.clear()
    renamed = run(
        tmp_path, strategies={"nothing": None, "drawn": LabelFlips(RandomPoints(per_class=1))}, baseline="drawn"
    )
    assert trained == []
    assert "'drawn'" in renamed[1]


def test_the_same_points_under_other_labels_are_another_run(tmp_path: Path, trained: list[int]) -> None:
    points = RandomPoints(per_class=2, classes=[1])
    run(tmp_path, strategies={"random": LabelFlips(points, ToClass(0))})
    other = run(tmp_path, strategies={"random": LabelFlips(points, ToClass(2))})
    assert sum(trained) == 4
    assert other == run(tmp_path / "alone", strategies={"random": LabelFlips(points, ToClass(2))})


def test_a_damaged_file_is_made_again(tmp_path: Path, trained: list[int]) -> None:
    first = run(tmp_path)
    files = sorted((tmp_path / "runs").iterdir())
    files[0].write_text(files[0].read_text()[:100])
    files[1].write_text("[]")
    content = json.loads(files[2].read_text())
    files[2].write_text(json.dumps({**content, "settings": {**content["settings"], "seed": 99}}))
    trained.clear()
    assert run(tmp_path) == first
    assert sum(trained) == 3


def test_crafting_happens_once_and_a_file_counts_by_its_content(tmp_path: Path) -> None:
    subject = Subject.of(Digits(classes=[0, 1, 2], max_samples=120, val_split=0.0), no_progress)
    listed = LabelFlips(RandomPoints(per_class=1)).craft(subject.training_set(), seed=9)
    path = listed.write(tmp_path / "mine.csv")
    strategies = {"random": LabelFlips(FromFile(str(path)))}
    first = run(tmp_path / "folder", strategies=strategies)
    LabelFlips(RandomPoints(per_class=2)).craft(subject.training_set(), seed=9).write(path)
    second = run(tmp_path / "folder", strategies={"random": LabelFlips(FromFile(str(path)))})
    assert "'random', 'MLP', 0, 3" in first[0]
    assert "'random', 'MLP', 0, 6" in second[0]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "mine")
    other = Digits(classes=[0, 1, 2], max_samples=121, val_split=0.0)
    with pytest.raises(UserError, match="holds an experiment on other data"):
        run(tmp_path / "mine", data=other)
    with pytest.raises(UserError, match="must be empty or of an experiment"):
        run(tmp_path)
    with pytest.raises(UserError, match="got the file"):
        run(tmp_path / "mine" / "results.csv")
    assert len(list((tmp_path / "mine" / "runs").iterdir())) == 4
