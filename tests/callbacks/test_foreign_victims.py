"""Modules of other people: with noise, with metrics in their forward, with work beside it, or without one."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from attack_runs import CLASSES, Scorer, data, loader, make_trainer, validate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_poison.attacks import FGSM, PGD, StochasticVictimWarning
from lightning_poison.callbacks import AdversarialAccuracy
from lightning_poison.callbacks.natural_accuracy import NaturalAccuracies, disagreement, logged_accuracies, readings
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.victims import Victim
from tests.lightning_runs import notes_of
from tests.rank_runs import run_on_ranks

STOCHASTIC = "scores of the same inputs differ from pass to pass"


def accuracy(victim, dataset):
    with torch.no_grad():
        return float((victim.eval()(dataset.tensors[0]).argmax(1) == dataset.tensors[1]).double().mean())


# --- stochastic victims ----------------------------------------------------------------------------------------------


class Noisy(Scorer):
    """Two classes whose scores differ by a linear function and noise of one standard deviation."""

    noise = 0.5

    def __init__(self):
        super().__init__()
        self.ways = torch.randn(36, generator=torch.Generator().manual_seed(3)) / 2

    def lead(self, inputs, labels):
        value = (inputs - 0.5).flatten(1) @ self.ways
        return torch.where(labels == 1, value, -value)

    def forward(self, inputs):
        value = (inputs - 0.5).flatten(1) @ self.ways + self.noise * torch.randn(len(inputs))
        return torch.stack([torch.zeros_like(value), value], dim=1)


def pairs(count=1200):
    inputs = 0.2 + 0.6 * torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    return TensorDataset(inputs, (Noisy().lead(inputs, torch.ones(count)) > 0).long())


def expected(eps, dataset):
    """The share that withstands the best example within eps, and four standard errors of one draw each."""
    net, (inputs, labels) = Noisy(), dataset.tensors
    shares = 0.5 * (1 + torch.erf((net.lead(inputs, labels) - eps * net.ways.abs().sum()) / net.noise / math.sqrt(2)))
    return pytest.approx(float(shares.mean()), abs=4 * float((shares * (1 - shares)).sum().sqrt()) / len(shares))


@pytest.fixture(scope="module")
def swept():
    """What two attacks and a sweep log of a noisy victim, the callback, and the warnings."""
    callback = AdversarialAccuracy(
        [PGD(0.0, steps=6), FGSM(0.0), PGD(0.0, steps=3, norm="l2")], eps_sweep=None, name="nothing"
    )
    curve = AdversarialAccuracy([PGD(0.05, steps=3), FGSM(0.05)], eps_sweep=[0.0, 0.02, 0.05], name="curve")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logged = validate(pairs(), callback, curve, victim=Noisy(), batch_size=300)
    return logged, callback, curve, [str(warning.message) for warning in caught]


def test_an_attack_that_may_change_nothing_leaves_natural_accuracy(swept):
    logged, callback, *_ = swept
    natural = expected(0.0, pairs())
    keys = [key for key in logged if key.startswith("val/adv_acc_nothing")]
    assert len(keys) == 4  # of three attacks, and the worst case, which isn't the luckiest of three draws
    for key in keys:
        assert logged[key] == natural, key
    (measured,) = callback._latest.values()
    assert measured.stochastic
    assert measured.correct / measured.samples == natural


def test_each_radius_counts_by_its_own_example(swept):
    logged, _, curve, _ = swept
    for radius in (0.0, 0.02, 0.05):
        assert logged[f"val/adv_acc_curve_eps_{radius:.4g}"] == expected(radius, pairs())
    for key in ("val/adv_acc_curve", "val/adv_acc_curve_pgd", "val/adv_acc_curve_fgsm"):
        assert logged[key] == expected(0.05, pairs())
    (measured,) = curve._latest.values()
    assert set(measured.curves) == {"pgd", "fgsm"}


def test_it_is_said_once_and_in_the_report(swept):
    _, callback, _, messages = swept
    assert sum(STOCHASTIC in message for message in messages) == 2  # of two callbacks, of eight batches
    (section,) = callback.report_sections()
    assert sum(STOCHASTIC in sentence for sentence in section.text) == 1
    assert {row[-1] for row in section.tables[0].rows} == {"fresh evaluation"}
    notes = notes_of(callback)
    assert all(
        "the victim is stochastic, and each final example is evaluated afresh" in note for note in notes.values()
    )


def test_epochs_do_not_repeat_the_warning():
    class Learner(Noisy):
        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]) + self.layer.bias.sum() * 0, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    callback = AdversarialAccuracy(FGSM(0.0))
    trainer = make_trainer(callback)
    trainer.fit_loop.max_epochs = 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Learner(), loader(pairs(20)), loader(pairs(20)))
    assert sum(STOCHASTIC in str(warning.message) for warning in caught) == 1
    assert all(entry.stochastic for entry in callback.history)
    again = AdversarialAccuracy(FGSM(0.0))
    again.load_state_dict(callback.state_dict())
    assert again.history == callback.history


def test_of_other_victims_nothing_changes():
    callback = AdversarialAccuracy([PGD(0.05, steps=3), FGSM(0.05)], eps_sweep=[0.02, 0.05])
    with warnings.catch_warnings():
        warnings.simplefilter("error", StochasticVictimWarning)
        warnings.filterwarnings("error", message=STOCHASTIC)
        validate(data(51), callback)
    (section,) = callback.report_sections()
    assert [row[-1] for row in section.tables[0].rows] == ["any iterate"] * 2
    assert not any("stochastic" in note for note in notes_of(callback).values())
    assert not any("Mind" in sentence for sentence in section.text)


# --- a forward that writes -------------------------------------------------------------------------------------------


def make_counting(package):
    class Counting(package.LightningModule):
        """Its forward counts right answers, remembers scores and logs; its labels lie in the inputs' first pixel."""

        def __init__(self):
            super().__init__()
            self.net = Scorer()
            self.accuracy = MulticlassAccuracy(CLASSES, average="micro")
            self.register_buffer("seen", torch.tensor(0))
            self.register_buffer("mean", torch.zeros(CLASSES))
            self.states = []

        def forward(self, inputs):
            scores = self.net(inputs)
            self.accuracy.update(scores.detach(), (inputs.detach().flatten(1).sum(1) * 100).long() % CLASSES)
            self.seen += len(inputs)
            self.mean = 0.9 * self.mean + 0.1 * scores.detach().mean(0)
            if self._trainer is not None:
                confidence = scores.detach().softmax(1).amax(1).mean()
                self.log("val/confidence", confidence, on_step=False, on_epoch=True, batch_size=len(inputs))
            return scores

        def validation_step(self, batch, _):
            self(batch[0])
            self.log("val/seen", self.accuracy, on_step=False, on_epoch=True)

        def on_validation_epoch_end(self):
            self.states.append((self.accuracy.compute().item(), int(self.seen), self.mean.clone()))

    return Counting


