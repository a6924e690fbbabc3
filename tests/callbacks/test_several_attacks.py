"""Several attacks at once, sweeps, targets by rule, attackers with inputs of their own, figures of the attacks."""

import functools
import re
from dataclasses import dataclass, replace

import pytest
import pytorch_lightning as pl
import torch
import torchattacks
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_poison.attacks import FGSM, PGD, Attack, AttackResult
from lightning_poison.attacks.robustness_curve import robustness_curve
from lightning_poison.callbacks import AdversarialAccuracy
from lightning_poison.callbacks.accuracy.attacked_samples import AttackedSamples
from lightning_poison.callbacks.accuracy.tables import masking_warnings
from lightning_poison.errors import UserError
from lightning_poison.plots.style import new_figure

CLASSES = 4


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 1, 6, 6, generator=generator)
    ways = torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(9))
    return TensorDataset(inputs, ((inputs - 0.5).flatten(1) @ ways).argmax(1))


class Scorer(pl.LightningModule):
    """Right on most points."""

    def __init__(self, outputs=CLASSES, form=None):
        super().__init__()
        ways = torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(9))
        ways = ways + 0.3 * torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(1))
        self.layer, self.form = nn.Linear(36, outputs), form
        with torch.no_grad():
            self.layer.weight.zero_()[:CLASSES] = ways.T
            self.layer.bias.fill_(-9.0)[:CLASSES] = -0.5 * ways.sum(dim=0)

    def forward(self, inputs):
        scores = self.layer(inputs.flatten(1))
        return scores if self.form is None else self.form(scores)

    def validation_step(self, batch, *_):
        pass

    def test_step(self, batch, *_):
        pass


def loader(dataset, batch_size=16):
    return DataLoader(dataset, batch_size)


def make_trainer(*callbacks):
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def validate(dataset, *callbacks, victim=None, **arguments):
    victim = Scorer() if victim is None else victim
    return make_trainer(*callbacks).validate(victim, loader(dataset, **arguments), verbose=False)[0]


def fooled(attack, dataset, targets=None, victim=None):
    return attack(Scorer() if victim is None else victim, *dataset.tensors, targets=targets).fooled


# --- several at once -------------------------------------------------------------------------------------------------


def test_the_worst_case_is_the_share_that_withstands_every_one():
    attacks = [PGD(0.03, steps=5), PGD(0.16, norm="l2", steps=5), FGSM(0.03)]
    dataset = data(51)
    logged = validate(dataset, AdversarialAccuracy(attacks))
    assert list(logged) == ["val/adv_acc", "val/adv_acc_pgd-linf", "val/adv_acc_pgd-l2", "val/adv_acc_fgsm"]
    each = torch.stack([fooled(attack, dataset) for attack in attacks])
    assert list(logged.values())[1:] == pytest.approx((~each).double().mean(dim=1).tolist(), abs=1e-7)
    assert logged["val/adv_acc"] == pytest.approx(float((~each.any(dim=0)).double().mean()), abs=1e-7)


@dataclass(frozen=True)
class Choosy(Attack):
    """Claims to fool every second or third sample as it stands."""

    eps: float = 0.1
    norm: str = "linf"
    number: int = 2

    def _run(self, model, samples):
        return AttackResult(samples.inputs, samples.ids % self.number == 0, "any iterate")


def test_points_that_withstand_one_of_two_withstand_not_both():
    logged = validate(data(60), AdversarialAccuracy([Choosy(number=2), Choosy(number=3)]))
    assert list(logged.values()) == pytest.approx([20 / 60, 30 / 60, 40 / 60], abs=1e-7)
    dataset = data(60)
    with torch.no_grad():  # a curve counts what is wrong anyway as broken, whatever an attack claims
        dataset = TensorDataset(dataset.tensors[0], Scorer()(dataset.tensors[0]).argmax(dim=1))
    swept = validate(dataset, AdversarialAccuracy([Choosy(number=2), Choosy(number=3)], eps_sweep=[0.05]))
    assert swept["val/adv_acc_eps_0.05"] == pytest.approx(20 / 60, abs=1e-7)


def test_names_of_several_of_one_kind():
    foreign = [functools.partial(torchattacks.PGD, eps=eps) for eps in (0.03, 0.3)]
    logged = validate(data(10), AdversarialAccuracy([PGD(0.03, steps=2), PGD(0.3, norm="l2", steps=2), *foreign]))
    names = ("pgd-linf-0.03", "pgd-l2-0.3", "torchattacks-pgd-linf-0.03", "torchattacks-pgd-linf-0.3")
    assert list(logged)[1:] == [f"val/adv_acc_{name}" for name in names]


