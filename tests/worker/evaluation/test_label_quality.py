import numpy as np
import pytest

from worker.arrays import Floats, Ints
from worker.evaluation.label_quality import (
    agreement,
    consensus,
    consensus_of_several,
    doubtful,
    doubtful_of_several,
)


def crowd(n: int = 400, n_classes: int = 4, seed: int = 0, sureness: float = 2) -> tuple[Ints, Ints, Floats]:
    """Truth (n,); votes (n, 6), three an item, of annotators from good to bad; a head that knows something."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    votes = np.full((n, 6), -1)
    for row in range(n):
        for annotator in rng.choice(6, 3, replace=False):
            right = rng.random() < (0.95, 0.9, 0.85, 0.4, 0.3, 0.2)[annotator]
            votes[row, annotator] = truth[row] if right else rng.integers(n_classes)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), truth] += sureness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, votes, probabilities.astype(np.float32)


def majority(votes: Ints, n_classes: int) -> Ints:
    """Of equals the first annotator's."""
    found = []
    for row in votes:
        counts = [(row == k).sum() for k in range(n_classes)]
        found.append(next(vote for vote in row if vote >= 0 and counts[vote] == max(counts)))
    return np.array(found)


def test_the_consensus_beats_the_majority_and_knows_the_annotators() -> None:
    truth, votes, probabilities = crowd()
    found = consensus(votes, probabilities)
    by_majority = (majority(votes, 4) == truth).mean()
    assert (found.classes == truth).mean() > by_majority + 0.03
    assert by_majority < 0.9
    right = found.classes == truth
    assert found.quality[right].mean() > found.quality[~right].mean() + 0.1
    assert found.annotators[:3].min() > found.annotators[3:].max()


def test_annotators_who_never_agree_are_no_error() -> None:
    votes = np.array([[0, 1], [1, 0]])
    found = consensus(votes, np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    assert np.isfinite(found.quality).all()
    assert found.classes.tolist() == [0, 1]


def test_planted_mistakes_are_doubted() -> None:
    truth, _, probabilities = crowd(n=600, seed=1, sureness=4)
    wrong = np.arange(0, 600, 20)
    given = truth.copy()
    given[wrong] = (given[wrong] + 1) % 4
    flags, quality = doubtful(given, probabilities)
    worst = np.argsort(quality)[:30]
    assert np.isin(worst, wrong).mean() > 0.7
    assert flags[wrong].mean() > 0.7
    assert flags.mean() < 0.2


def slow_agreement(votes: Ints, n_classes: int) -> tuple[float, float]:
    """Pair by pair, and Krippendorff's coincidence matrix."""
    equal = total = 0
    matrix = np.zeros((n_classes, n_classes))
    for row in votes:
        given = [vote for vote in row if vote >= 0]
        for first, one in enumerate(given):
            for second, other in enumerate(given):
                if first != second:
                    total, equal = total + 1, equal + (one == other)
                    matrix[one, other] += 1 / (len(given) - 1)
    n = matrix.sum()
    by_class = matrix.sum(axis=1)
    observed = matrix.sum() - np.trace(matrix)
    expected = sum(a * b for i, a in enumerate(by_class) for j, b in enumerate(by_class) if i != j) / (n - 1)
    return equal / total, 1 - observed / expected


@pytest.mark.parametrize("seed", range(3))
def test_agreement_as_the_slow_way(seed: int) -> None:
    _, votes, _ = crowd(n=30, seed=seed)
    pairs, alpha = slow_agreement(votes, 4)
    found = agreement(votes, 4)
    assert found.pairs == pytest.approx(pairs)
    assert found.alpha == pytest.approx(alpha)


def test_agreement_at_its_ends() -> None:
    assert agreement(np.array([[0, 0], [1, 1]]), 2).alpha == 1
    assert agreement(np.array([[0, 0], [0, 0]]), 2).alpha is None
    rng = np.random.default_rng(0)
    assert abs(agreement(rng.integers(2, size=(4000, 2)), 2).alpha or 0) < 0.05


def several(n: int = 400, seed: int = 0) -> tuple[Ints, Floats]:
    """Members (n, 4): of a half, a quarter and a tenth of the items, and of none; a head that knows something."""
    rng = np.random.default_rng(seed)
    members = (rng.random((n, 4)) < [0.5, 0.25, 0.1, 0]).astype(np.int64)
    logits = rng.normal(size=(n, 4)) + np.where(members, 2, -2)
    return members, (1 / (1 + np.exp(-logits))).astype(np.float32)


def test_planted_mistakes_are_doubted_in_their_class() -> None:
    members, probabilities = several(n=600)
    wrong = np.arange(0, 600, 20), np.arange(30) % 2
    given = members.copy()
    given[wrong] = 1 - given[wrong]

    flags, quality = doubtful_of_several(given, probabilities)

    assert flags[wrong].mean() > 0.7
    assert flags.mean() < 0.1
    assert not flags[:, 3].any()  # nobody has it: nothing is known of it
    assert quality[wrong].mean() < 0.2 < quality[members == given].mean()


def test_consensus_of_each_class_knows_the_annotators() -> None:
    members, probabilities = several()
    rng = np.random.default_rng(1)
    votes = np.full((400, 6, 4), -1)
    for row in range(400):
        for annotator in rng.choice(6, 3, replace=False):
            flipped = rng.random(4) > (0.95, 0.9, 0.85, 0.6, 0.5, 0.55)[annotator]
            votes[row, annotator] = np.where(flipped, 1 - members[row], members[row])
    votes[:, :, 3] = np.minimum(votes[:, :, 3], 0)
    by_majority = (np.where(votes < 0, 0, votes).sum(axis=1) >= 2) == (members == 1)

    found = consensus_of_several(votes, probabilities)

    assert ((found.classes == 1) == (members == 1)).mean() > by_majority.mean() + 0.03
    assert (found.classes[:, 3] == 0).all()
    assert (found.quality[:, 3] == 1).all()  # nobody disagrees of it
    assert found.annotators[:3].min() > found.annotators[3:].max()


def test_nobody_disagrees_of_any_class() -> None:
    votes = np.stack([np.eye(3, dtype=np.int64)] * 2, axis=1)
    found = consensus_of_several(votes, np.full((3, 3), 0.5, np.float32))
    assert found.classes.tolist() == np.eye(3).tolist()
    assert found.annotators.tolist() == [1, 1]
    assert agreement(votes, 3).pairs == 1


def test_sets_agree_where_they_are_equal() -> None:
    """As numbers of the sets do."""
    numbers = np.array([[0, 0, -1], [1, 2, 1], [2, -1, 3], [3, 3, 3]])
    sets = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    votes = np.where(numbers[:, :, None] < 0, -1, sets[numbers])
    assert agreement(votes, 2) == agreement(numbers, 4)
