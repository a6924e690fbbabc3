"""Buffers and metrics that a forward writes are as before after an attack."""

import copy

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from lightning_poison.attacks import PGD, FiniteDifferences, adversarial_paths, frozen_eval
from lightning_poison.attacks.model import kept_state
from lightning_poison.errors import UserError


def batch(count=12):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, 4, 4, generator=generator), torch.randint(3, (count,), generator=generator)


class Counting(nn.Module):
    """Writes buffers in every way there is, and updates metrics, in its forward."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 3)
        self.norm = nn.BatchNorm1d(16)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("quiet", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(()), persistent=False)
        self.register_buffer("queue", torch.zeros(0, 3))
        self.register_buffer("cache", None)
        self.accuracy = MulticlassAccuracy(3)
        self.mean = MeanMetric()
        self.ranks = MulticlassAUROC(3)  # a state that is a list
        self.several = MetricCollection([MulticlassAccuracy(3, average="micro"), MulticlassF1Score(3)])

    def forward(self, inputs):
        inputs = inputs.flatten(1)
        scores = self.layer(inputs)
        found = scores.detach()
        self.calls += 1
        self.quiet.data += 1
        self.replaced = self.replaced + 1
        self.queue = torch.cat([self.queue, found])
        self.cache = found
        self.norm.train()
        self.norm(inputs.detach())
        self.norm.eval()
        guesses = found.argmax(1)
        self.accuracy(found, guesses)
        self.mean.update(found.mean())
        self.ranks.update(found.softmax(1), guesses)
        self.several.update(found, guesses)
        return scores


def state(net):
    """All that a forward writes, by value."""
    metrics = [part for part in net.modules() if isinstance(part, Metric)]
    return copy.deepcopy(
        {
            "buffers": dict(net.named_buffers()),
            "metrics": [part.metric_state for part in metrics],
            "counts": [(part._update_count, part._computed, part._forward_cache, part._to_sync) for part in metrics],
            "groups": net.several.compute_groups,
            "modes": [part.training for part in net.modules()],
        }
    )


RUNS = {
    "pgd": lambda net, *samples: PGD(0.1, steps=2)(net, *samples),
    "black box": lambda net, *samples: FiniteDifferences(0.1, steps=1, directions="random", samples=2)(net, *samples),
    "paths": lambda net, *samples: adversarial_paths(net, *samples, max_steps=2),
}


@pytest.mark.parametrize("before", ["fresh", "run once", "run in inference mode"])
@pytest.mark.parametrize("run", RUNS)
def test_what_a_forward_writes_is_put_back(run, before):
    net = Counting()
    if before != "fresh":
        with torch.inference_mode(before == "run in inference mode"), torch.no_grad():
            net(batch()[0])
            net.accuracy.compute()
    expected = state(net)
    objects = [id(buffer) for buffer in net.buffers()], [id(value) for value in net.accuracy.metric_state.values()]
    RUNS[run](net, *batch())
    assert repr(state(net)) == repr(expected)
    assert [id(buffer) for buffer in net.buffers()] == objects[0]
    assert [id(value) for value in net.accuracy.metric_state.values()] == objects[1]


def test_it_is_put_back_after_an_exception():
    net, seen = Counting(), []

    def fail(*_):
        seen.append(int(net.calls))
        raise RuntimeError("broken on purpose")

    net.register_forward_hook(fail)
    expected = state(net)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        PGD(0.1)(net, *batch())
    assert seen
    assert repr(state(net)) == repr(expected)


def test_counting_goes_on_as_if_nothing_had_been():
    inputs, labels = batch()
    attacked, alone = Counting(), Counting()
    for net in (attacked, alone):
        net(inputs)
        if net is attacked:
            PGD(0.1, steps=2)(net, inputs, labels)
        net(1 - inputs)
    assert repr(state(attacked)) == repr(state(alone))
    assert repr(attacked.several.compute()) == repr(alone.several.compute())
    assert attacked.accuracy.compute() == alone.accuracy.compute() == 1


def test_buffers_that_nobody_writes_are_not_touched():
    net = nn.BatchNorm1d(4).eval()
    versions = [buffer._version for buffer in net.buffers()]
    scores = net(torch.rand(3, 4, requires_grad=True))  # its derivative needs the statistics as they are
    with kept_state(net):
        net(torch.rand(5, 4))
    assert [buffer._version for buffer in net.buffers()] == versions
    scores.sum().backward()


def test_buffers_that_are_made_inside_stay():
    class Tables(nn.Linear):
        made = False

        def forward(self, inputs):
            if not self.made:
                self.register_buffer("table", torch.ones(2))
                self.made = True
            return super().forward(inputs) * self.table

    net = Tables(2, 2)
    with kept_state(net):
        net(torch.rand(3, 2))
    assert net(torch.rand(3, 2)).shape == (3, 2)


def test_metrics_inside_do_not_communicate():
    metric = MeanMetric(
        dist_sync_on_step=True, distributed_available_fn=lambda: True, dist_sync_fn=lambda *_, **__: 1 / 0
    )
    with kept_state(metric):
        metric(torch.ones(2))
        assert metric.compute() == 1
    assert metric.dist_sync_on_step
    assert metric.sync_on_compute
    assert not metric.update_called


def test_scripted_networks():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, inputs):
            self.calls += 1
            return torch.cat([inputs, 1 - inputs], 1)

    net = torch.jit.script(Scripted())
    PGD(0.1, steps=2)(net, torch.rand(5, 1), torch.zeros(5, dtype=torch.int64))
    assert net.calls == 0


def test_weights_without_values_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    message = "weights must have values, got parameters of lazy modules.*; run one batch through it first"
    with pytest.raises(UserError, match=message):
        PGD(0.1)(net, *batch())
    net(batch()[0])
    assert PGD(0.1, steps=1)(net, *batch()).fooled.shape == (12,)


def test_statistics_of_lazy_modules_without_values():
    norm = nn.LazyBatchNorm1d(affine=False)
    with frozen_eval(norm):
        norm(torch.rand(3, 4))
    assert norm.running_mean.shape == (4,)