def test_a_list_of_one_is_as_the_one():
    dataset, attack = data(30), PGD(0.05, steps=4)
    single, listed = AdversarialAccuracy(attack), AdversarialAccuracy([attack])
    assert validate(dataset, single) == validate(dataset, listed)
    assert single.state_key == listed.state_key
    assert listed.attack == attack


def test_the_report_has_a_row_for_each():
    callback = AdversarialAccuracy([PGD(0.03, steps=5), FGSM(0.03)], target=2, name="x")
    validate(data(51), callback)
    (section,) = callback.report_sections()
    attacks, results, *_ = section.tables
    assert [row[:2] for row in attacks.rows] == [("pgd", "PGD"), ("fgsm", "FGSM")]
    assert [row[1] for row in results.rows] == ["all of them (worst case)", "pgd", "fgsm"]
    assert section.text[0] == "Share of the points that no attack drives to class 2."
    notes = callback.report_notes()
    assert set(notes) == {"val/adv_acc_to_2_x", "val/adv_acc_to_2_x_pgd", "val/adv_acc_to_2_x_fgsm"}
    assert notes["val/adv_acc_to_2_x"].startswith("the worst case of PGD, linf, eps 0.03")
    assert notes["val/adv_acc_to_2_x_fgsm"] == "FGSM, linf, eps 0.03 (7.65/255), aimed at class 2"


def test_keys_of_one_callback_must_not_be_anothers():
    several, named = AdversarialAccuracy([PGD(), FGSM()]), AdversarialAccuracy(FGSM(), name="fgsm")
    with pytest.raises(UserError, match="2 AdversarialAccuracy callbacks log adv_acc_fgsm; give each its own name"):
        validate(data(8), several, named)
    swept, named = AdversarialAccuracy(PGD(), eps_sweep=[0.05]), AdversarialAccuracy(FGSM(), name="eps_0.05")
    with pytest.raises(UserError, match=r"log adv_acc_eps_0\.05; give each"):
        validate(data(8), named, swept)


def test_an_empty_list_is_refused():
    with pytest.raises(UserError, match="attack must name at least one attack, got an empty list"):
        AdversarialAccuracy([])


# --- targets by rule -------------------------------------------------------------------------------------------------


def test_the_next_class_is_one_of_the_clean_classes():
    dataset, attack = data(51), PGD(0.1, steps=5)
    labels = dataset.tensors[1]
    expected = float((~fooled(attack, dataset, (labels + 1) % CLASSES)).double().mean())
    logged = validate(dataset, AdversarialAccuracy(attack, target="next"))
    assert logged == {"val/adv_acc_to_next": pytest.approx(expected, abs=1e-7)}

    class Poisoned(pl.LightningDataModule):  # one class more than the clean data have
        num_classes, clean_num_classes = CLASSES + 1, CLASSES

        def val_dataloader(self):
            return loader(dataset)

    callback = AdversarialAccuracy(attack, target="next", source=CLASSES - 1)
    logged = make_trainer(callback).validate(Scorer(CLASSES + 1), datamodule=Poisoned(), verbose=False)[0]
    rows = labels == CLASSES - 1
    part = TensorDataset(*(tensor[rows] for tensor in dataset.tensors))
    withstood = ~fooled(attack, part, torch.zeros_like(part.tensors[1]), Scorer(CLASSES + 1))
    assert logged == {"val/adv_acc_3_to_next": pytest.approx(float(withstood.double().mean()), abs=1e-7)}
    assert 0 < expected < 1


def test_the_least_likely_class():
    dataset, attack, victim = data(51), PGD(0.3, steps=5), Scorer()
    with torch.no_grad():
        least = victim(dataset.tensors[0]).argmin(dim=1)
    kept = least != dataset.tensors[1]
    part = TensorDataset(*(tensor[kept] for tensor in dataset.tensors))
    expected = float((~fooled(attack, part, least[kept])).double().mean())
    logged = validate(dataset, AdversarialAccuracy(attack, target="least_likely"))
    assert logged == {"val/adv_acc_to_least_likely": pytest.approx(expected, abs=0.05)}


