import numpy as np

from tests.worker.pools import make_pool
from worker.arrays import Floats
from worker.selection.herding import StandardisedSpace
from worker.selection.pool_view import PoolView
from worker.strategies.badge import BADGE


def _gradients(pool: PoolView) -> Floats:
    """(n, c * d), each built as the paper writes it."""
    assert pool.probabilities is not None
    everything = np.arange(len(pool))
    embeddings = StandardisedSpace(pool, everything).standardised(everything)
    gradients = []
    for probabilities, embedding in zip(pool.probabilities, embeddings, strict=True):
        likeliest = np.zeros(len(probabilities))
        likeliest[probabilities.argmax()] = 1
        gradients.append(np.outer(probabilities - likeliest, embedding).ravel())
    return np.array(gradients, np.float32)


def test_begins_with_the_longest_gradient() -> None:
    pool = make_pool(n=150, labeled=10, head=True)
    lengths = np.linalg.norm(_gradients(pool), axis=1)

    first = BADGE().select(pool, 1, np.random.default_rng(0)).items[0]

    assert first == np.where(pool.available, lengths, -1).argmax()


def test_spreads_as_well_as_a_plain_loop_over_gradients() -> None:
    """Mean squared distance to the nearest of 15 picks, over 30 seeds."""
    pool = make_pool(n=150, dimensions=4, head=True)
    gradients = _gradients(pool)
    squared = ((gradients[:, None] - gradients) ** 2).sum(axis=2)

    def plain(rng: np.random.Generator) -> list[int]:
        picks = [int((gradients**2).sum(axis=1).argmax())]
        while len(picks) < 15:
            left = squared[picks].min(axis=0)
            picks.append(int(rng.choice(150, p=left / left.sum())))
        return picks

    ours, plainly = [], []
    for seed in range(30):
        ours.append(squared[BADGE().select(pool, 15, np.random.default_rng(seed)).items].min(axis=0).mean())
        plainly.append(squared[plain(np.random.default_rng(seed))].min(axis=0).mean())
    error = np.std(plainly) / np.sqrt(30)
    assert abs(np.mean(ours) - np.mean(plainly)) < 4 * error
