import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from lightning_poison.attacks import (
    FGSM,
    LBFGS,
    PGD,
    ExpectationOverTransformations,
    FiniteDifferences,
    adversarial_paths,
    class_scores,
    frozen_eval,
)
from lightning_poison.attacks.model import batch_layout
from lightning_poison.errors import UserError

RUNS = {
    "fgsm": lambda net, x, y: FGSM(0.1)(net, x, y),
    "pgd": lambda net, x, y: PGD(0.1, steps=3, restarts=1)(net, x, y),
    "targeted pgd": lambda net, x, y: PGD(0.1, steps=3)(net, x, y, targets=(y + 1) % 10),
    "paths": lambda net, x, y: adversarial_paths(net, x, y, max_steps=3),
}


def batch():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(12, 1, 8, 8, generator=generator), torch.randint(10, (12,), generator=generator)


@pytest.mark.parametrize("run", RUNS)
def test_the_network_is_left_as_it_was(run, network, unchanged):
    inputs, labels = batch()
    network(inputs).sum().backward()  # gradients that must survive
    unchanged(network, lambda: RUNS[run](network, inputs, labels))


@pytest.mark.parametrize("run", RUNS)
def test_the_network_is_left_as_it_was_when_its_forward_raises(run, network, unchanged):
    inputs, labels = batch()

    def fail(*_):
        raise RuntimeError("broken on purpose")

    network[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        unchanged(network, lambda: RUNS[run](network, inputs, labels))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_work_without_gradients_around_them(run, mode, network):
    inputs, labels = batch()
    expected = RUNS[run](network, inputs, labels)
    with mode():
        inputs, labels = inputs.clone(), labels.clone()  # inference tensors, as Lightning's evaluation makes them
        found = RUNS[run](network, inputs, labels)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    for name in vars(expected):
        if isinstance(getattr(expected, name), torch.Tensor):
            assert getattr(found, name).equal(getattr(expected, name))
            assert not getattr(found, name).requires_grad


def test_weights_collect_no_gradient_and_take_no_part_in_the_graph(network):
    inputs, _ = batch()
    with frozen_eval(network):
        scores = network(inputs.requires_grad_())
        scores.sum().backward()
        assert inputs.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_callers_inputs_are_not_touched(network):
    inputs, labels = batch()
    copies = inputs.clone(), labels.clone()
    for run in RUNS.values():
        run(network, inputs, labels)
    assert inputs.equal(copies[0])
    assert labels.equal(copies[1])
    assert not inputs.requires_grad


def test_plain_callables_are_attacked_too():
    result = PGD(0.2, steps=2)(lambda x: torch.cat([x, 1 - x], 1), torch.tensor([[0.6], [0.9]]), torch.tensor([0, 0]))
    assert result.fooled.tolist() == [True, False]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: (x.flatten(1), 0), "must return a tensor of class scores, got tuple"),
        (lambda x: {"logits": x}, "must return a tensor of class scores, got dict"),
        (lambda x: x, r"got shape \(12, 1, 8, 8\)"),
        (lambda x: x.flatten(1)[:5], r"got shape \(5, 64\)"),
        (lambda x: x.flatten(1)[:, :1], r"got shape \(12, 1\)"),
        (lambda x: x.flatten(1).long(), "dtype torch.int64"),
        (lambda x: x.flatten(1) / 0, "class scores must be finite"),
    ],
)
def test_unusable_outputs(model, message):
    with pytest.raises(UserError, match=message) as caught:
        class_scores(model, batch()[0])
    assert "\n" not in str(caught.value)