@pytest.mark.parametrize(("target", "message"), [("nxt", "target must be one of next, least_likely, got nxt")])
def test_bad_targets(target, message):
    with pytest.raises(UserError, match=message):
        AdversarialAccuracy(target=target)


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_logs_the_curve():
    dataset, radii, attack = data(51), [0.01, 0.03, 0.05], PGD(0.03, steps=6)
    callback = AdversarialAccuracy(attack, eps_sweep=radii, name="x")
    logged = validate(dataset, callback)
    assert list(logged) == ["val/adv_acc_x", *(f"val/adv_acc_x_eps_{radius}" for radius in radii)]
    curve = robustness_curve(attack, radii, Scorer(), *dataset.tensors)
    assert list(logged.values())[1:] == pytest.approx(curve.accuracy.tolist(), abs=1e-7)
    separate = [float((~fooled(replace(attack, eps=radius), dataset)).double().mean()) for radius in radii]
    assert (torch.tensor(list(logged.values())[1:]) <= torch.tensor(separate) + 1e-6).all()
    assert logged["val/adv_acc_x"] == pytest.approx(separate[1], abs=1e-7)
    (section,) = callback.report_sections()
    (figure,) = section.figures
    assert figure.file == "robustness-curve-val-adv_acc_x.png"
    table = section.tables[-1]
    assert table.columns[:3] == ("eps, pixel units", "eps, grey levels", "adversarial accuracy")
    assert [row[0] for row in table.rows] == ["0.01", "0.03", "0.05"]
    assert callback.report_notes()["val/adv_acc_x_eps_0.05"] == "PGD, linf, eps 0.05 (12.75/255), 6 steps"


def test_a_sweep_of_several_is_the_worst_case_and_each_in_the_report():
    attacks = [PGD(0.03, steps=4), FGSM(0.03)]
    callback = AdversarialAccuracy(attacks, eps_sweep=[0.02, 0.06])
    logged = validate(data(51), callback)
    curves = [robustness_curve(attack, [0.02, 0.06], Scorer(), *data(51).tensors).broken_at for attack in attacks]
    worst = torch.stack(curves).amin(dim=0)
    for place, radius in enumerate([0.02, 0.06]):
        expected = float((worst > place).double().mean())
        assert logged[f"val/adv_acc_eps_{radius}"] == pytest.approx(expected, abs=1e-7)
    (section,) = callback.report_sections()
    assert section.tables[-1].columns[2:5] == ("worst case", "pgd", "fgsm")


@pytest.mark.parametrize("target", [None, "next"])
def test_only_an_untargeted_curve_begins_at_natural_accuracy(target, monkeypatch):
    drawn = []
    plots = "lightning_poison.plots.robustness_curve_figure"
    monkeypatch.setattr(plots, lambda *_, **words: drawn.append(words) or new_figure(2))
    callback = AdversarialAccuracy(PGD(0.03, steps=2), target=target, eps_sweep=[0.01, 0.03])
    validate(data(30), callback)
    (figure,) = callback.report_sections()[0].figures
    assert drawn[0]["natural_accuracy"] == (None if target else pytest.approx(callback._latest["val"].correct / 30))
    assert drawn[0]["ylabel"] == ("not driven to the target" if target else "accuracy")
    assert ("not driven to the target" in figure.caption) == (target is not None)


def test_an_attack_is_listed_once():
    twice = [functools.partial(torchattacks.PGD, eps=eps) for eps in (0.1, 0.1)]
    for attacks in (twice, [PGD(0.1), FGSM(), PGD(0.1)]):
        with pytest.raises(UserError, match="attack must not list one twice, got two equal PGD; leave one out"):
            AdversarialAccuracy(attacks)
    AdversarialAccuracy([PGD(0.1), PGD(0.1, seed=1), functools.partial(torchattacks.PGD, eps=0.2), *twice[:1]])


# --- mistakes that show before any training --------------------------------------------------------------------------


@dataclass(frozen=True)
class Fussy(Choosy):
    """Refuses samples that count as fooled already, and whatever else."""

    def _run(self, model, samples):
        assert model(samples.inputs).argmax(1).equal(samples.labels)
        raise UserError("such samples can't be attacked")


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (AdversarialAccuracy(Fussy()), "such samples can't be attacked"),
        (AdversarialAccuracy(target=4), "target must be one of the victim's classes 0 to 3, got 4"),
        (AdversarialAccuracy(target=1, source=4), "source must be one of the victim's classes 0 to 3, got 4"),
        (AdversarialAccuracy(output=1), "output must say where in the model's output the logits stand, got 1"),
    ],
)
def test_the_sanity_check_tries_the_attacks_out(callback, message):
    class Untrained(Scorer):
        def training_step(self, *_):
            raise AssertionError("trained")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    inputs, labels = data(20).tensors
    dataset = TensorDataset(inputs, (labels + 1) % CLASSES)  # an untrained victim errs on most samples
    with pytest.raises(UserError, match=message):
        make_trainer(callback).fit(Untrained(), loader(dataset), loader(dataset))


