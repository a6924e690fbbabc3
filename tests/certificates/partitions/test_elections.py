"""Elections against every change of votes that the adversary can make, counted by hand."""

from itertools import permutations, product

import numpy as np
import pytest
import torch

from lightning_poison.certificates.partitions import (
    OneVote,
    PricedVotes,
    SharedParts,
    certify_plurality,
    certify_run_off,
    rank_classes,
)
from lightning_poison.certificates.partitions.adversaries import UNREACHABLE
from lightning_poison.errors import UserError

MANY = 10**6


def plurality_winners(votes: np.ndarray, num_classes: int) -> np.ndarray:
    """Winners of vote vectors (v, T): most votes, the lowest class among equals."""
    counts = np.stack([(votes == label).sum(-1) for label in range(num_classes)], -1)
    return counts.argmax(-1)


def run_off_winner(order: list[tuple[int, ...]]) -> int:
    """Winner of ballots that list the classes, best first."""
    classes = sorted(order[0])
    first = {label: sum(ballot[0] == label for ballot in order) for label in classes}
    one, two = sorted(classes, key=lambda label: (-first[label], label))[:2] if len(classes) > 1 else classes * 2
    for_one = sum(ballot.index(one) <= ballot.index(two) for ballot in order)
    if 2 * for_one == len(order):
        return min(one, two)
    return one if 2 * for_one > len(order) else two


def random_votes(stream: np.random.Generator) -> tuple[np.ndarray, int]:
    num_classes, voters = int(stream.integers(2, 5)), int(stream.integers(1, 7))
    favourite = stream.integers(num_classes)
    votes = np.where(stream.random(voters) < stream.choice([0, 0.5, 0.9]), favourite, stream.integers(num_classes))
    return np.where(stream.random(voters) < 0.4, stream.integers(num_classes, size=voters), votes), num_classes


@pytest.mark.parametrize("priced", [False, True])
def test_plurality_is_exact_for_every_change_of_votes(priced: bool) -> None:
    stream, positive = np.random.default_rng(0), 0
    for _ in range(1500):
        votes, num_classes = random_votes(stream)
        costs = stream.choice([1, 1, 2, 3, 7, UNREACHABLE], len(votes)) if priced else np.ones(len(votes), int)
        adversary = PricedVotes(torch.tensor(costs)[None]) if priced else OneVote()
        found = certify_plurality(torch.tensor(votes)[None], num_classes, adversary, num_labels=MANY)
        others = np.array(list(product(range(num_classes), repeat=len(votes))))
        winners = plurality_winners(others, num_classes)
        winner = plurality_winners(votes[None], num_classes)[0]
        price = ((others != votes) * costs.astype(float)).sum(1)
        fewest = price[winners != winner].min()
        assert found.prediction.item() == winner
        assert found.radius.item() == min(fewest - 1, MANY), (votes, costs)
        positive += found.radius.item() > 0
    assert positive > 300


def test_shared_parts_are_sound_and_often_exact() -> None:
    stream, exact, problems = np.random.default_rng(1), 0, 600
    for _ in range(problems):
        votes, num_classes = random_votes(stream)
        parts, spread = int(stream.integers(1, 6)), int(stream.integers(1, 3))
        users = stream.integers(len(votes), size=(parts, spread))  # a voter twice is the same voter
        users = np.array([np.unique(row)[np.arange(spread) % len(np.unique(row))] for row in users])
        adversary = SharedParts(torch.tensor(users))
        radius = certify_plurality(torch.tensor(votes)[None], num_classes, adversary, MANY).radius.item()
        others = np.array(list(product(range(num_classes), repeat=len(votes))))
        broken = others[plurality_winners(others, num_classes) != plurality_winners(votes[None], num_classes)[0]]
        fewest = MANY + 1
        for chosen in product([False, True], repeat=parts):
            reached = np.isin(np.arange(len(votes)), users[np.array(chosen)])
            if ((broken == votes) | reached).all(1).any():
                fewest = min(fewest, sum(chosen))
        assert radius <= fewest - 1
        exact += radius == fewest - 1
    assert exact > 0.7 * problems


def test_finite_aggregation_without_spread_is_plain_aggregation() -> None:
    votes = torch.randint(4, (50, 9), generator=torch.Generator().manual_seed(0))
    plain = certify_plurality(votes, 4, OneVote(), 100)
    for same in (SharedParts(torch.arange(9)[:, None]), PricedVotes(torch.ones(50, 9, dtype=torch.int64))):
        assert torch.equal(certify_plurality(votes, 4, same, 100).radius, plain.radius)


