import csv
import io
import re
import statistics
from pathlib import Path

import lightning.pytorch as unified
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from path_runs import Victim, data, fit, flips_of, make_trainer, rows_of
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from lightning_poison.attacks import adversarial_paths
from lightning_poison.callbacks import AdversarialPaths
from lightning_poison.datamodules import PoisonedDataset
from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList


@pytest.mark.parametrize("package", [pl, unified])
@pytest.mark.parametrize("target", ["untargeted", "next", 2])
def test_file_and_numbers_equal_a_direct_call(package, target):
    dataset = data(60)
    trainer, victim = fit(AdversarialPaths(target, step=0.05, max_steps=15), dataset, package)
    inputs, labels = dataset.tensors
    keep = labels != target if isinstance(target, int) else torch.ones(60, dtype=torch.bool)
    targets = {"untargeted": None, "next": (labels + 1) % 4}.get(target, torch.full_like(labels, 2))
    expected = adversarial_paths(
        victim, inputs[keep], labels[keep], None if targets is None else targets[keep], step=0.05, max_steps=15
    )
    rows = rows_of(trainer)
    assert [row["index"] for row in rows] == keep.nonzero().squeeze(1).tolist()
    assert [row["label"] for row in rows] == labels[keep].tolist()
    assert [row["target"] for row in rows] == expected.target.tolist()
    assert [row["length"] for row in rows] == expected.length.tolist()
    assert [row["reached"] for row in rows] == expected.reached.long().tolist()
    assert len(set(expected.length.tolist())) > 3
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("paths")}
    assert logged == pytest.approx(
        {
            "paths/length_median": statistics.median(expected.length.tolist()),
            "paths/length_mean": statistics.fmean(expected.length.tolist()),
            "paths/reached": expected.reached.double().mean().item(),
        }
    )


def test_training_is_not_touched_even_by_random_augmentation():
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image + 0.1 * torch.rand(1)).clamp(0, 1), label

    results = []
    for every_n_epochs in (None, 1):
        pl.seed_everything(7, verbose=False)
        victim = Victim(lr=0.1)
        callbacks = [] if every_n_epochs is None else [AdversarialPaths(every_n_epochs=1, max_steps=10)]
        make_trainer(*callbacks).fit(victim, DataLoader(Augmented(*data(64).tensors), 16, shuffle=True))
        results.append((victim.state_dict(), torch.rand(3)))
    assert results[0][1].equal(results[1][1])
    assert all(value.equal(results[1][0][name]) for name, value in results[0][0].items())


def test_the_file_belongs_to_the_last_epoch_and_history_to_all_due_ones():
    callback = AdversarialPaths(max_steps=5, every_n_epochs=2)
    fit(callback, data(20), max_epochs=3)
    assert [entry["epoch"] for entry in callback.history] == [1, 2]
    once = AdversarialPaths(max_steps=5)
    fit(once, data(20), max_epochs=3)
    assert [entry["epoch"] for entry in once.history] == [2]
    again = AdversarialPaths(max_steps=5)
    again.load_state_dict(once.state_dict())
    assert again.history == once.history


def test_points_are_drawn_from_the_whole_of_sorted_data_and_always_the_same():
    inputs, labels = data(200).tensors
    order = labels.argsort()
    dataset = TensorDataset(inputs[order], labels[order])
    drawn = []
    for _ in range(2):
        trainer, _ = fit(AdversarialPaths(max_samples=60, max_steps=2), dataset, max_epochs=1)
        drawn.append([row["index"] for row in rows_of(trainer)])
    assert drawn[0] == drawn[1] == sorted(set(drawn[0]))
    assert len(drawn[0]) == 60
    assert {int(label) for label in labels[order][drawn[0]]} == {0, 1, 2, 3}


def test_paths_of_flipped_points_start_from_the_clean_class():
    clean = data(40)
    positions = [3, 17, 20]
    poisoned = PoisonedDataset(clean, flips_of(clean.tensors[1], positions))
    callback = AdversarialPaths("next", step=0.05, max_steps=15)
    trainer, _ = fit(callback, poisoned)
    reference, _ = fit(AdversarialPaths("next", step=0.05, max_steps=15), clean)
    assert rows_of(trainer) == rows_of(reference)
    assert "3 of these points carry a flipped label" in callback.report_sections()[0].text[1]


