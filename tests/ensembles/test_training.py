"""What a training does, against a loop written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.nets import MLP
from tests.ensembles.problems import NETS, ColumnNet, doubles, flipped, points, weights

RECIPE = TrainingRecipe(epochs=3, batch_size=8, lr=1e-2, weight_decay=0.1)
SHARED = MLP(3, 1, 8)
METHODS = ["sequential", "vmapped"]


def written_out(seed: int, inputs: Tensor, labels: Tensor, order_seed: int) -> tuple[nn.Module, float, list[Tensor]]:
    """Plain torch, with Adam's equations (Loshchilov and Hutter 2019, algorithm 2) instead of its optimiser."""
    torch.manual_seed(mix_seed(seed, "initial weights"))
    module = doubles(NETS["mlp"])(3)
    first = [torch.zeros_like(weight) for weight in module.parameters()]
    second = [torch.zeros_like(weight) for weight in module.parameters()]
    count, loss, rights = 0, math.nan, []
    for epoch in range(RECIPE.epochs):
        order = torch.randperm(len(inputs), generator=generator(order_seed, "order of the points", epoch))
        losses, right = [], torch.zeros(len(inputs), dtype=torch.bool)
        starts = range(0, len(order), RECIPE.batch_size)
        for step, start in enumerate(starts):
            chosen = order[start : start + RECIPE.batch_size]
            passed = (epoch + step / len(starts)) / RECIPE.epochs
            rate = RECIPE.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * passed)) / 2)
            scores = module(inputs[chosen])
            per_point = -scores.log_softmax(dim=1)[torch.arange(len(chosen)), labels[chosen]]
            right[chosen] = scores.argmax(dim=1) == labels[chosen]
            losses += per_point.tolist()
            gradients = torch.autograd.grad(per_point.mean(), list(module.parameters()))
            count += 1
            with torch.no_grad():
                for weight, gradient, mean, square in zip(module.parameters(), gradients, first, second, strict=True):
                    mean.copy_(0.9 * mean + 0.1 * gradient)
                    square.copy_(0.999 * square + 0.001 * gradient**2)
                    step_size = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
                    weight -= rate * (step_size + RECIPE.weight_decay * weight)
        loss = sum(losses) / len(losses)
        rights.append(right)
    return module, loss, rights


