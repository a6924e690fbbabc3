"""Class means are not linear in the labels: their certificates against every relabelling."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid as SklearnNearestCentroid

from lightning_poison.certificates import RawFeatures
from lightning_poison.certificates.centroids import Centroids, _Largest
from lightning_poison.certificates.learners import CosineKernel, MeanSimilarity, NearestCentroid, class_means
from lightning_poison.certificates.learners.class_means import _Rivalry, certify_class_means
from lightning_poison.errors import UserError

DIGITS = torch.tensor(load_digits().data / 16)
LABELS = torch.tensor(load_digits().target)


def enumerate_means(similarity: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, int, int]:
    """Prediction, fewest changes to a tie, fewest changes of the prediction; ties of integers are exact."""
    n = len(labels)
    every = np.array(list(product(range(classes), repeat=n)))
    sums = np.stack([((every == c) * similarity).sum(1) for c in range(classes)], 1)
    counts = np.stack([(every == c).sum(1) for c in range(classes)], 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    changes = (every != labels).sum(1)
    own = int(means[changes == 0].argmax())
    level = changes[np.delete(means, own, axis=1).max(1) >= means[:, own] - 1e-12]
    broken = changes[means.argmax(1) != own]
    return own, int(level.min(initial=n + 1)), int(broken.min(initial=n + 1))


@pytest.mark.parametrize("kind", ["reals", "integers with ties", "shifted"])
def test_no_relabelling_breaks_the_radius_and_the_next_change_reaches_a_tie(kind: str) -> None:
    draw = np.random.default_rng(len(kind))
    for _ in range(400):
        classes = int(draw.integers(2, 5))
        n = int(draw.integers(1, 9 if classes == 2 else 8 if classes == 3 else 7))
        labels = draw.integers(0, classes, n)
        similarity = draw.integers(0, 4, n).astype(float)
        if kind != "integers with ties":
            similarity = draw.normal(0, 1, n) + (labels == 0) * draw.choice([0, 1, 3])
        if kind == "shifted":
            similarity -= 10.0
        own, level, broken = enumerate_means(similarity, labels, classes)
        certificate = certify_class_means(torch.tensor(similarity[None]), torch.tensor(labels), classes)
        assert certificate.prediction.item() == own
        assert certificate.radius.item() < broken
        assert certificate.radius.item() == max(level - 1, 0)
        if kind == "reals":
            assert certificate.radius.item() == max(broken - 1, 0)


def enumerate_threshold(parts: list[np.ndarray], threshold: float) -> int:
    """Fewest changes after which both sums of the theorem are at most 0 and class j has a point, over all."""
    similarity = np.concatenate(parts)
    labels = np.repeat([0, 1, 2], [len(part) for part in parts])
    every = np.array(list(product(range(3), repeat=len(labels))))
    rival, own = (((every == label) * (similarity - threshold)).sum(1) for label in (1, 0))
    reached = (rival >= 0) & (own <= 0) & (every == 1).any(1)
    return int((every != labels).sum(1)[reached].min(initial=len(labels) + 1))


def test_for_a_given_threshold_the_changes_are_the_fewest_of_all() -> None:
    draw = np.random.default_rng(0)
    lost = emptied = 0
    for _ in range(250):
        shifts, sizes = draw.choice([-1.0, 0.0, 1.0, 2.0], 3), draw.integers(0, 4, 3)
        parts = [np.sort(draw.normal(shift, 1, size)) for shift, size in zip(shifts, sizes, strict=True)]
        threshold = draw.normal(0, 1.5)
        fewest, n = enumerate_threshold(parts, threshold), sum(map(len, parts))
        found = _Rivalry(*parts).changes(threshold, threshold, 99)
        assert found == fewest or found > n < fewest, (parts, threshold)
        lost += fewest > n
        emptied += 0 < len(parts[1]) <= fewest <= n
    assert min(lost, emptied) > 20


@pytest.mark.parametrize("shifts", [(1.0, 0.0, 0.3), (2.0, 2.0, -1.0), (1.0, -1.0, 1.0), (0.0, 0.0, 0.0)])
def test_the_bound_of_an_interval_is_below_every_threshold_inside(shifts: tuple[float, float, float]) -> None:
    draw = np.random.default_rng(0)
    for _ in range(150):
        rivalry = _Rivalry(*(np.sort(draw.normal(shift, 1, draw.integers(0, 12))) for shift in shifts))
        low, high = np.sort(draw.normal(0, 1.5, 2))
        bound = rivalry.changes(low, high, 99)
        inside = [rivalry.changes(t, t, 99) for t in np.linspace(low, high, 23)]
        assert bound <= min(inside)
        assert rivalry.changes(low, high, 3) >= min(bound, 3)


@pytest.mark.parametrize("splits", [0, 1, 3])
def test_a_search_that_is_stopped_early_gives_smaller_radii(monkeypatch: pytest.MonkeyPatch, splits: int) -> None:
    draw = np.random.default_rng(splits)
    labels = torch.tensor(draw.integers(0, 3, 60))
    similarity = torch.tensor(draw.normal(0, 1, (20, 60)) + 2 * (labels.numpy() == 0))
    exact = certify_class_means(similarity, labels, 3)
    monkeypatch.setattr(class_means, "_SPLITS", splits)
    stopped = certify_class_means(similarity, labels, 3)
    assert (stopped.radius <= exact.radius).all()
    assert (stopped.radius < exact.radius).any()


def exact_changes(similarity: list[float], labels: list[int], own: int, rival: int, index: list[int]) -> bool:
    """Whether giving these points to the rival (or, from the rival, to ``own``) lifts its mean, in rationals."""
    changed = list(labels)
    for i in index:
        changed[i] = own if labels[i] == rival else rival
    means = []
    for label in (own, rival):
        part = [Fraction(k) for k, y in zip(similarity, changed, strict=True) if y == label]
        means.append(sum(part, Fraction(0)) / len(part) if part else None)
    return means[1] is not None and (means[0] is None or means[1] >= means[0])


def test_near_ties_are_never_rounded_up() -> None:
    """Decimals tie on paper, not in float64: with two classes, whatever r points are swapped in rational arithmetic."""
    draw = np.random.default_rng(1)
    for _ in range(150):
        n = int(draw.integers(3, 9))
        labels = [0, 1, *draw.integers(0, 2, n - 2).tolist()]
        similarity = (draw.integers(-2, 6, n) / 10 * draw.choice([1.0, 1 / 3])).tolist()
        certificate = certify_class_means(torch.tensor([similarity], dtype=torch.float64), torch.tensor(labels), 2)
        own = certificate.prediction.item()
        fewest = min(
            (
                int(sum(chosen))
                for chosen in product([0, 1], repeat=n)
                if exact_changes(similarity, labels, own, 1 - own, [i for i in range(n) if chosen[i]])
            ),
            default=n + 1,
        )
        assert certificate.radius.item() <= max(fewest - 1, 0)
        assert certificate.radius.item() >= fewest - 2


@pytest.mark.parametrize("tie", [(0.3, 32), (0.7, 64)])
def test_a_tie_at_a_threshold_that_is_a_number_is_not_rounded_away(tie: tuple[float, int]) -> None:
    """The class at 0 can be reached at the threshold 0 only: 20 points of x outweigh 20 D of -x / D, exactly.

    One after the other the 20 add up to less in float64 than the many small ones, pair by pair.
    """
    x, times = tie
    similarity = [-x / times] * (20 * times) + [0.0] * 2000 + [x] * 22 + [-x / 8] * 400
    labels = torch.tensor([0] * (20 * times) + [1] * 2000 + [2] * 422)
    assert np.cumsum([x] * 20)[-1] < np.sum([x / times] * (20 * times))
    certificate = certify_class_means(torch.tensor([similarity], dtype=torch.float64), labels, 3)
    changed = labels.clone()
    changed[20 * times + 2000 : 20 * times + 2020] = 0
    level = [
        sum((Fraction(k) for k, y in zip(similarity, changed, strict=True) if y == c), Fraction(0)) for c in (0, 1)
    ]
    assert level == [0, 0]  # class 0 wins among equals
    assert (certificate.prediction.item(), certificate.radius.item()) == (1, 19)


@pytest.mark.parametrize("scale", [5e-324, 1e-322])
def test_means_that_round_where_sums_do_not_do_not_certify_more(scale: float) -> None:
    """Means of the smallest numbers are whole multiples of the smallest: they tie where the exact ones do not."""
    draw, positive = np.random.default_rng(2), 0
    for _ in range(60):
        labels = draw.integers(0, 2, 6)
        similarity = torch.tensor((draw.integers(0, 4, 6) + (labels == 0))[None] * scale, dtype=torch.float64)
        certificate = certify_class_means(similarity, torch.tensor(labels), 2)
        positive += certificate.radius.item() > 0
        for other in product(range(2), repeat=6):
            if (np.array(other) != labels).sum() <= certificate.radius.item():
                again = certify_class_means(similarity, torch.tensor(other), 2)
                assert again.prediction.item() == certificate.prediction.item()
    assert positive == 0  # the price of the rounding: nothing is certified down there


def exact_on_a_line(features: list[float], labels: list[int], point: float, own: int) -> int:
    """Fewest changes after which the mean of ``own`` is not strictly the nearest, of two classes, in rationals."""
    exact, fewest = [Fraction(value) for value in features], len(labels) + 1
    for other in product(range(2), repeat=len(labels)):
        parts = [[value for value, y in zip(exact, other, strict=True) if y == label] for label in (own, 1 - own)]
        away = [abs(Fraction(point) - sum(part, Fraction(0)) / len(part)) if part else None for part in parts]
        if away[0] is None or (away[1] is not None and away[1] <= away[0]):
            fewest = min(fewest, sum(a != b for a, b in zip(other, labels, strict=True)))
    return fewest


def test_distances_that_cancel_never_certify_a_tie() -> None:
    """On a line and far from 0 one change brings the means level, exactly; distances in float64 say otherwise."""
    certified = 0
    for features, size, point in [
        ([1024.2, 1024.2, 1024.3, 1024.1, 1024.4, 1024.0, 1024.2], 5, 1022.6),
        ([1e6, 1e6, 1e6, 1e6, 1e6 + 0.2, 1e6 + 0.4], 3, 1e6 + 0.8),
        ([1024.1, 1024.0, 1024.1, 1024.2, 1024.1], 2, 1024.8),
        ([1048576.3, 1048576.0, 1048576.3, 1048576.4, 1048576.5], 3, 1048577.3),
        ([0.1, 0.1, 0.1, 0.9, 0.9, 0.9], 3, 0.0),
    ]:
        labels = [0] * size + [1] * (len(features) - size)
        rows = torch.tensor(features, dtype=torch.float64)[:, None]
        certificate = Centroids(rows, torch.tensor(labels), 2).certify(torch.tensor([[point]], dtype=torch.float64))
        fewest = exact_on_a_line(features, labels, point, certificate.prediction.item())
        assert certificate.radius.item() < max(fewest, 1)
        certified += certificate.radius.item() > 0
    assert certified > 0


def moves(centroids: Centroids, one: int, two: int) -> np.ndarray:
    """How far 0, 1, ... changes move two means, both together."""
    count = min(len(centroids._members[label]) for label in (one, two))
    return np.array([centroids.moved(one, two, changes) for changes in range(count)])


def test_no_relabelling_moves_two_means_further_than_the_bound() -> None:
    """On a line, where distances add up, the bound is reached wherever what moves lies on the right sides."""
    draw, reached = np.random.default_rng(4), 0
    for _ in range(40):
        features = draw.exponential(1, (7, 1)) * draw.choice([1, 5])
        labels = np.array([0, 0, 0, 0, 1, 1, 1])
        bound = moves(Centroids(torch.tensor(features), torch.tensor(labels), 2), 0, 1)
        moved = np.zeros(3)
        for other in product(range(2), repeat=7):
            changed = np.array(other)
            changes = int((changed != labels).sum())
            if changes < 3:
                shift = sum(abs(features[changed == c].mean() - features[labels == c].mean()) for c in (0, 1))
                moved[changes:] = np.maximum(moved[changes:], shift)
        assert (moved <= bound).all()
        reached += int((moved[1:] > bound[1:] * (1 - 1e-9)).sum())
    assert reached > 20


def test_changes_of_a_third_class_move_two_means_no_further_either() -> None:
    draw = np.random.default_rng(5)
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    for _ in range(8):
        features = draw.normal(0, 1, (7, 2)) * draw.exponential(2, (7, 1))
        centroids = Centroids(torch.tensor(features), torch.tensor(labels), 3)
        bound = moves(centroids, 0, 1)
        np.testing.assert_array_equal(bound, moves(centroids, 1, 0))
        for other in product(range(3), repeat=7):
            changed = np.array(other)
            changes = int((changed != labels).sum())
            if changes < 3:
                shifts = [features[changed == c].mean(0) - features[labels == c].mean(0) for c in (0, 1)]
                assert sum(np.linalg.norm(shift) for shift in shifts) <= bound[changes]


def test_the_bound_is_the_definition() -> None:
    """V_c(s, t) + V_j(t, s) over all s + t = r, by trying every a and b below them."""
    draw = np.random.default_rng(6)
    for sizes in ((5, 4, 3), (2, 6, 0), (7, 1, 4), (6, 6, 0)):
        labels = np.repeat([0, 1, 2], sizes)
        features = draw.normal(0, 1, (len(labels), 3))

        def longest(
            label: int, out: int, into: int, labels: np.ndarray = labels, features: np.ndarray = features
        ) -> float:
            away = np.linalg.norm(features - features[labels == label].mean(0), axis=1)
            own, others = (np.sort(away[side])[::-1] for side in (labels == label, labels != label))
            return max(
                (own[:a].sum() + others[:b].sum()) / (len(own) - a + min(b, len(others)))
                for a in range(out + 1)
                for b in range(into + 1)
            )

        wanted = [max(longest(0, s, r - s) + longest(1, r - s, s) for s in range(r + 1)) for r in range(min(sizes[:2]))]
        centroids = Centroids(torch.tensor(features), torch.tensor(labels), 3)
        np.testing.assert_allclose(moves(centroids, 0, 1), wanted, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_centroid_is_sound(seed: int) -> None:
    draw = np.random.default_rng(seed)
    positive = 0
    for _ in range(60):
        classes = int(draw.integers(1, 4))
        n = int(draw.integers(4, 9 if classes < 3 else 8))
        labels = draw.integers(0, classes, n)
        features = draw.normal(0, 0.3, (n, 2)) + labels[:, None] * draw.choice([0.3, 2.0])
        point = features[0] + draw.normal(0, 0.1, 2)
        certificate = Centroids(torch.tensor(features), torch.tensor(labels), classes).certify(
            torch.tensor(point[None])
        )
        own, broken = certificate.prediction.item(), n + 1
        for other in product(range(classes), repeat=n):
            changed = np.array(other)
            distances = [
                np.linalg.norm(point - features[changed == c].mean(0)) if (changed == c).any() else np.inf
                for c in range(classes)
            ]
            if np.argmin(distances) != own:
                broken = min(broken, int((changed != labels).sum()))
        assert broken > 0
        assert certificate.radius.item() < broken
        positive += certificate.radius.item() > 0
    assert positive > 5


def fewest_changes_to_a_tie(features: np.ndarray, labels: np.ndarray, point: np.ndarray, classes: int, own: int) -> int:
    """Over all relabellings, in integers: the nearest mean is not alone any more, or its class is empty."""
    every = np.array(list(product(range(classes), repeat=len(labels))))
    counts = np.stack([(every == c).sum(1) for c in range(classes)])
    squares = np.stack([(((every == c).astype(np.int64) @ (features - point)) ** 2).sum(1) for c in range(classes)])
    level = counts[own] == 0
    for rival in set(range(classes)) - {own}:
        level |= (counts[rival] > 0) & (squares[rival] * counts[own] ** 2 <= squares[own] * counts[rival] ** 2)
    return int((every != labels).sum(1)[level].min(initial=len(labels) + 1))


@pytest.mark.parametrize(("classes", "n"), [(2, 6), (2, 8), (2, 9), (3, 6), (3, 7)])
@pytest.mark.parametrize("scale", [1, 7, 1000])
def test_no_relabelling_reaches_the_nearest_centroid_within_its_radius(classes: int, n: int, scale: int) -> None:
    """Integers near 0 and far from it, with ties; far from 0 distances cancel and rounding is large."""
    draw = np.random.default_rng([classes, n, scale])
    holding = certified = before = 0
    for _ in range(40):
        labels = draw.permutation(np.arange(n) % classes)
        dimensions, spread = int(draw.integers(1, 5)), int(draw.choice([2, 4, 12]))
        features = draw.integers(0, spread, (n, dimensions)) * int(draw.choice([1, scale])) + 20 * labels[:, None]
        features += int(draw.choice([0, 2**20]))
        point = features[0] + draw.integers(-1, 2, dimensions)
        centroids = Centroids(torch.tensor(features).double(), torch.tensor(labels), classes)
        asked = torch.tensor(point[None]).double()
        certificate = centroids.certify(asked)
        own, radius = certificate.prediction.item(), certificate.radius.item()
        allowed = max(fewest_changes_to_a_tie(features, labels, point, classes, own) - 1, 0)
        assert radius <= allowed
        distances = (asked - centroids.means).norm(dim=1)
        gaps = distances - distances[own]
        either_way = min(
            int((moves(centroids, own, rival) < float(gaps[rival]) * (1 - 1e-9)).sum()) - 1
            for rival in set(range(classes)) - {own}
        )
        assert radius >= either_way
        holding, certified, before = holding + allowed, certified + radius, before + max(either_way, 0)
    assert holding >= certified >= before
    assert certified > 0


def test_products_that_lose_digits_certify_no_tie() -> None:
    """Coordinates near 2^30: products of 2^60 keep no digit below 128, and the points are less than 40 apart."""
    draw, certified = np.random.default_rng(0), 0
    for _ in range(240):
        labels, width = draw.permutation(np.arange(8) % 2), int(draw.choice([2, 8]))
        features = draw.integers(0, width, (8, 1)) + int(draw.choice([1, 2, 4])) * width * labels[:, None] + 2**30
        point = features[0] + draw.integers(-1, 2, 1)
        centroids = Centroids(torch.tensor(features).double(), torch.tensor(labels), 2)
        certificate = centroids.certify(torch.tensor(point[None]).double())
        fewest = fewest_changes_to_a_tie(features, labels, point, 2, certificate.prediction.item())
        assert certificate.radius.item() < max(fewest, 1)
        certified += certificate.radius.item()
    assert certified > 240


def quotients(leaving: np.ndarray, entering: np.ndarray, size: int) -> np.ndarray:
    """The theorem's largest quotient for all a and b below ``size``, by trying everything up to them."""
    sums = []
    for values in (leaving, entering):
        largest = np.sort(np.maximum(values, 0))[::-1][: size - 1]
        sums.append(np.concatenate([[0], largest, np.zeros(size - 1 - len(largest))]).cumsum())
    counts = len(leaving) - np.arange(size)[:, None] + np.minimum(np.arange(size), len(entering))
    return np.maximum.accumulate(np.maximum.accumulate((sums[0][:, None] + sums[1]) / counts, axis=0), axis=1)


