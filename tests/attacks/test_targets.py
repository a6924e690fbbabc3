import pytest
import torch

from lightning_poison.attacks.targets import choose_targets
from lightning_poison.errors import UserError


def test_a_class_the_next_class_and_the_least_likely_one(trained, digits):
    inputs, labels = digits[0][1200:1500], digits[1][1200:1500]
    assert choose_targets(3, trained, inputs, labels).tolist() == [3] * 300
    assert choose_targets("next", trained, inputs, labels).tolist() == [(y + 1) % 10 for y in labels.tolist()]
    with torch.no_grad():
        scores = trained(inputs)
    found = choose_targets("least_likely", trained, inputs, labels)
    assert found.dtype == torch.int64
    assert found.equal(scores.argmin(dim=1))  # no label is the least likely class of a trained network


def test_where_the_label_is_the_least_likely_class_the_second_least_likely_is_taken():
    scores = torch.tensor([[0.5, 0.3, 0.1], [0.5, 0.3, 0.1], [0.2, 0.2, 0.2]])
    found = choose_targets("least_likely", lambda x: scores[: len(x)], torch.rand(3, 1), torch.tensor([0, 2, 0]))
    assert found.tolist() == [2, 1, 1]


@pytest.mark.parametrize("rule", [2, "next", "least_likely"])
def test_the_model_is_left_as_found(rule, network, unchanged):
    inputs, labels = torch.rand(5, 1, 8, 8), torch.arange(5, dtype=torch.int32)
    with torch.inference_mode():
        targets = unchanged(network, lambda: choose_targets(rule, network, inputs, labels))
    assert targets.dtype == torch.int64
    assert choose_targets(rule, network, inputs[:0], labels[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (10, "target must be one of the victim's classes 0 to 9, got 10"),
        (-1, "target must be an integer of at least 0, got -1"),
        (True, "target must be an integer of at least 0, got True"),
        ("nearest", "target must be a class number, next or least_likely, got nearest"),
    ],
)
def test_rules_there_are_not(rule, message, trained, digits):
    with pytest.raises(UserError, match=message):
        choose_targets(rule, trained, digits[0][:4], digits[1][:4])


@pytest.mark.parametrize("rule", [2, "next", "least_likely"])
def test_labels_out_of_range(rule, trained, digits):
    with pytest.raises(UserError, match=r"labels must lie in \[0, 9\], got 11 at row 2"):
        choose_targets(rule, trained, digits[0][:3], torch.tensor([0, 1, 11]))
