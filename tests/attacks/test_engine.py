import warnings

import pytest
import torch
from torch.nn import functional

from lightning_poison.attacks import PGD, adversarial_paths, base, frozen_eval
from lightning_poison.attacks.base import GradientMaskingWarning
from lightning_poison.attacks.engine import network_look, walk
from lightning_poison.attacks.samples import Samples
from lightning_poison.errors import UserError

NEED = torch.tensor([3, 0, 5, 1, 9, 2, 4, 0, 7, 3])  # steps of 1 each until the goal


def run(need=NEED, *, max_steps=6, any_iterate=True, chunk_size=4, **more):
    """Each sample walks from 0 along its only coordinate to the number of steps that it needs."""
    asked = []

    def look(points, rows, with_gradient):
        asked.append((rows.tolist(), with_gradient))
        hit = points[:, 0] == need[rows] if any_iterate is None else points[:, 0] >= need[rows]
        return hit, torch.ones_like(points) if with_gradient else None

    found = walk(
        torch.zeros(len(need), 1),
        look,
        lambda points, gradients, rows: points + gradients,
        max_steps=max_steps,
        any_iterate=bool(any_iterate),
        chunk_size=chunk_size,
        **more,
    )
    return found, asked


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 100])
def test_every_sample_takes_the_steps_that_it_needs(chunk_size):
    ended = []
    found, asked = run(chunk_size=chunk_size, advance=ended.append)
    assert found.steps.equal(NEED.clamp_max(6))
    assert found.reached.equal(NEED <= 6)
    assert found.ends[:, 0].equal(NEED.clamp_max(6).float())
    assert sum(ended) == len(NEED)
    assert max(len(rows) for rows, _ in asked) <= chunk_size
    # One look at each point of each way, and no sample twice in one pass.
    assert sum(len(rows) for rows, _ in asked) == int((NEED.clamp_max(6) + 1).sum())
    assert all(len(set(rows)) == len(rows) for rows, _ in asked)


def test_only_start_and_last_point_count_where_asked():
    # Somebody who passes the goal on the way is not at it in the end: points equal to `need` count, later ones do not.
    passing = torch.tensor([0, 2, 6, 7])
    found, _ = run(passing, any_iterate=None, chunk_size=2)
    assert found.reached.tolist() == [True, False, True, False]
    assert found.steps.tolist() == [0, 6, 6, 6]


def test_no_gradient_is_asked_for_where_nobody_can_step():
    _, asked = run(torch.full((4,), 100), max_steps=3, chunk_size=4)
    assert [with_gradient for _, with_gradient in asked] == [True, True, True, False]
    _, asked = run(NEED, max_steps=0, chunk_size=4)
    assert not any(with_gradient for _, with_gradient in asked)


def test_starts_are_left_alone():
    starts = torch.zeros(5, 1)
    walk(starts, lambda p, rows, _: (p[:, 0] > 2, torch.ones_like(p)), lambda p, g, rows: p.add_(g), max_steps=4)
    assert not starts.any()


def test_ends_are_kept_only_where_asked():
    assert run(keep_ends=False)[0].ends is None


def test_a_gradient_that_is_zero_is_told(linear, middling):
    inputs, labels = middling

    def masked(points):
        return (linear(points) * 1e3).round() / 1e3 + 0 * linear(points)

    right = linear(inputs).argmax(dim=1) == labels
    with frozen_eval(linear):
        look = network_look(masked, Samples.checked(inputs, labels), functional.cross_entropy)
        found = walk(inputs, look, lambda points, gradients, rows: points + gradients, max_steps=2, chunk_size=7)
    assert found.flat.equal(right)  # who is wrong anyway needs no gradient
    assert PGD()(masked, inputs, labels).details["zero_gradient"].bool().equal(right)
    assert not PGD()(linear, inputs, labels).details["zero_gradient"].any()


def test_labels_are_checked_for_all_samples_at_once(trained, digits):
    inputs, labels = digits[0][:20], digits[1][:20].clone()
    labels[19] = 10
    with pytest.raises(UserError, match="got 10 at row 19"):
        adversarial_paths(trained, inputs, labels, chunk_size=2)


def test_memory_does_not_grow_with_the_number_of_samples(trained, digits):
    # What a pass holds is bounded by the chunk: no tensor of the network sees more samples than that.
    inputs = digits[0].repeat(3, 1, 1, 1)
    labels = digits[1].repeat(3)
    sizes = []
    handle = trained.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    try:
        PGD(eps=0.05, steps=2)(trained, inputs, labels)
    finally:
        handle.remove()
    assert max(sizes) == 128


def test_many_samples_are_attacked_block_by_block(trained, digits, monkeypatch):
    inputs, labels = digits[0][1200:1300], digits[1][1200:1300]
    attack = PGD(eps=0.1, steps=3, restarts=1)
    whole = attack(trained, inputs, labels)
    monkeypatch.setattr(base, "_BLOCK", 32)
    parts = attack(trained, inputs, labels)
    assert parts.fooled.equal(whole.fooled)
    torch.testing.assert_close(parts.examples, whole.examples)
    assert parts.details["zero_gradient"].shape == (100,)


def test_masked_gradients_are_warned_of(linear, middling):
    def masked(points):
        return (linear(points) * 1e3).round() / 1e3 + 0 * linear(points)

    with pytest.warns(GradientMaskingWarning, match="use losses margin or dlr.*FiniteDifferences"):
        PGD()(masked, *middling)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD()(linear, *middling)


def test_a_gradient_that_only_one_loss_masks_is_no_masking(linear, middling):
    inputs, labels = middling
    labels = linear(inputs).argmax(dim=1)

    def sure(points):
        return 1e6 * linear(points)  # cross-entropy is 0, and so is its gradient

    assert PGD(steps=2, losses=("cross_entropy",))(sure, inputs, labels).details["zero_gradient"].all()
    for losses in (("cross_entropy", "margin"), ("margin", "cross_entropy")):
        found = PGD(eps=0.001, steps=2, losses=losses)(sure, inputs, labels)
        assert not found.details["zero_gradient"].any()