def test_lengths_of_flipped_points_are_those_of_their_clean_class():
    inner = data(30)
    old = inner.tensors[1][:10]
    poisoned = PoisonedDataset(inner, FlipList(torch.arange(10), old, (old + 1) % 4))
    callback, victim = AdversarialPaths(max_steps=40), Victim()
    make_trainer(callback, max_epochs=1, logger=False).fit(victim, DataLoader(poisoned, 8))
    expected = adversarial_paths(victim, *inner.tensors, max_steps=40).length
    others = adversarial_paths(
        victim, inner.tensors[0], torch.cat([(old + 1) % 4, inner.tensors[1][10:]]), max_steps=40
    )
    assert callback._paths.length.equal(expected)
    assert not others.length.equal(expected)


def test_flipped_points_are_found_through_a_subset():
    clean = data(40)
    kept = [20, 5, 3, 30]
    poisoned = Subset(PoisonedDataset(clean, flips_of(clean.tensors[1], [3, 17, 20])), kept)
    trainer, _ = fit(AdversarialPaths(step=0.05, max_steps=15), poisoned)
    assert [row["label"] for row in rows_of(trainer)] == clean.tensors[1][kept].tolist()


def test_next_class_is_cyclic_among_the_clean_classes():
    class Data(pl.LightningDataModule):
        num_classes, clean_num_classes = 5, 4

        def train_dataloader(self):
            clean = data(40)
            return DataLoader(PoisonedDataset(clean, flips_of(clean.tensors[1], [1, 2], new=4)), 16)

    trainer = make_trainer(AdversarialPaths("next", max_steps=2))
    trainer.fit(Victim(outputs=5), Data())
    assert {(row["label"], row["target"]) for row in rows_of(trainer)} == {(0, 1), (1, 2), (2, 3), (3, 0)}


def test_a_rank_may_have_no_points():
    callback, dataset = AdversarialPaths(max_steps=3), data(20)
    trainer, victim = fit(callback, dataset)
    rows, stochastic = callback._walker(trainer, victim).follow(torch.arange(0))
    assert rows.shape == (0, 6)
    assert not stochastic


def test_least_likely_class():
    dataset = data(60)
    callback = AdversarialPaths("least_likely", step=0.05, max_steps=30)
    trainer, victim = fit(callback, dataset)
    inputs, labels = dataset.tensors
    with torch.no_grad():
        scores = victim.eval()(inputs)
    rows = rows_of(trainer)
    for row in rows:
        others = [(float(score), number) for number, score in enumerate(scores[row["index"]]) if number != row["label"]]
        assert row["target"] == min(others)[1]
    targets = torch.tensor([row["target"] for row in rows])
    expected = adversarial_paths(victim, inputs, labels, targets, step=0.05, max_steps=30)
    assert [row["length"] for row in rows] == expected.length.tolist()
    assert len(targets.unique()) > 1
    assert "holds least likely" in callback.report_sections()[0].text[0]


def test_random_augmentation_is_the_same_whichever_points_are_fetched_together():
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image + 0.3 * torch.rand(1) * float(np.random.rand())).clamp(0, 1), label  # noqa: NPY002

    dataset = Augmented(*data(40).tensors)
    callback = AdversarialPaths(max_steps=10, step=0.05)
    trainer, victim = fit(callback, dataset)
    walker = callback._walker(trainer, victim)
    whole, _ = walker.fetch(torch.arange(40))
    part, _ = walker.fetch(torch.tensor([31, 7]))
    assert part.equal(whole[[31, 7]])
    shifts = whole - data(40).tensors[0]
    assert len(shifts.flatten(1).amax(1).unique()) > 30
    halves = torch.cat([walker.follow(torch.arange(start, 40, 2))[0] for start in (0, 1)])
    assert halves[halves[:, 0].argsort()].equal(walker.follow(torch.arange(40))[0])


def test_nothing_is_written_under_fast_dev_run(tmp_path):
    trainer, _ = fit(AdversarialPaths(max_steps=2), data(20), fast_dev_run=True)
    assert "paths/reached" in trainer.callback_metrics
    assert not list(tmp_path.rglob("paths.csv"))


