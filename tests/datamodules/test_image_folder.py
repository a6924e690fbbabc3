"""Which files and folders are data, and which part each of them is in."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from lightning_poison.datamodules import Digits, ImageFolder
from lightning_poison.datamodules.image_folder import identical_files
from lightning_poison.datamodules.split_data import check_classes, check_share, random_parts
from lightning_poison.datamodules.stored_tensors import ImageTensors
from lightning_poison.errors import UserError


@pytest.fixture(autouse=True)
def _loud():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(ImageFolder passes over|identical files).*")
        yield


def write_images(folder: Path, count: int = 3, first: int = 0) -> Path:
    """Pictures of one pixel's brightness, no two of them alike for other numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    return folder


def write_parts(root: Path, *names: str) -> Path:
    for position, name in enumerate(names):
        for label, animal in enumerate(("cat", "dog")):
            write_images(root / name / animal, first=6 * position + 3 * label)
    return root


def parts_of(data: ImageFolder) -> dict[str, set[int]]:
    """The brightness of the images of each part."""
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    return {part: brightness(loader.dataset) for part, loader in loaders.items()}


def brightness(dataset) -> set[int]:
    return {round(float(image.max()) * 255) for image, _ in dataset}


def read(root: Path, **arguments) -> ImageFolder:
    return ImageFolder(str(root), **{"image_size": 4, "test_split": 0, "val_split": 0, **arguments})


def test_hidden_names_and_litter_are_no_data(tmp_path):
    write_parts(tmp_path, "")
    for litter in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git/objects", "lost+found"):
        write_images(tmp_path / litter, first=100)
        write_images(tmp_path / "cat" / litter, first=100)
        write_images(tmp_path / "dog" / "deeper" / litter / "still", first=100)
    (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"hidden")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"thumbnails")
    (tmp_path / "cat" / "folder.png").mkdir()
    data = read(tmp_path)
    assert data.class_names == ["cat", "dog"]
    data.setup("fit")
    assert [Path(path).name for path, _ in data.train_dataloader().dataset.samples] == [f"{n}.png" for n in range(6)]


def test_a_root_below_a_hidden_folder_is_read(tmp_path):
    assert len(read(write_parts(tmp_path / ".cache" / "data", "")).train_dataloader().dataset) == 6


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "validation", "Testing"),
        ("training", "Dev", "TEST"),
    ],
)
def test_parts_are_known_by_their_usual_names(tmp_path, names):
    data = read(write_parts(tmp_path, *names), val_split=0.4, test_split=0.4)
    assert data.class_names == ["cat", "dog"]
    assert parts_of(data) == {"train": set(range(6)), "val": set(range(6, 12)), "test": set(range(12, 18))}


def test_suffixes_in_any_case_and_folders_within_classes(tmp_path):
    write_parts(tmp_path, "")
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "0.PNG")
    write_images(tmp_path / "cat" / "indoors" / "night", first=20)
    Image.new("L", (4, 4), 40).save(tmp_path / "dog" / "x.jfif", "JPEG")
    assert brightness(read(tmp_path).train_dataloader().dataset) == {*range(6), 20, 21, 22, 40}


def test_links_are_followed_once(tmp_path):
    store = write_images(tmp_path / "store" / "many", first=10)
    root = write_parts(tmp_path / "data", "train")
    write_images(tmp_path / "elsewhere" / "cat", first=20)
    write_images(tmp_path / "elsewhere" / "dog", first=30)
    (root / "Test").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "cow").symlink_to(store)
    (root / "Test" / "cow").symlink_to(write_images(tmp_path / "store" / "few", first=40, count=1))
    (root / "train" / "cat" / "more").symlink_to(write_images(tmp_path / "store" / "more", first=50))
    (root / "train" / "cat" / "one.png").symlink_to(write_images(tmp_path / "store" / "one", 1, 60) / "60.png")
    (root / "train" / "cat" / "circle").symlink_to(root / "train")
    (tmp_path / "store" / "more" / "circle").symlink_to(tmp_path / "store" / "more")
    data = read(root)
    assert data.class_names == ["cat", "cow", "dog"]
    data.setup("fit")
    expected = {"cat": {0, 1, 2, 50, 51, 52, 60}, "cow": {10, 11, 12}, "dog": {3, 4, 5}}
    for label, name in enumerate(data.class_names):
        dataset = data.train_dataloader().dataset
        seen = [round(float(image.max()) * 255) for image, at in dataset if at == label]
        assert sorted(seen) == sorted(expected[name])
    assert brightness(data.test_dataloader().dataset) == {20, 21, 22, 30, 31, 32, 40}


