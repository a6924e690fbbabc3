"""What goes wrong on one rank is heard on all, and nobody waits for ever."""

from __future__ import annotations

import ast
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import lightning_poison
from lightning_poison.errors import UserError
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero

PACKAGE = Path(lightning_poison.__file__).parent


def trainer_of(rank: int) -> Any:
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(world_size=2, is_global_zero=rank == 0, state=state, progress_bar_metrics={})


class NotPickledError(Exception):
    pass


def fail(where: int, error: BaseException) -> Callable[[int], int]:
    def compute(rank: int) -> int:
        if rank == where:
            raise error
        return 10 * rank

    return compute


def fail_everywhere(rank: int) -> int:
    raise (ValueError("first"), UserError("second is a mistake"))[rank]


EXCHANGES: dict[str, tuple[Callable[..., Any], Callable[[int], Any]]] = {
    "all": (from_all_ranks, lambda rank: torch.tensor([rank, 5])),
    "mistake": (from_all_ranks, fail(1, UserError("eps must be at most 1, got 2"))),
    "empty mistake": (from_all_ranks, fail(1, UserError(""))),
    "value": (from_all_ranks, fail(1, ValueError("shapes differ"))),
    "interrupt": (from_all_ranks, fail(0, KeyboardInterrupt())),
    "exit": (from_all_ranks, fail(0, SystemExit(3))),
    "not pickled": (from_all_ranks, lambda rank: (lambda: rank) if rank else 0),
    "both": (from_all_ranks, fail_everywhere),
    "zero": (from_rank_zero, lambda rank: ["flips", rank]),
    "zero mistake": (from_rank_zero, fail(0, UserError("no such class"))),
    "zero value": (from_rank_zero, fail(0, ValueError("broken"))),
    "zero not pickled": (from_rank_zero, lambda rank: lambda: rank),
    "all in the end": (from_all_ranks, lambda rank: rank),  # the ranks are still in step
}


def outcome(exchange: Callable[..., Any], trainer: Any, compute: Callable[[], Any]) -> Any:
    try:
        return exchange(trainer, compute)
    except BaseException as error:  # noqa: BLE001  # whatever is raised is looked at
        return type(error).__name__, str(error)


