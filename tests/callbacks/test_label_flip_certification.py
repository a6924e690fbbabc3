"""The callback under both Lightning Trainers: its numbers are those of the learner, whatever the run looks like."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lightning_poison
from lightning_poison._lightning import LightningDataModule, lightning_packages
from lightning_poison.callbacks.label_flip_certification import LabelFlipCertification
from lightning_poison.certificates import (
    CertifiedPoints,
    CertifiedRidge,
    FrozenFeatures,
    MonteCarloSmoothing,
    PartitionAggregation,
    PCAFeatures,
    RawFeatures,
    UndefendedLogistic,
)
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError

RADII = [0, 1, 3, 8]


def blobs(count: int, seed: int, classes: int = 3) -> TensorDataset:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=stream)
    centres = torch.eye(classes).repeat_interleave(3, dim=1)[:, :8]
    return TensorDataset((centres[labels] + torch.randn(count, 8, generator=stream) * 0.4).clamp(-2, 2), labels)


TRAIN, VAL, TEST = blobs(120, 0), blobs(31, 1), blobs(23, 2)


def expected(train: TensorDataset = TRAIN, points: TensorDataset = VAL, classes: int = 3) -> dict[str, float]:
    learner = CertifiedRidge(RawFeatures(), 0.1).fit(train.tensors[0], train.tensors[1], classes)
    inputs, labels = points.tensors
    return CertifiedPoints(torch.arange(len(labels)), labels, learner.certify(inputs)).values(RADII)


def certification(**arguments: Any) -> LabelFlipCertification:
    method = arguments.pop("method", None) or CertifiedRidge(arguments.pop("features", RawFeatures()), 0.1)
    return LabelFlipCertification(method, **{"radii": RADII, **arguments})


class CountedFeatures(RawFeatures):
    """Counts the points that go through it."""

    points = 0

    def transform(self, inputs: Tensor) -> Tensor:
        self.points += len(inputs)
        return super().transform(inputs)


class Together(CertifiedRidge):
    """Ridge on inputs from which the mean of all evaluation points is taken: it depends on the others."""

    transductive = True

    def certify_features(self, features: Tensor, *arguments: Any) -> Any:
        return super().certify_features(features - features.mean(0), *arguments)


class Data(LightningDataModule):
    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None:
            self.num_classes = num_classes
        self.sets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        self.sets.update({"fit": {"train": TRAIN, "val": VAL}, "validate": {"val": VAL}, "test": {"test": TEST}}[stage])

    def train_dataloader(self) -> Any:
        return DataLoader(self.sets["train"], batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.sets["val"], batch_size=7)

    def test_dataloader(self) -> Any:
        return DataLoader(self.sets["test"], batch_size=7)


@pytest.fixture(params=lightning_packages(), ids=lambda package: package.__name__)
def package(request: pytest.FixtureRequest) -> Any:
    return request.param


def victim(package: Any) -> Any:
    class Victim(package.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2), nn.Linear(6, 3))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    return Victim()


def trainer(package: Any, *callbacks: Any, **arguments: Any) -> Any:
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    checkpoints = {"enable_checkpointing": False, "default_root_dir": Path.cwd()}
    return package.Trainer(callbacks=list(callbacks), **{**settings, **checkpoints, **arguments})


def certified(run: Any) -> dict[str, float]:
    return {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("cert/")}


def same(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found == pytest.approx(wanted, abs=1e-6) and set(found) == set(wanted)


def test_fit_measures_the_validation_set_and_test_the_test_set(package: Any) -> None:
    run, model, data = trainer(package, certification()), victim(package), Data()
    run.fit(model, data)
    assert same(certified(run), expected())
    table = list(csv.DictReader((Path(run.log_dir) / "report" / "certificates.csv").open()))
    assert [int(row["index"]) for row in table] == list(range(31))
    assert [int(row["label"]) for row in table] == VAL.tensors[1].tolist()
    right = sum(row["label"] == row["prediction"] and int(row["radius"]) >= 3 for row in table)
    assert right / 31 == pytest.approx(expected()["cert/acc_at_3"])
    run.test(model, data, verbose=False)
    assert same(certified(run), expected(points=TEST))
    assert 0 < expected()["cert/acc_at_8"] < expected()["cert/acc_at_0"]


@pytest.mark.parametrize(("stage", "points"), [("validate", VAL), ("test", TEST)])
def test_without_a_fit_the_data_module_is_asked_for_the_training_set(
    package: Any, stage: str, points: TensorDataset
) -> None:
    run = trainer(package, certification())
    getattr(run, stage)(victim(package), datamodule=Data(), verbose=False)
    assert same(certified(run), expected(points=points))


def test_raw_loaders_suffice_in_fit_and_afterwards(package: Any) -> None:
    run, model = trainer(package, certification()), victim(package)
    run.fit(model, DataLoader(TRAIN, 16, shuffle=True), DataLoader(VAL, 5))
    assert same(certified(run), expected())
    run.test(model, DataLoader(TEST, 5), verbose=False)
    assert same(certified(run), expected(points=TEST))


def test_evaluation_loaders_alone_are_warned_about(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.warns(UserWarning, match="LabelFlipCertification needs the training data"):
        run.test(victim(package), DataLoader(TEST, 5), verbose=False)
    assert certified(run) == {}


def test_a_fit_without_validation_data_is_warned_about(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.warns(UserWarning, match="LabelFlipCertification needs evaluation data"):
        run.fit(victim(package), DataLoader(TRAIN, 16))
    assert certified(run) == {}


def test_the_learner_gets_the_labels_as_poisoned_and_the_evaluation_stays_clean(package: Any) -> None:
    flipped = TRAIN.tensors[1].clone()
    flipped[:50] = (flipped[:50] + 1) % 3
    poisoned = TensorDataset(TRAIN.tensors[0], flipped)
    run = trainer(package, certification())
    run.fit(victim(package), DataLoader(poisoned, 16), DataLoader(VAL, 5))
    assert same(certified(run), expected(poisoned))
    assert expected(poisoned)["cert/radius_mean"] < expected()["cert/radius_mean"]


def test_training_is_the_same_with_and_without_the_callback(package: Any) -> None:
    weights = []
    for callbacks in ([], [certification(features=PCAFeatures(3), every_n_epochs=1)]):
        model = victim(package)
        trainer(package, *callbacks, max_epochs=3).fit(model, Data())
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_one_computation_serves_every_epoch(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, fits, fit = expected(), [], CertifiedRidge.fit_features

    def counted(self: CertifiedRidge, *arguments: Any) -> CertifiedRidge:
        fits.append(self)
        return fit(self, *arguments)

    monkeypatch.setattr(CertifiedRidge, "fit_features", counted)
    callback = certification(every_n_epochs=1)
    run = trainer(package, callback, max_epochs=3)
    run.fit(victim(package), Data())
    assert len(fits) == 1
    assert same(certified(run), wanted)
    run.test(victim(package), Data(), verbose=False)
    assert len(fits) == 1


def test_several_methods_share_features_and_stand_side_by_side(package: Any) -> None:
    features = CountedFeatures()
    methods = {
        "weak": CertifiedRidge(None, 0.1),
        "strong": CertifiedRidge(None, 5.0),
        "own": CertifiedRidge(PCAFeatures(2)),
    }
    callback = certification(method=methods, features=features, suffix="all", published={"theirs": {0: 0.5, 3: 0.1}})
    run = trainer(package, callback)
    run.fit(victim(package), Data())
    assert features.points == len(TRAIN) + len(VAL)
    found = certified(run)
    assert {key: found[f"{key}_weak_all"] for key in expected()} == pytest.approx(expected(), abs=1e-6)
    assert found["cert/radius_mean_strong_all"] != found["cert/radius_mean_own_all"]
    assert len(list(Path.cwd().rglob("certificates_*_all.csv"))) == 3
    (section,) = callback.report_sections()
    assert section.tables[0].columns == ("r", "weak", "strong", "own")
    assert set(callback.report_notes()) == set(found)


def test_the_undefended_baseline_is_attacked_beside(package: Any) -> None:
    two = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1].clamp(max=1))
    points = TensorDataset(VAL.tensors[0], VAL.tensors[1].clamp(max=1))
    callback = certification(undefended=UndefendedLogistic(), undefended_points=10)
    trainer(package, callback).fit(victim(package), DataLoader(two, 16), DataLoader(points, 5))
    (table,) = Path.cwd().rglob("attacked.csv")
    rows = [[int(cell) for cell in line.split(",")] for line in table.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == list(range(0, 31, 4))
    attacks = UndefendedLogistic().fit_features(*two.tensors).attack(points.tensors[0][::4])
    assert [row[3] + 1 for row in rows] == attacks.flips.tolist()
    assert callback.report_sections()[0].tables[0].columns[-1] == "undefended, attacked"


def test_a_transductive_method_sees_all_evaluation_points_at_once(package: Any) -> None:
    run = trainer(package, certification(method=Together(RawFeatures(), 0.1)))
    run.fit(victim(package), Data())
    learner = Together(RawFeatures(), 0.1).fit(*TRAIN.tensors, 3)
    inputs, labels = VAL.tensors
    points = CertifiedPoints(torch.arange(len(labels)), labels, learner.certify(inputs))
    assert same(certified(run), points.values(RADII))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": {"a/b": CertifiedRidge()}}, "method names must be letters"),
        ({"method": {}}, "at least one certified learner"),
        ({"radii": [-1]}, "radii must be an integer of at least 0"),
        ({"published": {"x": {10: 97.0}}}, "published accuracy of x must lie in"),
        ({"suffix": "a/b"}, "suffix must be letters, digits and"),
        ({"method": CertifiedRidge}, "method must be a CertifiedLearner, got the class CertifiedRidge; call it"),
        ({"method": [CertifiedRidge()]}, "method must be a CertifiedLearner, got list"),
        ({"features": nn.Identity()}, "features must be a LabelFreeFeatures, got Identity"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelFlipCertification(**arguments)


def test_changed_labels_are_noticed(package: Any) -> None:
    callback, labels = certification(), TRAIN.tensors[1].clone()
    train = TensorDataset(TRAIN.tensors[0], labels)
    trainer(package, callback).fit(victim(package), DataLoader(train, 16), DataLoader(VAL, 5))
    labels[:50] = (labels[:50] + 1) % 3
    run = trainer(package, callback)
    run.fit(victim(package), DataLoader(train, 16), DataLoader(VAL, 5))
    assert same(certified(run), expected(train))


def test_a_run_that_stops_early_is_measured(package: Any) -> None:
    stop = package.callbacks.EarlyStopping("loss", patience=1, min_delta=1e9)
    run = trainer(package, certification(), stop, max_epochs=50)
    run.fit(victim(package), Data())
    assert run.current_epoch < 10
    assert same(certified(run), expected())


@pytest.mark.parametrize("limits", [{"max_samples": 14}, {"limit_val_batches": 2}])
def test_fewer_points_are_the_first_ones(package: Any, limits: dict[str, int]) -> None:
    mine = {key: value for key, value in limits.items() if key == "max_samples"}
    run = trainer(package, certification(**mine), **{key: limits[key] for key in limits if key not in mine})
    run.fit(victim(package), Data())
    assert same(certified(run), expected(points=TensorDataset(*(part[:14] for part in VAL.tensors))))


def test_the_data_module_may_know_of_more_classes(package: Any) -> None:
    callback = certification()
    trainer(package, callback).fit(victim(package), Data(num_classes=5))
    assert "any of 5 classes" in " ".join(callback.report_sections()[0].text)


def test_several_instances_have_their_own_keys_and_files(package: Any) -> None:
    run = trainer(package, certification(), certification(features=PCAFeatures(2), suffix="pca"))
    run.fit(victim(package), Data())
    assert {"cert/acc_at_3", "cert/acc_at_3_pca", "cert/radius_median_pca"} <= set(certified(run))
    assert (Path(run.log_dir) / "report" / "certificates_pca.csv").is_file()


def test_a_dry_run_writes_nothing(package: Any) -> None:
    run = trainer(package, certification(features=None, radii=None), fast_dev_run=True)
    run.fit(victim(package), Data())
    assert "cert/acc_at_0" in certified(run)
    assert not list(Path.cwd().rglob("*.csv"))


def test_the_report_says_what_is_and_what_is_not_guaranteed(package: Any) -> None:
    callback = certification(features=FrozenFeatures(nn.Identity()))
    assert callback.report_sections() == []
    run = trainer(package, callback)
    run.fit(victim(package), Data())
    section = callback.report_sections()[0]
    assert "not end-to-end" in " ".join(section.text)
    assert [row[0] for row in section.tables[0].rows] == RADII
    assert section.tables[0].rows[2][1] == f"{certified(run)['cert/acc_at_3']:.2%}"


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(TRAIN)


def test_a_stream_cannot_be_certified(package: Any) -> None:
    run = trainer(package, certification())
    with pytest.raises(UserError, match="needs a map-style training set, got Stream"):
        run.fit(victim(package), DataLoader(Stream(), 16), DataLoader(VAL, 5))


def test_bad_arguments_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="radii must be an integer of at least 0, got -1"):
        LabelFlipCertification(radii=[-1])
    with pytest.raises(UserError, match="regularisation must lie in"):
        LabelFlipCertification(CertifiedRidge(regularisation=-1.0))
    assert LabelFlipCertification(radii=[5, 2]).radii == [0, 2, 5]


TWO_RANKS = """
import json, sys
import torch
import test_label_flip_certification as t
import pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    torch.set_num_threads(1)
    method = t.Together(t.RawFeatures(), 0.1) if sys.argv[1] == "together" else None
    run = t.trainer(pl, t.certification(method=method, max_samples=29), strategy="ddp", devices=2)
    inputs, labels = t.VAL.tensors
    if sys.argv[1] == "nan":
        inputs = inputs.clone()
        inputs[1] = float("nan")  # a sample of rank one
    try:
        run.fit(t.victim(pl), DataLoader(t.TRAIN, 16), DataLoader(TensorDataset(inputs, labels), 5))
    except t.UserError as error:
        open(f"error{run.global_rank}.txt", "w").write(str(error))
    else:
        open(f"found{run.global_rank}.json", "w").write(json.dumps(t.certified(run)))