def test_links_that_lead_nowhere_are_named(tmp_path):
    root = write_parts(tmp_path, "")
    (root / "cat" / "lost.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"cat/lost.png is a link that leads nowhere; mend or remove it"):
        read(root).setup("fit")
    (root / "cat" / "lost.png").unlink()
    (root / "eel").symlink_to(tmp_path / "eel")
    with pytest.raises(UserError, match=r"eel is a link that leads nowhere"):
        read(root)


def test_layouts_that_can_be_read_in_two_ways_are_refused(tmp_path):
    two = write_parts(tmp_path / "two", "Train", "training", "test")
    with pytest.raises(UserError, match=r"two must have one train folder, got Train and training; put them together"):
        read(two)
    vehicles = tmp_path / "vehicles"
    for number, name in enumerate(("bus", "car", "train")):
        write_images(vehicles / name, first=3 * number)
    with pytest.raises(UserError, match=r"either parts or classes, got train beside bus, car; move .* into .*/train"):
        read(vehicles)
    (vehicles / "classes").mkdir()
    for name in ("bus", "car", "train"):
        (vehicles / name).rename(vehicles / "classes" / name)
    (vehicles / "classes").rename(vehicles / "train")
    assert read(vehicles).class_names == ["bus", "car", "train"]
    lone = write_parts(tmp_path / "lone", "", "test")
    with pytest.raises(UserError, match=r"must have a folder train beside test, got cat, dog; move the folders of"):
        read(lone)
    doubled = write_parts(tmp_path / "doubled", "", "train")
    with pytest.raises(UserError, match=r"must hold either parts or classes, got train beside cat, dog"):
        read(doubled)
    inside = tmp_path / "inside"
    for number, name in enumerate(("cat/train", "cat/test", "dog/train", "dog/test")):
        write_images(inside / name, first=3 * number)
    with pytest.raises(UserError, match=r"cat is split into test and train; put the split above the classes"):
        read(inside).setup("fit")


def test_what_is_passed_over_is_said(tmp_path):
    root = write_parts(tmp_path, "train", "holdout")
    (root / "notes").mkdir()
    with pytest.warns(UserWarning, match=r"passes over holdout in .*, with the same classes as train; call a folder"):
        data = read(root)
    assert brightness(data.train_dataloader().dataset) == set(range(6))
    write_images(root / "train", count=2, first=80)
    (root / "train" / "cat" / "a.HEIC").write_bytes(b"heic")
    (root / "train" / "cat" / "labels.txt").write_text("cat")
    shutil.rmtree(root / "holdout")
    with pytest.warns(UserWarning, match=r"passes over 3 images in .*train \(1 .heic, 2 beside the class folders\)"):
        read(root).setup("fit")


def test_files_with_the_same_content_are_found(tmp_path):
    stream = np.random.default_rng(0)
    contents = [stream.bytes(20_000) for _ in range(4)]
    contents += [contents[1][:-1] + b"x", contents[1], contents[3], contents[1], b"", contents[0][:100]]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    assert identical_files([str(tmp_path / str(number)) for number in range(len(contents))]) == [[1, 5, 7], [3, 6]]
    with pytest.raises(UserError, match=r"cannot read the image .*absent .*see that it is there"):
        identical_files([str(tmp_path / "absent"), str(tmp_path / "0")])


def test_copies_do_not_cross_what_is_split(tmp_path):
    root = write_parts(tmp_path, "")
    for number in range(6):  # six more of each of them, under other names
        for copy in range(6):
            original = next(root.glob(f"*/{number}.png"))
            shutil.copy(original, root / "cat" / f"copy_{copy}_{number}.png")
    for seed in range(3):
        with pytest.warns(UserWarning, match=r"36 of the 42 images .* copies .*such as .*; 3 are in several classes"):
            parts = parts_of(read(root, test_split=8, val_split=8, seed=seed))
        assert [len(parts[part]) for part in ("train", "val", "test")] == [4, 1, 1]
        assert not parts["train"] & parts["val"] | parts["train"] & parts["test"] | parts["val"] & parts["test"]


def test_without_copies_the_draw_is_the_plain_one():
    plain = random_parts(50, 0.3, 20, seed=4)
    grouped = random_parts(50, 0.3, 20, seed=4, together=[[3]])
    assert all(torch.equal(one, other) for one, other in zip(plain, grouped, strict=True))


def test_groups_are_held_out_whole_and_as_many_points_as_asked_for():
    groups = [[0, 1, 2], [10, 20], [30, 31, 32, 33, 34]]
    for seed in range(40):
        rest, held_out = random_parts(60, 9, None, seed, together=groups)
        assert sorted(rest.tolist() + held_out.tolist()) == list(range(60))
        assert len(held_out) == 9
        assert all(len(set(group) & set(held_out.tolist())) in (0, len(group)) for group in groups)
    rest, held_out = random_parts(6, 3, None, 0, together=[[0, 1], [2, 3], [4, 5]])
    assert (len(rest), len(held_out)) == (4, 2)


def test_folders_that_share_files_are_counted(tmp_path):
    root = write_parts(tmp_path, "train", "val", "test")
    shutil.copy(root / "train" / "cat" / "1.png", root / "test" / "dog" / "a.png")
    shutil.copy(root / "train" / "cat" / "2.png", root / "test" / "dog" / "b.png")
    shutil.copy(root / "val" / "cat" / "6.png", root / "train" / "cat")
    data = read(root)
    with pytest.warns(UserWarning, match=r"1 of the 6 images in .*/val are in .*/train, too \(identical files such as"):
        data.setup("fit")
    with pytest.warns(UserWarning, match=r"2 of the 8 images in .*/test are in .*/train, too"):
        data.setup("test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_split": 700}, "test_split must leave points for training, got 700 and there are 6; lower test_split"),
        ({"val_split": 700}, "val_split must leave points for training, got 700 and there are 6; lower val_split"),
        ({"test_split": 0.01}, r"no folder test and test_split is 0.01 of 6 images, so there is nothing to test on"),
    ],
)
def test_splits_name_their_argument(tmp_path, arguments, message):
    data = read(write_parts(tmp_path, ""), **arguments)
    with pytest.raises(UserError, match=message):
        data.setup("test" if "test_split" in arguments else "fit")