@pytest.mark.parametrize("power", [1, 4])
def test_the_largest_quotient_is_that_of_the_peak(power: int) -> None:
    """Where few points are far, and the next one pulls less than the mean has moved, fewer enter than may."""
    draw, fewer = np.random.default_rng(power), 0
    for _ in range(100):
        count, others = int(draw.integers(2, 40)), int(draw.integers(0, 60))
        leaving, entering = (np.round(draw.normal(0.5, 1.5, n) ** power, 1) for n in (count, others))
        size = int(draw.integers(1, count))
        largest = _Largest(leaving, np.append(entering, np.zeros(count)), count, size, 1e-14)
        left, entered = (axis.flatten() for axis in np.indices((size + 1, size + 1)))
        wanted = quotients(leaving, entering, size + 1)
        np.testing.assert_allclose(largest.of(left, entered), wanted[left, entered], rtol=1e-12)
        fewer += int((wanted[:, -1] == wanted[:, -2]).sum())
    assert fewer > 100


def radius_step_by_step(features: np.ndarray, labels: np.ndarray, point: np.ndarray, classes: int) -> int:
    """The theorem word by word, r by r, with the allowances for rounding that its module names."""
    rounding = 16 * sum(features.shape) * np.finfo(float).eps
    norms = np.linalg.norm(features, axis=1).max() + np.linalg.norm(point)
    means = [features[labels == c].mean(0) for c in range(classes)]
    apart = np.array([np.linalg.norm(point - mean) for mean in means])
    own, radius = int(apart.argmin()), len(labels)
    nearest = max(apart[own] - rounding * norms, 0)
    for rival in set(range(classes)) - {own}:
        size = min(int((labels == c).sum()) for c in (own, rival))
        bounds = []
        for label, sign in ((own, -1), (rival, 1)):
            inside, anyhow = labels == label, np.linalg.norm(features - means[label], axis=1)
            pull = sign * ((features - means[label]) @ (point - means[label]))
            # At the mean itself all directions are towards it: only how far the points are counts.
            out, into = ((rounding * norms**2 + side) / (apart[label] or np.nan) for side in (-pull, pull))
            along = quotients(*(np.nan_to_num(side, nan=np.inf) for side in (out[inside], into[~inside])), size)
            total = quotients(anyhow[inside], anyhow[~inside], size)
            bounds += [np.minimum(along, total), total]
        further = np.sqrt(nearest**2 + 2 * nearest * bounds[0] + bounds[1] ** 2) - nearest
        gap = apart[rival] - apart[own] - 4 * rounding * norms
        withstood = 0
        while withstood + 1 < size:
            changes = np.arange(withstood + 2)
            moved = further[changes, changes[::-1]] + bounds[2][changes[::-1], changes]
            if moved.max() * (1 + rounding) >= gap:
                break
            withstood += 1
        radius = min(radius, withstood)
    return radius


