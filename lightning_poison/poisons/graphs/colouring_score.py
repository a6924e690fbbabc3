"""The points whose own region a network stretches farthest over their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.attacks import PGD, Attack
from lightning_poison.ensembles import TrainedNetwork, TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind
from lightning_poison.functional.class_graph import ClassGraph, distance_two_colouring
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet
from lightning_poison.nets.building import check_net_maker
from lightning_poison.nets.defaults import mlp_for
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import ScoreSelector
from lightning_poison.poisons.graphs.class_graphs import ClassGraphSelector, Exponent, Neighbourhoods
from lightning_poison.poisons.training_set import TrainingSet
from lightning_poison.poisons.unit_box import UnitBox

__all__ = ["ColouringScore", "carried_neighbours"]

_NEIGHBOURS = 2
_FITTED = 0.9
_EPOCHS, _STEPS, _BATCH, _RATE = 80, 2000, 64, 1e-3
_EDGES = 2048  # attacked at once


@dataclass(frozen=True)
class ColouringScore(ClassGraphSelector, ScoreSelector):
    """Takes the points to whose colour most of their neighbours can be carried.

    For each class (section 6.2 of the thesis this package grew from): points within ``gamma`` are joined; neighbours,
    and neighbours of neighbours, get different colours; a network learns the colours by heart; and a point's score is
    the number of its neighbours that an attack, targeted at the point's colour, carries there. No two neighbours of a
    point share a colour, so a colour that is reached says whose region it is. The memorised colours stand for memorised
    flips, all of them in one training; the thesis found the points of largest score weaker than random ones.

    A graph with many edges needs many colours, as a point and its neighbours all differ, and a network that tells them
    apart: keep it sparse. Inputs outside [0, 1] are stretched onto it for the attack, whose sizes are then shares of
    the range of the inputs. The number of colours of each class and the share that was memorised stand in the flip
    list's provenance ("colours", "colours_memorised").

    Args:
        count: how many points in all; scores in different classes are then compared.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        space: where distances are taken; None: between the inputs.
        gamma: the distance up to which points are joined.
        quantile: the share of the pairs of a class that are joined; with neither, that which gives a point two
            neighbours on average, or more where many distances are equal.
        p: exponent of the norm, at least 1; the thesis takes the largest difference, "inf".
        net: makes the network when called with ``num_classes=K``, the number of colours; None: an ``MLP`` with two
            layers of 512 neurons.
        recipe: how it is trained; None: for at least 80 epochs and two thousand steps, and up to a quarter more while
            colours are not memorised.
        attack: what carries points; None: ``PGD(eps=0.1, steps=20, losses=["cross_entropy"])``.

    Raises:
        UserError: an argument is out of its range, or (when flips are drawn) a class has no edge, or every one, or the
            network memorises fewer than nine tenths of a class's colours.
    """

    p: Exponent = "inf"
    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None
    recipe: TrainingRecipe | None = None
    attack: Attack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_net_maker(self.net)
        check_kind("recipe", self.recipe, TrainingRecipe, "TrainingRecipe(epochs=100)", optional=True)
        check_kind("attack", self.attack, Attack, "PGD(eps=0.1)", optional=True)

    @property
    def neighbourhoods(self) -> Neighbourhoods:
        """Which points are joined."""
        return Neighbourhoods(self.space, self.gamma, self.quantile, float(self.p), _sparse_quantile)

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """How many neighbours are carried to each point's colour, shape (m,), int64; notes how well they are learnt."""
        labels = candidates.labels[index]
        scores = torch.zeros(len(index), dtype=torch.int64)
        for label in sorted(set(labels.tolist())):
            own = (labels == label).nonzero()[:, 0]
            scores[own], colours, memorised = self._scores_of_class(candidates.training_set, index[own], label, seed)
            candidates.notes.setdefault("colours", {})[str(label)] = colours
            candidates.notes.setdefault("colours_memorised", {})[str(label)] = memorised
        return scores

    def _scores_of_class(
        self, training_set: TrainingSet, members: Tensor, label: int, seed: int
    ) -> tuple[Tensor, int, float]:
        """Scores, number of colours and share memorised; computed once, whatever the budget."""
        rule = (self.space, self.gamma, self.quantile, self.p, self.net, self.recipe, self.attack)
        key = ("ColouringScore", rule, seed, members.numpy().tobytes())
        return training_set.remembered(key, lambda: self._computed(training_set, members, label, seed))

    def _computed(self, training_set: TrainingSet, members: Tensor, label: int, seed: int) -> tuple[Tensor, int, float]:
        if len(members) < 3:
            return torch.zeros(len(members), dtype=torch.int64), len(members), 1.0
        graph = self.neighbourhoods.graph(training_set, members, seed)
        colours = distance_two_colouring(graph)
        trained = self._memorised(training_set, members, colours, label, seed)
        scores = self._carried(training_set, members, graph, colours, trained.module)
        return scores, int(colours.max()) + 1, trained.fitted

    def _memorised(
        self, training_set: TrainingSet, members: Tensor, colours: Tensor, label: int, seed: int
    ) -> TrainedNetwork:
        own_seed = mix_seed(seed, "ColouringScore", label)
        recipe = self.recipe or _long_enough(len(members))
        net = self.net or mlp_for(training_set.inputs.shape[1:], (512, 512))
        with training_set.progress(f"memorising the colours of class {label}", recipe.epochs) as advance:
            (trained,) = train_networks(
                net,
                training_set.inputs[members],
                colours,
                int(colours.max()) + 1,
                [own_seed],
                recipe,
                order_seed=own_seed,
                watched=torch.ones(len(members), dtype=torch.bool),
                advance=advance,
            )
        if trained.fitted < _FITTED:
            raise UserError(
                f"the network must memorise the colours of class {label}, got {trained.fitted:.1%} of "
                f"{int(colours.max()) + 1} colours on {len(members)} points after {trained.epochs} epochs; "
                "give recipe more epochs, net more neurons, or lower gamma or quantile"
            )
        return trained

    def _carried(
        self, training_set: TrainingSet, members: Tensor, graph: ClassGraph, colours: Tensor, network: nn.Module
    ) -> Tensor:
        attack = self.attack or PGD(eps=0.1, steps=20, losses=("cross_entropy",))
        with training_set.progress("carrying neighbours", 2 * graph.num_edges) as advance:
            return carried_neighbours(attack, network, training_set.inputs[members], graph, colours, advance)


