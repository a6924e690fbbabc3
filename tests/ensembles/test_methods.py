"""Every way of training ends in the same networks."""

from __future__ import annotations

import io

import joblib
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_poison.ensembles import TrainedNetwork, TrainingRecipe, train_networks
from lightning_poison.ensembles.members import Member
from lightning_poison.ensembles.stacked import StackedTrainer, stacking_pays
from lightning_poison.ensembles.training import SequentialTrainer, _trainer
from lightning_poison.errors import UserError
from tests.ensembles.problems import NETS, ColumnNet, doubles, flipped, points, weights

RECIPE = TrainingRecipe(epochs=3, batch_size=8, lr=1e-2, weight_decay=0.01, extra_epochs=6)


def train(name: str, method: str, members: int = 6) -> list[TrainedNetwork]:
    inputs, labels = points()
    rows, watched = flipped(labels, members)
    seeds = [seed // 2 for seed in range(members)]
    return train_networks(
        doubles(NETS[name]), inputs, rows, 3, seeds, RECIPE, watched=watched, method=method, history=True
    )


def assert_same(some: list[TrainedNetwork], others: list[TrainedNetwork], tolerance: float) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.seed, one.epochs) == (other.seed, other.epochs)
        assert one.loss == pytest.approx(other.loss, rel=tolerance, abs=0)
        assert one.fitted == pytest.approx(other.fitted, abs=0, rel=0, nan_ok=True)
        assert one.right is not None
        assert other.right is not None
        assert torch.equal(one.right, other.right)
    for mine, theirs in zip(weights(some), weights(others), strict=True):
        assert torch.allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETS)
