from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    FlipList,
    FromFile,
    LabelFlips,
    NewClass,
    NextClass,
    RandomOther,
    RandomPoints,
    ToClass,
    TrainingSet,
)

SIZES = [30, 5, 12, 40]
LABELS = torch.tensor([label for label, size in enumerate(SIZES) for _ in range(size)])[
    torch.randperm(87, generator=torch.Generator().manual_seed(0))
]
DATA = TrainingSet(LABELS, 4, "f00d")
ZEROS = torch.zeros(5, dtype=torch.int64)


def by_class(flips: FlipList) -> list[int]:
    return flips.old_label.bincount(minlength=4).tolist()


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (RandomPoints(per_class=3), [3, 3, 3, 3]),
        (RandomPoints(per_class=5), [5, 5, 5, 5]),
        (RandomPoints(per_class=7, classes=[3, 0]), [7, 0, 0, 7]),
        (RandomPoints(count=5, classes=[1]), [0, 5, 0, 0]),
        (RandomPoints(fraction=1.0), SIZES),
        (RandomPoints(fraction=0.5, classes=[2]), [0, 0, 6, 0]),
        (RandomPoints(count=0), [0, 0, 0, 0]),
        (RandomPoints(per_class=0), [0, 0, 0, 0]),
    ],
)
def test_exact_budgets(select, expected):
    assert by_class(LabelFlips(select).craft(DATA, seed=0)) == expected


@pytest.mark.parametrize(("budget", "total"), [({"count": 17}, 17), ({"fraction": 0.1}, 9), ({"fraction": 0.25}, 22)])
def test_exact_totals(budget, total):
    assert len(LabelFlips(RandomPoints(**budget)).craft(DATA, seed=0)) == total


@pytest.mark.parametrize("relabel", [NextClass(), NewClass(), ToClass(2), RandomOther()])
@pytest.mark.parametrize("select", [RandomPoints(count=40), RandomPoints(per_class=5), RandomPoints(fraction=0.3)])
def test_every_flip_changes_a_label_and_fits_the_data(select, relabel):
    poison = LabelFlips(select, relabel)
    flips = poison.craft(DATA, seed=1)
    assert len(flips) > 0
    assert (flips.old_label == LABELS[flips.index]).all()
    assert (flips.new_label != flips.old_label).all()
    assert int(flips.new_label.max()) < poison.num_classes_after(4)
    assert len(set(flips.index.tolist())) == len(flips)


def test_same_seed_same_flips_whatever_the_global_state():
    poison = LabelFlips(RandomPoints(fraction=0.4), RandomOther())
    first = poison.craft(DATA, seed=3)
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    random.seed(11)
    state = torch.get_rng_state()
    assert poison.craft(DATA, seed=3).same_flips(first)
    assert torch.equal(state, torch.get_rng_state())
    assert not poison.craft(DATA, seed=4).same_flips(first)


def test_draws_stay_the_same_in_every_version():
    flips = LabelFlips(RandomPoints(per_class=1), RandomOther()).craft(DATA, seed=0)
    assert list(zip(flips.index.tolist(), flips.new_label.tolist(), strict=True)) == [(7, 0), (39, 2), (71, 3), (85, 3)]


def test_smaller_budgets_are_parts_of_larger_ones():
    for small, large in ((RandomPoints(per_class=2), RandomPoints(per_class=4)), (RandomPoints(7), RandomPoints(20))):
        few = set(LabelFlips(small).craft(DATA, seed=5).index.tolist())
        assert few < set(LabelFlips(large).craft(DATA, seed=5).index.tolist())


def test_a_class_is_drawn_independently_of_the_others():
    alone = LabelFlips(RandomPoints(per_class=3, classes=[2])).craft(DATA, seed=0)
    together = LabelFlips(RandomPoints(per_class=3)).craft(DATA, seed=0)
    assert alone.index.tolist() == together.index[together.old_label == 2].tolist()


def test_random_other_reaches_every_other_class_equally_often():
    data = TrainingSet(torch.full((6000,), 1), 4)
    flips = LabelFlips(RandomPoints(fraction=1.0), RandomOther()).craft(data, seed=0)
    counts = flips.new_label.bincount(minlength=4).tolist()
    assert counts[1] == 0
    assert all(abs(counts[label] - 2000) < 150 for label in (0, 2, 3))  # four standard deviations


