import functools

import lightning.pytorch as unified
import pytest
import pytorch_lightning as pl
import torch
import torchattacks
from jsonargparse import ArgumentParser
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import FGSM, PGD
from lightning_poison.callbacks import AdversarialAccuracy
from lightning_poison.errors import UserError
from lightning_poison.trainer.positions import draw_positions
from tests.lightning_runs import notes_of


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=generator)
    ways = torch.randn(36, 4, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


def make_victim(package):
    class Victim(package.LightningModule):
        def __init__(self, lr=1e-2):
            super().__init__()
            self.lr = lr
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(
                    nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 4)
                )

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, *_):
            self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def test_step(self, batch, *_):
            self.log("test/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    return Victim


Victim = make_victim(pl)


def make_trainer(*callbacks, package=pl, **arguments):
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return package.Trainer(callbacks=list(callbacks), **(settings | arguments))


def loader(dataset, batch_size=16, shuffle=False):
    return DataLoader(dataset, batch_size, shuffle=shuffle)


def direct(attack, victim, dataset, targets=None):
    """Share that withstands, from one call of the attack on the whole data set."""
    inputs, labels = dataset.tensors
    aims = None if targets is None else torch.full_like(labels, targets)
    return (~attack(victim, inputs, labels, targets=aims).fooled).double().mean().item()


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("package", [pl, unified])
def test_evaluation_equals_a_direct_call(stage, package):
    attack, dataset, victim = PGD(0.1, steps=5), data(51), make_victim(package)()
    trainer = make_trainer(AdversarialAccuracy(attack), package=package)
    logged = getattr(trainer, stage)(victim, loader(dataset), verbose=False)[0]
    prefix = "val" if stage == "validate" else "test"
    expected = direct(attack, victim, dataset)
    assert 0 < expected < 1
    assert logged[f"{prefix}/adv_acc"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("package", [pl, unified])
def test_training_is_not_touched(package):
    results = []
    for callbacks in (
        [],
        [
            AdversarialAccuracy(PGD(0.1, steps=3, restarts=1)),
            AdversarialAccuracy(functools.partial(torchattacks.PGD, eps=0.1, steps=2), name="peer"),
        ],
    ):
        pl.seed_everything(7, verbose=False)
        victim = make_victim(package)()
        trainer = make_trainer(*callbacks, package=package)
        trainer.fit(victim, loader(data(64), shuffle=True), loader(data(51, seed=1)))
        results.append((victim.state_dict(), torch.rand(3)))
    assert results[0][1].equal(results[1][1])
    for name, value in results[0][0].items():
        assert value.equal(results[1][0][name]), name


def test_several_side_by_side_and_their_history():
    dataset, victim = data(51, seed=1), Victim()
    callbacks = [
        AdversarialAccuracy(PGD(0.1, steps=3)),
        AdversarialAccuracy(FGSM(0.1), name="fgsm"),
        AdversarialAccuracy(PGD(0.1, steps=3), source=1, target=2),
        AdversarialAccuracy(PGD(0.1, steps=3), target=2, every_n_epochs=2),
    ]
    trainer = make_trainer(*callbacks, max_epochs=3)
    trainer.fit(victim, loader(data(64)), loader(dataset))
    keys = ["val/adv_acc", "val/adv_acc_fgsm", "val/adv_acc_1_to_2", "val/adv_acc_to_2"]
    assert [key for key in trainer.callback_metrics if "adv" in key] == keys
    expected = [
        direct(callbacks[0].attack, victim, dataset),
        direct(callbacks[1].attack, victim, dataset),
        direct(callbacks[2].attack, victim, TensorDataset(*dataset[dataset.tensors[1] == 1]), 2),
        direct(callbacks[3].attack, victim, TensorDataset(*dataset[dataset.tensors[1] != 2]), 2),
    ]
    assert [float(trainer.callback_metrics[key]) for key in keys] == pytest.approx(expected, abs=1e-7)
    assert [[entry.epoch for entry in callback.history] for callback in callbacks] == [[0, 1, 2]] * 3 + [[1, 2]]
    last = callbacks[0].history[-1]
    assert last.samples == 51
    with torch.no_grad():
        assert last.correct == int((victim.eval()(dataset.tensors[0]).argmax(1) == dataset.tensors[1]).sum())
    assert len({callback.state_key for callback in callbacks}) == 4


def test_the_same_samples_are_drawn_class_by_class_whatever_the_batches():
    dataset, attack, victim = data(51), PGD(0.1, steps=3, restarts=1), Victim()
    labels = dataset.tensors[1]
    drawn = draw_positions(51, 20, labels)
    shares = torch.bincount(labels[drawn], minlength=4) / 20 - torch.bincount(labels, minlength=4) / 51
    assert shares.abs().max() < 1 / 20
    expected = 1 - attack(victim, *dataset[drawn], sample_ids=drawn).fooled.double().mean().item()
    for batch_size in (7, 16, 51):
        trainer = make_trainer(AdversarialAccuracy(attack, max_samples=20))
        logged = trainer.validate(victim, loader(dataset, batch_size), verbose=False)[0]
        assert logged["val/adv_acc"] == pytest.approx(expected, abs=1e-7)


def test_only_the_first_of_several_loaders_is_measured():
    callback, victim = AdversarialAccuracy(PGD(0.1, steps=3)), Victim()
    trainer = make_trainer(callback)
    logged = trainer.validate(victim, [loader(data(20)), loader(data(30, seed=1))], verbose=False)
    assert logged[0]["val/adv_acc"] == pytest.approx(direct(callback.attack, victim, data(20)), abs=1e-7)


def test_the_sanity_check_is_not_measured():
    callback = AdversarialAccuracy(FGSM(0.1))
    trainer = make_trainer(callback, max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(Victim(), loader(data(32)), loader(data(51)))
    assert [(entry.epoch, entry.samples) for entry in callback.history] == [(0, 51)]


def test_no_sample_of_the_class_is_a_warning_not_a_number():
    dataset = data(51)
    rest = TensorDataset(*dataset[dataset.tensors[1] != 1])
    trainer = make_trainer(AdversarialAccuracy(FGSM(0.1), source=1, target=2))
    with pytest.warns(UserWarning, match="adv_acc_1_to_2 was not measured"):
        logged = trainer.validate(Victim(), loader(rest), verbose=False)[0]
    assert "val/adv_acc_1_to_2" not in logged


def test_state_survives_a_checkpoint(tmp_path):
    callback = AdversarialAccuracy(FGSM(0.1))
    trainer = make_trainer(callback)
    trainer.fit(Victim(), loader(data(32)), loader(data(20)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = AdversarialAccuracy(FGSM(0.1))
    again.load_state_dict(saved["callbacks"][again.state_key])
    assert again.history == callback.history
    assert len(again.history) == 2


def test_the_report_names_the_attack_and_an_exact_interval():
    callback = AdversarialAccuracy(PGD(8 / 255, steps=7), source=0, target=1, name="x")
    trainer = make_trainer(callback)
    trainer.test(Victim(), loader(data(51)), verbose=False)
    (section,) = callback.report_sections()
    assert section.title == "Adversarial accuracy, 0 to 1 x"
    attack, result, _ = section.tables
    assert attack.rows == (("PGD", "linf", "0.03137", "8/255", 7, "any iterate"),)
    assert result.rows[0][:2] == ("test", int((data(51).tensors[1] == 0).sum()))
    # Clopper and Pearson: with every sample standing, the lower end is (alpha / 2) ** (1 / n).
    assert result.rows[0][3] == "100.00 %"
    assert result.rows[0][4] == f"{100 * 0.025 ** (1 / result.rows[0][1]):.1f} to 100.0 %"
    notes = notes_of(callback)
    assert notes == {"test/adv_acc_0_to_1_x": "PGD, linf, eps 0.03137 (8/255), 7 steps, aimed at class 1"}
    (metric,) = callback.report_metrics()
    assert metric.label == "Adversarial accuracy, 0 to 1, x (test)"
    assert metric.description == "Share of test points of class 0 that the attack cannot turn into class 1."
    assert (metric.kind, metric.headline, metric.higher_is_better) == ("targeted", True, True)
    assert AdversarialAccuracy().report_sections() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": PGD}, r"got the class PGD; write PGD\(\)"),
        ({"attack": 0.1}, "attack must be an attack such as"),
        ({"source": 1}, "source=1 needs target"),
        ({"source": 1, "target": 1}, "target must differ from source"),
        ({"target": -1}, "target must be an integer of at least 0"),
        ({"name": "a b"}, "name must be letters"),
        ({"every_n_epochs": 0}, "every_n_epochs must be an integer of at least 1"),
        ({"max_samples": 0}, "max_samples must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        AdversarialAccuracy(**arguments)


def test_two_with_one_key_are_refused():
    trainer = make_trainer(AdversarialAccuracy(FGSM(0.1)), AdversarialAccuracy(FGSM(0.2)))
    with pytest.raises(UserError, match="2 AdversarialAccuracy callbacks log adv_acc; give each its own name"):
        trainer.validate(Victim(), loader(data(8)), verbose=False)


def test_mistakes_in_a_torchattacks_attack_surface_before_any_batch():
    callback = AdversarialAccuracy(functools.partial(torchattacks.PGD, eps="abc"))
    with pytest.raises(UserError, match=r"eps of torchattacks\.PGD must be a number"):
        callback.setup(make_trainer(callback), Victim(), "fit")


def test_normalised_data_are_refused_with_the_remedy():
    inputs, labels = data(8).tensors
    trainer = make_trainer(AdversarialAccuracy(FGSM(0.1)))
    with pytest.raises(UserError, match="make it the model's first layer"):
        trainer.validate(Victim(), loader(TensorDataset(inputs * 2 - 1, labels)), verbose=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], PGD()),
        (["--c.attack=PGD", "--c.attack.eps=8/255", "--c.attack.steps=3"], PGD(8 / 255, steps=3)),
        (["--c.attack=FGSM", "--c.attack.norm=l2", "--c.attack.eps=1.5"], FGSM(1.5, "l2")),
        (["--c.attack=PGD", "--c.attack.losses=[margin]"], PGD(losses=("margin",))),
    ],
)
def test_the_command_line_builds_typed_attacks_by_short_name(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AdversarialAccuracy, "c", fail_untyped=False)
    parsed = parser.parse_args(arguments)
    again = parser.parse_string(parser.dump(parsed))
    assert parser.instantiate_classes(parsed).c.attack == expected
    assert parser.instantiate_classes(again).c.attack == expected


def test_the_command_line_builds_torchattacks_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AdversarialAccuracy, "c", fail_untyped=False)
    parsed = parser.parse_args(["--c.attack=torchattacks.APGD", "--c.attack.norm=L2", "--c.attack.eps=0.5"])
    callback = parser.instantiate_classes(parsed).c
    victim, dataset = Victim(), data(20)
    logged = make_trainer(callback).validate(victim, loader(dataset), verbose=False)[0]
    assert 0 <= logged["val/adv_acc"] < 1
    assert callback.report_sections()[0].tables[0].rows[0][:3] == ("torchattacks.APGD", "l2", "0.5")
