from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import CraftFlips, Report
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    FlipList,
    FromFile,
    LabelFlips,
    Medoids,
    NewClass,
    ToClass,
)
from tests.callbacks.craft_flips_runs import DATA, IMAGES, LABELS, POISON, LeastSure, data_of, model_of
from tests.lightning_runs import PACKAGES, trainer_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:`ckpt_path`"),
]


def crafted_by_hand(model: Any, count: int = 3) -> list[int]:
    """The same points without any of our code but the definition."""
    with torch.no_grad():
        sure = model.eval()(IMAGES).softmax(dim=1)[torch.arange(90), LABELS]
    return sorted(i for c in range(3) for i in sorted(range(c, 90, 3), key=lambda i: float(sure[i]))[:count])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_list_comes_from_the_trained_network(package, tmp_path):
    torch.manual_seed(0)
    callback, model = CraftFlips(POISON, seed=4), model_of(package)
    trainer_of(package, tmp_path, callback).fit(model, data_of(package))
    assert callback.flips.index.tolist() == crafted_by_hand(model)
    written = FlipList.read(tmp_path / "report" / "crafted_flips.csv")
    assert written.same_flips(callback.flips)
    assert written.provenance["seed"] == 4
    assert written.provenance["strategy"] == "LabelFlips(LeastSure(per_class=3), NextClass())"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_list_is_usable_at_once(package, tmp_path):
    trainer_of(package, tmp_path, CraftFlips(POISON, file=str(tmp_path / "mine.csv"))).fit(
        model_of(package), data_of(package)
    )
    assert not (tmp_path / "report").exists()
    data = PoisonedDataModule(data_of(package), LabelFlips(FromFile(str(tmp_path / "mine.csv"))))
    trainer_of(package, tmp_path / "poisoned").fit(model_of(package), data)
    assert data.flips.same_flips(FlipList.read(tmp_path / "mine.csv"))
    other = TensorDataset(IMAGES.flip(0), LABELS.flip(0))
    data = PoisonedDataModule(data_of(package, other), LabelFlips(FromFile(str(tmp_path / "mine.csv"))))
    with pytest.raises(UserError, match="was drawn for other data"):
        trainer_of(package, tmp_path / "other").fit(model_of(package), data)


def test_the_run_is_as_it_would_be_without(tmp_path):
    ends = []
    for callbacks in ([], [CraftFlips(POISON)]):
        torch.manual_seed(0)
        model = model_of(pytorch_lightning)
        trainer_of(pytorch_lightning, tmp_path, *callbacks).fit(model, data_of(pytorch_lightning))
        flags = [part.training for part in model.modules()], [weight.requires_grad for weight in model.parameters()]
        ends.append((torch.get_rng_state(), flags, {key: value.clone() for key, value in model.state_dict().items()}))
    without, with_crafting = ends
    assert torch.equal(without[0], with_crafting[0])
    assert without[1] == with_crafting[1]
    assert all(torch.equal(value, with_crafting[2][key]) for key, value in without[2].items())


def test_a_module_that_cannot_be_copied_is_lent_and_left_as_it_was(tmp_path):
    model = model_of(pytorch_lightning)
    model.net[1].eval()
    model.activation = model(IMAGES[:2])  # no leaf: deepcopy refuses it
    callback = CraftFlips(POISON)
    trainer_of(pytorch_lightning, tmp_path, callback).fit(model, data_of(pytorch_lightning))
    assert len(callback.flips) == 9
    assert model.net[2].training
    assert all(weight.requires_grad for weight in model.parameters())


def test_two_in_one_run_share_inputs_and_network(tmp_path):
    reads = []

    class Counted(TensorDataset):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    callbacks = [
        CraftFlips(POISON, name="three"),
        CraftFlips(LabelFlips(LeastSure(per_class=5), ToClass(2)), name="five"),
    ]
    model = model_of(pytorch_lightning)
    data = data_of(pytorch_lightning, Counted(IMAGES, LABELS))
    trainer_of(pytorch_lightning, tmp_path, *callbacks).fit(model, data)
    three, five = (FlipList.read(tmp_path / "report" / f"crafted_flips_{name}.csv") for name in ("three", "five"))
    assert (len(three), len(five)) == (9, 10)
    assert set(five.new_label.tolist()) == {2}
    assert len(reads) < 2 * 90 + 90 + 2 * 30  # two epochs, all inputs once, a few labels and pictures
    with pytest.raises(UserError, match="2 CraftFlips callbacks have the name 'three'"):
        trainer_of(pytorch_lightning, tmp_path, callbacks[0], CraftFlips(POISON, 1, name="three")).fit(model, data)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_resumed_run_crafts_what_the_uninterrupted_one_does(package, tmp_path):
    def fit(epochs: int, ckpt_path: Any = None, *callbacks: Any) -> Any:
        torch.manual_seed(0)
        model = model_of(package)
        model.net[2].p = 0.0
        data = PoisonedDataModule(data_of(package), None, seed=0)  # an order that depends on seed and epoch only
        trainer = trainer_of(package, tmp_path, *callbacks, max_epochs=epochs)
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return trainer

    whole, first, second = CraftFlips(POISON), CraftFlips(POISON), CraftFlips(POISON)
    fit(3, None, whole)
    trainer = fit(1, None, first)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert torch.load(tmp_path / "one.ckpt", weights_only=True)["callbacks"]
    fit(3, tmp_path / "one.ckpt", second)
    assert second.flips.same_flips(whole.flips)
    assert not first.flips.same_flips(whole.flips)


