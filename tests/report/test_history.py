import math

import pytest
import torch

from lightning_poison.report.run_report import History, as_number


def test_leftovers_are_not_measured_again_even_where_values_repeat():
    history, leftover = History(), torch.tensor(1.0)
    history.collect(0, {"a": torch.tensor(1.0), "b": leftover})
    history.collect(1, {"a": torch.tensor(1.0), "b": leftover})
    assert history.curves() == {"a": [(0, 1.0), (1, 1.0)], "b": [(0, 1.0)]}


def test_a_second_look_at_an_epoch_adds_and_overwrites():
    history = History()
    history.collect(3, {"a": torch.tensor(1.0)})
    history.collect(3, {"a": torch.tensor(2.0), "b": torch.tensor(3.0)})
    assert history.curves() == {"a": [(3, 2.0)], "b": [(3, 3.0)]}


def test_steps_are_left_out():
    history = History()
    history.collect(0, {"loss_step": torch.tensor(1.0), "loss_epoch": torch.tensor(2.0)})
    assert list(history.curves()) == ["loss_epoch"]


def test_state_round_trip():
    history, other = History(), History()
    history.collect(0, {"a": torch.tensor(0.5)})
    history.collect(2, {"a": torch.tensor(float("nan"))})
    other.collect(9, {"z": torch.tensor(1.0)})
    other.load_state_dict(history.state_dict())
    (first, second) = other.curves()["a"]
    assert first == (0, 0.5)
    assert second[0] == 2
    assert math.isnan(second[1])
    assert list(other.curves()) == ["a"]


@pytest.mark.parametrize(
    ("value", "number"),
    [(torch.tensor(0.02), 0.02), (torch.tensor(1 / 3, dtype=torch.float64), 1 / 3), (7, 7.0), (torch.tensor(3), 3.0)],
)
def test_single_precision_is_written_shortly(value, number):
    assert as_number(value) == number