def test_a_share_that_rounds_to_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"val_split is 0.01, so there is nothing to validate on"):
        read(write_parts(tmp_path, ""), val_split=0.01).setup("validate")


def test_a_test_set_without_the_kept_classes(tmp_path):
    root = write_parts(tmp_path, "")
    write_images(root / "eel", first=50)
    seen = {int(label) for label in read(root, test_split=1).test_dataloader().dataset.targets}
    lost = read(root, test_split=1, classes=sorted({0, 1, 2} - seen))
    with pytest.raises(UserError, match=r"no test point is of the classes .*; hold out more of them"):
        lost.setup("test")


def test_classes_that_are_not_kept_may_be_missing(tmp_path):
    root = write_parts(tmp_path, "train", "test")
    write_images(root / "train" / "eel", first=50)
    assert brightness(read(root, classes=[0, 1]).test_dataloader().dataset) == set(range(6, 12))
    with pytest.raises(UserError, match=r"test has no folder 'eel', which is a class of the training data; add its im"):
        read(root).setup("test")
    shutil.rmtree(root / "train" / "eel")
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "a.heic").write_bytes(b"heic")
    with pytest.raises(UserError, match=r"eel holds no image that is read, only .heic; save them as PNG"):
        read(root).setup("fit")


def test_roots_that_are_none(tmp_path, monkeypatch):
    write_parts(tmp_path / "data" / "animals", "")
    with pytest.raises(UserError, match=r"got 1 \(animals\); if it holds the data, write --data.root .*/data/animals"):
        read(tmp_path / "data")
    (tmp_path / "data.zip").write_bytes(b"zip")
    with pytest.raises(UserError, match=r"data.zip is a file; unpack it, and name the folder of the images"):
        read(tmp_path / "data.zip")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(Path("~/data/animals")).class_names == ["cat", "dog"]
    write_parts(tmp_path / "many", "test")
    for number in range(30):
        write_images(tmp_path / "many" / "train" / f"class{number:02}", count=1, first=100 + number)
    with pytest.raises(UserError, match=r"has a class 'cat' .* class01, class02, class03, class04 and 25 more"):
        read(tmp_path / "many").setup("test")


