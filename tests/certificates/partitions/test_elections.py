"""Elections against every change of votes that the adversary can make, counted by hand."""

from functools import cache
from itertools import combinations, permutations, product

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
from lightning_poison.certificates.partitions.elections import UNREACHABLE
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
    assert exact == problems or (spread > 1 and exact > 0.9 * problems)


def test_a_run_off_can_be_lost_by_missing_it() -> None:
    ballots = [(0, 1, 2)] * 3 + [(1, 0, 2)] * 3 + [(2, 0, 1)] * 2
    ranks = torch.tensor([[[ballot.index(label) for label in range(3)] for ballot in ballots]])
    found = certify_run_off(ranks, OneVote(), num_labels=MANY)
    assert found.prediction.item() == run_off_winner(ballots) == 0
    # Class 0 wins every duel by more than one voter, but one voter less and it is in none.
    assert run_off_winner([(2, 0, 1), *ballots[1:]]) == 1
    assert found.radius.item() == 0


@cache
def fewest_to_overtake(one: int, two: int) -> int:
    """Votes that must leave the leader before two rivals are past it: gaps fall by 2 and 1, either way."""
    if one <= 0 and two <= 0:
        return 0
    return 1 + min(fewest_to_overtake(max(one - first, 0), max(two - second, 0)) for first, second in ((2, 1), (1, 2)))


def published_run_off_radius(ballots: list[tuple[int, ...]]) -> int:
    """The certificate of Rezaei et al. (2023) for DPA, as they compute it: the two rivals by dynamic programming."""
    classes, winner = sorted(ballots[0]), run_off_winner(ballots)
    votes = {label: sum(ballot[0] == label for ballot in ballots) for label in classes}
    other = next(label for label in sorted(classes, key=lambda label: (-votes[label], label)) if label != winner)

    def gap(leader: int, rival: int) -> int:
        return max(votes[leader] - votes[rival] + (leader < rival), 0)

    rivals = [label for label in classes if label != winner]
    needed = [fewest_to_overtake(gap(winner, one), gap(winner, two)) for one, two in combinations(rivals, 2)]
    for rival in rivals:
        preferred = sum(1 if b.index(winner) < b.index(rival) else -1 for b in ballots) + (winner < rival)
        in_the_run_off = 0 if rival == other else -(-gap(other, rival) // 2)
        needed.append(max(-(-preferred // 2), in_the_run_off, 0))
    return max(min(needed) - 1, 0)


def learned_ballots(stream: np.random.Generator, voters: int, num_classes: int) -> list[tuple[int, ...]]:
    """Lists of learners that agree more or less."""
    scores = stream.normal(0, 1, num_classes) + stream.normal(0, 1.5, (voters, num_classes))
    return [tuple(int(label) for label in (-row).argsort(kind="stable")) for row in scores]


def ranks_of(problems: list[list[tuple[int, ...]]]) -> torch.Tensor:
    return torch.tensor([[[b.index(label) for label in range(len(b))] for b in ballots] for ballots in problems])


@pytest.mark.parametrize(("voters", "num_classes"), [(100, 10), (30, 4), (11, 6)])
def test_the_run_off_certifies_as_much_as_the_published_one(voters: int, num_classes: int) -> None:
    """Two rivals that pass the winner together need more changes than the second of them alone."""
    stream = np.random.default_rng(0)
    problems = [learned_ballots(stream, voters, num_classes) for _ in range(60)]
    found = certify_run_off(ranks_of(problems), OneVote(), MANY)
    published = torch.tensor([published_run_off_radius(ballots) for ballots in problems])
    assert found.prediction.tolist() == [run_off_winner(ballots) for ballots in problems]
    assert (found.radius >= published).all()
    assert (found.radius == published).double().mean() > 0.95
    votes = torch.tensor([[ballot[0] for ballot in ballots] for ballots in problems])
    if voters == 100:
        plurality = certify_plurality(votes, num_classes, OneVote(), MANY).radius.double().mean()
        assert found.radius.double().mean() > 1.2 * plurality


def test_two_rivals_share_what_is_taken_from_the_winner() -> None:
    """8 : 5 : 5 first places, and nobody who prefers another class to the first: three changes bring both past it.

    Two are enough for either alone: two of its voters to one rival leave 6 : 7 : 5.
    """
    ballots = [(0, 1, 2)] * 8 + [(1, 0, 2)] * 5 + [(2, 0, 1)] * 5
    found = certify_run_off(ranks_of([ballots]), OneVote(), MANY)
    assert (found.prediction.item(), found.radius.item()) == (0, 2)
    changed = [(1, 0, 2), (1, 0, 2), (2, 0, 1), *ballots[3:]]
    assert run_off_winner(changed) != 0


@pytest.mark.parametrize("spread", [1, 2, 3])
def test_no_attack_within_the_radius_overturns_a_run_off_of_many(spread: int) -> None:
    """Greedy attacks on elections too large to enumerate: towards two rivals at once, and towards each alone."""
    stream, broken = np.random.default_rng(spread), 0
    for _ in range(25):
        voters, num_classes = 30, 5
        ballots = learned_ballots(stream, voters, num_classes)
        users = np.array([[(part + step) % voters for step in range(spread)] for part in range(voters)])
        adversary = OneVote() if spread == 1 else SharedParts(torch.tensor(users))
        found = certify_run_off(ranks_of([ballots]), adversary, MANY)
        winner, radius = found.prediction.item(), found.radius.item()
        for _ in range(60):
            chosen = [label for label in stream.permutation(num_classes) if label != winner][:2]
            favoured = sorted(range(voters), key=lambda voter: (ballots[voter][0] != winner, stream.random()))
            changes = radius + 1
            parts = [part for part in favoured if part % spread == 0][: max(changes, 0)]
            changed = list(ballots)
            for count, part in enumerate(parts):
                for voter in users[part]:
                    best = (
                        [chosen[count % 2], chosen[1 - count % 2]] if stream.random() < 0.7 else [chosen[0], chosen[1]]
                    )
                    changed[voter] = (*best, *(label for label in ballots[voter] if label not in best))
                if count + 1 <= radius:
                    assert run_off_winner(changed) == winner
            broken += run_off_winner(changed) != winner
    assert broken > 0


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


def test_the_order_of_voters_decides_nothing() -> None:
    stream = np.random.default_rng(0)
    ranks = ranks_of([learned_ballots(stream, 12, 4) for _ in range(30)])
    votes, order = ranks.argmin(2), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    costs = torch.randint(1, 9, votes.shape, generator=torch.Generator().manual_seed(1))
    users = torch.stack([torch.arange(12), (torch.arange(12) + 5) % 12], 1)
    moved = order.argsort()[users]  # where each part's voters stand now
    for one, other in (
        (certify_plurality(votes, 4, OneVote(), 99), certify_plurality(votes[:, order], 4, OneVote(), 99)),
        (
            certify_plurality(votes, 4, PricedVotes(costs), 99),
            certify_plurality(votes[:, order], 4, PricedVotes(costs[:, order]), 99),
        ),
        (
            certify_plurality(votes, 4, SharedParts(users), 99),
            certify_plurality(votes[:, order], 4, SharedParts(moved), 99),
        ),
        (certify_run_off(ranks, OneVote(), 99), certify_run_off(ranks[:, order], OneVote(), 99)),
        (certify_run_off(ranks, SharedParts(users), 99), certify_run_off(ranks[:, order], SharedParts(moved), 99)),
    ):
        assert torch.equal(one.prediction, other.prediction)
        assert torch.equal(one.radius, other.radius)
        assert int(one.radius.max()) > 0


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