def carried_neighbours(
    attack: Attack,
    network: nn.Module,
    inputs: Tensor,
    graph: ClassGraph,
    colours: Tensor,
    advance: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Attack every point towards the colour of each of its neighbours, and count for these how often it gets there.

    A neighbour that the network gives the point's colour without any attack counts as carried.

    Args:
        attack: what carries.
        network: maps (N, ...) to logits (N, K) of the colours.
        inputs: shape (n, ...), float. Where they leave [0, 1] they are stretched onto it, and the attack's sizes are
            shares of their range.
        graph: n points.
        colours: shape (n,), int64: no two neighbours of a point share one.
        advance: called with the number of directed edges that are done.

    Returns:
        shape (n,), int64.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> pair = ClassGraph.from_pairs(2, [(torch.tensor([0]), torch.tensor([1]))])
        >>> network = nn.Linear(1, 2)  # colour 1 from 0.15 on
        >>> _ = network.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.tensor([0.15, 0.0])})
        >>> carried_neighbours(PGD(eps=0.1), network, torch.tensor([[0.1], [0.3]]), pair, torch.tensor([0, 1]))
        tensor([0, 1])
    """
    box = UnitBox.around(inputs)
    stretched, attacked = (inputs, network) if box is None else (box.inwards(inputs), box.around_network(network))
    counts = torch.zeros(graph.num_points, dtype=torch.int64)
    neighbours, points = graph.edges()
    for some in torch.split(torch.arange(len(points)), _EDGES):
        start, goal = neighbours[some], points[some]
        result = attack(attacked, stretched[start], colours[start], targets=colours[goal], sample_ids=some)
        counts += torch.bincount(goal[result.fooled.cpu()], minlength=graph.num_points)
        advance(len(some))
    return counts


def _sparse_quantile(points: int) -> float:
    return min(_NEIGHBOURS / (points - 1), 0.5) if points > 1 else 0.5


def _long_enough(points: int) -> TrainingRecipe:
    epochs = max(_EPOCHS, -(-_STEPS // -(-points // _BATCH)))
    return TrainingRecipe(epochs, lr=_RATE, batch_size=_BATCH, extra_epochs=epochs // 4)
