from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import CraftFlips, FlipLabels, Report
from lightning_poison.datamodules import PoisonedDataModule, PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    Candidates,
    FlipList,
    FromFile,
    LabelFlips,
    Medoids,
    NewClass,
    PlacedPoisons,
    RandomPoints,
    ScoreSelector,
    ToClass,
)
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network, surrogate_scores
from tests import lightning_runs
from tests.lightning_runs import PACKAGES, small_weights, trainer_of

LABELS = torch.arange(90) % 3
STREAM = torch.Generator().manual_seed(0)
IMAGES = 0.3 * torch.rand(90, 1, 4, 4, generator=STREAM) + 0.7 * (torch.arange(4) == LABELS[:, None]).view(90, 1, 1, 4)
DATA = TensorDataset(IMAGES, LABELS)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:`ckpt_path`"),
]


@dataclass(frozen=True)
class LeastSure(ScoreSelector):
    """The points to which the network that came along gives the lowest score of their label."""

    surrogate: Surrogate | None = None

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        training_set = candidates.training_set
        assert training_set.network is not None
        network = surrogate_network(None, training_set, seed)
        torch.rand(3)  # a careless strategy
        scores = surrogate_scores(network, training_set.inputs[index]).log_softmax(dim=1)
        return -scores.gather(1, training_set.labels[index, None])[:, 0]


POISON = LabelFlips(LeastSure(per_class=3))


def model_of(package: Any) -> Any:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.1), small_weights(nn.Linear(16, 3)))
    return lightning_runs.model_of(package, net, lr=0.3)


def data_of(package: Any, dataset: Any = DATA) -> Any:
    return lightning_runs.data_of(package, dataset)


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
def test_what_is_refused_at_the_start(package, tmp_path):
    def refused(match: str, *callbacks: Any, data: Any = None, **arguments: Any) -> None:
        model = model_of(package)
        model.training_step = lambda *_: pytest.fail("training began")
        with pytest.raises(UserError, match=match):
            trainer_of(package, tmp_path, *callbacks, **arguments).fit(model, data or data_of(package))

    poison = LabelFlips(RandomPoints(per_class=2))
    refused("needs a run on clean labels, got poison LabelFlips", CraftFlips(POISON), FlipLabels(poison))
    refused("clean labels, got poison", CraftFlips(POISON), data=PoisonedDataModule(data_of(package), poison))
    poisoned = FlipList(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    refused("got one with 1 poisons", CraftFlips(POISON), data=data_of(package, PoisonedDataset(DATA, poisoned)))
    refused("per_class must be at most .* class 0 has 30", CraftFlips(LabelFlips(LeastSure(per_class=31))))
    refused(r"classes must lie in \[0, 2\], got 7", CraftFlips(LabelFlips(LeastSure(per_class=1, classes=[7]))))
    refused(r"ToClass.label must lie in \[0, 2\]", CraftFlips(LabelFlips(LeastSure(per_class=1), ToClass(5))))
    several = data_of(package)
    several.train_dataloader = lambda: [DataLoader(DATA), DataLoader(DATA)]
    refused("must return one torch DataLoader", CraftFlips(POISON), data=several)
    (tmp_path / "blocked").write_text("a file")
    refused("cannot write", CraftFlips(POISON, file=str(tmp_path / "blocked" / "flips.csv")))
    refused("file must name a file, got the folder", CraftFlips(POISON, file=str(tmp_path)))
    refused("file must name a file, got the folder", CraftFlips(POISON, file=""))
    same = [CraftFlips(POISON, name=name, file=str(tmp_path / name / ".." / "a.csv")) for name in "cd"]
    refused("file must be another for each CraftFlips callback, got two that write .*a.csv", *same)
    points = CraftFlips(PlacedPoisons(0.5), name="points", file=str(tmp_path / "a.pt"))  # its table is a.csv
    refused("file must be another", CraftFlips(POISON, file=str(tmp_path / "a.csv")), points)
    refused("per_class must be at most", CraftFlips(LabelFlips(LeastSure(per_class=31)), file=f"{tmp_path}/x/y/z.csv"))
    assert {path.name for path in tmp_path.iterdir()} == {"blocked"}


def test_arguments_that_make_no_sense():
    with pytest.raises(UserError, match="poison must be a Poison"):
        CraftFlips(LeastSure(per_class=3))
    with pytest.raises(UserError, match="name must be letters"):
        CraftFlips(POISON, name="a/b")
    with pytest.raises(UserError, match=r"name must be letters, .* got 3"):
        CraftFlips(POISON, name=3)
    with pytest.raises(UserError, match=r"file must be a path such as flips.csv, got 3"):
        CraftFlips(POISON, file=3)
    with pytest.raises(UserError, match=r"output must be a position or a name in what the model returns, got 1.5"):
        CraftFlips(POISON, output=1.5)
    with pytest.raises(UserError, match="seed must be an integer"):
        CraftFlips(POISON, seed=-1)


def test_a_network_that_has_learnt_nothing(tmp_path):
    model = model_of(pytorch_lightning)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    nn.init.zeros_(model.net[3].weight)
    with pytest.raises(UserError, match=r"the network gets .* no more than guessing"):
        trainer_of(pytorch_lightning, tmp_path, CraftFlips(POISON)).fit(model, data_of(pytorch_lightning))
    assert not (tmp_path / "report").exists()


def test_a_model_without_class_scores_is_refused_before_it_is_trained(tmp_path):
    def fitted(*callbacks: Any, before: str | None = None) -> Any:
        torch.manual_seed(0)
        model = model_of(pytorch_lightning)
        model.forward = partial(as_mapping, model.net)
        model.training_step = lambda batch: (
            pytest.fail("training began") if before else cross_entropy(model.net(batch[0]), batch[1])
        )
        trainer = trainer_of(pytorch_lightning, tmp_path, *callbacks)
        if before:
            with pytest.raises(UserError, match=before):
                trainer.fit(model, data_of(pytorch_lightning))
        else:
            trainer.fit(model, data_of(pytorch_lightning))
        return model

    fitted(CraftFlips(POISON), before=r"the network Model cannot be used: .* got dict; .*\(output: 0, or a name\)")
    fitted(CraftFlips(POISON, output="logit"), before="the network Model cannot be used: .* 'logit' for a mapping with")
    fitted(CraftFlips(LabelFlips(Medoids(per_class=1))))  # it asks no network
    ends = [fitted(*callbacks).state_dict() for callbacks in ([], [CraftFlips(POISON, output="logits")])]
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def as_mapping(net: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    return {"logits": net(inputs)}


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