def test_metrics_buffers_and_logs_of_a_forward_are_as_without_us(package):
    runs = []
    for callbacks in ([], [AdversarialAccuracy([PGD(0.1, steps=4), FGSM(0.1)])]):
        victim = make_counting(package)()
        trainer = package.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        logged = trainer.validate(victim, loader(data(51)), verbose=False)[0]
        runs.append((logged, victim.states[0]))
    (plain, state), (measured, other) = runs
    assert 0 < measured.pop("val/adv_acc") < 1
    assert {key: value for key, value in measured.items() if "adv_acc" not in key} == plain
    assert state[:2] == other[:2]
    assert state[1] == 51
    assert state[2].equal(other[2])


# --- another function than forward -----------------------------------------------------------------------------------


class NormalisingStep(Scorer):
    """Its step does with the batch what its forward doesn't."""

    logs = ("acc",)
    beside = True

    def forward(self, inputs):
        scores = super().forward(inputs)
        return scores * torch.tensor([1.0, 0.2, 0.2, 0.2]) if self.beside else scores

    def own(self, inputs):
        return super().forward(inputs)

    def _evaluate(self, batch, stage):
        right = (self.own(batch[0]).argmax(1) == batch[1]).float().mean()
        for name in self.logs:
            self.log(f"{stage}_{name}", right * (100 if "percent" in name else 1))

    def validation_step(self, batch, _):
        self._evaluate(batch, "val")

    def test_step(self, batch, *_):
        self._evaluate(batch, "test")


def messages_of(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(warning.message) for warning in caught if "its forward is right on" in str(warning.message)]


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("logs", ["acc", "accuracy_percent"])
def test_both_accuracies_are_named_where_the_step_does_more_than_forward(stage, logs):
    victim, dataset, callback = NormalisingStep(), data(200), AdversarialAccuracy(FGSM(0.02))
    victim.logs = (logs,)
    split = "val" if stage == "validate" else "test"
    (message,) = messages_of(lambda: getattr(make_trainer(callback), stage)(victim, loader(dataset), verbose=False))
    forward, step = accuracy(victim, dataset), accuracy(Scorer(), dataset)
    assert step - forward > 0.1
    shown = step * (100 if logs == "accuracy_percent" else 1)
    assert f"the module logs {split}_{logs} {shown:.4g}, but its forward is right on {forward:.4g}" in message
    assert "do within forward what the step does beside it" in message
    (section,) = callback.report_sections()
    assert sum(f"is right on {forward:.4g}" in sentence for sentence in section.text) == 1
    assert f"is right on {forward:.4g}" in notes_of(callback)[f"{split}/adv_acc"]


