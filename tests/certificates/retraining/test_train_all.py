"""Many trainings: the same whoever computes them, resumable, and without a trace in the process."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import lightning_poison
from lightning_poison.certificates import CertifiedRidge, RawFeatures
from lightning_poison.certificates.retraining import (
    LearnerTraining,
    NoisyLabels,
    PartsOfData,
    SklearnTraining,
    TrainingProcedure,
    train_all,
)
from lightning_poison.certificates.retraining.engine import RunCache, TrainedModels
from lightning_poison.errors import UserError

INPUTS = torch.tensor(load_digits().data / 16, dtype=torch.float32)
LABELS = torch.tensor(load_digits().target)
NETWORK = SklearnTraining("sklearn.linear_model.SGDClassifier", {"loss": "log_loss"})


class Noted(TrainingProcedure):
    """Remembers the labels' sum and some numbers from the global streams; counts its trainings in a file."""

    def __init__(self, log: str | None = None, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> dict[str, float]:
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{seed}\n")
        time.sleep(self.seconds)
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 1
        return {"sum": float(labels.sum()), "torch": float(torch.rand(1)), "numpy": float(np.random.rand())}  # noqa: NPY002  # the global state is what is tested

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        return torch.tensor([[model["sum"] + model["torch"], model["numpy"]]]).expand(len(inputs), -1)

    def describe(self) -> str:
        return "notes"

    def fingerprint(self) -> str:
        return "noted"


def noisy(runs: int = 6, seed: int = 0) -> NoisyLabels:
    return NoisyLabels(LABELS, 10, 0.2, runs, seed)


def all_scores(models: TrainedModels, count: int = 50) -> Tensor:
    return torch.stack(list(models.scores(INPUTS[:count])))


@pytest.mark.parametrize("procedure", [NETWORK, LearnerTraining(CertifiedRidge(RawFeatures()))])
def test_two_workers_equal_one(procedure: TrainingProcedure, tmp_path: Path) -> None:
    one, two, kept = (
        all_scores(train_all(procedure, INPUTS, noisy(), 10, seed=3, jobs=jobs, cache=cache))
        for jobs, cache in ((1, None), (2, None), (2, tmp_path))
    )
    assert torch.equal(one, two)
    assert torch.equal(one, kept)
    assert one.std(0).max() > 0


def test_a_run_depends_on_its_seed_and_leaves_no_trace(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)  # and yet 1 inside, see Noted
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global state is what is tested
    states, threads = (torch.get_rng_state(), np.random.get_state()[1].copy()), torch.get_num_threads()  # noqa: NPY002  # the global state is what is tested
    with torch.inference_mode():
        models = train_all(Noted(), INPUTS, noisy(), 10)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002  # the global state is what is tested
    assert torch.get_num_threads() == threads
    assert models.models == train_all(Noted(), INPUTS, noisy(), 10).models
    drawn = [model["torch"] for model in [*models.models, *train_all(Noted(), INPUTS, noisy(), 10, seed=1).models]]
    assert len(set(drawn)) == 12


def test_finished_runs_are_not_repeated_and_damaged_ones_are(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", []
    procedure = Noted(str(log))
    first = all_scores(train_all(procedure, INPUTS, noisy(), 10, cache=tmp_path, advance=seen.append))
    files = sorted(tmp_path.rglob("run_*.pickle"))
    assert len(files) == 6
    files[2].write_bytes(files[2].read_bytes()[:-3])
    files[4].unlink()
    again = all_scores(train_all(procedure, INPUTS, noisy(), 10, cache=tmp_path, advance=seen.append))
    assert torch.equal(first, again)
    assert len(log.read_text().splitlines()) == 8
    assert sum(seen) == 12


@pytest.mark.parametrize("change", ["labels", "inputs", "q", "seed", "noise", "classes", "procedure"])
def test_a_cache_never_mixes_experiments(change: str, tmp_path: Path) -> None:
    def folders(changed: bool) -> set[str]:
        labels, inputs = LABELS.clone(), INPUTS.clone()
        labels[5] = (labels[5] + (changed and change == "labels")) % 10
        inputs[7, 20] += 0.5 * (changed and change == "inputs")
        q, noise_seed, num_classes = 0.3 if changed and change == "q" else 0.2, changed and change == "noise", 10
        num_classes += changed and change == "classes"
        procedure: TrainingProcedure = SklearnTraining("sklearn.naive_bayes.GaussianNB")
        if changed and change == "procedure":
            procedure = SklearnTraining("sklearn.naive_bayes.GaussianNB", {"var_smoothing": 1e-3})
        sets = NoisyLabels(labels, num_classes, q, 2, int(noise_seed))
        seed = int(changed and change == "seed")
        train_all(procedure, inputs, sets, num_classes, seed=seed, cache=tmp_path)
        return {path.name for path in tmp_path.iterdir()}

    assert len(folders(False)) == len(folders(False)) == 1
    assert len(folders(True)) == 2


_JOB = """
import json, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_train_all import INPUTS, Noted, all_scores, noisy, train_all
if __name__ == "__main__":
    models = train_all(Noted({log!r}, {seconds}), INPUTS, noisy(12), 10, jobs={jobs}, cache=Path({cache!r}))
    print(json.dumps(all_scores(models, 1).tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_job_goes_on_where_it_stood(jobs: int, tmp_path: Path) -> None:
    def start(seconds: float) -> subprocess.Popen[str]:
        text = _JOB.format(
            here=str(Path(__file__).parent),
            log=str(tmp_path / "log"),
            cache=str(tmp_path / "cache"),
            seconds=seconds,
            jobs=jobs,
        )
        paths = os.pathsep.join([str(Path(lightning_poison.__file__).parents[1]), str(Path(__file__).parent)])
        environment = {**os.environ, "PYTHONPATH": paths}
        script = tmp_path / "job.py"
        script.write_text(text)
        return subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    job = start(seconds=0.4)
    while len(list((tmp_path / "cache").rglob("run_*.pickle"))) < 3:
        assert job.poll() is None
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    finished = len(list((tmp_path / "cache").rglob("run_*.pickle")))
    begun = len((tmp_path / "log").read_text().splitlines())
    assert 3 <= finished < 12
    output = start(seconds=0.0).communicate()[0]
    assert len((tmp_path / "log").read_text().splitlines()) == begun + 12 - finished
    uninterrupted = all_scores(train_all(Noted(), INPUTS, noisy(12), 10), 1)
    assert torch.equal(torch.tensor(json.loads(output)), uninterrupted)


def test_flips_have_the_promised_frequencies_and_no_other_class() -> None:
    labels = torch.arange(5).repeat(20_000)
    flipped = NoisyLabels(labels, 5, 0.3, 1, seed=9).of_run(0)[1]
    table = torch.stack([flipped[labels == label].bincount(minlength=5) for label in range(5)]) / 20_000
    expected = torch.full((5, 5), 0.3 / 4) + torch.eye(5) * (0.7 - 0.3 / 4)
    assert (table - expected).abs().max() < 4.5 * (0.3 * 0.7 / 20_000) ** 0.5
    assert torch.equal(NoisyLabels(labels, 5, 0.3, 9, seed=9).of_run(0)[1], flipped)
    other_run = NoisyLabels(labels, 5, 0.3, 9, seed=9).of_run(1)[1]
    assert abs(((other_run != labels) & (flipped != labels)).double().mean() - 0.3**2) < 0.01


def test_parts_give_each_voter_the_points_it_uses() -> None:
    parts, users = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([[0, 1], [1, 2], [2, 0]])
    sets = PartsOfData(torch.arange(5), parts, users)
    assert [sets.of_run(run)[0].tolist() for run in range(3)] == [[0, 2, 3], [0, 1, 3, 4], [1, 2, 4]]
    assert sets.of_run(2)[1].tolist() == [1, 2, 4]


def test_models_that_do_not_fit_into_memory_need_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_poison.certificates.retraining.engine._MEMORY", 100)
    with pytest.raises(UserError, match="cache must be a folder where the models take more than"):
        train_all(Noted(), INPUTS, noisy(), 10)
    assert len(train_all(Noted(), INPUTS, noisy(), 10, cache=tmp_path)) == 6


def test_a_cache_survives_rubbish(tmp_path: Path) -> None:
    cache = RunCache(tmp_path)
    for rubbish in (b"", b"short", bytes(32) + b"not the digest"):
        (tmp_path / "run_000001.pickle").write_bytes(rubbish)
        assert 1 not in cache
    with pytest.raises(KeyError):
        cache.load(1)


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("sklearn.svm.LinearSVC", {}),
        ("sklearn.linear_model.LogisticRegression", {"C": 0.01}),
        ("sklearn.svm.SVC", {"decision_function_shape": "ovo"}),
        ("sklearn.linear_model.Perceptron", {}),
    ],
)
def test_scores_of_classifiers_agree_with_their_predictions(path: str, settings: dict[str, Any]) -> None:
    procedure = SklearnTraining(path, settings)
    for classes in (10, 2, 1):
        chosen = classes > LABELS
        model = procedure.train(INPUTS[chosen][:200], LABELS[chosen][:200] + 1, 12, seed=5)
        scores = procedure.scores(model, INPUTS[chosen][200:260], 12)
        assert scores.shape == (len(INPUTS[chosen][200:260]), 12)
        expected = [1] * len(scores) if classes == 1 else model.predict(INPUTS[chosen][200:260].numpy()).tolist()
        assert scores.argmax(1).tolist() == expected


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match=r"estimator must be the path of a class that takes .* got sklearn"):
        SklearnTraining("sklearn.nothing.Here")
    with pytest.raises(UserError, match="estimator must be the path of a class"):
        SklearnTraining("sklearn.svm.SVC", {"colour": "red"})
    with pytest.raises(UserError, match="estimator must have fit and predict"):
        SklearnTraining("collections.OrderedDict")


SCRIPT = """
import sys
import torch
from lightning_poison.certificates.retraining import MonteCarloSmoothing, SklearnTraining

FACTOR = int(sys.argv[1])

class Model:
    def fit(self, inputs, labels):
        print("trained")
        self.classes_ = [0, 1]
        return self

    def predict(self, inputs):
        return (inputs[:, 0] * FACTOR > 0).astype(int)

    def get_params(self, deep=True):
        return {}

inputs, labels = torch.linspace(-1, 1, 20)[:, None], torch.arange(20) // 10
learner = MonteCarloSmoothing(SklearnTraining(Model()), q=0.2, runs=3, alpha=0.4, cache="runs")
learner.fit(inputs, labels, 2).certify(inputs[:2])
"""


def test_classes_of_the_script_itself_find_their_runs_again() -> None:
    Path("script.py").write_text(SCRIPT)
    path = str(Path(lightning_poison.__file__).parents[1])

    def trainings(factor: int, hash_seed: int) -> int:
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed)}
        command = [sys.executable, "script.py", str(factor)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=environment)
        return result.stdout.count("trained")

    assert [trainings(2, 1), trainings(2, 2), trainings(3, 3)] == [3, 0, 3]
