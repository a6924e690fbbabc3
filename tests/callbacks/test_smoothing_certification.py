"""The callback's numbers are those of the pure function, in every kind of run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from attack_runs import Scorer, data, loader, make_trainer, validate
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.callbacks import SmoothingCertification
from lightning_poison.certificates.input_smoothing import InputSmoothing, SmoothedPoints
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.trainer.positions import draw_positions
from lightning_poison.victims import Victim
from tests.lightning_runs import notes_of

METHOD = InputSmoothing(sigma=0.1, n=1000, n0=50)
RADII = [0.0, 0.05, 0.2]


def expected(dataset, index=None, victim=None):
    index = torch.arange(len(dataset)) if index is None else index
    inputs, labels = (tensor[index] for tensor in dataset.tensors)
    certificate = METHOD.certify(Scorer() if victim is None else victim, inputs, index, RADII)
    return SmoothedPoints(torch.arange(len(labels)), labels, certificate).values(RADII)


def test_numbers_do_not_depend_on_batches():
    dataset = data(40)
    found = [validate(dataset, SmoothingCertification(METHOD, RADII), batch_size=size) for size in (7, 40)]
    assert found[0] == found[1] == pytest.approx(expected(dataset))
    assert 0 < found[0]["smooth/acc_at_0.2"] < found[0]["smooth/acc_at_0"] < 1


def test_only_drawn_points_are_certified():
    dataset = data(40)
    found = validate(dataset, SmoothingCertification(METHOD, RADII, max_samples=9), batch_size=4)
    assert found == pytest.approx(expected(dataset, draw_positions(40, 9, dataset.tensors[1])))


def test_tuples_and_dictionaries():
    victim = Scorer(form=lambda scores: {"hidden": None, "logits": scores})
    dataset = data(12)
    found = validate(dataset, SmoothingCertification(METHOD, RADII, output="logits"), victim=victim)
    assert found == pytest.approx(expected(dataset))


def test_fit_measures_after_the_last_epoch_and_training_is_not_touched(tmp_path):
    train, held_out = data(64), data(20, seed=1)

    def fit(*callbacks):
        pl.seed_everything(3, verbose=False)
        victim = Victim(nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 4)))
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=CSVLogger(tmp_path, name="", version=f"run{len(callbacks)}"),
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(victim, DataLoader(train, 16, shuffle=True), DataLoader(held_out, 16))
        return victim, trainer

    callback = SmoothingCertification(METHOD, RADII, name="small")
    (plain, _), (victim, trainer) = fit(), fit(callback)
    for one, other in zip(plain.state_dict().values(), victim.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    wanted = {f"{key}_small": value for key, value in expected(held_out, victim=victim).items()}
    found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("smooth/")}
    assert found == pytest.approx(wanted)
    rows = list(csv.DictReader((Path(trainer.log_dir) / "report" / "smoothing_small.csv").open()))
    assert [int(row["index"]) for row in rows] == list(range(20))
    right = sum(row["label"] == row["prediction"] and float(row["radius"]) >= 0.05 for row in rows)
    assert right / 20 == pytest.approx(wanted["smooth/acc_at_0.05_small"])
    (section,) = callback.report_sections()
    assert section.title == "Input smoothing, small"
    assert set(notes_of(callback)) == set(wanted)


def test_the_last_epoch_without_validation_is_measured_when_the_fit_ends():
    victim = Victim(MLP(num_classes=4, image_size=6, hidden=()))
    trainer = pl.Trainer(
        max_epochs=3,
        check_val_every_n_epoch=2,
        accelerator="cpu",
        logger=False,
        callbacks=[SmoothingCertification(METHOD, RADII)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    held_out = data(20, seed=1)
    trainer.fit(victim, DataLoader(data(64), 16), DataLoader(held_out, 16))
    found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("smooth/")}
    assert found == pytest.approx(expected(held_out, victim=victim))


def test_test_points():
    dataset = data(15)
    callback = SmoothingCertification(METHOD, RADII)
    found = make_trainer(callback).test(Scorer(), loader(dataset), verbose=False)[0]
    assert found == pytest.approx(expected(dataset))


def test_nothing_before_a_measurement():
    callback = SmoothingCertification(METHOD)
    assert callback.report_sections() == []
    assert notes_of(callback) == {}


def test_arguments():
    assert SmoothingCertification(METHOD).radii == [0.0, 0.25, 0.5, 0.75, 1.0]
    with pytest.raises(UserError, match="radii must lie in"):
        SmoothingCertification(METHOD, radii=[-0.5])
    with pytest.raises(UserError, match="2 SmoothingCertification callbacks have the name"):
        validate(data(4), SmoothingCertification(METHOD), SmoothingCertification(METHOD))


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(tmp_path):
    def fit(folder, **arguments):
        torch.manual_seed(0)
        victim = Victim(MLP(num_classes=4, image_size=6, hidden=()), optimizer=lambda p: torch.optim.SGD(p, 0.0))
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=CSVLogger(folder, name="", version="run"),
            callbacks=[SmoothingCertification(METHOD, RADII, max_samples=None)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **arguments,
        )
        # 21 points over two ranks: the sampler repeats one.
        trainer.fit(victim, DataLoader(data(16), 8), DataLoader(TensorDataset(*data(21, seed=1).tensors), 4))
        found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("smooth/")}
        return found, (Path(folder) / "run" / "report" / "smoothing.csv").read_text()

    single = fit(tmp_path / "one", devices=1)
    pair = fit(tmp_path / "two", devices=2, strategy="ddp_fork")
    assert pair == single
    assert len(single[1].splitlines()) == 22
