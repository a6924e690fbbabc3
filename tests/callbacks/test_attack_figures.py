"""Attackers with inputs of their own, and figures of the attacks."""

import functools
from dataclasses import dataclass, replace

import pytest
import torch
import torchattacks
from attack_runs import Scorer, data, loader, make_trainer, validate
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_poison.attacks import PGD, Attack, AttackResult
from lightning_poison.callbacks import AdversarialAccuracy
from lightning_poison.callbacks.accuracy.counts import AttackedSamples
from lightning_poison.callbacks.accuracy.sections import masking_warnings
from lightning_poison.errors import UserError
from lightning_poison.trainer.positions import draw_positions


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
    drawn = range(51) if max_samples is None else draw_positions(51, max_samples, dataset.tensors[1]).tolist()
    expected = set(drawn) - set(own)
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

    with pytest.raises(UserError, match="needs an evaluation DataLoader whose samples are known by their position"):
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
    sentence = r"gradient is exactly zero on 11\.8 % .*use losses margin or dlr.*torchattacks\.Square"
    with pytest.warns(UserWarning, match=sentence):
        validate(data(51), callback)
    (section,) = callback.report_sections()
    assert section.text[1].startswith("Mind that the gradient is exactly zero on 11.8 % of the val samples that tell")
    tenth = AttackedSamples("val", 0, 50, 50, 50, details={"pgd": {"zero_gradient": (0.1, 50)}})
    assert masking_warnings(tenth) == []


def test_attacks_without_a_radius_tell_the_size_of_what_they_change():
    dataset, victim = data(20), Scorer()
    # With its own overshoot it stops so near the boundary that rounding decides which side it is on.
    maker = functools.partial(torchattacks.DeepFool, steps=10, overshoot=0.5)
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