@pytest.mark.parametrize("method", METHODS)
def test_equals_a_loop_written_out(method: str) -> None:
    inputs, labels = points()  # 37 in batches of 8: the last has 5
    rows, _ = flipped(labels, 2)
    state = torch.get_rng_state()
    trained = train_networks(
        doubles(NETS["mlp"]), inputs, rows, 3, [4, 9], RECIPE, order_seed=2, method=method, history=True
    )
    assert torch.equal(torch.get_rng_state(), state)
    for network, seed, own in zip(trained, [4, 9], rows, strict=True):
        module, loss, rights = written_out(seed, inputs, own, order_seed=2)
        for mine, theirs in zip(network.module.parameters(), module.parameters(), strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        assert network.loss == pytest.approx(loss, rel=1e-6)
        assert network.right is not None
        assert torch.equal(network.right, torch.stack(rights))
        assert (network.seed, network.epochs) == (seed, 3)
        assert math.isnan(network.fitted)


@pytest.mark.parametrize("method", METHODS)
def test_stops_each_network_when_its_points_are_fitted(method: str) -> None:
    inputs, labels = points()
    rows, watched = flipped(labels, 5)
    recipe = TrainingRecipe(epochs=2, batch_size=8, lr=1e-2, schedule="constant", extra_epochs=60)
    steps: list[int] = []
    trained = train_networks(
        doubles(NETS["mlp"]), inputs, rows, 3, [7] * 5, recipe, watched=watched, method=method, advance=steps.append
    )
    epochs = [network.epochs for network in trained]
    assert epochs[0] == 2
    assert math.isnan(trained[0].fitted)
    assert len(set(epochs)) > 2
    assert sum(steps) == sum(epochs)
    for network, own, of_interest, count in zip(trained, rows, watched, epochs, strict=True):
        right = network.module(inputs).argmax(dim=1) == own
        assert network.fitted == pytest.approx(float(right[of_interest].double().mean()), nan_ok=True)
        # trained for as many epochs without a stop it is the same network, and before the last it did not fit
        plain = TrainingRecipe(epochs=2, batch_size=8, lr=1e-2, schedule="constant", extra_epochs=count - 2)
        alone = train_networks(
            doubles(NETS["mlp"]), inputs, own, 3, [7], plain, watched=torch.ones_like(own).bool(), method="sequential"
        )
        assert alone[0].epochs == count
        assert torch.allclose(weights([network])[0], weights(alone)[0], rtol=1e-7, atol=1e-9)
        if 2 < count < 62:
            shorter = TrainingRecipe(epochs=count - 1, batch_size=8, lr=1e-2, schedule="constant")
            before = train_networks(doubles(NETS["mlp"]), inputs, own, 3, [7], shorter, watched=of_interest)
            assert before[0].fitted < 1.0 == network.fitted


@pytest.mark.parametrize("method", METHODS)
def test_shows_the_networks_after_each_epoch(method: str) -> None:
    inputs, labels = points()
    seen: list[tuple[int, list[bool], Tensor]] = []

    def look(epoch: int, modules: list[nn.Module]) -> None:
        weight = torch.cat([each.flatten() for each in modules[1].parameters()]).detach()
        seen.append((epoch, [module.training for module in modules], weight))

    trained = train_networks(doubles(NETS["mlp"]), inputs, labels, 3, [0, 1], RECIPE, method=method, after_epoch=look)
    assert [epoch for epoch, _, _ in seen] == [0, 1, 2]
    assert not any(any(training) for _, training, _ in seen)
    assert torch.equal(seen[-1][2], weights(trained)[1])
    assert not torch.equal(seen[0][2], seen[1][2])


def test_layers_that_draw_leave_no_trace_and_do_not_depend_on_the_company() -> None:
    inputs, labels = points()

    def net(num_classes: int) -> nn.Module:
        return ColumnNet(num_classes, nn.Dropout(), nn.BatchNorm1d(64)).double()

    state = torch.get_rng_state()
    alone = train_networks(net, inputs, labels, 3, [8], RECIPE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    together = train_networks(net, inputs, labels, 3, [2, 8], RECIPE)
    assert torch.equal(weights(together)[1], weights(alone)[0])


def test_the_fitted_share_is_that_of_the_finished_network() -> None:
    inputs, labels = points()

    def net(num_classes: int) -> nn.Module:
        return ColumnNet(num_classes, nn.Dropout(0.7)).double()

    every = torch.ones_like(labels).bool()
    state = torch.get_rng_state()
    (trained,) = train_networks(net, inputs, labels, 3, [8], RECIPE, watched=every)
    assert torch.equal(torch.get_rng_state(), state)
    right = trained.module(inputs).argmax(dim=1) == labels
    assert 0 < trained.fitted == float(right.double().mean()) < 1


def test_inference_mode_of_the_caller_does_not_matter() -> None:
    inputs, labels = points()
    with torch.inference_mode():
        inside = train_networks(NETS["mlp"], inputs.float(), labels, 3, [0], RECIPE)
    outside = train_networks(NETS["mlp"], inputs.float(), labels, 3, [0], RECIPE)
    assert torch.equal(weights(inside)[0], weights(outside)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(2, 5).long()}, r"labels must have shape \(37,\) or \(2, 37\)"),
        ({"labels": torch.full((37,), 3)}, r"labels must lie in \[0, 2\], got 3"),
        ({"watched": torch.zeros(36).bool()}, "watched must have shape"),
        ({"inputs": torch.zeros(37, 1, 8, 8).byte()}, "inputs must be floating point"),
        ({"inputs": torch.zeros(37, 1, 9, 9)}, r"MLP cannot take inputs of shape \(1, 9, 9\)"),
        ({"net": lambda num_classes: MLP(4, 1, 8)}, r"must give num_classes=3 scores .* got \(2, 4\)"),
        ({"net": MLP(3, 1, 8)}, "net must be a function that makes a network, got a MLP"),
        ({"net": lambda num_classes: SHARED}, "must make a new network each time"),
        ({"net": lambda num_classes: "MLP"}, "net must make a torch.nn.Module, got str"),
        ({"seeds": []}, "there must be a network and a point"),
        ({"method": "vmaped"}, "vmapped"),
        ({"num_classes": 0}, "num_classes must be an integer of at least 1"),
        ({"method": "processes", "after_epoch": print}, "cannot call after_epoch"),
        ({"method": "processes", "device": "cuda"}, "trains on CPUs"),
    ],
)
def test_mistakes(changes: dict[str, object], message: str) -> None:
    inputs, labels = points()
    given = {"net": NETS["mlp"], "inputs": inputs.float(), "labels": labels, "num_classes": 3, "seeds": [0, 1]}
    with pytest.raises(UserError, match=message) as caught:
        train_networks(**(given | changes))
    assert "\n" not in str(caught.value)
