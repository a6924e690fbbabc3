"""Several attacks at once, sweeps, targets by rule."""

import functools
from dataclasses import dataclass, replace

import pytest
import pytorch_lightning as pl
import torch
import torchattacks
from attack_runs import CLASSES, Scorer, data, fooled, loader, make_trainer, validate
from torch.utils.data import TensorDataset

from lightning_poison.attacks import FGSM, PGD, Attack, AttackResult
from lightning_poison.attacks.robustness_curve import robustness_curve
from lightning_poison.callbacks import AdversarialAccuracy
from lightning_poison.errors import UserError
from lightning_poison.plots.style import new_figure
from tests.lightning_runs import notes_of


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
    notes = notes_of(callback)
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
    by_key = {metric.key: metric for metric in callback.report_metrics()}
    assert by_key["val/adv_acc_x_eps_0.05"].label == "Adversarial accuracy, x at eps 0.05 (validation)"
    assert [metric.radius for metric in by_key.values() if metric.swept] == [0.01, 0.03, 0.05]
    assert {metric.series for metric in by_key.values() if metric.swept} == {"adv_acc_x"}
    assert notes_of(callback)["val/adv_acc_x_eps_0.05"] == "PGD, linf, eps 0.05 (12.75/255), 6 steps"


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
