import pytest
import torch
from torch.nn import functional

from lightning_poison.attacks import adversarial_paths
from lightning_poison.errors import UserError


def naive_path(net, x, label, target, step, max_steps, clip):
    """The thesis's Algorithm 2 for one point, and its untargeted twin, line by line."""

    def done(point):
        prediction = int(net(point[None]).argmax())
        return prediction == target if target is not None else prediction != label

    length = 0
    while length < max_steps and not done(x):
        x = x.detach().requires_grad_()
        wanted = label if target is None else target
        loss = functional.cross_entropy(net(x[None]), torch.tensor([wanted]))
        (gradient,) = torch.autograd.grad(loss, x)
        x = x.detach() + (step if target is None else -step) * gradient.sign()
        if clip:
            x = x.clamp(0, 1)
        length += 1
    return length, bool(done(x))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 7, 256])
def test_equals_the_naive_loop(targeted, clip, chunk_size, trained, digits):
    inputs, labels = digits[0][1200:1240].double(), digits[1][1200:1240]
    net = trained.double()
    try:
        targets = (labels + 1) % 10 if targeted else None
        ended = []
        found = adversarial_paths(
            net,
            inputs,
            labels,
            targets,
            step=0.02,
            max_steps=12,
            clip=clip,
            chunk_size=chunk_size,
            advance=ended.append,
        )
        expected = [
            naive_path(net, x, int(y), None if targets is None else int(targets[row]), 0.02, 12, clip)
            for row, (x, y) in enumerate(zip(inputs, labels, strict=True))
        ]
        assert list(zip(found.length.tolist(), found.reached.tolist(), strict=True)) == expected
        assert sum(ended) == len(labels)
        assert all(ended)
        assert found.target.tolist() == ([-1] * 40 if targets is None else targets.tolist())
        assert found.reached.any()
        if targeted:
            assert not found.reached.all()
    finally:
        net.float()


def test_closed_form_on_a_linear_model(linear, middling):
    # Every step changes the score difference by step * ||w_other - w_label||_1.
    inputs, labels = middling
    found = adversarial_paths(linear, inputs, labels, step=0.01, max_steps=100)
    difference = (linear.weights[1 - labels] - linear.weights[labels]).detach()
    scores = linear(inputs).detach()
    clean = (scores.gather(1, labels[:, None]) - scores.gather(1, 1 - labels[:, None])).squeeze(1)
    expected = (clean / (0.01 * difference.abs().sum(dim=1))).ceil().clamp_min(0).long()
    assert found.length.equal(expected)
    assert found.reached.all()
    assert (found.length == 0).any()
    assert (found.length > 3).any()


def test_a_step_counts_at_the_limit(linear, middling):
    inputs, labels = middling
    free = adversarial_paths(linear, inputs, labels, max_steps=100).length
    limit = int(free.max())
    at, below = (adversarial_paths(linear, inputs, labels, max_steps=limit - less) for less in (0, 1))
    assert at.reached.all()
    assert at.length.equal(free)
    assert below.reached.equal(free < limit)
    assert (below.length[~below.reached] == limit - 1).all()


def test_the_active_set_stays_full_until_nobody_waits(trained, digits):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    sizes = []
    handle = trained.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    try:
        found = adversarial_paths(trained, inputs, labels, chunk_size=10, max_steps=50)
    finally:
        handle.remove()
    assert sizes.pop(0) == 2  # a try, to see which memory layout the network takes
    assert [sizes.pop(0) for _ in range(2)] == [2, 2]  # and whether its passes differ
    assert max(sizes) == 10
    assert sum(sizes) == int(found.length.sum()) + len(labels)  # one look at every point of every path
    drained = next(turn for turn, size in enumerate(sizes) if size < 10)
    assert all(size < 10 for size in sizes[drained:])


def test_no_points(linear):
    found = adversarial_paths(linear, torch.rand(0, 12), torch.zeros(0, dtype=torch.int64))
    assert found.length.shape == found.reached.shape == found.target.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 2}, r"step must lie in \[0, 1\], got 2"),
        ({"max_steps": -1}, "max_steps must be an integer of at least 0"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message, linear, middling):
    with pytest.raises(UserError, match=message):
        adversarial_paths(linear, *middling, **arguments)