def trained(victim, *callbacks, epochs=3):
    trainer = make_trainer(*callbacks)
    trainer.fit_loop.max_epochs = epochs
    trainer.fit(victim, loader(data(32)), loader(data(200)))
    return trainer


class Learning(NormalisingStep):
    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.own(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-4)


def test_it_is_said_once_a_fit():
    callback = AdversarialAccuracy(FGSM(0.02))
    assert len(messages_of(lambda: trained(Learning(), callback))) == 1
    assert len(callback.history) == 3


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, {"beside": False}),
        ({}, {"logs": ()}),
        ({}, {"logs": ("acc_top5", "balanced_acc", "loss", "f1_acc", "adv_acc_x", "acc_best")}),
        ({"max_samples": 20}, {}),
        ({"target": 1}, {}),
        ({"target": "next"}, {}),
    ],
)
def test_nothing_is_said_where_nothing_is_wrong_or_comparable(arguments, settings):
    victim, callback = NormalisingStep(), AdversarialAccuracy(FGSM(0.02), **arguments)
    for name, value in settings.items():
        setattr(victim, name, value)
    run = make_trainer(callback)
    assert messages_of(lambda: run.validate(victim, loader(data(200)), verbose=False)) == []
    assert not any("is right on" in note for note in notes_of(callback).values())


def test_several_loaders_are_not_compared():
    trainer = make_trainer(AdversarialAccuracy(FGSM(0.02)))

    class Two(NormalisingStep):
        def validation_step(self, batch, _, dataloader_idx=0):
            self._evaluate(batch, "val")

    assert messages_of(lambda: trainer.validate(Two(), [loader(data(200)), loader(data(30))], verbose=False)) == []


def test_our_own_victim_never_warns():
    victim = Victim(lambda num_classes: MLP(num_classes, image_size=6), num_classes=CLASSES)
    callback = AdversarialAccuracy(FGSM(0.02))
    assert messages_of(lambda: trained(victim, callback)) == []
    assert callback.history[-1].correct / 200 == pytest.approx(accuracy(victim, data(200)))


def test_every_way_of_counting_is_known():
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.07, 0.03]), 203, replacement=True, generator=generator)
    wrong = torch.rand(203, generator=generator) < torch.tensor([0.05, 0.3, 0.6, 0.9])[labels]
    predictions = torch.where(wrong, (labels + 1) % 4, labels)
    counted, whole, sizes, means = NaturalAccuracies(), MulticlassAccuracy(5), [], []
    for batch in torch.arange(203).split(50):
        counted.update(labels[batch], predictions[batch], 5)
        whole.update(predictions[batch], labels[batch])
        sizes.append(len(batch))
        means.append(float(MulticlassAccuracy(5)(predictions[batch], labels[batch])))
    right = [float((labels[batch] == predictions[batch]).double().mean()) for batch in torch.arange(203).split(50)]
    expected = [
        float((labels == predictions).double().mean()),
        sum(right) / 5,
        float(whole.compute()),
        sum(size * mean for size, mean in zip(sizes, means, strict=True)) / 203,
        sum(means) / 5,
    ]
    assert counted.values() == pytest.approx(expected, abs=1e-6)
    assert max(expected) - min(expected) > 0.2
    for value in expected:
        assert disagreement({"val_acc": value}, counted.values()) is None
        assert disagreement({"val_acc": 100 * value}, counted.values()) is None
    assert disagreement({"val_acc": max(expected) + 0.03}, counted.values()) is not None
    assert disagreement({"val_acc": max(expected) + 0.03}, counted.values(), slack=0.02) is None
    assert disagreement({"val_acc": 0.1, "val_accuracy": expected[0]}, counted.values()) is None
    assert NaturalAccuracies().values() == []


