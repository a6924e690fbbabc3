"""Rules that look for the flips that hurt most, whatever network is trained on them."""

from lightning_poison.poisons.meta.gumbel_flips import GumbelFlips
from lightning_poison.poisons.meta.medoids import Medoids
from lightning_poison.poisons.meta.meta_flips import MetaFlips

__all__ = ["GumbelFlips", "Medoids", "MetaFlips"]
