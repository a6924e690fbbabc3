"""The certified-accuracy curve: equal to the function on all samples, however they are split."""

import pytest
import torch

from lightning_poison.certificates import LabelFlipCertificate, certified_accuracy
from lightning_poison.errors import UserError
from lightning_poison.metrics import CertifiedAccuracy

RADII = [0, 1, 5, 30]


def samples(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(3)
    prediction, labels = (torch.randint(3, (count,), generator=stream) for _ in range(2))
    return prediction, torch.randint(-1, 40, (count,), generator=stream), labels


def test_it_equals_the_function_on_all_samples() -> None:
    prediction, radius, labels = samples(101)
    metric = CertifiedAccuracy(RADII)
    for part in zip(prediction.split(17), radius.split(17), labels.split(17), strict=True):
        metric.update(*part)
    assert metric.compute().equal(certified_accuracy(LabelFlipCertificate(prediction, radius), labels, RADII))


def test_states_of_two_ranks_add_up() -> None:
    parts = list(zip(*(column.split(60) for column in samples(101)), strict=True))
    one, other, both = (CertifiedAccuracy(RADII) for _ in range(3))
    one.update(*parts[0])
    other.update(*parts[1])
    both.update(*samples(101))
    merged = (one.counts + other.counts).double() / (one.total + other.total)
    assert merged.equal(both.compute())


def test_abstaining_is_wrong_at_every_radius_and_nothing_is_nan() -> None:
    metric = CertifiedAccuracy([0])
    assert metric.compute().isnan().all()
    metric.update(torch.tensor([1]), torch.tensor([-1]), torch.tensor([1]))
    assert metric.compute().item() == 0.0


def test_l2_radii_are_compared_as_they_are() -> None:
    metric = CertifiedAccuracy([0.25, 0.5])
    metric.update(torch.tensor([1, 1]), torch.tensor([0.25, 0.4999]), torch.tensor([1, 1]))
    assert metric.compute().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("radii", "message"), [([], "at least one radius"), ([-1], "must lie in"), ([float("nan")], "finite")]
)
def test_radii_that_make_no_sense_are_refused(radii: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CertifiedAccuracy(radii)


def test_shapes_must_match() -> None:
    with pytest.raises(UserError, match="one shape"):
        CertifiedAccuracy([0]).update(torch.zeros(2), torch.zeros(3), torch.zeros(2))
