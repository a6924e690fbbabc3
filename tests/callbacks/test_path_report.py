"""What the report shows of adversarial paths: tables, pictures, suspects."""

import csv
import statistics
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from path_runs import Victim, data, fit, flips_of, make_trainer, rows_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_poison.attacks import adversarial_paths, path_trace
from lightning_poison.callbacks import AdversarialPaths
from lightning_poison.datamodules import PoisonedDataset
from lightning_poison.errors import UserError

PICTURES = ["path-lengths", "path-examples", "path-ends", "path-trace", "path-plane"]


def names(section):
    return [figure.name for figure in section.figures]


def test_the_report_shows_classes_and_pictures():
    callback = AdversarialPaths("next", step=0.05, max_steps=30, clip=True)
    assert callback.report_sections() == []
    trainer, _ = fit(callback, data(80))
    section, suspects = callback.report_sections()
    rows = rows_of(trainer)
    table = {row[0]: row[1:] for row in section.tables[0].rows}
    for label in range(4):
        lengths = [row["length"] for row in rows if row["label"] == label]
        assert table[label][:3] == (len(lengths), statistics.median(lengths), round(statistics.fmean(lengths), 2))
    assert table["all"][0] == 80
    assert names(section) == PICTURES
    assert names(suspects) == ["path-suspects"]
    assert all(figure.png.startswith(b"\x89PNG") for figure in (*section.figures, *suspects.figures))
    assert "kept within [0, 1]" in section.text[0]
    assert "clipped" not in section.figures[2].caption


def test_a_report_that_is_written_again_draws_anew_only_what_was_measured_since():
    callback = AdversarialPaths("next", step=0.05, max_steps=30)
    fit(callback, data(80))
    first = callback.report_sections()
    assert all(one is other for one, other in zip(first, callback.report_sections(), strict=True))
    fit(callback, data(60, seed=1))
    again = callback.report_sections()
    assert again[0].tables[0].rows[-1][1] == 60
    assert again[0].figures[0].png != first[0].figures[0].png


def test_without_pictures():
    callback = AdversarialPaths(step=0.05, max_steps=30, pictures=False, name="few")
    fit(callback, data(80))
    section, suspects = callback.report_sections()
    assert names(section) == ["path-lengths-few"]
    assert names(suspects) == []
    assert len(suspects.tables[0].rows) == 12


def test_inputs_that_are_no_images_have_no_pictures():
    inputs, labels = data(60).tensors

    class Flat(Victim):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(36, 4)

    callback = AdversarialPaths(max_steps=10)
    fit(callback, TensorDataset(inputs.flatten(1), labels), victim=Flat())
    sections = callback.report_sections()
    assert [names(section) for section in sections] == [["path-lengths"], []]


def test_histogram_titles_name_the_target(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lightning_poison.plots.path_length_histogram", lambda *_, class_names, **__: seen.append(class_names)
    )
    monkeypatch.setattr("lightning_poison.report.ReportFigure.from_figure", lambda *_: None)
    for target in ("next", "untargeted", 2):
        callback = AdversarialPaths(target, max_steps=2, pictures=False)
        fit(callback, data(40), max_epochs=1)
        callback.report_sections()
    assert seen[0] == ["class 0 to 1", "class 1 to 2", "class 2 to 3", "class 3 to 0"]
    assert seen[1] == ["class 0", "class 1", "class 2", "class 3"]
    assert seen[2] == ["class 0 to 2", "class 1 to 2", "class 2", "class 3 to 2"]


