from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
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
    declared_classes,
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


@pytest.mark.parametrize(
    "value", [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)]
)
def test_integers_of_other_libraries_become_plain_ones(value: object) -> None:
    assert type(check_integer("steps", value, minimum=1)) is int
    assert check_integer("steps", value, minimum=1) == 3
    with pytest.raises(UserError, match="steps must be an integer of at least 4, got"):
        check_integer("steps", value, minimum=4)


@pytest.mark.parametrize(
    "value", [np.float64(3), np.array([3]), torch.tensor([3]), torch.tensor(3.0), np.bool_(True), torch.tensor(True)]
)
def test_what_is_no_integer_of_another_library(value: object) -> None:
    with pytest.raises(UserError, match="steps must be an integer of at least 1") as error:
        check_integer("steps", value, minimum=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5, dtype=torch.float64)])
def test_numbers_of_other_libraries_become_plain_floats(value: object) -> None:
    assert type(check_number("fraction", value)) is float
    assert check_number("fraction", value) == 0.5
    with pytest.raises(UserError, match="fraction must be a finite number"):
        check_number("fraction", value * math.nan)


def test_arrays_are_shown_by_shape_and_dtype_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        check_number("fraction", torch.eye(3))
    assert str(error.value) == "fraction must be a finite number, got Tensor of shape (3, 3), dtype torch.float32"


def test_strategies_hold_plain_integers_wherever_they_came_from() -> None:
    from lightning_poison.poisons import RandomPoints, ToClass
    from lightning_poison.poisons.description import arguments, describe

    rule = RandomPoints(per_class=np.int64(3), classes=(np.int64(1), torch.tensor(0)))
    assert describe(rule) == "RandomPoints(per_class=3, classes=[1, 0])"
    assert json.dumps(arguments(ToClass(torch.tensor(2)))) == '{"class": "ToClass", "label": 2}'
    assert describe(RandomPoints(fraction=np.float64(0.25))) == "RandomPoints(fraction=0.25)"


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error

    @property
    def num_classes(self) -> int:
        raise self.error


@pytest.mark.parametrize("value", [10, np.int64(10), np.uint8(10), torch.tensor(10), np.array(10)])
def test_declared_classes(value: object) -> None:
    assert declared_classes(SimpleNamespace(num_classes=value)) == 10
    assert type(declared_classes(SimpleNamespace(num_classes=value))) is int


@pytest.mark.parametrize(
    "error", [RuntimeError("setup first"), TypeError("len"), AttributeError("x"), AssertionError()]
)
def test_a_number_of_classes_that_is_not_known_before_setup(error: Exception) -> None:
    assert declared_classes(Raising(error)) is None
    assert declared_classes(SimpleNamespace()) is None
    with pytest.raises(UserError, match="no such folder"):
        declared_classes(Raising(UserError("no such folder")))


@pytest.mark.parametrize("value", ["10", 10.0, [3, 4], 0, True, torch.tensor([10])])
def test_a_declared_number_of_classes_that_is_none_is_not_passed_over_in_silence(value: object) -> None:
    with pytest.warns(UserWarning, match="SimpleNamespace.num_classes must be an integer of at least 1, got"):
        assert declared_classes(SimpleNamespace(num_classes=value)) is None


def test_labels_that_count_from_one_are_recognised() -> None:
    with pytest.raises(UserError, match=r"got 3 at row 1; they seem to count from 1: number the classes from 0"):
        check_labels("labels", torch.tensor([1, 3, 2]), 3)
    with pytest.raises(UserError, match="got 4 at row 1; check num_classes=3 against the data"):
        check_labels("labels", torch.tensor([1, 4, 2]), 3)


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1])])
def test_labels_that_are_no_tensor(labels: object) -> None:
    with pytest.raises(UserError, match=r"labels must be a tensor of integer class numbers, got .*as_tensor"):
        check_labels("labels", labels, 2)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_wide_unsigned_types(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 40_000, 3]).to(dtype)
    assert check_labels("labels", labels, 40_001) is labels
    with pytest.raises(UserError, match="got 40000 at row 1"):
        check_labels("labels", labels, 40_000)
