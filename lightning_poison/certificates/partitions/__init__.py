"""Votes of learners that were trained on parts of the data, and the label changes that they outlast."""

from lightning_poison.certificates.partitions.aggregation import PartitionAggregation, deal_parts, users_of_parts
from lightning_poison.certificates.partitions.elections import (
    Adversary,
    OneVote,
    PricedVotes,
    SharedParts,
    certify_plurality,
    certify_run_off,
    rank_classes,
)

__all__ = [
    "Adversary",
    "OneVote",
    "PartitionAggregation",
    "PricedVotes",
    "SharedParts",
    "certify_plurality",
    "certify_run_off",
    "deal_parts",
    "rank_classes",
    "users_of_parts",
]
