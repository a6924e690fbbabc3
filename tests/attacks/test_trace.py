import pytest
import torch
from torch.nn import functional

from lightning_poison.attacks import adversarial_paths, path_trace
from lightning_poison.errors import UserError


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_lengths_and_ends_are_those_of_the_paths(targeted, clip, trained, digits):
    inputs, labels = digits[0][1200:1230], digits[1][1200:1230]
    targets = (labels + 1) % 10 if targeted else None
    settings = {"step": 0.02, "max_steps": 12, "clip": clip}
    traces = path_trace(trained, inputs, labels, targets, **settings)
    paths = adversarial_paths(trained, inputs, labels, targets, **settings, keep_ends=True)
    assert [trace.length for trace in traces] == paths.length.tolist()
    assert [trace.reached for trace in traces] == paths.reached.tolist()
    assert [trace.target for trace in traces] == paths.target.tolist()
    assert torch.stack([trace.points[-1] for trace in traces]).equal(paths.ends)
    assert torch.stack([trace.points[0] for trace in traces]).equal(inputs)
    assert len({trace.length for trace in traces}) > 3


@pytest.mark.parametrize("targeted", [False, True])
def test_every_step_is_that_of_a_plain_loop(targeted, trained, digits):
    inputs, labels = digits[0][1200:1206].double(), digits[1][1200:1206]
    net = trained.double()
    try:
        targets = (labels + 1) % 10 if targeted else None
        traces = path_trace(net, inputs, labels, targets, step=0.02, max_steps=15)
        for row, trace in enumerate(traces):
            point, wanted = inputs[row], labels[row] if targets is None else targets[row]
            for number, (seen, belief) in enumerate(zip(trace.points, trace.probabilities, strict=True)):
                assert seen.allclose(point, atol=1e-12)
                point = point.detach().requires_grad_()
                scores = net(point[None])
                assert belief.allclose(scores.softmax(1)[0])
                ended = (scores.argmax() == wanted) == targeted
                assert bool(ended) == (trace.reached and number == trace.length)
                (gradient,) = torch.autograd.grad(functional.cross_entropy(scores, wanted[None]), point)
                point = point.detach() + (-0.02 if targeted else 0.02) * gradient.sign()
    finally:
        net.float()


def test_figures_of_a_trace():
    def scores(x):
        return torch.cat([x, 1 - x, 0 * x - 9], dim=1)

    inputs = torch.tensor([[0.625], [0.25]])
    free, there = path_trace(scores, inputs, torch.tensor([0, 0]), step=0.125, max_steps=1)
    assert (free.length, free.reached, free.goal, free.predictions.tolist()) == (1, False, 1, [0, 0])
    assert (there.length, there.reached, there.goal, there.predictions.tolist()) == (0, True, 1, [1])
    aimed = path_trace(scores, inputs, torch.tensor([0, 0]), torch.tensor([2, 1]), step=0.125, max_steps=1)
    assert [(trace.goal, trace.target) for trace in aimed] == [(2, 2), (1, 1)]
    assert free.label_probability.equal(free.probabilities[:, 0])
    assert aimed[0].goal_probability.equal(aimed[0].probabilities[:, 2])
    assert path_trace(scores, inputs[:0], torch.zeros(0, dtype=torch.int64)) == []


def test_the_network_is_left_alone(network, unchanged, digits):
    unchanged(network, lambda: path_trace(network, digits[0][:5], digits[1][:5], max_steps=3))
    with pytest.raises(UserError, match=r"inputs must lie in \[0, 1\]"):
        unchanged(network, lambda: path_trace(network, digits[0][:5] + 1, digits[1][:5], max_steps=3))


def test_inside_inference_mode(trained, digits):
    with torch.inference_mode():
        inputs, labels = digits[0][1200:1203] * 1.0, digits[1][1200:1203] * 1
        found = path_trace(trained, inputs, labels, step=0.05, max_steps=4)
    expected = path_trace(trained, digits[0][1200:1203], digits[1][1200:1203], step=0.05, max_steps=4)
    assert all(a.points.equal(b.points) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 2}, r"step must lie in \[0, 1\], got 2"),
        ({"max_steps": -1}, "max_steps must be an integer of at least 0"),
    ],
)
def test_bad_arguments(arguments, message, linear, middling):
    with pytest.raises(UserError, match=message):
        path_trace(linear, *middling, **arguments)
