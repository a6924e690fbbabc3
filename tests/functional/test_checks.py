from __future__ import annotations

import math

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import (
    check_choice,
    check_finite,
    check_integer,
    check_labels,
    check_number,
    check_pixels,
    nearest_names,
)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_check_integer_refuses(value: object) -> None:
    with pytest.raises(UserError, match="steps must be an integer of at least 1"):
        check_integer("steps", value, minimum=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True, 1.5, -0.1])
def test_check_number_refuses(value: object) -> None:
    with pytest.raises(UserError, match="fraction must"):
        check_number("fraction", value, minimum=0, maximum=1)


def test_a_message_is_one_line_with_the_remedy() -> None:
    with pytest.raises(UserError) as caught:
        check_integer("steps", 0, minimum=1, remedy="use steps=40")
    assert str(caught.value) == "steps must be an integer of at least 1, got 0; use steps=40"


def test_check_pixels_cuts_rounding_off_and_nothing_else() -> None:
    inside = torch.tensor([0.0, 0.25, 1.0])
    assert check_pixels("inputs", inside) is inside
    rounded = torch.tensor([-1e-6, 0.25, 1 + 1e-6])
    assert check_pixels("inputs", rounded).tolist() == [0, 0.25, 1]
    assert rounded[0] < 0
    assert check_pixels("inputs", torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-0.05, 1.02, r"inputs must lie in \[0, 1\], got \[-0.05, 1.02\]; if a transform overshoots, as a bicubic re"),
        (-0.44, 1.0, "if it normalises, make that the model's first layer"),
        (-2.1, 2.6, r"got \[-2.1, 2.6\]; take the normalisation out of the data and make it the model's first layer"),
        (0.0, 255.0, "take the normalisation out"),
        (math.nan, 1.0, "inputs must be finite, got 1 NaN or infinite of 3 values"),
    ],
)
def test_check_pixels_names_the_remedy(low: float, high: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_pixels("inputs", torch.tensor([low, 0.5, high]))
    if math.isfinite(low):
        with pytest.raises(UserError, match=r"got \[.*\]; set clip=false"):
            check_pixels("inputs", torch.tensor([low, 0.5, high]), "set clip=false")


def test_check_choice_lists_the_choices() -> None:
    with pytest.raises(UserError, match="norm must be one of linf, l2, got l7"):
        check_choice("norm", "l7", ("linf", "l2"))


def test_check_finite_counts() -> None:
    with pytest.raises(UserError, match="2 NaN or infinite of 3 values"):
        check_finite("inputs", torch.tensor([math.nan, 1.0, math.inf]))
    assert check_finite("inputs", torch.ones(2)).sum() == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3, 1]), "got 3 at row 1"),
        (torch.tensor([-1]), "got -1 at row 0"),
        (torch.tensor([0.0]), "float32"),
        (torch.tensor([[0]]), "shape"),
        (torch.tensor([True]), "bool"),
    ],
)
def test_check_labels_names_the_row(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_labels("labels", labels, 3)


def test_nearest_names_ignores_case() -> None:
    assert nearest_names("pgd", ["FGSM", "PGD"]) == ["PGD"]
    assert nearest_names("zzz", ["FGSM", "PGD"]) == []


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_small_integer_types(dtype):
    labels = torch.tensor([0, 100, 3], dtype=dtype)
    assert check_labels("labels", labels, 2**63 - 1) is labels
    with pytest.raises(UserError, match="got 100 at row 1"):
        check_labels("labels", labels, 100)
