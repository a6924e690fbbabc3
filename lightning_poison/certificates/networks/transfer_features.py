"""Features that a network learnt on other classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_poison._lightning import LightningDataModule
from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures, PCAFeatures, as_batches
from lightning_poison.datamodules.model_outputs import check_input
from lightning_poison.datamodules.poisoned import call_with_stage
from lightning_poison.datamodules.train_loader import check_train_loader
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.fresh_networks import weight_that_is_not_drawn
from lightning_poison.functional.random_streams import generator, kept_random_state, mix_seed
from lightning_poison.nets import PoolCNN, SmallNet
from lightning_poison.nets.building import build_net, check_net_maker
from lightning_poison.trainer.evaluation import collation
from lightning_poison.trainer.positions import trained_positions

__all__ = ["TransferFeatures"]

_BATCH = 128


class TransferFeatures(LabelFreeFeatures):
    """What the last layer of a network sees, the network being trained on other classes than the certified ones.

    The network learns the classes of ``source`` (the other eight digits, say); the inputs of its last linear layer, on
    the certified training points, are reduced to their principal components. No certified label has a part in it, so a
    guarantee on these features is end to end: under the assumption that the source's labels are in nobody's hands. The
    training points must not be among the source's, which ``fit`` checks.

    Args:
        source: data module with the other classes; its training set is read once.
        dim: number of principal components.
        epochs: of the training on the source.
        seed: of the network's initialisation and of the order of the source's points.
        net: makes a new, untrained network when called with ``num_classes``; its last linear layer is the head.
        lr: first rate of Adam; it falls to 0 along a half cosine.

    Example:
        >>> from lightning_poison.datamodules import Digits
        >>> from lightning_poison.nets import MLP
        >>> others = Digits(classes=[0, 2, 3, 4, 5, 6, 8, 9], max_samples=200)
        >>> features = TransferFeatures(others, dim=3, epochs=1, net=lambda num_classes: MLP(num_classes, 1, 8))
        >>> ones_and_sevens = torch.cat([x for x, _ in Digits(classes=[1, 7]).test_dataloader()])
        >>> features.fit(ones_and_sevens).transform(ones_and_sevens[:5]).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        source: LightningDataModule,
        dim: int = 50,
        epochs: int = 5,
        seed: int = 0,
        net: Callable[[int], SmallNet] | Callable[[int], nn.Module] = PoolCNN,
        lr: float = 2e-3,
    ) -> None:
        self.source = source
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.seed = check_integer("seed", seed, minimum=0)
        self.lr = check_number("lr", lr, minimum=0)
        check_net_maker(net)
        self._make = net
        self._components = PCAFeatures(dim)
        self._net: nn.Module | None = None
        self._seen: set[bytes] = set()

    def fit(self, inputs: Batches) -> TransferFeatures:
        """Train on the source (the first time), then find the principal components of the training inputs."""
        if self._net is None:
            self._net, self._seen = self._trained()
        self._components.fit(self._activations(self._unseen(batch)) for batch in as_batches(inputs))
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Map (N, ...) to (N, dim), float64."""
        if self._net is None:
            raise UserError("TransferFeatures must be fitted before transform, got no network; call fit(inputs) first")
        return self._components.transform(self._activations(inputs))

    def premises(self) -> tuple[str, ...]:
        """That the source can be trusted."""
        return ("nobody changes the labels of the other data that the features were learnt from",)

    def describe(self) -> str:
        """The map in a few words."""
        what = f"{type(self.source).__name__} classes {', '.join(map(str, getattr(self.source, 'class_names', ['?'])))}"
        return f"{self._components.dim} components of a network trained on other data ({what}; seed {self.seed})"

    def _activations(self, inputs: Tensor) -> Tensor:
        net = self._net
        assert net is not None  # noqa: S101  # fit and transform saw to it
        caught: list[Tensor] = []
        hook = _head(net).register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0].flatten(1)))
        try:
            with torch.no_grad():
                net(inputs.float())
        finally:
            hook.remove()
        return caught[0]

    def _unseen(self, batch: Tensor) -> Tensor:
        known = sum(key in self._seen for key in _keys(batch))
        if known:
            raise UserError(
                f"source must not hold the training points that are certified, got {known} of them in one batch; "
                "give it other classes"
            )
        return batch

    def _trained(self) -> tuple[nn.Module, set[bytes]]:
        """The network, trained, and the fingerprints of what it was trained on."""
        seed = mix_seed(self.seed, "transfer net")
        with torch.inference_mode(False), torch.enable_grad(), kept_random_state(seed):
            inputs, labels = _everything(self.source)
            make = partial(build_net, self._make, int(labels.max()) + 1)
            _check_untrained(make)
            net = make().train()
            try:
                check_input(net, [(inputs[0],)])
            except UserError as error:
                raise UserError(f"net of TransferFeatures: {error}") from error
            optimizer = torch.optim.Adam(net.parameters(), self.lr)
            steps = self.epochs * -(-len(inputs) // _BATCH)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for chosen in self._batches(len(inputs)):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(inputs[chosen]), labels[chosen])
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                optimizer.step()
                scheduler.step()
        return net.eval().requires_grad_(False), set(_keys(inputs))

    def _batches(self, count: int) -> Iterator[Tensor]:
        for epoch in range(self.epochs):
            order = torch.randperm(count, generator=generator(self.seed, "transfer order", epoch))
            yield from torch.split(order, _BATCH)


def _check_untrained(make: Callable[[], nn.Module]) -> None:
    undrawn = weight_that_is_not_drawn(make)
    if undrawn is not None:
        raise UserError(
            f"net must make a new, untrained network, got {undrawn} the same under two seeds; for a network that has "
            "been trained without the certified labels take FrozenFeatures(network, label_free=True)"
        )


def _head(net: nn.Module) -> nn.Linear:
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UserError(f"net must end in a linear layer, got {type(net).__name__} without one; use PoolCNN")
    return linear[-1]


def _everything(source: Any) -> tuple[Tensor, Tensor]:
    """Inputs (n, ...) and labels (n,) of the points that the source trains on, in the order of its data set."""
    source.prepare_data()
    call_with_stage(source.setup, "fit")
    loader = check_train_loader(source.train_dataloader(), type(source).__name__)
    points = Subset(loader.dataset, trained_positions(loader).tolist())
    batches = list(DataLoader(points, batch_size=1000, collate_fn=collation(loader)))
    return torch.cat([batch[0] for batch in batches]).float(), torch.cat([batch[1] for batch in batches]).long()


def _keys(inputs: Tensor) -> Iterator[bytes]:
    for row in inputs.float().contiguous().numpy():
        yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()