def test_numpy_integers_count():
    assert check_share("val_split", np.int64(7)) == 7
    assert check_share("val_split", np.float32(0.5)) == 0.5
    assert check_classes(list(np.array([7, 1])), 10) == [7, 1]
    assert len(Digits(classes=np.array([7, 1]), val_split=np.int32(9)).val_dataloader().dataset) == 9


def bicubic(size):
    return v2.Resize(size, interpolation=InterpolationMode.BICUBIC)


@pytest.mark.parametrize("module", ["digits", "folder"])
def test_what_an_augmentation_overshoots_is_cut_off(tmp_path, module):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            board = np.kron(np.indices((4, 4)).sum(0) % 2 * (255 - number), np.ones((2, 2)))
            Image.fromarray(board.astype(np.uint8)).save(tmp_path / name / f"{number}{name}.bmp")
    options = {"train_transform": bicubic(13), "val_split": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Digits(**options) if module == "digits" else read(tmp_path, image_size=8, **options)
        plain = Digits(val_split=0) if module == "digits" else read(tmp_path, image_size=8)
        changed, stored = data.train_dataloader().dataset[0][0], plain.train_dataloader().dataset[0][0]
    raw = bicubic(13)(stored)
    assert raw.min() < 0 or raw.max() > 1
    assert torch.equal(changed, raw.clamp(0, 1))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            v2.Normalize([0.13], [0.31]),
            r"must give pixels in \[0, 1\], got \[-0.4.*model's first layer",
        ),
        (lambda image: image / 0 * 0, r"train_transform must give pixels in \[0, 1\], got \[nan, nan\]"),
        (lambda image: (255 * image).to(torch.uint8), "must give a float tensor .* got a tensor of torch.uint8"),
        (v2.ToPILImage(), "must give a float tensor .* got Image; end it with ToDtype"),
    ],
)
def test_an_augmentation_that_leaves_the_pixels_is_named(transform, message):
    with pytest.raises(UserError, match=message):
        Digits(train_transform=transform).train_dataloader().dataset[0]


def test_stored_images_are_bytes_up_to_their_white():
    labels = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match=r"data must be 8-bit images \(uint8\), got torch.float32; use a TensorDataset"):
        ImageTensors(torch.rand(1, 1, 2, 2), labels)
    with pytest.raises(UserError, match=r"data must be at most scale=16, which is white, got 17; raise scale"):
        ImageTensors(torch.full((1, 1, 2, 2), 17, dtype=torch.uint8), labels, scale=16)
    with pytest.raises(UserError, match="scale must be an integer of at least 1"):
        ImageTensors(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), labels, scale=0)