def test_vmapped_equals_sequential(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apart, together = train(name, "sequential"), train(name, "vmapped")
    monkeypatch.setattr("lightning_poison.ensembles.stacked._CPU_STACK", 4)  # a full stack and a part of one
    assert_same(apart, train(name, "vmapped"), 1e-6)
    assert_same(apart, together, 1e-6)
    assert not torch.allclose(weights(apart)[4], weights(apart)[5])  # that share a seed, not the labels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stride", "mlp"])
def test_processes_equal_sequential_to_the_last_bit(name: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        apart = train(name, "sequential", 3)
        with joblib.parallel_config(n_jobs=2):
            aside = train(name, "processes", 3)
    finally:
        torch.set_num_threads(threads)
    assert_same(apart, aside, 0.0)


def test_the_backend_is_the_callers() -> None:
    used: list[str] = []

    class Backend(joblib._parallel_backends.ThreadingBackend):
        def submit(self, *args: object, **kwargs: object) -> object:
            used.append("here")
            return super().submit(*args, **kwargs)

    joblib.register_parallel_backend("of the caller", Backend)
    with joblib.parallel_config(backend="of the caller", n_jobs=2):
        aside = train("mlp", "processes", 3)
    assert used
    assert_same(train("mlp", "sequential", 3), aside, 1e-9)


def test_results_own_their_memory() -> None:
    for method in ("sequential", "vmapped"):
        for network in train("mlp", method):
            for weight in network.module.parameters():
                assert weight.untyped_storage().nbytes() == weight.nbytes
                assert not weight.requires_grad
                assert weight.grad is None
            saved = io.BytesIO()
            torch.save(network.module, saved)
            assert not network.module.training


class _Shuffled(nn.Module):
    """Drops by a function, so that no layer gives it away."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.dropout(inputs, training=self.training)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(), "Dropout draws random numbers"),
        (nn.BatchNorm1d(64), "BatchNorm1d keeps a state"),
        (_Shuffled(), "random"),
    ],
)
def test_layers_that_cannot_be_stacked(layer: nn.Module, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = points()

    def net(num_classes: int) -> nn.Module:
        return ColumnNet(num_classes, type(layer)(*([64] if isinstance(layer, nn.BatchNorm1d) else []))).double()

    with pytest.raises(UserError, match=rf'method must be "sequential" for ColumnNet, got "vmapped": .*{reason}'):
        train_networks(net, inputs, labels, 3, [0, 1], RECIPE, method="vmapped")
    monkeypatch.setattr("lightning_poison.ensembles.training.stacking_pays", lambda *_: True)
    by_itself = train_networks(net, inputs, labels, 3, [0, 1], RECIPE, method="auto")
    apart = train_networks(net, inputs, labels, 3, [0, 1], RECIPE, method="sequential")
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights(by_itself), weights(apart), strict=True))


def test_networks_of_different_shapes_cannot_be_stacked() -> None:
    inputs, labels = points()
    widths = iter([5, 6])

    def net(num_classes: int) -> nn.Module:
        width = next(widths)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes)).double()

    with pytest.raises(UserError, match='got "vmapped": stack expects each tensor to be equal size'):
        train_networks(net, inputs, labels, 3, [0, 1], RECIPE, method="vmapped")


def test_frozen_and_unused_weights_stay() -> None:
    inputs, labels = points()

    def net(num_classes: int) -> nn.Module:
        made = ColumnNet(num_classes, nn.Linear(64, 64)).double()
        made.layers[1].requires_grad_(False)
        made.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        return made

    rows, watched = flipped(labels, 3)
    runs = [
        train_networks(net, inputs, rows, 3, [0, 1, 2], RECIPE, watched=watched, method=method)
        for method in ("sequential", "vmapped")
    ]
    for mine, theirs in zip(*map(weights, runs), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-8)
        assert torch.equal(mine[:2], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(("name", "pays"), [("stride", True), ("deep", False), ("pool", False), ("mlp", False)])
def test_auto_stacks_where_it_was_measured_to_pay(name: str, pays: bool) -> None:
    net = NETS[name](num_classes=2)
    assert stacking_pays(net, "cpu") is pays
    assert stacking_pays(net, torch.device("cuda"))
    members = [Member(NETS[name](num_classes=2).float(), seed) for seed in range(2)]
    assert (_trainer("auto", members, points()[0][:2].float()) is StackedTrainer) is pays
    assert _trainer("auto", members[:1], points()[0][:2].float()) is SequentialTrainer


def test_layers_of_other_packages_that_pool_are_not_stacked_by_itself() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert not stacking_pays(net, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_the_same_networks() -> None:
    inputs, labels = points()
    rows, _ = flipped(labels, 6)
    recipe = TrainingRecipe(epochs=3, batch_size=8, lr=1e-2)
    runs = [
        train_networks(doubles(NETS["stride"]), inputs, rows, 3, [0] * 6, recipe, device=d) for d in ("cpu", "cuda")
    ]
    for mine, theirs in zip(*map(weights, runs), strict=True):
        assert torch.allclose(mine, theirs.cpu(), rtol=1e-6, atol=1e-8)


class Viewing(nn.Module):
    """Keeps how its activations lie in memory; with ``flatten`` they may lie in any way."""

    def __init__(self, num_classes: int, flatten: bool) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, num_classes)
        self.flatten, self.strides = flatten, set()

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.convolution(inputs)
        self.strides.add(features.stride())
        return self.head(features.flatten(1) if self.flatten else features.view(len(features), -1))


@pytest.mark.parametrize(("flatten", "stride"), [(True, (256, 1, 32, 4)), (False, (256, 64, 8, 1))])
def test_channels_lie_side_by_side_where_the_network_can_take_it(flatten: bool, stride: tuple[int, ...]) -> None:
    images, labels = points()
    made: list[Viewing] = []

    def net(num_classes: int) -> nn.Module:
        made.append(Viewing(num_classes, flatten))
        return made[-1]

    with torch.random.fork_rng():
        recipe = TrainingRecipe(epochs=1, batch_size=37)
        train_networks(net, images.float(), labels, 3, [0], recipe, method="sequential")
    assert stride in made[0].strides