@pytest.mark.parametrize("offset", [0, 2**12, 2**18])
def test_the_search_finds_the_radius_of_the_theorem_word_by_word(offset: int) -> None:
    """Integers with ties and classes of 2^k points, so that means and products are exact."""
    draw, radii = np.random.default_rng(offset), []
    for _ in range(150):
        labels = draw.permutation(np.repeat(np.arange(3), 2 ** draw.integers(1, 7, 3)))[:, None]
        labels = labels[labels < draw.integers(2, 4)]
        classes, spread = int(labels.max()) + 1, int(draw.choice([2, 9, 100]))
        features = draw.integers(0, spread, (len(labels), int(draw.integers(1, 5)))).astype(float)
        features *= draw.choice([1, 10], (len(labels), 1), p=[0.9, 0.1])
        features += int(draw.choice([1, 3])) * spread * labels[:, None] + offset
        point = features[draw.integers(len(labels))] + draw.integers(1, 3)
        certificate = Centroids(torch.tensor(features), torch.tensor(labels), classes).certify(
            torch.tensor(point[None])
        )
        radii.append(certificate.radius.item())
        assert radii[-1] == radius_step_by_step(features, labels, point, classes)
    assert min(radii) == 0
    assert np.mean(radii) > 2


def test_along_the_line_to_the_point_means_move_less_than_anyhow() -> None:
    """In 40 dimensions most of what moves a mean goes past the point; what is left does not suffice."""
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = draw.normal(0, 1, (200, 40)) + 4 * np.eye(40)[labels]
    centroids = Centroids(torch.tensor(features), torch.tensor(labels), 2)
    points = torch.tensor(features[:20])
    certificate = centroids.certify(points)
    assert (certificate.prediction.numpy() == labels[:20]).all()
    doubled = 0
    for point, own, radius in zip(
        points.numpy(), certificate.prediction.tolist(), certificate.radius.tolist(), strict=True
    ):
        lines = [(point - mean) / np.linalg.norm(point - mean) for mean in centroids.means.numpy()]
        worth = np.where(labels == own, features @ (lines[0] + lines[1]), -np.inf)
        changed = labels.copy()
        changed[np.argsort(-worth)[:radius]] = 1 - own
        apart = [np.linalg.norm(point - features[changed == c].mean(0)) for c in (0, 1)]
        assert apart[own] < apart[1 - own]
        gap = np.linalg.norm(point - centroids.means[1 - own].numpy()) - np.linalg.norm(
            point - centroids.means[own].numpy()
        )
        either_way = int((moves(centroids, 0, 1) < gap).sum()) - 1
        doubled += radius >= 2 * either_way
    assert doubled > 10