def test_every_point_is_drawn_equally_often():
    data = TrainingSet(torch.zeros(10, dtype=torch.int64), 2)
    hits = torch.zeros(10)
    for seed in range(1000):
        hits[LabelFlips(RandomPoints(count=3)).craft(data, seed).index] += 1
    assert (hits - 300).abs().max() < 75  # five standard deviations


def test_points_of_the_target_class_are_not_drawn():
    flips = LabelFlips(RandomPoints(per_class=4), ToClass(3)).craft(DATA, seed=0)
    assert by_class(flips) == [4, 4, 4, 0]
    everything = LabelFlips(RandomPoints(fraction=1.0), ToClass(3)).craft(DATA, seed=0)
    assert len(everything) == 47
    with pytest.raises(UserError, match="class 3 cannot be flipped by this relabelling"):
        LabelFlips(RandomPoints(per_class=4, classes=[3]), ToClass(3)).craft(DATA, seed=0)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.001])
def test_a_share_of_no_points_is_refused(fraction):
    same = LabelFlips(RandomPoints(fraction=fraction, classes=[2]), ToClass(2))
    for poison, data in (
        (same, DATA),
        (LabelFlips(RandomPoints(fraction=fraction), ToClass(0)), TrainingSet(ZEROS, 2)),
    ):
        with pytest.raises(UserError, match="no point can be flipped by this relabelling; name other classes, or"):
            poison.craft(data, seed=0)
        with pytest.raises(UserError, match="no point can be flipped by this relabelling"):
            poison.check(data, 0)
    assert len(LabelFlips(RandomPoints(fraction=0.0), ToClass(0)).craft(TrainingSet(ZEROS, 2), seed=0)) == 0


def test_number_of_classes_after():
    select = RandomPoints()
    assert [LabelFlips(select, rule).num_classes_after(4) for rule in (NextClass(), NewClass(), ToClass(1))] == [
        4,
        5,
        4,
    ]
    with pytest.raises(UserError, match=r"ToClass.label must lie in \[0, 3\], got 4; NewClass adds a class"):
        LabelFlips(select, ToClass(4)).num_classes_after(4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomPoints(count=3, per_class=2), "takes one of count, per_class and fraction, got count=3"),
        (lambda: RandomPoints(count=-1), "count must be an integer of at least 0, got -1"),
        (lambda: RandomPoints(per_class=1.5), "per_class must be an integer"),
        (lambda: RandomPoints(fraction=5), r"fraction must lie in \[0, 1\], got 5; for 5 % write 0.05"),
        (lambda: RandomPoints(classes=[]), "at least one class"),
        (lambda: RandomPoints(classes=[1, 1]), "classes must differ"),
        (lambda: RandomPoints(classes=[-1]), "classes must be an integer of at least 0"),
        (lambda: ToClass(-1), "label must be an integer of at least 0"),
        (lambda: LabelFlips(FromFile("flips.csv"), NextClass()), "relabel must be left out with FromFile"),
    ],
)
def test_arguments_that_cannot_be_meant(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (RandomPoints(per_class=6), "got 6 and class 1 has 5 points"),
        (RandomPoints(count=88), "count must be at most the 87 points of the training set"),
        (RandomPoints(count=18, classes=[1, 2]), r"at most the 17 points of classes \[1, 2\]"),
        (RandomPoints(classes=[4]), r"classes must lie in \[0, 3\], got 4"),
        (RandomPoints(fraction=0.001), "less than one point"),
    ],
)
def test_budgets_that_do_not_fit_the_data(select, message):
    with pytest.raises(UserError, match=message):
        LabelFlips(select).craft(DATA, seed=0)


def test_one_class_cannot_be_flipped_within():
    data = TrainingSet(ZEROS, 1)
    for rule in (NextClass(), RandomOther()):
        with pytest.raises(UserError, match="single class"):
            LabelFlips(RandomPoints(count=1), rule).craft(data, seed=0)


def test_default_budget_is_ten_per_class():
    assert RandomPoints() == RandomPoints(per_class=10)
    assert LabelFlips(RandomPoints(count=2)).relabel == NextClass()


