"""Experiments: strategies against victims over seeds.

The way of the data: a data module is read into tensors (``Subject``); each strategy and seed gives a flip list, crafted
once and kept as CSV (``FlipLists``); lists, kinds of victims and seeds make runs, each with a digest of everything that
decides it (``Plan``, ``Run``); runs of one victim and seed start from the same weights, are trained together on their
own labels and attacked on clean test points (``experiment.py``, ``Evaluation``), groups of them side by side
(``side_by_side``); each finished run is a JSON file named by its digest (``RunStore``), which is why nothing is done
twice. What is there in the end is summarised by paired differences over seeds (``summarise``) and written as tables
and a figure (``Outcome``).
"""

from lightning_poison.experiments.experiment import Experiment
from lightning_poison.experiments.outcome import Outcome
from lightning_poison.experiments.plan import VictimPlan

__all__ = ["Experiment", "Outcome", "VictimPlan"]