@pytest.mark.parametrize(("num_classes", "most"), [(1, 4), (2, 6), (3, 4), (4, 2)])
@pytest.mark.parametrize("spread", [1, 2])
def test_the_run_off_outlasts_every_change_of_ballots(num_classes: int, most: int, spread: int) -> None:
    stream, exact, problems = np.random.default_rng(num_classes), 0, 40 if num_classes < 4 else 100
    orders = list(permutations(range(num_classes)))
    for _ in range(problems):
        voters = int(stream.integers(spread, most + 1))
        favourite = stream.integers(len(orders))
        picks = np.where(stream.random(voters) < 0.5, favourite, stream.integers(len(orders), size=voters))
        ballots = [orders[pick] for pick in picks]
        ranks = torch.tensor([[[ballot.index(label) for label in range(num_classes)] for ballot in ballots]])
        users = np.array([[(part + step) % voters for step in range(spread)] for part in range(voters)])
        adversary = OneVote() if spread == 1 else SharedParts(torch.tensor(users))
        found = certify_run_off(ranks, adversary, num_labels=MANY)
        winner, fewest = run_off_winner(ballots), MANY + 1
        reached = {
            size: [
                np.isin(np.arange(voters), users[np.array(chosen)])
                for chosen in product([False, True], repeat=voters)
                if sum(chosen) == size
            ]
            for size in range(voters + 1)
        }
        for others in product(range(len(orders)), repeat=voters):
            if run_off_winner([orders[pick] for pick in others]) != winner:
                changed = np.array(others) != picks
                fewest = min(fewest, next(size for size in reached if any((changed <= r).all() for r in reached[size])))
        assert found.prediction.item() == winner
        assert found.radius.item() <= fewest - 1, ballots
        exact += found.radius.item() == fewest - 1
    assert exact > 0.6 * problems


def test_a_run_off_can_be_lost_by_missing_it() -> None:
    ballots = [(0, 1, 2)] * 3 + [(1, 0, 2)] * 3 + [(2, 0, 1)] * 2
    ranks = torch.tensor([[[ballot.index(label) for label in range(3)] for ballot in ballots]])
    found = certify_run_off(ranks, OneVote(), num_labels=MANY)
    assert found.prediction.item() == run_off_winner(ballots) == 0
    # Class 0 wins every duel by more than one voter, but one voter less and it is in none.
    assert run_off_winner([(2, 0, 1), *ballots[1:]]) == 1
    assert found.radius.item() == 0


def test_with_two_classes_the_run_off_is_the_plurality() -> None:
    votes = torch.randint(2, (200, 7), generator=torch.Generator().manual_seed(0))
    ranks = torch.stack([votes, 1 - votes], 2)
    run_off, plain = certify_run_off(ranks, OneVote(), 99), certify_plurality(votes, 2, OneVote(), 99)
    assert torch.equal(run_off.prediction, plain.prediction)
    assert torch.equal(run_off.radius, plain.radius)


def test_blocks_of_points_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = torch.Generator().manual_seed(0)
    votes, costs = (torch.randint(low, 5, (40, 6), generator=stream) for low in (0, 1))
    whole = certify_plurality(votes, 5, PricedVotes(costs), 100)
    monkeypatch.setattr("lightning_poison.certificates.partitions.elections.rows_per_chunk", lambda _: 7)
    small = certify_plurality(votes.to(torch.int16), 5, PricedVotes(costs.to(torch.int32)), 100)
    assert torch.equal(whole.radius, small.radius)
    assert len(certify_plurality(votes[:0], 5, OneVote(), 100)) == 0


def test_one_class_withstands_everything_and_voters_without_labels_stay() -> None:
    votes = torch.zeros(1, 3, dtype=torch.int64)
    assert certify_plurality(votes, 1, OneVote(), 17).radius.item() == 17
    stuck = OneVote(torch.tensor([False, True, False]))
    assert certify_plurality(votes, 2, stuck, 17).radius.item() == 17
    assert certify_plurality(votes, 2, SharedParts(torch.empty(0, 1, dtype=torch.int64)), 17).radius.item() == 17


def test_ranks_follow_the_tie_rule_and_put_nan_last() -> None:
    scores = torch.tensor([[1.0, torch.nan, 1.0, 2.0], [-torch.inf, 0.0, 0.0, -torch.inf]])
    assert rank_classes(scores).tolist() == [[1, 3, 2, 0], [2, 0, 1, 3]]


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match=r"votes must lie in \[0, 1\], got 0 to 2"):
        certify_plurality(torch.tensor([[0, 2]]), 2, OneVote(), 9)
    with pytest.raises(UserError, match="votes must be integers of at least one voter"):
        certify_plurality(torch.empty(3, 0, dtype=torch.int64), 2, OneVote(), 9)
    with pytest.raises(UserError, match="adversary must not have prices in a run-off"):
        certify_run_off(torch.tensor([[[0, 1]]]), PricedVotes(torch.ones(1, 1)), 9)
    with pytest.raises(ValueError, match="gains must be 0, 1 or one larger number"):
        PricedVotes(torch.ones(1, 2)).fewest(torch.tensor([1]), torch.tensor([[2, 3]]))