def test_every_way_of_counting_over_ranks_is_known():
    parts, shares = [], []
    for count, right in ((90, 80), (30, 10)):
        labels = torch.arange(count) % 3
        predictions = torch.where(torch.arange(count) < right, labels, (labels + 1) % 3)
        parts.append(NaturalAccuracies())
        parts[-1].update(labels, predictions, 3)
        shares.append(right / count)
    found = readings(parts)
    for value in (90 / 120, shares[0], sum(shares) / 2):  # of all, of the first rank, mean of the ranks
        assert min(abs(value - one) for one in found) < 1e-12
    assert min(abs(shares[1] - one) for one in found) > 0.1  # only rank zero writes a log
    assert readings([NaturalAccuracies()]) == []


@pytest.mark.parametrize(
    "key",
    ["val_acc", "val/acc", "valid_accuracy", "validation/Accuracy", "valAcc", "VAL_ACC", "acc/val", "val_acc1",
     "val_top1_acc", "val_acc_epoch"],
)  # fmt: skip
def test_keys_that_are_accuracies(key):
    assert logged_accuracies({key: torch.tensor(0.5)}, "val") == {key: 0.5}
    assert logged_accuracies({key: torch.tensor(0.5)}, "test") == {}


@pytest.mark.parametrize(
    "key",
    ["acc", "train_acc", "val_loss", "val_acc5", "val_acc@5", "val_top5_acc", "val/adv_acc", "val/adv_acc_pgd",
     "val/acc_best", "val_acc_step", "val/balanced_accuracy", "val_acc_per_class", "val_acc_class_3", "val/f1_acc",
     "val_acc_ema", "val_robust_acc", "val/certified_acc_0.5", "val_access", "val_pgd_acc", "val/acc/dataloader_idx_0"],
)  # fmt: skip
def test_keys_that_are_something_else(key):
    assert logged_accuracies({key: 0.5}, "val") == {}


@pytest.mark.parametrize("value", [float("nan"), -0.1, 101, "good", torch.rand(3), None])
def test_values_that_are_no_accuracies(value):
    assert logged_accuracies({"val_acc": value}, "val") == {}


# --- modules that cannot be attacked ---------------------------------------------------------------------------------


class StepOnly(Scorer):
    forward = Scorer.__mro__[1].forward  # of LightningModule

    def training_step(self, batch, _):
        return self.layer(batch[0].flatten(1).float()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-4)

    def validation_step(self, batch, _):
        return self.layer(batch[0].flatten(1).float())


class OfABatch(StepOnly):
    def forward(self, batch):
        inputs, _ = batch
        return self.layer(inputs.flatten(1))


class OneLogit(StepOnly):
    def forward(self, inputs):
        return self.layer(inputs.flatten(1))[:, :1]


class Bytes(StepOnly):
    def forward(self, inputs):
        return self.layer(inputs.flatten(1))


BAD = {
    "no forward": (StepOnly, "StepOnly has no forward.*; give it a forward that maps inputs to logits"),
    "of a batch": (OfABatch, r"forward of OfABatch must map inputs to logits, got one that takes a whole batch"),
    "one logit": (OneLogit, r"one logit for both of two classes is not supported yet; let the model's forward return"),
    "bytes": (Bytes, r"inputs must be a batch of floats in \[0, 1\].*dtype torch.uint8; divide 8-bit images by 255"),
}


def bytes_of(dataset):
    return TensorDataset((dataset.tensors[0] * 255).byte(), dataset.tensors[1])


@pytest.mark.parametrize("target", [None, "next", "least_likely"])
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("stage", ["sanity check", "validate"])
def test_mistakes_are_told_in_a_line(name, stage, target):
    kind, message = BAD[name]
    dataset = bytes_of(data(20)) if name == "bytes" else data(20)
    trainer = make_trainer(AdversarialAccuracy(FGSM(0.02), target=target))
    loaders = [DataLoader(dataset, 8)] * (1 if stage == "validate" else 2)
    with pytest.raises(UserError, match=message) as caught:
        (trainer.validate if stage == "validate" else trainer.fit)(kind(), *loaders)
    assert "\n" not in str(caught.value)
    assert trainer.global_step == 0


@pytest.mark.slow
def test_two_processes_neither_wait_for_each_other_nor_say_it_twice(tmp_path):
    found = run_on_ranks(Path(__file__).with_name("foreign_ranks.py"), tmp_path)
    assert 0 < found["one"]["logged"]["val/adv_acc"] < 1
    assert len(found["one"]["logged"]) == 7
    for rank in ("first", "second"):
        assert found[rank]["logged"] == pytest.approx(found["one"]["logged"], abs=1e-6)
    assert [len(found[name]["said"]) for name in ("one", "first", "second")] == [1, 1, 0]