def test_learners_equal_scikit_learn_and_certify_digits() -> None:
    inputs, labels, points = DIGITS[:1000], LABELS[:1000], DIGITS[1000:1100]
    nearest = NearestCentroid(RawFeatures()).fit(inputs, labels, 10)
    certificate = nearest.certify(points)
    np.testing.assert_array_equal(certificate.prediction, SklearnNearestCentroid().fit(inputs, labels).predict(points))
    assert certificate.radius.double().mean() > 3
    seen: list[int] = []
    similar = MeanSimilarity(RawFeatures(), CosineKernel(centre=True)).fit(inputs, labels, 10)
    exact = similar.certify_features(points, seen.append)
    assert sum(seen) == 100
    assert (exact.prediction == LABELS[1000:1100]).double().mean() > 0.8
    assert exact.radius.double().mean() > certificate.radius.double().mean()
    assert "largest class mean of the centred cosine kernel" in similar.guarantee()
    assert "nearest class mean" in nearest.guarantee()


def test_a_refit_after_random_changes_within_the_radius_keeps_the_prediction() -> None:
    draw = torch.Generator().manual_seed(0)
    inputs, labels, points = DIGITS[:400], LABELS[:400], DIGITS[400:420]
    for make in (MeanSimilarity, NearestCentroid):
        certificate = make(RawFeatures()).fit(inputs, labels, 10).certify(points)
        for row in range(len(points)):
            radius = int(certificate.radius[row])
            changed = labels.clone()
            chosen = torch.randperm(400, generator=draw)[:radius]
            changed[chosen] = torch.randint(10, (radius,), generator=draw)
            again = make(RawFeatures()).fit(inputs, changed, 10).certify(points[row : row + 1])
            assert again.prediction.item() == certificate.prediction[row]