def test_a_finished_run_is_crafted_from(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path)
    trainer.fit(model, data_of(pytorch_lightning))
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    late, blank = CraftFlips(POISON), model_of(pytorch_lightning)
    trainer = trainer_of(pytorch_lightning, tmp_path, late)
    trainer.fit(blank, data_of(pytorch_lightning), ckpt_path=tmp_path / "done.ckpt")
    assert late.flips.index.tolist() == crafted_by_hand(model)
    # A list in the checkpoint is not crafted again.
    trainer.save_checkpoint(tmp_path / "crafted.ckpt")
    (tmp_path / "report" / "crafted_flips.csv").unlink()
    again = CraftFlips(POISON)
    monkeypatch.setattr(LeastSure, "scores", lambda *_: pytest.fail("crafted again"))
    trainer = trainer_of(pytorch_lightning, tmp_path, again)
    trainer.fit(model_of(pytorch_lightning), data_of(pytorch_lightning), ckpt_path=tmp_path / "crafted.ckpt")
    assert again.flips.same_flips(late.flips)
    assert FlipList.read(tmp_path / "report" / "crafted_flips.csv").same_flips(late.flips)


def test_loaders_without_a_data_module(tmp_path):
    callback, model = CraftFlips(LabelFlips(LeastSure(per_class=2), NewClass())), model_of(pytorch_lightning)
    trainer_of(pytorch_lightning, tmp_path, callback).fit(model, DataLoader(DATA, batch_size=8, shuffle=True))
    assert callback.flips.index.tolist() == crafted_by_hand(model, 2)
    assert set(callback.flips.new_label.tolist()) == {3}


def test_logits_within_a_mapping_and_a_forward_that_keeps_its_module(tmp_path):
    model = model_of(pytorch_lightning)
    plain = model.net
    model.forward = lambda inputs: {"logits": plain(inputs)}  # the copy's forward runs the module's own layers
    model.training_step = lambda batch: cross_entropy(plain(batch[0]), batch[1])
    callback = CraftFlips(POISON, output="logits")
    trainer_of(pytorch_lightning, tmp_path, callback).fit(model, data_of(pytorch_lightning))
    assert len(callback.flips) == 9
    assert plain[1].num_batches_tracked == 2 * 12


def test_a_trial_run_writes_nothing(tmp_path):
    callback = CraftFlips(POISON, file=str(tmp_path / "flips.csv"))
    trainer_of(pytorch_lightning, tmp_path, callback, fast_dev_run=True).fit(
        model_of(pytorch_lightning), data_of(pytorch_lightning)
    )
    assert callback.flips is None
    assert not (tmp_path / "flips.csv").exists()


def test_the_report_shows_the_list(tmp_path, capsys):
    callback = CraftFlips(POISON, name="least-sure")
    trainer_of(pytorch_lightning, tmp_path, callback, Report()).fit(
        model_of(pytorch_lightning), data_of(pytorch_lightning)
    )
    (section,) = callback.report_sections()
    assert section.title == "Crafted flips (least-sure)"
    assert section.tables[0].rows == ((0, 1, 3), (1, 2, 3), (2, 0, 3))
    assert (
        "9 flipped labels by LabelFlips(LeastSure(per_class=3), NextClass()) with seed 0, chosen with"
        in section.text[0]
    )
    without = CraftFlips(LabelFlips(Medoids(per_class=1)))
    trainer_of(pytorch_lightning, tmp_path / "b", without).fit(model_of(pytorch_lightning), data_of(pytorch_lightning))
    assert without.report_sections()[0].text[0].endswith("with seed 0.")
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files >= {"crafted_flips_least-sure.csv", "crafted-flips-least-sure.png", "crafted-points-least-sure.png"}


def test_flips_to_classes_that_nobody_has_are_told(tmp_path):
    gaps = TensorDataset(IMAGES, LABELS * 2)
    model = model_of(pytorch_lightning)
    model.net[-1] = torch.nn.Linear(16, 5)
    callback = CraftFlips(LabelFlips(LeastSure(count=4, classes=[2])))
    with pytest.warns(UserWarning, match="flips lead to class 3, which no training point has: the labels are 0, 2, 4"):
        trainer_of(pytorch_lightning, tmp_path, callback).fit(model, data_of(pytorch_lightning, gaps))
    assert callback.flips.new_label.tolist() == [3] * 4
