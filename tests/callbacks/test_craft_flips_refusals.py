from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_poison.callbacks import CraftFlips, FlipLabels
from lightning_poison.datamodules import PoisonedDataModule, PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    FlipList,
    LabelFlips,
    Medoids,
    PlacedPoisons,
    RandomPoints,
    ToClass,
)
from tests.callbacks.craft_flips_runs import DATA, POISON, LeastSure, as_mapping, data_of, model_of
from tests.lightning_runs import PACKAGES, trainer_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:`ckpt_path`"),
]


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
    with pytest.raises(UserError, match=r"^LabelFlips\(LeastSure\(.*\)\): the network gets .* no more than guessing"):
        trainer_of(pytorch_lightning, tmp_path, CraftFlips(POISON)).fit(model, data_of(pytorch_lightning))
    assert not (tmp_path / "report").exists()


def test_a_strategy_that_fails_at_the_end_costs_no_other_its_list(tmp_path):
    model = model_of(pytorch_lightning)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    nn.init.zeros_(model.net[3].weight)
    others = [CraftFlips(LabelFlips(kind(per_class=2)), name=kind.__name__) for kind in (RandomPoints, Medoids)]
    callbacks = [others[0], CraftFlips(POISON, name="one"), CraftFlips(POISON, seed=1, name="two"), others[1]]
    with pytest.raises(UserError, match=r"^LabelFlips\(LeastSure\(.*\)\): the network gets"):
        trainer_of(pytorch_lightning, tmp_path, *callbacks).fit(model, data_of(pytorch_lightning))
    for other in others:
        assert FlipList.read(tmp_path / "report" / f"crafted_flips_{other.name}.csv").index.equal(other.flips.index)
    assert len(list((tmp_path / "report").glob("[!.]*"))) == 2


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
