"""Numbers are of the points that the loaders yield, of the weights that fit leaves, and of one run: every callback."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import lightning.pytorch as unified
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_poison.attacks import PGD, adversarial_paths
from lightning_poison.callbacks import (
    AdversarialAccuracy,
    AdversarialPaths,
    CraftFlips,
    FlipLabels,
    LabelFlipCertification,
    PoisonMemorization,
    Report,
    SmoothingCertification,
)
from lightning_poison.certificates import InputSmoothing, NearestNeighbours, RawFeatures
from lightning_poison.datamodules import PoisonedDataModule, PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList, FromFile, LabelFlips, Medoids, RandomPoints

ATTACK = PGD(eps=0.05, steps=3)
SMOOTHING = InputSmoothing(sigma=0.1, n=200, n0=20)
PACKAGES = pytest.mark.parametrize("package", [pl, unified], ids=["pytorch_lightning", "lightning"])


def points(count, seed=0, classes=3, *, random_labels=False):
    stream = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=stream)
    if random_labels:
        return TensorDataset(inputs, torch.randint(classes, (count,), generator=stream))
    ways = torch.randn(36, classes, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


def make_victim(package=pl, *, normalised=False, logits=3, rate=0.1):
    class Victim(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, logits))
            self.steps = 0

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, _):
            self.steps += 1
            labels = batch[1].flatten()
            scores = self(batch[0])
            if logits == 1:
                return nn.functional.binary_cross_entropy_with_logits(scores.squeeze(1), (labels > 0).float())
            return nn.functional.cross_entropy(scores, labels)

        def validation_step(self, batch, _):
            right = (self(batch[0]).argmax(1) == batch[1].flatten()).float().mean()
            self.log("val/acc", right, batch_size=len(batch[1]))

        def test_step(self, batch, batch_idx):
            self.log("test/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), rate)

    torch.manual_seed(0)
    return Victim()


def make_trainer(*callbacks, package=pl, **arguments):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, **quiet, **arguments}
    return package.Trainer(callbacks=list(callbacks), **settings)


def data_module(package, train, val=None, test=None):
    class Data(package.LightningDataModule):
        num_classes = 3

        def train_dataloader(self):
            return train()

        if val is not None:

            def val_dataloader(self):
                return val()

        if test is not None:

            def test_dataloader(self):
                return test()

    return Data()


def metrics_of(trainer):
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


# --- of which points --------------------------------------------------------------------------------------------------

ONE_SET = points(90, random_labels=True)
TRAINED, HELD_OUT = list(range(1, 90, 3)), list(range(0, 90, 3))


def shared_loader(index, **arguments):
    return DataLoader(ONE_SET, 8, sampler=SubsetRandomSampler(index), **arguments)


@PACKAGES
def test_a_subset_sampler_says_what_is_trained_on_and_evaluated(package, tmp_path):
    data = PoisonedDataModule(
        data_module(package, lambda: shared_loader(TRAINED), lambda: shared_loader(HELD_OUT)),
        LabelFlips(RandomPoints(per_class=3)),
    )
    victim = make_victim(package)
    callbacks = [
        LabelFlipCertification(NearestNeighbours(RawFeatures(), 1), radii=[0]),
        AdversarialPaths(max_steps=30),
        PoisonMemorization(),
        AdversarialAccuracy(ATTACK),
        SmoothingCertification(SMOOTHING),
    ]
    trainer = make_trainer(*callbacks, package=package, logger=True, default_root_dir=tmp_path)
    trainer.fit(victim, data)
    found = metrics_of(trainer)
    inputs, clean = ONE_SET.tensors
    flips = data.flips
    assert set(flips.index.tolist()) <= set(TRAINED)
    labels = flips.apply(clean)
    near = torch.cdist(inputs[HELD_OUT].flatten(1), inputs[TRAINED].flatten(1)).argmin(1)
    one_nn = (labels[TRAINED][near] == clean[HELD_OUT]).double().mean().item()
    assert found["cert/acc_at_0"] == pytest.approx(one_nn)
    assert one_nn < 0.7
    lengths = adversarial_paths(victim, inputs[TRAINED], clean[TRAINED], max_steps=30).length
    assert found["paths/length_mean"] == pytest.approx(lengths.double().mean().item())
    predictions = victim.eval()(inputs[flips.index]).argmax(1)
    assert found["poison/fitted"] == pytest.approx((predictions == flips.new_label).double().mean().item())
    assert found["poison/count"] == 9
    (table,) = tmp_path.rglob("paths.csv")
    assert [int(row["index"]) for row in csv.DictReader(table.read_text().splitlines())] == TRAINED
    assert callbacks[3].history[-1].samples == len(HELD_OUT)
    order = torch.tensor(HELD_OUT)
    assert callbacks[3].history[-1].correct == int((victim(inputs[order]).argmax(1) == clean[order]).sum())
    for name in ("certificates.csv", "smoothing.csv"):
        (table,) = tmp_path.rglob(name)
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert len(rows) == len(HELD_OUT)
        assert {row["index"] for row in rows} == {""}, "a sampler that draws its order tells no position"


def test_a_list_counts_in_positions_of_the_data_set_and_is_read_so(tmp_path):
    def data(select):
        return PoisonedDataModule(data_module(pl, lambda: shared_loader(TRAINED)), LabelFlips(select))

    first = data(Medoids(per_class=2))
    flips = first.flips
    subset = TensorDataset(*(tensor[TRAINED] for tensor in ONE_SET.tensors))
    alone = PoisonedDataModule(
        data_module(pl, lambda: DataLoader(subset, 8, shuffle=True)), LabelFlips(Medoids(per_class=2))
    )
    assert flips.index.tolist() == [TRAINED[row] for row in alone.flips.index.tolist()]
    path = flips.write(tmp_path / "flips.csv")
    assert data(FromFile(str(path))).flips.same_flips(flips)
    other = FlipList(torch.tensor([HELD_OUT[4]]), ONE_SET.tensors[1][HELD_OUT[4]][None], torch.tensor([3]))
    other.write(tmp_path / "other.csv")
    with pytest.raises(
        UserError, match=r"index 12 is not among the 30 points that the training loader's sampler yields"
    ):
        data(FromFile(str(tmp_path / "other.csv"))).flips  # noqa: B018  # drawn when asked for
    with pytest.raises(UserError, match="was drawn for other data"):
        PoisonedDataModule(data_module(pl, lambda: shared_loader(HELD_OUT)), LabelFlips(FromFile(str(path)))).flips  # noqa: B018


def test_flips_are_crafted_of_the_points_that_are_trained_on():
    craft = CraftFlips(LabelFlips(Medoids(per_class=2)))
    make_trainer(craft).fit(make_victim(), shared_loader(TRAINED))
    wanted = PoisonedDataModule(data_module(pl, lambda: shared_loader(TRAINED)), LabelFlips(Medoids(per_class=2))).flips
    assert craft.flips.same_flips(wanted)


def test_flips_that_are_never_trained_on_are_not_measured():
    _, labels = ONE_SET.tensors
    at = torch.tensor([0, 1, 4, 6])
    poisoned = PoisonedDataset(ONE_SET, FlipList(at, labels[at], (labels[at] + 1) % 3))
    trainer = make_trainer(PoisonMemorization())
    with pytest.warns(UserWarning, match="2 of the flipped points are never trained on"):
        trainer.fit(make_victim(), DataLoader(poisoned, 8, sampler=SubsetRandomSampler(TRAINED)))
    assert metrics_of(trainer)["poison/count"] == 2


@pytest.mark.parametrize(
    ("limits", "count"),
    [({"limit_train_batches": 2}, 16), ({"limit_train_batches": 0.5}, 48), ({"overfit_batches": 1}, 8)],
)
def test_a_limit_of_training_batches_limits_what_is_flipped_and_measured(limits, count):
    data = PoisonedDataModule(
        data_module(pl, lambda: DataLoader(ONE_SET, 8)), LabelFlips(RandomPoints(fraction=0.5)), seed=1
    )
    paths, fitted = AdversarialPaths(max_steps=2, pictures=False), PoisonMemorization()
    trainer = make_trainer(paths, fitted, **limits)
    trainer.fit(make_victim(), data)
    assert data.flips.index.max() < count
    assert len(paths._paths.index) == count
    assert metrics_of(trainer)["poison/count"] == len(data.flips) > 0


class Endless(Sampler[int]):
    def __iter__(self):
        return iter(lambda: int(torch.randint(90, ())), None)


def zero_weights():
    return WeightedRandomSampler([float(position in TRAINED) for position in range(90)], 60)


@pytest.mark.parametrize(
    "callback", [FlipLabels(LabelFlips(RandomPoints(per_class=1))), AdversarialPaths(), LabelFlipCertification()]
)
def test_training_points_that_nobody_can_know_are_refused_before_the_training(callback):
    victim = make_victim()
    data = data_module(pl, lambda: DataLoader(ONE_SET, 8, sampler=Endless()))
    with pytest.raises(UserError, match="cannot tell which points are trained on: Endless has no end"):
        make_trainer(callback, limit_train_batches=3).fit(victim, data)
    assert victim.steps == 0


def test_weights_of_zero_leave_points_out_and_are_never_certified():
    data = PoisonedDataModule(
        data_module(pl, lambda: DataLoader(ONE_SET, 8, sampler=zero_weights())), LabelFlips(RandomPoints(per_class=5))
    )
    assert set(data.flips.index.tolist()) <= set(TRAINED)
    with pytest.raises(UserError, match="gives some points the weight 0: weights may come from labels"):
        make_trainer(LabelFlipCertification()).fit(make_victim(), data)
    victim, paths = make_victim(), AdversarialPaths(max_steps=20, pictures=False)
    trainer = make_trainer(paths, PoisonMemorization())
    trainer.fit(victim, data)
    inputs, clean = ONE_SET.tensors
    lengths = adversarial_paths(victim, inputs[TRAINED], clean[TRAINED], max_steps=20).length.double()
    assert metrics_of(trainer)["paths/length_mean"] == pytest.approx(lengths.mean().item())
    fitted = victim.eval()(inputs[data.flips.index]).argmax(1) == data.flips.new_label
    assert metrics_of(trainer)["poison/fitted"] == pytest.approx(fitted.double().mean().item())
    assert metrics_of(trainer)["poison/count"] == 15


def test_weights_that_leave_nothing_out_are_certified_like_a_shuffle():
    def certified(**order):
        callback = LabelFlipCertification(NearestNeighbours(RawFeatures(), 5), radii=[0, 1])
        trainer = make_trainer(callback)
        trainer.fit(make_victim(), DataLoader(points(48), 8, **order), DataLoader(points(16, 1), 8))
        return {key: value for key, value in metrics_of(trainer).items() if key.startswith("cert/")}

    weighted = certified(sampler=WeightedRandomSampler(torch.arange(1.0, 49), 96))
    assert weighted == certified(shuffle=True)
    assert weighted["cert/acc_at_0"] > 0


@pytest.mark.parametrize(
    "repeated",
    [
        Subset(ONE_SET, [0, 1, 2, 2]),
        Subset(Subset(ONE_SET, [5, 6]), [0, 1, 1]),
        ConcatDataset([Subset(ONE_SET, [3, 4]), ONE_SET]),
        PoisonedDataset(Subset(ONE_SET, [3, 4, 3]), FlipList.empty()),
    ],
)
def test_a_label_that_counts_twice_is_never_certified(repeated):
    with pytest.raises(UserError, match="reads some labels more than once"):
        make_trainer(LabelFlipCertification()).fit(make_victim(), DataLoader(repeated, 8), DataLoader(ONE_SET, 8))
    apart = ConcatDataset([Subset(ONE_SET, [3, 4]), Subset(ONE_SET, [5, 6]), points(4)])
    callback = LabelFlipCertification(NearestNeighbours(RawFeatures(), 1), radii=[0])
    make_trainer(callback).fit(make_victim(), DataLoader(apart, 8), DataLoader(ONE_SET, 8))


@pytest.mark.parametrize(
    "callback",
    [AdversarialAccuracy(ATTACK), SmoothingCertification(SMOOTHING), LabelFlipCertification(radii=[0])],
    ids=lambda callback: type(callback).__name__,
)
def test_evaluation_that_may_repeat_points_is_refused(callback):
    loader = DataLoader(ONE_SET, 8, sampler=RandomSampler(ONE_SET, replacement=True))
    victim = make_victim()
    with pytest.raises(UserError, match="must be evaluated once each, got an evaluation loader with RandomSampler"):
        make_trainer(callback, num_sanity_val_steps=0).fit(victim, DataLoader(ONE_SET, 8), loader)
    assert victim.steps == 0


def test_two_training_loaders_are_refused_by_what_needs_one():
    loaders = {"a": DataLoader(points(16), 8), "b": DataLoader(points(24, seed=1), 8)}

    class Joint(type(make_victim())):
        def training_step(self, batch, index):
            return super().training_step(batch["a"], index)

    for callback in (AdversarialPaths(), LabelFlipCertification()):
        with pytest.raises(UserError, match="needs one training DataLoader, got 2"):
            make_trainer(callback).fit(Joint(), loaders, DataLoader(points(8), 8))


@pytest.mark.parametrize("kind", ["accuracy", "smoothing", "certificate"])
def test_samples_of_sorted_data_are_drawn_from_all_classes(kind):
    inputs, labels = points(90).tensors
    order = labels.argsort(stable=True)
    sorted_set = TensorDataset(inputs[order], labels[order])
    callback = {
        "accuracy": AdversarialAccuracy(ATTACK, max_samples=30),
        "smoothing": SmoothingCertification(SMOOTHING, max_samples=30),
        "certificate": LabelFlipCertification(NearestNeighbours(RawFeatures(), 1), max_samples=30),
    }[kind]
    trainer = make_trainer(callback)
    trainer.fit(make_victim(), DataLoader(sorted_set, 8), DataLoader(sorted_set, 8))
    if kind == "accuracy":
        assert callback.history[-1].samples == 30
        return
    table = callback._points if kind == "smoothing" else callback._measured.methods[""].points
    seen = torch.bincount(table.labels, minlength=3)
    assert seen.sum() == 30
    assert (seen - 30 * torch.bincount(labels) / 90).abs().max() < 1


# --- of which weights -------------------------------------------------------------------------------------------------


class Averaging:
    """Averages that differ from the last weights by far."""

    @staticmethod
    def ema(package):
        return package.callbacks.EMAWeightAveraging(decay=0.9)

    @staticmethod
    def swa(package):
        return package.callbacks.StochasticWeightAveraging(swa_lrs=0.5, swa_epoch_start=1)

    @staticmethod
    def own_module(package):
        class Halved(package.Callback):
            def on_train_end(self, trainer, pl_module):
                with torch.no_grad():
                    for parameter in pl_module.parameters():
                        parameter.mul_(0.5).add_(0.1)

        return Halved()


@PACKAGES
@pytest.mark.parametrize("averaging", ["ema", "swa", "own_module"])
@pytest.mark.parametrize("first", [True, False], ids=["averaged first", "averaged last"])
def test_what_is_measured_at_the_end_is_of_the_weights_that_fit_leaves(package, averaging, first, tmp_path):
    train, val = points(64), points(40, seed=1)
    inputs, labels = train.tensors
    flips = FlipList(torch.arange(12), labels[:12], (labels[:12] + 1) % 3)
    victim = make_victim(package, rate=0.5)

    class Counted(AdversarialAccuracy):
        at_end = 0

        def measure_at_end(self, trainer, pl_module):
            self.at_end += 1
            super().measure_at_end(trainer, pl_module)

    measured = [
        Counted(ATTACK),
        AdversarialPaths(max_steps=30),
        PoisonMemorization(),
        SmoothingCertification(SMOOTHING),
    ]
    craft = CraftFlips(LabelFlips(RandomPoints(per_class=1)))
    average = getattr(Averaging, averaging)(package)
    callbacks = [average, *measured, Report()] if first else [Report(), *measured, average]
    trainer = make_trainer(*callbacks, package=package, max_epochs=4, logger=True, default_root_dir=tmp_path)
    trainer.fit(victim, DataLoader(PoisonedDataset(train, flips), 8), DataLoader(val, 8))
    found = metrics_of(trainer)
    victim.eval()
    predictions = victim(inputs[:12]).argmax(1)
    assert found["poison/fitted"] == pytest.approx((predictions == flips.new_label).double().mean().item())
    assert found["poison/clean"] == pytest.approx((predictions == labels[:12]).double().mean().item())
    assert found["val/adv_acc"] == pytest.approx((~ATTACK(victim, *val.tensors).fooled).double().mean().item())
    lengths = adversarial_paths(victim, inputs, labels, max_steps=30).length
    assert found["paths/length_mean"] == pytest.approx(lengths.double().mean().item())
    certificate = SMOOTHING.certify(victim, val.tensors[0], torch.arange(40), measured[3].radii)
    assert found["smooth/radius_mean"] == pytest.approx(float(certificate.radius.mean()))
    for callback in measured[:1]:
        assert len({entry.epoch for entry in callback.history}) == len(callback.history)
    (report,) = tmp_path.rglob("report.json")
    written = json.loads(report.read_text())
    page = report.with_name("index.html").read_text()
    assert written["metrics"]["val/adv_acc"] == pytest.approx(found["val/adv_acc"])
    natural = (victim(val.tensors[0]).argmax(1) == val.tensors[1]).double().mean().item()
    assert measured[0].at_end == (averaging != "ema"), "the averaged weights were validated already"
    if averaging == "ema":
        assert found["val/acc"] == pytest.approx(natural)
        assert "Mind which weights" not in page
    else:
        assert "Mind which weights" in page
        assert "val/acc" in page.split("Mind which weights")[-1]
    assert craft.flips is None


@PACKAGES
def test_the_epochs_before_the_last_are_measured_on_the_average_too(package):
    seen = []

    class Validated(package.Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            if not trainer.sanity_checking:
                seen.append(pl_module.net[1].weight.detach().clone())

    class Measured(PoisonMemorization):
        def _measure(self, trainer, pl_module, epoch):
            assert pl_module.net[1].weight.equal(seen[-1])
            return super()._measure(trainer, pl_module, epoch)

    _, labels = points(32).tensors
    flips = FlipList(torch.arange(4), labels[:4], (labels[:4] + 1) % 3)
    callback = Measured()
    trainer = make_trainer(Averaging.ema(package), Validated(), callback, package=package, max_epochs=3)
    trainer.fit(make_victim(package), DataLoader(PoisonedDataset(points(32), flips), 8), DataLoader(points(8), 8))
    assert len(callback.history) == 3


def test_flips_are_crafted_with_the_weights_that_fit_leaves():
    seen = []

    class Looking(CraftFlips):
        def _crafted(self, trainer, pl_module, restored):
            seen.append(pl_module.net[1].weight.detach().clone())
            return super()._crafted(trainer, pl_module, restored)

    victim = make_victim()
    make_trainer(Looking(LabelFlips(RandomPoints(per_class=1))), Averaging.own_module(pl)).fit(
        victim, DataLoader(points(32), 8)
    )
    assert seen[0].equal(victim.net[1].weight)


# --- of which run -----------------------------------------------------------------------------------------------------


@PACKAGES
def test_callbacks_that_are_used_again_start_from_nothing(package, tmp_path):
    def data(poison):
        loaders = (lambda: DataLoader(points(48), 8), lambda: DataLoader(points(16, seed=1), 8))
        return PoisonedDataModule(data_module(package, *loaders, loaders[1]), poison)

    callbacks = [
        AdversarialAccuracy(ATTACK),
        AdversarialPaths(max_steps=5),
        PoisonMemorization(),
        LabelFlipCertification(NearestNeighbours(RawFeatures(), 1), radii=[0]),
        SmoothingCertification(SMOOTHING),
        Report(),
    ]
    written = {}
    for name, poison, epochs in (("poisoned", LabelFlips(RandomPoints(per_class=3)), 3), ("clean", None, 2)):
        trainer = make_trainer(
            *callbacks, package=package, max_epochs=epochs, logger=True, default_root_dir=tmp_path / name
        )
        trainer.fit(make_victim(package), data(poison))
        if name == "poisoned":
            trainer.test(make_victim(package), data(poison), verbose=False)
        (report,) = (tmp_path / name).rglob("report.json")
        written[name] = (json.loads(report.read_text()), report.with_name("index.html").read_text())
    first, second = written["poisoned"][0], written["clean"][0]
    assert first["poison"]["count"] == 9
    assert "test/adv_acc" in first["metrics"]
    assert (second["poison"] or {"count": 0})["count"] == 0
    assert not [key for key in second["metrics"] if key.startswith("test/") or key == "poison/fitted"]
    assert "Memorisation of the flips" in written["poisoned"][1]
    assert "Memorisation of the flips" not in written["clean"][1]
    assert [entry.epoch for entry in callbacks[0].history] == [0, 1]
    assert {entry["epoch"] for curve in second["history"].values() for entry in curve} == {0, 1}
    assert "test had other weights than those that fit left" in written["poisoned"][1]


def test_a_fit_that_goes_on_keeps_what_it_has():
    accuracy = AdversarialAccuracy(ATTACK)
    trainer = make_trainer(accuracy)
    victim = make_victim()
    trainer.fit(victim, DataLoader(points(32), 8), DataLoader(points(16), 8))
    trainer.fit_loop.max_epochs = 3
    trainer.fit(victim, DataLoader(points(32), 8), DataLoader(points(16), 8))
    assert [entry.epoch for entry in accuracy.history] == [0, 1, 2]


def test_what_a_resumed_run_took_over_is_none_of_the_next_one(tmp_path):
    train = lambda: DataLoader(points(48), 8, shuffle=True)  # noqa: E731
    first = PoisonedDataModule(data_module(pl, train), LabelFlips(RandomPoints(per_class=2)), seed=7)
    trainer = make_trainer(enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.fit(make_victim(), first)
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    for make in (
        lambda: PoisonedDataModule(data_module(pl, train), LabelFlips(RandomPoints(per_class=2)), seed=1),
        lambda: FlipLabels(LabelFlips(RandomPoints(per_class=2)), seed=1),
    ):
        owner = make()
        is_data = isinstance(owner, PoisonedDataModule)
        data = owner if is_data else data_module(pl, train)
        if is_data:
            resumed = make_trainer(max_epochs=3)
            resumed.fit(make_victim(), data, ckpt_path=tmp_path / "seven.ckpt")
            assert owner.flips.same_flips(first.flips)
        make_trainer(*([] if is_data else [owner])).fit(make_victim(), data)
        fresh = PoisonedDataModule(data_module(pl, train), LabelFlips(RandomPoints(per_class=2)), seed=1)
        assert owner.flips.same_flips(fresh.flips)
        assert owner.training_flips.seed == 1


# --- refused before training, told after it ---------------------------------------------------------------------------


def normalised(count, seed=0):
    inputs, labels = points(count, seed).tensors
    return TensorDataset((inputs - 0.5) / 0.2, labels)


def column_labels(count, seed=0):
    inputs, labels = points(count, seed).tensors
    return TensorDataset(inputs, labels[:, None])


class NoLabelsKnown(Dataset):
    """A data set that tells its labels item by item only."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