"""


def run_two_ranks(case: str) -> None:
    Path("two_ranks.py").write_text(TWO_RANKS)
    paths = [str(Path(lightning_poison.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run(
        [sys.executable, "two_ranks.py", case], capture_output=True, timeout=100, check=True, env=environment
    )


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one_and_count_repeats_once() -> None:
    run_two_ranks("numbers")
    wanted = expected(points=TensorDataset(*(part[:29] for part in VAL.tensors)))
    for rank in (0, 1):
        assert same(json.loads(Path(f"found{rank}.json").read_text()), wanted)
    (table,) = Path.cwd().rglob("certificates.csv")
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == [str(row) for row in range(29)]


@pytest.mark.slow
def test_two_ranks_give_a_transductive_method_all_points() -> None:
    run_two_ranks("together")
    inputs, labels = (part[:29] for part in VAL.tensors)
    learner = Together(RawFeatures(), 0.1).fit(*TRAIN.tensors, 3)
    wanted = CertifiedPoints(torch.arange(29), labels, learner.certify(inputs)).values(RADII)
    for rank in (0, 1):
        assert same(json.loads(Path(f"found{rank}.json").read_text()), wanted)


@pytest.mark.slow
def test_an_error_on_one_rank_is_heard_on_all() -> None:
    run_two_ranks("nan")
    for rank in (0, 1):
        assert "must be finite" in Path(f"error{rank}.txt").read_text()


def test_test_data_of_the_wrapped_data_module_will_do(package: Any, recwarn: pytest.WarningsRecorder) -> None:
    data = PoisonedDataModule(Data())
    data.val_dataloader = None
    run = trainer(package, certification())
    model = victim(package)
    run.fit(model, data)
    run.test(model, data, verbose=False)
    assert not [warning for warning in recwarn if "needs evaluation data" in str(warning.message)]
    assert same(certified(run), expected(points=TEST))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"undefended": UndefendedLogistic()}, "num_classes must be 2 for the undefended baseline, got 3"),
        ({"method": MonteCarloSmoothing(CertifiedRidge(), q=0.7, runs=2)}, "q must be below"),
        ({"method": MonteCarloSmoothing(CertifiedRidge(), runs=2, cache="/proc/none")}, "cannot write /proc/none"),
        ({"method": PartitionAggregation(spread=121)}, "spread must be at most the number of points, got 121 for 120"),
    ],
)
def test_what_cannot_be_certified_is_refused_before_the_training(
    package: Any, arguments: dict[str, Any], message: str
) -> None:
    run = trainer(package, certification(**arguments))
    with pytest.raises(UserError, match=message):
        run.fit(victim(package), Data())
    assert run.global_step == 0


def test_two_callbacks_that_would_write_the_same_are_refused(package: Any) -> None:
    run = trainer(package, certification(suffix="a"), certification(suffix="a"))
    with pytest.raises(UserError, match="2 LabelFlipCertification callbacks have the suffix 'a'; give each its own"):
        run.fit(victim(package), Data())
