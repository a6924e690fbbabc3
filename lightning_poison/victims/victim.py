"""The network under attack, as a LightningModule; what it says when it diverges or is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_labels, check_number
from lightning_poison.functional.random_streams import fill_gaussian
from lightning_poison.nets import Normalize, SmallNet
from lightning_poison.nets.building import build_net, logits_of
from lightning_poison.report.logged_metric import DATA, LoggedMetric
from lightning_poison.trainer.positions import evaluation_positions
from lightning_poison.trainer.ranks import settle_logged_metrics

__all__ = ["Victim", "check_optimizer", "classifier_metrics"]

_STAGES = ("train", "val", "test")
_CHECK_EVERY = 50  # reading a loss back from an accelerator costs a synchronisation
_OF_SCHEDULERS = frozenset(("params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "param_names"))


class Victim(LightningModule):
    """A classifier around any network; normalisation is its first layer, so its inputs are pixels in [0, 1].

    Logs ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss`` and ``test/acc`` once an epoch.
    Training accuracy counts the labels as given, flipped ones included. A sample that a distributed sampler repeats
    is counted once.

    Args:
        net: a network that maps (N, C, H, W) to logits (N, ``num_classes``), or a function that makes one when called
            with ``num_classes``: ``PoolCNN(num_classes=10)``, ``PoolCNN`` or ``torchvision.models.resnet18``.
        num_classes: number of logits; needed where ``net`` is a function. The command line fills it in from the data.
        mean: subtracted from the pixels, per channel, in units of [0, 1].
        std: the pixels are divided by it, per channel.
        optimizer: makes the optimizer when called with the parameters.
        scheduler: makes the learning-rate scheduler when called with the optimizer; None: constant rate.
        scheduler_interval: step it after each ``"epoch"`` or each ``"step"``.
        noise_std: standard deviation, in pixel units, of Gaussian noise on the training inputs, anew in each epoch and
            not cut back to [0, 1]: a victim that is to be certified by input smoothing needs about as much as that.

    Raises:
        UserError: ``num_classes`` is missing or contradicts the network, or ``noise_std`` is negative.

    Example:
        >>> from lightning_poison.nets import PoolCNN
        >>> Victim(PoolCNN, num_classes=10, mean=[0.13], std=[0.31])(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        net: Callable[[int], SmallNet] | Callable[[int], nn.Module],
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        noise_std: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("scheduler_interval", scheduler_interval, ("epoch", "step"))
        self.normalize = Normalize(mean, std)
        self.net = build_net(net, num_classes)
        self.num_classes = logits_of(self.net, num_classes)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.noise_std = check_number("noise_std", noise_std, minimum=0)
        self._evaluated = 0
        self.epoch_metrics = nn.ModuleDict()
        for stage in _STAGES:
            accuracy = MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)
            self.epoch_metrics.update({f"{stage}_acc": accuracy, f"{stage}_loss": MeanMetric()})

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.net(self.normalize(inputs))
        return logits

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameters, with the scheduler if there is one."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": self.scheduler_interval},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to train on with another kind of optimizer: its state would be somebody else's.

        Raises:
            UserError: the checkpoint's optimizer has other settings than this one's.
        """
        if self._trainer is None or self.trainer.state.fn in (None, "fit"):
            check_optimizer(checkpoint, self.make_optimizer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch (inputs, labels), averaged over its samples."""
        inputs = self._noisy(batch[0], batch_idx)
        logits = self(inputs)
        labels = self._checked_labels(batch[1], batch_idx)
        loss = cross_entropy(logits, labels)
        if loss.device.type == "cpu" or batch_idx % _CHECK_EVERY == 0:
            _check_loss(loss, inputs, self.current_epoch, batch_idx)
        self._record("train", logits.detach(), labels)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy of a validation batch."""
        self._evaluate("val", batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy of a test batch."""
        self._evaluate("test", batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Class probabilities, shape (N, K), of a batch of inputs or of (inputs, labels)."""
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        return torch.softmax(self(inputs), dim=1)

    def _noisy(self, inputs: Tensor, batch_idx: int) -> Tensor:
        """Training inputs with noise that depends on the run's seed, the epoch, the batch and the rank alone."""
        if not self.noise_std:
            return inputs
        keys = ("training noise", self.current_epoch, batch_idx, self.global_rank)
        return inputs + fill_gaussian(torch.empty_like(inputs), self.noise_std, torch.initial_seed(), *keys)

    def _evaluate(self, stage: str, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        inputs, labels = batch[0], self._checked_labels(batch[1], batch_idx)
        first = 0 if batch_idx == 0 else self._evaluated  # loaders are read one after the other
        self._evaluated = first + len(labels)
        positions = evaluation_positions(self.trainer, batch_idx, dataloader_idx, len(labels), first)
        once = (positions >= 0).to(labels.device)
        logits = self(inputs)
        if batch_idx == 0:
            _check_loss(cross_entropy(logits, labels), inputs, self.current_epoch, batch_idx)
        if once.any():
            self._record(stage, logits[once], labels[once])

    def _checked_labels(self, labels: Tensor, batch_idx: int) -> Tensor:
        """Class numbers of any integer type as int64, which the loss needs."""
        if batch_idx == 0 or not isinstance(labels, Tensor) or labels.device.type == "cpu":
            check_labels("labels of the batch", labels, self.num_classes)
        return labels.long()

    def _record(self, stage: str, logits: Tensor, labels: Tensor) -> None:
        self._metric(stage, "acc").update(logits, labels)
        self._metric(stage, "loss").update(cross_entropy(logits, labels, reduction="none"))

    def _metric(self, stage: str, name: str) -> Metric:
        return cast("Metric", self.epoch_metrics[f"{stage}_{name}"])

    def _log_epoch(self, stage: str) -> None:
        settle_logged_metrics(self.trainer)  # the metrics below wait for the other ranks
        for name in ("acc", "loss"):
            metric = self._metric(stage, name)
            value = metric.compute()
            metric.reset()
            # The value is equal on every rank, and so is its maximum.
            self.log(f"{stage}/{name}", value, prog_bar=True, sync_dist=self.trainer.world_size > 1, reduce_fx="max")

    def on_train_epoch_end(self) -> None:
        """Log ``train/acc`` and ``train/loss``."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log ``val/acc`` and ``val/loss``."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/acc`` and ``test/loss``."""
        self._log_epoch("test")


def classifier_metrics() -> list[LoggedMetric]:
    """What accuracy and loss mean under the keys of :class:`Victim`; a module that logs these is understood, too.

    Example:
        >>> [metric.label for metric in classifier_metrics()][:2]
        ['Accuracy (training)', 'Loss (training)']
    """
    metrics = []
    for split, data in DATA.items():
        words = (
            "Share of training points predicted as their label, flipped or not."
            if split == "train"
            else f"Natural accuracy: share of {data} points classified correctly, without attack."
        )
        loss = f"Mean cross-entropy on the {data} points."
        metrics += [
            LoggedMetric(
                f"{split}/acc",
                f"Accuracy ({data})",
                "share",
                words,
                higher_is_better=True,
                split=split,
                kind="accuracy",
                headline=split != "train",
            ),
            LoggedMetric(f"{split}/loss", f"Loss ({data})", "nats", loss, higher_is_better=False, split=split),
        ]
    return metrics


# --- losses and checkpoints that cannot be used -----------------------------------------------------------------------


def _check_loss(loss: Tensor, inputs: Tensor, epoch: int, batch_idx: int) -> None:
    """Refuse a loss that is NaN or infinite and say whether the inputs or the training are to blame.

    Args:
        loss: scalar.
        inputs: shape (N, ...), the batch that gave it.
        epoch: counted from 0.
        batch_idx: counted from 0.

    Raises:
        UserError: the loss is not finite.
    """
    if torch.isfinite(loss):
        return
    where = f"epoch {epoch}, batch {batch_idx}"
    wrong = ~torch.isfinite(inputs.flatten(1)).all(dim=1)
    if wrong.any():
        raise UserError(
            f"inputs must be finite, got NaN or infinity in {int(wrong.sum())} of {len(inputs)} samples of {where} "
            f"(first: row {int(wrong.nonzero()[0])}); clean the data set"
        )
    raise UserError(
        f"the loss became {loss.item()} at {where} although the inputs are finite; lower the learning rate, "
        "clip gradients (--trainer.gradient_clip_val=1) or go on from the last checkpoint"
    )


def check_optimizer(
    checkpoint: Mapping[str, Any], make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
) -> None:
    """Refuse a checkpoint whose optimizer has other settings than the one that would take over its state.

    Args:
        checkpoint: as Lightning saved it; one without optimizer states is fine.
        make_optimizer: makes the optimizer when called with parameters.

    Raises:
        UserError: the settings differ in kind.
    """
    states = checkpoint.get("optimizer_states") or []
    if not states:
        return
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    stored, own = set(states[0]["param_groups"][0]), set(optimizer.param_groups[0])
    lacking = sorted(own - stored - _OF_SCHEDULERS)
    if lacking:
        raise UserError(
            f"the checkpoint's optimizer has no {' and no '.join(lacking)}, which {type(optimizer).__name__} needs; "
            "go on with the optimizer that the run began with, as in its config.yaml, or train anew without ckpt_path"
        )
