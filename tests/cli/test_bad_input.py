from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
import torch
import torchattacks
from PIL import Image

DIGITS = ("fit", "--config", "digits.yaml")
PLUS_ATTACK = ("--trainer.callbacks+=AdversarialAccuracy", "--trainer.callbacks.attack=PGD")
PLUS_CERTIFIED = ("--trainer.callbacks+=LabelFlipCertification", "--trainer.callbacks.name=x")
HOG = "lightning_poison.certificates.HOGFeatures"
METHOD = "--trainer.callbacks.method"
PLUS_NAMED = ("--trainer.callbacks+=AdversarialAccuracy", "--trainer.callbacks.name=x")
PLUS_PATHS = ("--trainer.callbacks+=AdversarialPaths", "--trainer.callbacks.name=x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epoch=3"], "there is no key trainer.max_epoch; did you mean trainer.max_epochs?"),
        (["--trainer.max_epochs=abc"], "trainer.max_epochs must be int or null, got abc"),
        (["--poison.select=RandomPoint"], "poison.select: there is no class RandomPoint; did you mean RandomPoints?"),
        (["--poison.select.per_clas=3"], "there is no key poison.select.per_clas; did you mean per_class?"),
        (["--poison.select.per_class=x"], "poison.select.per_class must be int or null, got x"),
        (["--poison.select=LabelNoise", "--poison.select.per_class=2"], "(LabelNoise takes rate, classes)"),
        (["--poison.select.fraction=nan"], "poison.select.fraction must be a finite number or null, got nan"),
        (["--poison.select.classes=7"], "poison.select.classes must be list or null, got 7; write [7]"),
        (["--poison=Medoids"], "poison cannot be Medoids, which only chooses points; write --poison.select=Medoids"),
        (["--model.net=torch.nn.Linear"], "model.net must take num_classes, got Linear, which does not; give its"),
        (
            ["--poison.select=NearestToBoundary", "--poison.select.surrogate=CheckpointSurrogate"],
            "poison.select.surrogate.path is missing, which CheckpointSurrogate needs; add --poison.select.surrogate",
        ),
        (["--trainer.callbacks+=AdversarialAcuracy"], "did you mean AdversarialAccuracy?"),
        ([*PLUS_ATTACK, "--trainer.callbacks.attack.eps=abc"], "eps: a size in pixel units must be a number or a frac"),
        ([*PLUS_ATTACK, "--trainer.callbacks.attack.eps=8"], "for 8 grey levels of 255 write 8/255"),
        ([*PLUS_ATTACK[:1], "--trainer.callbacks.attack=PGE"], "there is no class PGE; did you mean PGD?"),
        (
            [
                *PLUS_ATTACK[:1],
                "--trainer.callbacks.attack=torchattacks.PGD",
                "--trainer.callbacks.attack.eps=8",
                "--trainer.callbacks.name=x",
            ],
            "eps must lie in [0, 1] pixel units, got 8; for 8 grey levels of 255 write 8/255",
        ),
        (
            [*PLUS_ATTACK[:1], "--trainer.callbacks.attack=torchattacks.JSMO"],
            f"JSMO in torchattacks {torchattacks.__version__}; if a newer one has it: pip install --no-deps",
        ),
        (
            [*PLUS_ATTACK[:1], "--trainer.callbacks.target=nxt"],
            "trainer.callbacks.target must be int, next, least_likely or null, got nxt",
        ),
        ([*PLUS_ATTACK, "--trainer.callbacks.attack.norm=l3"], "trainer.callbacks.attack.norm must be linf, l2 or l1"),
        ([*PLUS_ATTACK, "--trainer.callbacks.attack.step=3"], "attack.step; did you mean steps?"),
        (PLUS_ATTACK[:1], "trainer.callbacks hold two equal AdversarialAccuracy; leave one out, or give each its own"),
        ([*PLUS_NAMED, "--trainer.callbacks.target=12"], "target must be one of the victim's classes 0 to 9, got 12"),
        (
            [*PLUS_NAMED, "--trainer.callbacks.source=12", "--trainer.callbacks.target=1"],
            "source must be one of the victim's classes 0 to 9, got 12",
        ),
        ([*PLUS_NAMED, "--trainer.callbacks.output=logits"], "output must name an item of the model's output, got"),
        ([*PLUS_NAMED, "--trainer.callbacks.attack=[PGD,PGD]"], "attack must not list one twice, got two equal PGD"),
        (
            [*PLUS_NAMED, "--trainer.callbacks.attack=FiniteDifferences", "--trainer.callbacks.attack.max_queries=1"],
            "max_queries must be at least 130 for one step along 64 directions, got 1",
        ),
        ([*PLUS_PATHS, "--trainer.callbacks.target=12"], "target must be one of the victim's classes 0 to 9, got 12"),
        ([*PLUS_PATHS, "--trainer.callbacks.output=logits"], "output must name an item of the model's output, got"),
        (["--model.net=PoolCN"], "model.net: there is no class PoolCN; did you mean PoolCNN?"),
        (["--model.net.widht=3"], "there is no key model.net.widht; did you mean width?"),
        (["--modle=3"], "there is no key modle; did you mean model?"),
        (["--config", "nope.yaml"], "there is no config nope.yaml here, and the shipped ones are"),
        (["--poison.select.per_class=2000"], "per_class must be at most the size of every class, got 2000"),
        (["--poison.relabel=ToClass", "--poison.relabel.label=12"], "ToClass.label must lie in [0, 9], got 12"),
        (["--model.num_classes=4"], "model.num_classes must be 10 (the data have 10 classes), got 4"),
        (["--ckpt_path", "last"], "has saved a last.ckpt; name a file, or leave --ckpt_path out"),
        (["--ckpt_path", "nope.ckpt"], "--ckpt_path nope.ckpt: there is no such file"),
        (
            ["--poison.select=FromFile", "--poison.select.path=no.csv", "--poison.relabel=null"],
            "no flip list at no.csv",
        ),
        (["--poison.select=FromFile", "--poison.select.path=no.csv"], "relabel must be left out with FromFile"),
        (["--trainer.max_epochs=${trainer.nope}"], "an interpolation works in a config file, not on the"),
        (["--data=MNIST", "--data.root=absent", "--data.download=false"], "absent"),
        (["--data.classes=[0,11]"], "classes"),
        (["--model.net.image_size=9"], "image_size must be a multiple of 4, got 9"),
        (["--report.baseline=absent.json"], "absent.json"),
        (["--seed_everything=-1"], "seed_everything must lie in [0, 4294967295], got -1"),
        (["--seed_everything=false"], "compare_with_clean needs a seed that both runs start from"),
        (["--trainer.default_root_dir=/proc/none"], "cannot write to /proc/none"),
        (["--trainer.barebones=true", "--trainer.logger=true"], "barebones"),
        (["--trainer.strategy=ddp_spawn", "--trainer.devices=2"], "use --trainer.strategy=ddp"),
        (["--poison.relabel=ToClass"], "poison.relabel.label is missing, which ToClass needs"),
        (["--ckpt_path", "best"], "has saved a last.ckpt; name a file"),
        (["--ckpt_path", "hpc"], "no HPC checkpoint was found"),
        (["--ckpt_path", "."], "it is a folder; name a file"),
        (
            ["--model.net=torchvision.models.resnet1"],
            "model.net: there is no resnet1 in torchvision.models; did you mean",
        ),
        (
            ["--model.net=torchvision.models.resnet18", "--model.net.depth=3"],
            "there is no key model.net.depth: a function",
        ),
        (["--model.net=torchvision.models.resnet18"], "the network cannot take inputs of shape (1, 8, 8)"),
        (["--model=lightning_poison.datamodules.Digits"], "model must be the class path of a LightningModule, got"),
        ([*PLUS_CERTIFIED, f"{METHOD}=HOGFeatures"], "method cannot be HOGFeatures, which is a class of another kind"),
        ([*PLUS_CERTIFIED, f"{METHOD}={HOG}"], f"method must be the class path of a CertifiedLearner, got {HOG}"),
        ([*PLUS_CERTIFIED, f"{METHOD}=MonteCarloSmoothing"], "procedure is missing, which"),
        ([*PLUS_CERTIFIED, f"{METHOD}=PartitionAggregation", f"{METHOD}.parts=0"], "parts must be an integer of at"),
        (
            [*PLUS_CERTIFIED, f"{METHOD}=PartitionAggregation", f"{METHOD}.spread=9999"],
            "spread must be at most the number of points, got 9999 for",
        ),
    ],
)
def test_one_line_and_exit_code_2(refused, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in refused(*DIGITS, *arguments)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_list_for_other_data_names_the_row(run_cli, tmp_path: Path) -> None:
    (tmp_path / "flips.csv").write_text("index,old_label,new_label\n0,0,99\n")
    arguments = ["--poison.select=FromFile", "--poison.select.path=flips.csv", "--poison.relabel=null"]
    code, _, err = run_cli(*DIGITS, *arguments)
    assert code == 2
    assert "flips.csv, row 2: new_label 99 is out of range" in err.splitlines()[-1]


def test_an_unwritable_log_folder(run_cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run_cli(*DIGITS, "--trainer.default_root_dir=file/runs", "--trainer.max_epochs=1")
    assert code == 2
    assert "cannot write" in err.splitlines()[-1]


def test_files_that_are_no_checkpoints(run_cli, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.ckpt")
    for name in ("text.ckpt", "empty.ckpt", "other.ckpt"):
        code, _, err = run_cli("test", "--config", "digits.yaml", "--ckpt_path", name)
        assert code == 2, name
        assert "the checkpoint" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "model is missing; add --model=VALUE, or begin with a shipped config: --config digits.yaml"),
        (["fit", "--model=Victim", "--model.net=MLP"], "data is missing; add --data=Digits"),
        (["--config", "nope.yaml", "fit"], "write the command first: lightning-poison fit --config FILE"),
    ],
)
def test_what_is_missing(run_cli, arguments: list[str], message: str) -> None:
    code, _, err = run_cli(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err


def test_a_yaml_that_is_none(run_cli, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [\n")
    code, _, err = run_cli("fit", "--config", "bad.yaml")
    assert (code, len(err.splitlines())) == (2, 1)


@pytest.fixture
def folder_with_a_bomb(tmp_path: Path) -> Path:
    """Pictures in two classes, one of which claims 60,000 x 60,000 pixels."""
    for name, blue in (("cat", 0), ("dog", 255)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (8, 8), (number, 0, blue)).save(tmp_path / "pictures" / name / f"{number}.png")
    bomb = tmp_path / "pictures" / "cat" / "5.png"
    content = bomb.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    bomb.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    return tmp_path / "pictures"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_decompression_bomb_is_one_line(run_cli, folder_with_a_bomb: Path, num_workers: int) -> None:
    data = ["--data=ImageFolder", f"--data.root={folder_with_a_bomb}", "--data.image_size=8", "--data.grayscale=true"]
    splits = ["--data.val_split=0", "--data.test_split=1", f"--data.num_workers={num_workers}", "--poison=null"]
    code, _, err = run_cli(*DIGITS, *data, *splits, "--trainer.callbacks=[]", "--compare_with_clean=false")
    assert code == 2, err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("lightning-poison: error: the image ")
    assert "cat/5.png is too large to be read (Image size (3600000000 pixels) exceeds limit of" in line