def test_only_points_of_the_target_is_a_warning():
    inputs, _ = data(20).tensors
    with pytest.warns(UserWarning, match="no adversarial path was measured"):
        trainer, _ = fit(AdversarialPaths(1), TensorDataset(inputs, torch.ones(20, dtype=torch.int64)), max_epochs=1)
    assert "paths/reached" not in trainer.callback_metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "previous"}, "target must be one of untargeted, next, least_likely, got previous"),
        ({"target": -1}, "target must be an integer of at least 0"),
        ({"step": 8}, "for 8 grey levels of 255 write 8/255"),
        ({"step": 0}, "step must lie in"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
        ({"name": "a b"}, "name must be made of letters, digits, '_' and '-', got 'a b'"),
        ({"name": "../a"}, "name must be made of"),
        ({"max_samples": 0}, "max_samples must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        AdversarialPaths(**arguments)


@pytest.mark.parametrize("names", [(None, None), ("a", "a"), ("a", "A")])
def test_two_of_one_name_are_refused(names):
    trainer = make_trainer(AdversarialPaths(name=names[0]), AdversarialPaths("next", name=names[1]))
    with pytest.raises(UserError, match=r"2 AdversarialPaths callbacks write paths\S*\.csv; give each its own name"):
        trainer.fit(Victim(), DataLoader(data(16), 8))


def test_several_in_one_run_measure_what_each_measures_alone():
    settings = {"step": 0.05, "max_steps": 15, "pictures": False}
    targets = {None: "untargeted", "next": "next", "to_2": 2}
    callbacks = [AdversarialPaths(target, name=name, **settings) for name, target in targets.items()]
    dataset = data(40)
    trainer = make_trainer(*callbacks, max_epochs=1)
    trainer.fit(Victim(), DataLoader(dataset, 16))
    assert len({callback.state_key for callback in callbacks}) == 3
    for name, target in targets.items():
        alone, _ = fit(AdversarialPaths(target, **settings), dataset, max_epochs=1)
        suffix = "" if name is None else f"_{name}"
        assert rows_of(trainer, f"paths{suffix}.csv") == rows_of(alone)
        for key in ("length_median", "length_mean", "reached"):
            assert trainer.callback_metrics[f"paths/{key}{suffix}"] == alone.callback_metrics[f"paths/{key}"]
    titles = [section.title for callback in callbacks for section in callback.report_sections()]
    assert len(set(titles)) == len(titles) == 6
    assert "Adversarial paths, to 2" in titles


def test_the_state_key_without_a_name_is_that_of_older_checkpoints():
    assert AdversarialPaths("next").state_key == "AdversarialPaths(target='next', step=0.01, clip=False)"


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (AdversarialPaths(7), "target must be one of the victim's classes 0 to 3, got 7"),
        (
            AdversarialPaths(output="logits"),
            "output must name an item of the model's output, got 'logits' for a tensor",
        ),
    ],
)
def test_a_target_or_an_output_that_the_victim_does_not_know_is_refused_before_the_first_step(callback, message):
    class Untrained(Victim):
        def training_step(self, *_):
            raise AssertionError("trained")

    with pytest.raises(UserError, match=re.escape(message)):
        fit(callback, data(16), victim=Untrained(), max_epochs=1)


def test_data_without_indices_are_refused_before_the_first_step():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(list(zip(*data(16).tensors, strict=True)))

    steps = []

    class Counting(Victim):
        def training_step(self, batch, index):
            steps.append(index)
            return super().training_step(batch, index)

    with pytest.raises(UserError, match="over a data set with indices, got DataLoader over Stream"):
        make_trainer(AdversarialPaths()).fit(Counting(), DataLoader(Stream(), 8))
    assert steps == []


def test_the_file_is_plain_csv():
    trainer, _ = fit(AdversarialPaths(max_steps=2), data(5), max_epochs=1)
    text = (Path(trainer.log_dir) / "report" / "paths.csv").read_text()
    assert text.splitlines()[0] == "index,label,target,length,reached"
    assert len(list(csv.reader(io.StringIO(text)))) == 6
    assert text.endswith("\n")


@pytest.mark.parametrize(("text", "target"), [("next", "next"), ("least_likely", "least_likely"), ("3", 3)])
def test_the_command_line_reads_targets_and_grey_levels(text, target):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AdversarialPaths, "c")
    made = parser.instantiate_classes(parser.parse_args([f"--c.target={text}", "--c.step=2/255"])).c
    assert (made.target, made.step) == (target, 2 / 255)