SPOILT = {
    "above": (lambda x, y: (x * 255, y), r"inputs must lie in \[0, 1\].*first layer"),
    "below": (lambda x, y: (x - 0.5, y), r"inputs must lie in \[0, 1\]"),
    "nan": (lambda x, y: (x.index_fill(0, torch.tensor([3]), torch.nan), y), "inputs must be finite.*64 NaN"),
    "bytes": (lambda x, y: ((x * 255).byte(), y), "divide 8-bit images by 255"),
    "label above": (lambda x, y: (x, y.clone().fill_(10)), r"labels must lie in \[0, 9\], got 10 at row 0"),
    "label below": (lambda x, y: (x, y - 11), "labels must lie in"),
    "float labels": (lambda x, y: (x, y.float()), "labels must be a vector of integer class numbers"),
    "count": (lambda x, y: (x, y[:-1]), "labels must have one entry for each of 12 inputs, got 11"),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", SPOILT)
def test_unusable_samples(run, kind, network):
    spoil, message = SPOILT[kind]
    with pytest.raises(UserError, match=message) as caught:
        RUNS[run](network, *spoil(*batch()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run", RUNS)
def test_images_that_a_resize_has_rounded_are_attacked(run, network):
    inputs, labels = batch()
    white = v2.Resize(50, v2.InterpolationMode.BICUBIC, antialias=False)(torch.ones(1, 1, 64, 64))
    assert 1 < white.max() < 1.00001
    rounded = torch.where(inputs > 0.5, white.max(), inputs)
    exact = torch.where(inputs > 0.5, torch.ones(()), inputs)
    got, expected = RUNS[run](network, rounded, labels), RUNS[run](network, exact, labels)
    for name, value in vars(expected).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(got, name).nan_to_num(-1), value.nan_to_num(-1)), name


def test_targets_out_of_range(network):
    inputs, labels = batch()
    with pytest.raises(UserError, match=r"targets must lie in \[0, 9\], got 12 at row 0"):
        PGD()(network, inputs, labels, targets=torch.full_like(labels, 12))


class Viewing(nn.Module):
    """Insists on the ordinary memory layout."""

    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv2d(channels, 5, 3)
        self.last = nn.Linear(180, 10)

    def forward(self, inputs):
        return self.last(self.convolution(inputs).relu().view(-1, 180))


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_that_insist_on_a_memory_layout_are_attacked_alike(channels, unchanged):
    torch.manual_seed(0)
    strict = Viewing(channels)
    lenient = nn.Sequential(strict.convolution, nn.ReLU(), nn.Flatten(), strict.last)
    inputs, labels = torch.rand(30, channels, 8, 8), torch.randint(10, (30,))
    assert batch_layout(strict, inputs)(inputs).stride() == inputs.stride()
    assert batch_layout(lenient, inputs)(inputs).stride() == (64 * channels, 1, 8 * channels, channels)
    assert batch_layout(lenient, inputs)(inputs).equal(inputs)
    for run in RUNS.values():
        found, expected = (
            unchanged(net, lambda net=net, run=run: run(net, inputs, labels)) for net in (strict, lenient)
        )
        for name in vars(expected):
            if isinstance(getattr(expected, name), torch.Tensor):
                torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_a_module_that_changes_its_own_mode_is_restored():
    class Stubborn(nn.Dropout):
        def train(self, mode=True):
            return super().train(True)

    net = nn.Sequential(nn.Flatten(), Stubborn(), nn.Linear(64, 3))
    net[1].training = False
    with frozen_eval(net):
        assert net[1].training
    assert not net[1].training


def test_labels_of_any_integer_type(network):
    inputs, labels = batch()
    for run in RUNS.values():
        expected = run(network, inputs, labels)
        found = run(network, inputs, labels.int())
        name = "examples" if hasattr(found, "examples") else "length"
        assert getattr(found, name).equal(getattr(expected, name))


class Overwriting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs.sub_(0.1))


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=2), FiniteDifferences(0.1, steps=1)])
def test_a_network_that_overwrites_its_inputs_is_refused_before_it_spoils_them(attack, network):
    inputs, labels = batch()
    before = inputs.clone()
    with pytest.raises(UserError, match="the model overwrites its inputs"):
        attack(Overwriting(network), inputs, labels)
    assert inputs.equal(before)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(0.1, steps=2),
        LBFGS(),
        ExpectationOverTransformations(0.1, steps=1, transforms=nn.Identity(), survival=1.0),
        lambda *batch: adversarial_paths(*batch),
    ],
)
def test_a_network_without_gradients_is_refused_with_a_remedy(attack, network):
    inputs, _ = batch()
    labels = network.eval()(inputs).argmax(dim=1)
    for scores in (lambda points: network(points).detach(), lambda points: torch.eye(10)[labels[: len(points)]]):
        with pytest.raises(UserError, match=r"passes no gradient on to its inputs.*FiniteDifferences"):
            attack(scores, inputs, labels)


def test_as_many_ids_as_inputs(network):
    inputs, labels = batch()
    with pytest.raises(UserError, match="sample_ids must have one entry for each of 12 inputs, got 3"):
        FGSM(0.1)(network, inputs, labels, sample_ids=torch.arange(3))


def test_broken_inputs_are_not_taken_for_a_diverged_network(network):
    inputs, _ = batch()
    inputs[3, 0, 2, 2] = float("nan")
    with pytest.raises(UserError, match=r"inputs must be finite, got 1 NaN or infinite.*remove the broken samples"):
        class_scores(network.eval(), inputs)