def test_sweeps_that_cannot_be():
    with pytest.raises(UserError, match="eps_sweep must increase"):
        AdversarialAccuracy(PGD(), eps_sweep=[0.2, 0.1])
    with pytest.raises(UserError, match="eps_sweep needs attacks of one norm, got l2, linf; use one callback for each"):
        AdversarialAccuracy([PGD(), PGD(norm="l2")], eps_sweep=[0.1])
    with pytest.raises(UserError, match="eps_sweep must be a list of radii"):
        AdversarialAccuracy(PGD(), eps_sweep=[])
    with pytest.raises(UserError, match=r"whose radius can be set, got torchattacks\.PGD"):
        validate(data(8), AdversarialAccuracy(torchattacks.PGD, eps_sweep=[0.1]))


# --- attackers with inputs of their own ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learning(Attack):
    """Fools nobody; remembers what it was prepared with."""

    eps: float = 0.1
    norm: str = "linf"
    wanted: int = 5
    learnt: Tensor | None = None
    log: tuple = ()

    @property
    def own_inputs(self):
        return self.wanted

    def prepare(self, model, inputs):
        assert inputs.requires_grad is False
        assert not inputs.is_inference()
        self.log[0].append(inputs)
        return replace(self, learnt=inputs)

    def _run(self, model, samples):
        assert self.learnt is not None
        self.log[1].append(samples.ids)
        return AttackResult(samples.inputs, torch.zeros_like(samples.labels, dtype=torch.bool), "any iterate")


@pytest.mark.parametrize("max_samples", [None, 20, 48])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_own_inputs_are_taken_out_of_the_evaluation(stage, max_samples):
    dataset, log = data(51), ([], [])
    callback = AdversarialAccuracy(Learning(log=log), max_samples=max_samples)
    trainer = make_trainer(callback)
    for _ in range(2):
        getattr(trainer, stage)(Scorer(), loader(dataset), verbose=False)
    assert len(log[0]) == 2, "once an evaluation"
    assert log[0][0].equal(log[0][1])
    assert log[0][0].shape == (5, 1, 6, 6)
    same = (log[0][0][:, None] == dataset.tensors[0]).flatten(2).all(dim=2)
    own = same.nonzero()[:, 1].tolist()
    assert len(own) == 5
    evaluated = torch.cat(log[1]).tolist()
    expected = set(range(51 if max_samples is None else max_samples)) - set(own)
    assert sorted(evaluated) == sorted([*expected, *expected])
    if max_samples == 20:
        assert len(expected) == 20


def test_own_inputs_need_samples_and_an_order():
    with pytest.raises(UserError, match="needs 51 inputs of its own besides the evaluated ones, got 51 samples in all"):
        validate(data(51), AdversarialAccuracy(Learning(wanted=51, log=([], []))))

    victim = Scorer()
    victim.training_step = lambda *_: pytest.fail("it could have been known before the training")
    victim.configure_optimizers = lambda: torch.optim.SGD(victim.parameters(), 0.1)
    trainer = make_trainer(AdversarialAccuracy(Learning(wanted=60, log=([], [])), every_n_epochs=None))
    with pytest.raises(UserError, match="got 51 samples in all"):
        trainer.fit(victim, loader(data(16)), loader(data(51)))

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(*data(20).tensors, strict=True))

    with pytest.raises(UserError, match="needs an evaluation DataLoader that reads a data set with indices in its ord"):
        validate(Stream(), AdversarialAccuracy(Learning(log=([], []))))


# --- figures of the attacks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling(Attack):
    """Fools nobody, and tells something of each sample."""

    eps: float = 0.1
    norm: str = "linf"
    flat: float = 0.0

    def _run(self, model, samples):
        ids = samples.ids.float()
        nan = torch.full_like(ids, torch.nan)
        details = {
            "queries": ids,
            "survival": torch.where(samples.ids % 2 == 0, 0.25, nan),
            "zero_gradient": (ids < self.flat).float(),
            "agreement": nan,
            "unheard-of": ids,
        }
        return AttackResult(samples.inputs, torch.zeros_like(samples.labels, dtype=torch.bool), "any iterate", details)