def test_provenance_tells_how_the_list_came_about():
    flips = LabelFlips(RandomPoints(per_class=2, classes=[0]), NewClass()).craft(DATA, seed=7)
    recorded = json.loads(json.dumps(dict(flips.provenance)))
    assert recorded.pop("package_version")
    assert recorded == {
        "strategy": "LabelFlips(RandomPoints(per_class=2, classes=[0]), NewClass())",
        "arguments": {
            "class": "LabelFlips",
            "select": {"class": "RandomPoints", "per_class": 2, "classes": [0]},
            "relabel": {"class": "NewClass"},
        },
        "seed": 7,
        "fingerprint": "f00d",
        "num_points": 87,
        "num_classes": 4,
        "num_classes_after": 5,
    }


@pytest.mark.parametrize("relabel", [NextClass(), NewClass(), RandomOther()])
def test_a_file_is_fed_back_exactly(tmp_path, relabel):
    poison = LabelFlips(RandomPoints(count=9), relabel)
    flips = poison.craft(DATA, seed=2)
    path = str(flips.write(tmp_path / "flips.csv"))
    again = LabelFlips(FromFile(path))
    assert again.num_classes_after(4) == poison.num_classes_after(4)
    back = again.craft(DATA, seed=99)
    assert back.same_flips(flips)
    assert back.provenance["strategy"] == f"LabelFlips(FromFile({path!r}))"
    assert back.provenance["listed_strategy"] == flips.provenance["strategy"]
    assert back.provenance["listed_seed"] == 2


def test_a_file_for_other_data_is_refused(tmp_path):
    path = str(LabelFlips(RandomPoints(count=9)).craft(DATA, seed=2).write(tmp_path / "flips.csv"))
    with pytest.raises(UserError, match="was drawn for other data"):
        LabelFlips(FromFile(path)).craft(TrainingSet(LABELS, 4, "beef"), seed=0)


def test_a_file_may_add_one_class_only(tmp_path):
    path = tmp_path / "flips.csv"
    path.write_text(f"index,old_label,new_label\n0,{int(LABELS[0])},9\n")
    poison = LabelFlips(FromFile(str(path)))
    with pytest.raises(UserError, match=r"flips.csv, row 2: new_label 9 is out of range; 5 classes"):
        poison.craft(DATA, seed=0)


def test_a_missing_file_is_noticed_before_the_data_is_there():
    with pytest.raises(UserError, match="there is no flip list at"):
        LabelFlips(FromFile("nowhere.csv")).num_classes_after(4)


GAPS = torch.tensor([0, 5, 7] * 4)


@pytest.mark.parametrize(
    ("labels", "classes", "relabel", "remark"),
    [
        (
            GAPS,
            8,
            NextClass(),
            "flips lead to classes 1 and 6, which no training point has: the labels are 0, 5, 7; ",
        ),
        (GAPS, 8, ToClass(3), "flips lead to class 3, which no training point has"),
        (GAPS, 8, ToClass(5), None),
        (GAPS, 8, NewClass(), None),
        (torch.arange(12) % 3, 3, NextClass(), None),
        (torch.arange(12) % 3, 5, NextClass(), "flips lead to class 3, which no training point has"),
        (
            torch.arange(12) % 3 + 1,
            4,
            NextClass(),
            "they are 1 to 3, none is 0, of 4 classes; flips lead to class 0, which",
        ),
        (
            torch.arange(12) % 3 + 1,
            4,
            ToClass(2),
            "they are 1 to 3, none is 0, of 4 classes; number the classes from 0",
        ),
        (torch.ones(12, dtype=torch.int64), 2, ToClass(0), "flips lead to class 0, which no training point has"),
    ],
)
def test_flips_to_classes_that_nobody_has_are_remarked(labels, classes, relabel, remark):
    flips = LabelFlips(RandomPoints(fraction=1.0), relabel).craft(TrainingSet(labels, classes), seed=0)
    if remark is None:
        assert "remark" not in flips.provenance
        return
    assert remark in flips.provenance["remark"]
    assert "\n" not in flips.provenance["remark"]
    led_to = set(flips.new_label.tolist()) - set(labels.tolist())
    assert ("flips lead to class" in flips.provenance["remark"]) is bool(led_to)
    assert all(str(label) in flips.provenance["remark"] for label in led_to)