@pytest.mark.parametrize("make", [MeanSimilarity, NearestCentroid])
def test_extremes(make: type[MeanSimilarity] | type[NearestCentroid]) -> None:
    one = make(RawFeatures()).fit(torch.ones(1, 2), torch.tensor([1]), 2).certify(torch.ones(2, 2))
    assert (one.prediction.tolist(), one.radius.tolist()) == ([1, 1], [0, 0])
    single = make(RawFeatures()).fit(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), 1).certify(torch.ones(1, 2))
    assert single.radius.tolist() == [4]
    same = make(RawFeatures()).fit(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), 3).certify(torch.ones(1, 2))
    assert same.radius.tolist() == [0]
    assert len(make(RawFeatures()).fit(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), 2).certify(torch.ones(0, 2))) == 0
    fitted = make(RawFeatures()).fit(torch.eye(4), torch.tensor([0, 0, 1, 1]), 2)
    with pytest.raises(UserError, match="finite"):
        fitted.certify(torch.full((1, 4), float("nan")))
    with pytest.raises(UserError, match="must be fitted"):
        make(RawFeatures()).certify(torch.ones(1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_training_points_decides_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels, order = draw.integers(0, 3, 40), draw.permutation(40)
    similarity = torch.tensor(draw.integers(-5, 9, (6, 40)) / 10 + (labels == 0) * 0.4)
    features = torch.tensor(draw.normal(0, 1, (40, 2)) + 2.0 * labels[:, None])
    points = features[:8] + 0.1
    for one, other in (
        (
            certify_class_means(similarity, torch.tensor(labels), 3),
            certify_class_means(similarity[:, order], torch.tensor(labels[order]), 3),
        ),
        (
            Centroids(features, torch.tensor(labels), 3).certify(points),
            Centroids(features[order], torch.tensor(labels[order]), 3).certify(points),
        ),
    ):
        assert torch.equal(one.prediction, other.prediction)
        assert torch.equal(one.radius, other.radius)
        assert int(one.radius.max()) > 0


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="labels must lie in"):
        certify_class_means(torch.ones(1, 3), torch.tensor([0, 1, 2]), 2)
    with pytest.raises(UserError, match="similarities must be a float matrix"):
        certify_class_means(torch.ones(3), torch.tensor([0, 1, 1]), 2)
    with pytest.raises(UserError, match="similarities must be finite"):
        certify_class_means(torch.tensor([[1.0, float("inf"), 0.0]]), torch.tensor([0, 1, 1]), 2)
    with pytest.raises(UserError, match="at least one training label"):
        certify_class_means(torch.ones(1, 0), torch.empty(0, dtype=torch.int64), 2)


def test_huge_and_tiny_similarities_do_not_certify_more() -> None:
    similarities, labels = torch.tensor([[1.0, 0.9, 0.8, 0.1, 0.0, 0.05]]).double(), torch.arange(6) // 3
    ordinary = int(certify_class_means(similarities, labels, 2).radius)
    for scale in (1e300, 1e-300, 1e-310, 1e-322):
        assert int(certify_class_means(similarities * scale, labels, 2).radius) <= ordinary
    for scale in (1.7e308, -1.7e308):  # sums overflow, and a margin that is not a number certified every change
        with pytest.raises(UserError, match="huge"):
            certify_class_means(similarities * scale, labels, 2)


@pytest.mark.parametrize("exponent", [-1020, -538, -500, -300, 0, 400, 511, 513, 1020])
def test_distances_whose_squares_vanish_or_overflow_are_certified_as_any(exponent: int) -> None:
    scale = 2.0**exponent
    inputs = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]).double() * scale
    centroids = Centroids(inputs, torch.arange(6) // 3, 2)
    assert int(centroids.certify(torch.tensor([[0.125]]).double() * scale).radius) == 2
    # one change alters this prediction in exact arithmetic, but squares of 1e-162 are mostly rounding
    small = torch.tensor([[-1.0], [-2.0], [6.0], [-1.0], [-5.0]]).double() * 1e-162
    point = torch.tensor([[4.047563552856445e-162]]).double()
    assert int(Centroids(small, torch.tensor([1, 0, 1, 0, 0]), 2).certify(point).radius) == 0


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_points_whose_distances_overflow_are_refused() -> None:
    """A distance that is infinite certified every change."""
    centroids = Centroids(column(0, 1e300), torch.arange(2), 2)
    assert centroids.certify(column(1e300)).radius.tolist() == [0]
    small = Centroids(torch.eye(2), torch.arange(2), 2)
    with pytest.raises(UserError, match="distances must be finite, got 2 NaN or infinite of 2 values; they"):
        small.certify(torch.full((1, 2), 1e200, dtype=torch.float64))
    tiny = Centroids(column(0, 1e-300), torch.arange(2), 2)
    with pytest.raises(UserError, match="points must be finite"):
        tiny.certify(column(1e300))
    for huge in (1e154, 1.7e308):  # the sum of the points that make a mean
        one = Centroids(column(huge, huge, huge, -huge, -huge, -huge), torch.arange(6) // 3, 2)
        assert one.certify(column(huge / 4, huge)).radius.tolist() == [0, 2]