EVERY = {
    "accuracy": lambda: AdversarialAccuracy(ATTACK, every_n_epochs=None),
    "paths": AdversarialPaths,
    "certificate": lambda: LabelFlipCertification(NearestNeighbours(RawFeatures(), 1)),
    "smoothing": lambda: SmoothingCertification(SMOOTHING),
    "memorization": lambda: PoisonMemorization(every_n_epochs=None),
}
REFUSED = {
    "normalised": (normalised, 3, {"accuracy", "paths", "smoothing"}, r"inputs must lie in \[0, 1\]"),
    "one logit": (points, 1, {"accuracy", "paths", "smoothing", "memorization"}, "one logit"),
    "labels in a column": (column_labels, 3, set(EVERY), "label"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", EVERY)
def test_what_can_be_known_is_refused_before_the_training(name, what):
    make, logits, refused_by, message = REFUSED[what]
    if name not in refused_by:
        pytest.skip("nothing to refuse")
    train = NoLabelsKnown(make(48))
    first = points(48).tensors[1][:2]
    poisoned = PoisonedDataset(train, FlipList(torch.arange(2), first, (first + 1) % 3))
    victim = make_victim(logits=logits)
    trainer = make_trainer(EVERY[name](), num_sanity_val_steps=0)
    with pytest.raises(UserError, match=message):
        trainer.fit(victim, DataLoader(poisoned, 8), DataLoader(make(16, 1), 8))
    assert victim.steps == 0


@PACKAGES
@pytest.mark.parametrize("name", EVERY)
def test_what_fails_later_costs_no_checkpoint_and_is_told_at_the_end(package, name, tmp_path):
    callback = EVERY[name]()
    _, labels = points(48).tensors
    poisoned = PoisonedDataset(points(48), FlipList(torch.arange(2), labels[:2], (labels[:2] + 1) % 3))
    victim = make_victim(package)

    class Breaking(package.Callback):
        """From the last epoch on the network gives no scores, and the data no labels."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                original = callback.attempt

                def broken(trainer, measure, **arguments):
                    def failing():
                        raise UserError("the data are gone; bring them back")

                    return original(trainer, failing, **arguments)

                callback.attempt = broken

    trainer = make_trainer(
        callback, Breaking(), package=package, enable_checkpointing=True, default_root_dir=tmp_path, logger=True
    )
    with (
        pytest.warns(UserWarning, match="failed and measures nothing more in this fit"),
        pytest.raises(UserError, match="the data are gone; bring them back"),
    ):
        trainer.fit(victim, DataLoader(poisoned, 8), DataLoader(points(16, 1), 8))
    assert victim.steps == 12
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=False)["epoch"] == 1


def test_an_attack_that_breaks_in_the_last_epoch_is_told_at_the_end(tmp_path):
    class Breaking(type(make_victim())):
        def forward(self, inputs):
            scores = super().forward(inputs)
            return scores if self.training or self.steps < 12 or inputs.requires_grad is False else scores[:, 0]

    victim = Breaking()
    accuracy = AdversarialAccuracy(ATTACK)
    trainer = make_trainer(accuracy, enable_checkpointing=True, default_root_dir=tmp_path)
    with pytest.raises(UserError, match="class scores must be one logit a class"):
        trainer.fit(victim, DataLoader(points(48), 8), DataLoader(points(16, 1), 8))
    assert [entry.epoch for entry in accuracy.history] == [0]
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_a_subset_of_a_poisoned_set_is_measured_by_its_own_positions():
    _, labels = ONE_SET.tensors
    at = torch.tensor(TRAINED[:5])
    poisoned = PoisonedDataset(ONE_SET, FlipList(at, labels[at], (labels[at] + 1) % 3))
    fitted = PoisonMemorization()
    victim = make_victim()
    trainer = make_trainer(fitted)
    trainer.fit(victim, DataLoader(Subset(poisoned, [*TRAINED, TRAINED[0]]), 8))
    predictions = victim.eval()(ONE_SET.tensors[0][at]).argmax(1)
    assert metrics_of(trainer)["poison/count"] == 5
    assert metrics_of(trainer)["poison/clean"] == pytest.approx((predictions == labels[at]).double().mean().item())


def test_a_loader_whose_sampler_makes_the_batches_is_measured():
    class Fetched(Dataset):
        """Takes a list of positions at once, as fast data sets in memory do."""

        def __len__(self):
            return 48

        def __getitem__(self, index):
            return tuple(tensor[index] for tensor in points(48).tensors)

    def batched(seed):
        order = RandomSampler(Fetched(), generator=torch.Generator().manual_seed(seed))
        return DataLoader(Fetched(), None, sampler=BatchSampler(order, 8, drop_last=False))

    paths = AdversarialPaths(max_steps=20, pictures=False)
    certificate = LabelFlipCertification(NearestNeighbours(RawFeatures(), 1), radii=[0])
    accuracy = AdversarialAccuracy(ATTACK)
    victim = make_victim()
    trainer = make_trainer(paths, certificate, accuracy)
    trainer.fit(victim, batched(0), batched(1))
    lengths = adversarial_paths(victim, *points(48).tensors, max_steps=20).length.double()
    assert metrics_of(trainer)["paths/length_mean"] == pytest.approx(lengths.mean().item())
    assert metrics_of(trainer)["cert/acc_at_0"] == 1
    assert accuracy.history[-1].samples == 48


def test_files_of_one_run_lie_in_its_folder(tmp_path):
    trainer = make_trainer(AdversarialPaths(max_steps=2), logger=True, default_root_dir=tmp_path)
    trainer.fit(make_victim(), DataLoader(points(16), 8))
    assert (Path(trainer.log_dir) / "report" / "paths.csv").exists()