def run_rank(rank: int, address: str, answers: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, (exchange, compute) in EXCHANGES.items():
        result = outcome(exchange, trainer_of(rank), partial(compute, rank))
        found[name] = [part.tolist() for part in result] if name == "all" else result
    answers.put((rank, found))
    answers.close()
    answers.join_thread()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("fork")
    queue, address = context.Queue(), f"file://{tmp_path_factory.mktemp('ranks') / 'meeting'}"
    processes = [context.Process(target=run_rank, args=(rank, address, queue), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        found = dict(queue.get(timeout=60) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    return [found[0], found[1]]


def test_results_come_in_the_order_of_the_ranks(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert answer["all"] == [[0, 5], [1, 5]]
        assert answer["zero"] == ["flips", 0]
        assert answer["all in the end"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "zero", "one"),
    [
        ("mistake", ("UserError", "eps must be at most 1, got 2"), ("UserError", "eps must be at most 1, got 2")),
        ("empty mistake", ("UserError", ""), ("UserError", "")),
        ("value", ("RuntimeError", "rank 1 failed: ValueError: shapes differ"), ("ValueError", "shapes differ")),
        ("interrupt", ("KeyboardInterrupt", ""), ("RuntimeError", "rank 0 failed: KeyboardInterrupt: ")),
        ("exit", ("SystemExit", "3"), ("RuntimeError", "rank 0 failed: SystemExit: 3")),
        ("both", ("ValueError", "first"), ("UserError", "second is a mistake")),
        ("zero mistake", ("UserError", "no such class"), ("UserError", "no such class")),
        ("zero value", ("ValueError", "broken"), ("RuntimeError", "rank 0 failed: ValueError: broken")),
    ],
)
def test_what_one_rank_raises_is_raised_on_all(
    answers: list[dict[str, Any]], name: str, zero: tuple[str, str], one: tuple[str, str]
) -> None:
    assert [answer[name] for answer in answers] == [zero, one]


@pytest.mark.parametrize(("name", "failing"), [("not pickled", 1), ("zero not pickled", 0)])
def test_a_result_that_cannot_travel_stops_all(answers: list[dict[str, Any]], name: str, failing: int) -> None:
    kind, message = answers[failing][name]
    assert kind in ("AttributeError", "PicklingError")
    assert answers[1 - failing][name] == ("RuntimeError", f"rank {failing} failed: {kind}: {message}")


class LogsEverything(pytorch_lightning.LightningModule):
    """Means, sums, metrics and values of a hook; from steps, from both, and from ends of epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
        self.accuracies = torch.nn.ModuleDict({f"{stage}_acc": MulticlassAccuracy(2) for stage in ("train", "val")})
        self.best = MulticlassAccuracy(2)

    def _step(self, stage: str, batch: Any) -> torch.Tensor:
        logits = self.net(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        self.accuracies[f"{stage}_acc"](logits, batch[1])
        self.log(f"{stage}/acc", self.accuracies[f"{stage}_acc"], on_step=True, on_epoch=True, prog_bar=True)
        for reduction in ("mean", "sum", "max"):
            self.log(f"{stage}/loss_{reduction}", loss, on_step=False, on_epoch=True, reduce_fx=reduction)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._step("val", batch)
        self.best.update(self.net(batch[0]), batch[1])

    def on_train_epoch_end(self) -> None:
        self.log("train/late", self.accuracies["train_acc"].compute() + self.current_epoch, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.best.update(torch.tensor([0]), torch.tensor([1]))
        self.log("val/best", self.best.compute())
        self.best.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.5)


class Asks(pytorch_lightning.Callback):
    def __init__(self, early: bool) -> None:
        self.early, self.logged = early, []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.early:
            _ = trainer.progress_bar_metrics
        pl_module.log("ours", 3.0 + trainer.current_epoch)
        if self.early:
            _ = trainer.progress_bar_metrics

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.logged.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)


@pytest.mark.filterwarnings("ignore")
def test_asking_for_metrics_early_changes_none(tmp_path: Path) -> None:
    def logged(early: bool) -> Any:
        pytorch_lightning.seed_everything(1, verbose=False)
        inputs = torch.rand(30, 3)
        data, asks = TensorDataset(inputs, (inputs.sum(dim=1) > 1.5).long()), Asks(early)
        logger = pytorch_lightning.loggers.CSVLogger(tmp_path, name=str(early))
        trainer = pytorch_lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=logger,
            log_every_n_steps=1,
            val_check_interval=0.5,
            callbacks=[asks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(LogsEverything(), DataLoader(data, 7), DataLoader(data, 8))
        return asks.logged, (Path(logger.log_dir) / "metrics.csv").read_text(), dict(trainer.progress_bar_metrics)

    values, table, shown = logged(early=True)
    assert (values, table, shown) == logged(early=False)
    assert {"train/acc_epoch", "train/late", "val/best", "ours"} <= set(values[-1])


def test_whatever_waits_for_other_ranks_stands_in_one_place() -> None:
    waiting = {"all_gather", "all_gather_object", "all_reduce", "barrier", "broadcast", "broadcast_object_list"}
    waiting |= {"gather", "gather_object", "log_dir", "new_group", "reduce", "reduce_boolean_decision", "sync_context"}
    asked = {"torch.distributed", "distributed", "trainer", "trainer.strategy", "self.trainer", "self", "metric"}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in waiting and ast.unparse(node.value) in asked:
                found.add(name)
            elif isinstance(node, ast.keyword) and node.arg == "sync_dist":
                found.add(f"{name} logs")
    # The command line asks for its folder before and after a run.
    elsewhere = {"cli/app.py", "cli/run_folder.py"}
    assert found - elsewhere == {"trainer/ranks.py", "callbacks/base.py logs", "victims/victim.py logs"}
