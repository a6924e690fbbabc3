"""Models that are made for another call than ``forward(inputs)`` are told from models that fail."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_poison.attacks import (
    FGSM,
    LBFGS,
    PGD,
    ExpectationOverTransformations,
    FiniteDifferences,
    SelectOutput,
    adversarial_paths,
    class_scores,
)
from lightning_poison.errors import UserError


def images(count=5):
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(3), nn.Linear(108, 4)

    def scores(self, inputs):
        return self.last(self.norm(inputs).flatten(1))


class OfABatch(Base):
    def forward(self, batch):
        inputs, _ = batch
        return self.scores(inputs)


class OfItsFirst(Base):
    def forward(self, batch):
        return self.scores(batch[0])


class OfItsFirstFlat(Base):
    def forward(self, batch):
        return self.last(batch[0].reshape(-1, 108))


class OfTwo(Base):
    def forward(self, inputs, labels):
        return self.scores(inputs)


class NoForward(Base):
    pass


class NoForwardOfLightning(pl.LightningModule):
    pass


class Broken(Base):
    def forward(self, inputs):
        return self.scores(inputs[:, :2])


class CallsAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, inputs):
        return self.layers(inputs)


BATCH = r"^forward of {} must map inputs to logits, got one that takes a whole batch \(inputs, labels\); let it take"


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: SelectOutput(net, 0)], ids=["alone", "selected"])
@pytest.mark.parametrize("count", [1, 2, 5])  # two images are taken for a pair
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OfABatch, BATCH.format("OfABatch")),
        (OfItsFirst, BATCH.format("OfItsFirst")),
        (OfItsFirstFlat, BATCH.format("OfItsFirstFlat")),
        (OfTwo, r"^forward of OfTwo must take the inputs alone, got one that takes \(inputs, labels\); give the other"),
        (NoForward, "^NoForward has no forward, so nothing tells.*; give it a forward that maps inputs to logits"),
        (NoForwardOfLightning, "^NoForwardOfLightning has no forward"),
    ],
)
def test_one_line_says_what_is_wanted(kind, message, count, wrap):
    net = wrap(kind().eval())
    if kind is OfItsFirstFlat and (count == 1 or isinstance(net, SelectOutput)):
        return  # its output is as an ordinary network's would be, or of another kind altogether
    with pytest.raises(UserError, match=message) as caught:
        class_scores(net, images(count))
    assert "\n" not in str(caught.value)
    if kind is not OfItsFirstFlat:
        assert caught.value.__cause__ is not None


def test_a_networks_own_failures_stay_as_they_are():
    with pytest.raises(RuntimeError, match=r"running_mean should contain 2 elements|size of tensor") as caught:
        class_scores(Broken().eval(), images())
    assert not isinstance(caught.value, UserError)
    with pytest.raises(NotImplementedError, match="ModuleList"):
        class_scores(CallsAList(), torch.rand(2, 3))
    with pytest.raises(KeyError, match="of its own"):
        class_scores(lambda x: {}["of its own"], images())


def test_plain_functions():
    with pytest.raises(UserError, match=r"the model must take the inputs alone, got one that takes \(x, y\)"):
        class_scores(lambda x, y: x, images())
    with pytest.raises(UserError, match="the model must map inputs to logits, got one that takes a whole batch"):
        class_scores(lambda pair: pair[0].flatten(1) * pair[1][:, None].to(torch.uint8).bool(), images())
    with pytest.raises(TypeError):
        class_scores(torch.cat, images())


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_one_logit_for_two_classes(shape):
    with pytest.raises(UserError, match=r"got shape \(5,.*\): one logit for both of two classes is not supp") as caught:
        class_scores(lambda x: x.flatten(1).sum(1).view(shape), images())
    wrapped = str(caught.value).split("return ")[1].split(" of that")[0]
    logit = images().flatten(1).sum(1).view(shape) - 54
    scores = eval(wrapped, {"torch": torch, "z": logit})
    labels = torch.tensor([0, 1, 1, 0, 1])
    assert class_scores(lambda _: scores, images()).shape == (5, 2)
    expected = nn.functional.binary_cross_entropy_with_logits(logit.flatten(), labels.float())
    torch.testing.assert_close(nn.functional.cross_entropy(scores, labels), expected)


class Checkpointed(Base):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, inputs):
        return checkpoint(self.scores, inputs, use_reentrant=self.reentrant)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(0.1, steps=2),
        LBFGS(),
        ExpectationOverTransformations(0.1, steps=1, transforms=nn.Identity(), survival=1.0),
        lambda *batch: adversarial_paths(*batch),
    ],
)
def test_reentrant_checkpoints_are_refused_with_a_remedy(attack):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Checkpointed(reentrant=True)
    labels = net.eval()(images()).argmax(1)
    with pytest.raises(UserError, match=r"reentrant checkpoints.*; pass use_reentrant=False to torch\.utils"):
        attack(net, images(), labels)
    FiniteDifferences(0.1, steps=1, directions="random", samples=2)(net, images(), labels)


def test_other_checkpoints_make_no_difference():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Checkpointed(reentrant=False).eval()
    plain = OfTwo().eval()
    plain.load_state_dict(net.state_dict())
    labels = net(images()).argmax(1)
    found = FGSM(0.1)(net, images(), labels)
    assert found.examples.equal(FGSM(0.1)(plain.scores, images(), labels).examples)