def test_pictured_paths_are_those_that_were_measured():
    dataset = data(80)
    callback = AdversarialPaths("next", step=0.05, max_steps=40)
    _, victim = fit(callback, dataset)
    victim.eval()
    inputs, labels = dataset.tensors
    whole = adversarial_paths(victim, inputs, labels, (labels + 1) % 4, step=0.05, max_steps=40, keep_ends=True)
    pictures = callback._pictures
    chosen = [int(title.removeprefix("#")) for title in pictures.ends.starts.titles]
    assert pictures.ends.starts.rows == [f"class {label}" for label in range(4)]
    assert labels[chosen].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    quarters = []
    for label in range(4):
        steps = sorted(whole.length[(labels == label) & whole.reached & (whole.length > 0)].tolist())
        quarters += [steps[len(steps) // 4], steps[3 * len(steps) // 4]]
    assert whole.length[chosen].tolist() == quarters
    assert pictures.ends.starts.images.equal(inputs[chosen])
    assert pictures.ends.ends.allclose(whole.ends[chosen], atol=1e-6)
    with torch.no_grad():
        seen = victim(whole.ends[chosen]).argmax(1)
    wanted = [f"{label} in {length} steps" for label, length in zip(seen, whole.length[chosen], strict=True)]
    assert pictures.ends.titles == wanted
    low, high = float(whole.ends[chosen].min()), float(whole.ends[chosen].max())
    assert f"from {low:.2f} to {high:.2f}; what is outside [0, 1] is shown clipped" in pictures.ends.caption()

    lengths = sorted(whole.length[(labels == 0) & whole.reached & (whole.length > 0)].tolist())
    path = pictures.path
    assert path.label == labels[path.index] == 0
    assert path.length == lengths[len(lengths) // 2] == whole.length[path.index]
    assert path.images[0].equal(inputs[path.index])
    assert path.steps[0] == 0
    assert path.steps[-1] == path.length

    plane = pictures.plane
    other = int(plane.names[1].split(",")[0].removeprefix("#"))
    assert labels[other] == path.goal == 1
    (trace,) = path_trace(victim, inputs[[path.index]], labels[[path.index]], torch.tensor([1]), step=0.05)
    anchors = torch.stack([inputs[path.index], inputs[other], trace.points[-1]])
    assert plane.plane.anchors.allclose(plane.plane.project(anchors), atol=1e-6)
    assert plane.path[-1].allclose(plane.plane.anchors[2], atol=1e-6)


def expected_suspects(victim, inputs, labels, length, reached, left_out=()):
    """By hand: shortest first, then least probable, as tuples (index, label, rival, length)."""
    with torch.no_grad():
        beliefs = victim.eval()(inputs).softmax(1)
    order = sorted(
        (int(length[row]), float(beliefs[row, labels[row]]), row)
        for row in range(len(labels))
        if reached[row] and row not in left_out
    )
    rivals = {row: max((float(p), k) for k, p in enumerate(beliefs[row]) if k != labels[row])[1] for _, _, row in order}
    return [(row, int(labels[row]), rivals[row], steps) for steps, _, row in order]


def test_suspects_are_the_closest_points_that_nobody_flipped():
    clean = data(150)
    positions = list(range(40))
    callback = AdversarialPaths(step=0.02, max_steps=12)
    trainer, victim = fit(callback, PoisonedDataset(clean, flips_of(clean.tensors[1], positions)))
    inputs, labels = clean.tensors
    paths = adversarial_paths(victim, inputs, labels, step=0.02, max_steps=12)
    expected = expected_suspects(victim, inputs, labels, paths.length, paths.reached, left_out=positions)[:100]
    found = rows_of_suspects(trainer)
    assert [(row["index"], row["label"], row["rival"], row["length"]) for row in found] == expected
    assert 10 < len(expected) <= 100
    assert sum(row["length"] == 0 for row in found) > 3
    _, section = callback.report_sections()
    assert [(int(row[0]), *row[1:4]) for row in section.tables[0].rows] == expected[:12]
    assert "no verdict" in section.text[0]
    assert section.text[1] == f"suspects.csv lists {len(expected)} of them."


def test_ties_at_the_end_of_the_list_are_settled_by_probability(monkeypatch):
    monkeypatch.setattr("lightning_poison.callbacks.paths.pictures._COUNT", 5)
    dataset = data(150)
    trainer, victim = fit(AdversarialPaths(step=0.02, max_steps=12, pictures=False), dataset)
    paths = adversarial_paths(victim, *dataset.tensors, step=0.02, max_steps=12)
    assert (paths.length == 0).sum() > 5
    expected = expected_suspects(victim, *dataset.tensors, paths.length, paths.reached)[:5]
    assert [row["index"] for row in rows_of_suspects(trainer)] == [row[0] for row in expected]


def rows_of_suspects(trainer, name="suspects.csv"):
    with (Path(trainer.log_dir) / "report" / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "rival", "length", "label_probability", "rival_probability"]
    return [{key: (float if "prob" in key else int)(value) for key, value in row.items()} for row in rows]


def test_rivals_of_targeted_paths_are_their_targets():
    callback = AdversarialPaths("next", step=0.02, max_steps=40, name="n")
    trainer, victim = fit(callback, data(60))
    found = rows_of_suspects(trainer, "suspects_n.csv")
    with torch.no_grad():
        beliefs = victim.eval()(data(60).tensors[0]).softmax(1)
    for row in found:
        assert row["rival"] == (row["label"] + 1) % 4
        assert row["label_probability"] == pytest.approx(float(beliefs[row["index"], row["label"]]), rel=1e-4)
        assert row["rival_probability"] == pytest.approx(float(beliefs[row["index"], row["rival"]]), rel=1e-4)


def test_paths_to_the_least_likely_class_tell_no_suspects(tmp_path):
    callback = AdversarialPaths("least_likely", step=0.05, max_steps=30)
    fit(callback, data(60))
    assert len(callback.report_sections()) == 1
    assert not list(tmp_path.rglob("suspects*"))


def test_planted_label_noise_is_found():
    # A victim that was trained on clean labels, shown data with 8 flipped labels that nobody declared.
    inputs, labels = data(400).tensors
    planted = list(range(0, 400, 50))
    noisy = labels.clone()
    noisy[planted] = (labels[planted] + 2) % 4
    victim = Victim().eval()
    optimizer = torch.optim.Adam(victim.parameters(), 1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(300):
            loss = nn.functional.cross_entropy(victim(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trainer, _ = fit(AdversarialPaths(step=0.005), TensorDataset(inputs, noisy), victim=victim, max_epochs=1)
    found = [row["index"] for row in rows_of_suspects(trainer)[:8]]
    assert len(set(found) & set(planted)) >= 7


@pytest.mark.parametrize("output", [1, "logits"])
def test_class_scores_among_other_outputs(output):
    class Several(Victim):
        def forward(self, inputs):
            scores = self.net(inputs)
            return (inputs, scores) if output == 1 else {"logits": scores, "inputs": inputs}

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0])[output], batch[1])

    settings = {"target": "next", "step": 0.05, "max_steps": 30}
    several, _ = fit(callback := AdversarialPaths(**settings, output=output), data(80), victim=Several())
    alone, _ = fit(AdversarialPaths(**settings), data(80))
    assert rows_of(several) == rows_of(alone)
    assert rows_of_suspects(several) == rows_of_suspects(alone)
    assert names(callback.report_sections()[0]) == PICTURES
    with pytest.raises(UserError, match="the model must return a tensor of class scores"):
        fit(AdversarialPaths(**settings), data(80), victim=Several())


def test_pictures_do_not_touch_the_training():
    class Stochastic(Victim):
        def forward(self, inputs):
            return self.net(inputs) + 0 * torch.rand(1)

    results = []
    for pictures in (None, False, True):
        pl.seed_everything(7, verbose=False)
        victim = Stochastic(lr=0.1)
        callbacks = [] if pictures is None else [AdversarialPaths(every_n_epochs=1, max_steps=20, pictures=pictures)]
        make_trainer(*callbacks).fit(victim, DataLoader(data(64), 16, shuffle=True))
        assert victim.training
        assert all(parameter.requires_grad for parameter in victim.parameters())
        results.append((victim.state_dict(), torch.rand(3)))
    for state, drawn in results[1:]:
        assert drawn.equal(results[0][1])
        assert all(value.equal(state[name]) for name, value in results[0][0].items())


def test_a_class_without_points_to_show():
    inputs, _ = data(20).tensors
    callback = AdversarialPaths(step=0.05, max_steps=40)
    fit(callback, TensorDataset(inputs, torch.zeros(20, dtype=torch.int64)), max_epochs=1)
    assert callback.report_sections()  # no point of another class is there to span the plane


def test_nothing_reached_is_nothing_to_show():
    inputs, labels = data(20).tensors
    victim = Victim().eval()
    with torch.no_grad():
        right = victim(inputs).argmax(1) == labels
    callback = AdversarialPaths(step=1e-6, max_steps=1)
    fit(callback, TensorDataset(inputs[right], labels[right]), max_epochs=1)
    (section,) = callback.report_sections()
    assert names(section) == ["path-lengths"]
