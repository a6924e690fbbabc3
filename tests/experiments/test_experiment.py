from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from lightning_poison.attacks import PGD
from lightning_poison.datamodules import Digits
from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.experiments import VictimPlan
from lightning_poison.experiments import training as training_module
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.progress import no_progress
from lightning_poison.nets import MLP
from lightning_poison.poisons import FlipList, FromFile, LabelFlips, RandomPoints, ToClass

sys.path.insert(0, str(Path(__file__).parent))
from experiment_runs import NEW_CLASS, RECIPE, SMALL, experiment, results_of, run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each call has trained."""
    counts: list[int] = []

    def counted(net, inputs, labels, num_classes, seeds, *more, **named):
        counts.append(len(seeds))
        return train_networks(net, inputs, labels, num_classes, seeds, *more, **named)

    monkeypatch.setattr(training_module, "train_networks", counted)
    return counts


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
        flips = LabelFlips(RandomPoints(count=4)).flips(subject.training_set(), result.seed)
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
    kept = len(set(first) & set(second)) if "strategies" in changed or "flip_seed" in changed else 0
    assert sum(trained) == 4 - kept
    assert kept in (0, 2)  # the clean ones
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


def test_the_same_points_under_other_labels_are_another_run(tmp_path: Path, trained: list[int]) -> None:
    points = RandomPoints(per_class=2, classes=[1])
    run(tmp_path, strategies={"random": LabelFlips(points, ToClass(0))})
    other = run(tmp_path, strategies={"random": LabelFlips(points, ToClass(2))})
    assert sum(trained) == 4
    assert other == run(tmp_path / "alone", strategies={"random": LabelFlips(points, ToClass(2))})


def test_a_run_of_flips_that_are_none_is_the_clean_run(tmp_path: Path) -> None:
    strategies = {"random": None, "none": LabelFlips(RandomPoints(per_class=0))}
    outcome = experiment(tmp_path, strategies=strategies).run(no_progress)
    assert [r.natural for r in outcome.results[::2]] == [r.natural for r in outcome.results[1::2]]
    assert [summary.difference.mean for summary in outcome.summaries] == [0.0] * 4


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_numbers(tmp_path: Path) -> None:
    victims = {"MLP": VictimPlan(SMALL, RECIPE), "other": VictimPlan(partial(SMALL, hidden=(8,)), RECIPE)}
    assert run(tmp_path / "one", victims=victims) == run(tmp_path / "more", victims=victims, jobs=2)


def test_the_backend_of_joblib_is_the_caller_s(tmp_path: Path) -> None:
    from joblib import parallel_config

    with parallel_config(backend="threading"):
        results = run(tmp_path / "threads", jobs=2)
    assert [each.split(", ")[:2] for each in results] == [each.split(", ")[:2] for each in run(tmp_path / "one")]


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


def test_a_diverged_training_is_counted(tmp_path: Path) -> None:
    victims = {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=3, lr=1e30, batch_size=32, schedule="constant"))}
    outcome = experiment(tmp_path, victims=victims, seeds=1).run(no_progress)
    assert all(math.isnan(result.loss) and not result.memorised for result in outcome.results)
    assert "2 of 2 runs have not memorised" in outcome.markdown
    assert results_of(experiment(tmp_path, victims=victims, seeds=1).run(no_progress)) == results_of(outcome)


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


CODE = """
import sys
sys.path.insert(0, {here!r})
import torch; torch.set_num_threads(1)
from pathlib import Path
from experiment_runs import run, VictimPlan, SMALL, TrainingRecipe
from lightning_poison.functional.progress import no_progress
if __name__ == "__main__":
    victims = {{"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=40, batch_size=8))}}
    run(Path({folder!r}), seeds=4, victims=victims, jobs={jobs})
"""


def start(folder: Path, jobs: int = 1) -> subprocess.Popen[bytes]:
    code = CODE.format(here=str(Path(__file__).parent), folder=str(folder), jobs=jobs)
    script = folder.with_suffix(f".{jobs}.py")
    script.write_text(code)
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_experiment_goes_on(tmp_path: Path, jobs: int) -> None:
    victims = {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=40, batch_size=8))}
    killed = tmp_path / "killed"
    process = start(killed, jobs)
    deadline = time.monotonic() + 60
    while len(list((killed / "runs").glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (killed / "runs").glob("*.json")}
    assert 2 <= len(done) < 8
    resumed = run(killed, seeds=4, victims=victims)
    assert resumed == run(tmp_path / "whole", seeds=4, victims=victims)
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    processes = [start(folder, 1), start(folder, 2)]
    assert [process.wait() for process in processes] == [0, 0]
    victims = {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=40, batch_size=8))}
    assert run(folder, seeds=4, victims=victims) == run(tmp_path / "alone", seeds=4, victims=victims)
    assert len(list((folder / "runs").iterdir())) == 8
    assert not list(folder.glob(".progress*"))


def test_what_another_process_has_finished_meanwhile_is_taken_over(tmp_path: Path, trained: list[int]) -> None:
    """While the first group is in training, another process finishes the rest."""
    inner = train_networks
    rest = threading.Event()

    def meanwhile(*arguments, **named):
        if not rest.is_set():
            rest.set()
            run(tmp_path)
        return inner(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "train_networks", meanwhile)
        results = run(tmp_path)
    trained.clear()
    assert run(tmp_path) == results
    assert trained == []


def test_crafting_happens_once_and_a_file_counts_by_its_content(tmp_path: Path) -> None:
    subject = Subject.of(Digits(classes=[0, 1, 2], max_samples=120, val_split=0.0), no_progress)
    listed = LabelFlips(RandomPoints(per_class=1)).flips(subject.training_set(), seed=9)
    path = listed.write(tmp_path / "mine.csv")
    strategies = {"random": LabelFlips(FromFile(str(path)))}
    first = run(tmp_path / "folder", strategies=strategies)
    LabelFlips(RandomPoints(per_class=2)).flips(subject.training_set(), seed=9).write(path)
    second = run(tmp_path / "folder", strategies={"random": LabelFlips(FromFile(str(path)))})
    assert "'random', 'MLP', 0, 3" in first[0]
    assert "'random', 'MLP', 0, 6" in second[0]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    shown: dict[str, list[int]] = {}

    def progress(description, total):
        from contextlib import nullcontext

        steps = shown.setdefault(description, [total])
        return nullcontext(steps.append)

    experiment(tmp_path).run(progress)
    for description in ("crafting flips", "training 4 victims, per cent"):
        total, *steps = shown[description]
        assert sum(steps) == total
    shown.clear()
    experiment(tmp_path).run(progress)
    assert not [name for name in shown if name.startswith(("crafting", "training "))] or shown.keys() <= {
        *("reading training inputs", "reading training labels")
    }


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