def test_figures_are_averaged_over_the_samples_that_have_one():
    callback = AdversarialAccuracy(Telling(flat=3))
    validate(data(51), callback)
    (section,) = callback.report_sections()
    table = next(table for table in section.tables if table.caption == "What the attacks needed and did")
    rows = {row[2]: row[3:] for row in table.rows}
    assert rows == {
        "queries to the victim per sample": (25.0, 51),
        "random transformations under which the example fools": ("25.0 %", 26),
        "samples whose first gradient is exactly zero": (f"{100 * 3 / 51:.1f} %", 51),
    }
    assert len(section.text) == 1


def test_gradient_masking_is_a_warning_with_a_remedy():
    callback = AdversarialAccuracy(Telling(flat=6))
    with pytest.warns(UserWarning, match=r"gradient is exactly zero on 11\.8 % .*try losses=.*torchattacks\.Square"):
        validate(data(51), callback)
    (section,) = callback.report_sections()
    assert section.text[1].startswith("Mind that the gradient is exactly zero on 11.8 % of the val samples that tell")
    tenth = AttackedSamples("val", 0, 50, 50, 50, details={"pgd": {"zero_gradient": (0.1, 50)}})
    assert masking_warnings(tenth) == []


def test_attacks_without_a_radius_tell_the_size_of_what_they_change():
    dataset, victim = data(20), Scorer()
    maker = functools.partial(torchattacks.DeepFool, steps=10)
    callback = AdversarialAccuracy(maker)
    validate(dataset, callback)
    inputs, labels = dataset.tensors
    rows = victim(inputs).argmax(1) == labels
    with torch.enable_grad():
        moved = (maker(victim)(inputs[rows], labels[rows]) - inputs[rows]).flatten(1)
    (section,) = callback.report_sections()
    table = next(table for table in section.tables if table.caption == "What the attacks needed and did")
    assert table.rows[0][3:] == (pytest.approx(float(moved.norm(dim=1).mean()), abs=1e-4), int(rows.sum()))


# --- a victim that returns more than logits --------------------------------------------------------------------------


def test_the_logits_are_found_in_what_the_victim_returns():
    dataset, attack = data(30), [PGD(0.05, steps=3), torchattacks.FGSM]
    expected = validate(dataset, AdversarialAccuracy(attack, target="next"))
    for form, output in ((lambda scores: (0, scores), 1), (lambda scores: {"logits": scores}, "logits")):
        callback = AdversarialAccuracy(attack, target="next", output=output)
        assert validate(dataset, callback, victim=Scorer(form=form)) == expected
    with pytest.raises(UserError, match="must return a tensor of class scores, got tuple"):
        validate(dataset, AdversarialAccuracy(), victim=Scorer(form=lambda scores: (scores,)))


# --- command line ----------------------------------------------------------------------------------------------------


def parsed(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AdversarialAccuracy, "c", fail_untyped=False)
    first = parser.parse_args([f"--c.{argument}" for argument in arguments])
    again = parser.parse_string(parser.dump(first))
    return [parser.instantiate_classes(config).c for config in (first, again)]


@pytest.mark.parametrize(
    "arguments",
    [
        ('attack=[{"class_path": "PGD", "init_args": {"eps": "8/255"}}, {"class_path": "torchattacks.Square"}]',),
        ("attack+=PGD", "attack.eps=8/255", "attack+=torchattacks.Square"),
    ],
)
def test_the_command_line_takes_several(arguments):
    for callback in parsed(*arguments):
        own, foreign = callback.attack
        assert own == PGD(8 / 255)
        assert isinstance(foreign(Scorer()), torchattacks.Square)


def test_the_command_line_reads_fractions_for_torchattacks():
    for callback in parsed("attack=torchattacks.FGSM", "attack.eps=8/255"):
        validate(data(8), callback)
        assert callback.report_sections()[0].tables[0].rows[0][2:4] == ("0.03137", "8/255")


def test_the_other_arguments():
    for callback in parsed("target=next", "eps_sweep=[0, 8/255, 0.1]", "output=logits"):
        assert (callback.target, callback.eps_sweep, callback.output) == ("next", [0, 8 / 255, 0.1], "logits")
    for callback in parsed("target=3", "output=1"):
        assert (callback.target, callback.output) == (3, 1)


def test_an_attack_that_torchattacks_lacks():
    with pytest.raises(Exception, match=re.escape("module 'torchattacks' has no attribute 'NoSuchAttack'")):
        parsed("attack=torchattacks.NoSuchAttack")
