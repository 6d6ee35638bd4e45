"""Raw features of texts: TF-IDF of words and pairs of words, and the directions in which it varies most.

Deerwester et al. 1990, "Indexing by latent semantic analysis"; the decomposition by random projection: Halko et al.
2011, https://arxiv.org/abs/0909.4061.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from worker.arrays import Floats, Ints
from worker.modalities.text.tokens import BUCKETS, PADDING

_Ids = npt.NDArray[np.uint16]

_DIMENSIONS = 128
_COLUMNS = 65_536  # of hashed words and pairs
_FITTED = 20_000  # texts that the directions are fitted on
_TEXTS_AT_ONCE = 4_096
_PRIME = 2_654_435_761  # Knuth's multiplicative hash


def raw_features(items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
    """Parts (m, L) of ids -> (n, 128) float32, of length 1; fewer columns where texts or words are fewer.

    Words count 1 + the logarithm of how often a text has them. Of a million texts 2 bytes a token are held besides the
    result; the directions are fitted on 20,000 random ones.
    """
    # Ids fit into two bytes, so going through the parts once suffices.
    parts: list[_Ids] = [part.cpu().numpy().astype(np.uint16) for part in items]
    ids = np.concatenate(parts) if parts else np.empty((0, 1), np.uint16)
    del parts
    n = len(ids)
    within: Ints = np.zeros(_COLUMNS, np.int64)
    for start in range(0, n, _TEXTS_AT_ONCE):
        within += _counts(ids[start : start + _TEXTS_AT_ONCE]).getnnz(axis=0)
    kept = np.flatnonzero(within >= min(2, n))  # a word of one text says nothing of two
    if not n or not len(kept):
        return np.zeros((n, 1), np.float32)
    weights = (np.log((1 + n) / (1 + within[kept])) + 1).astype(np.float32)
    fitted = np.sort(rng.choice(n, min(n, _FITTED), replace=False))
    seed = int(rng.integers(2**31))
    dimensions = min(_DIMENSIONS, len(fitted), len(kept))
    from sklearn.utils.extmath import randomized_svd  # here, as only texts need it, and it takes a second

    directions: Floats = randomized_svd(
        _weighted(ids[fitted], kept, weights), dimensions, n_iter=4, random_state=seed
    )[2]
    return np.concatenate(
        [
            _normalised(_weighted(ids[start : start + _TEXTS_AT_ONCE], kept, weights) @ directions.T)
            for start in range(0, n, _TEXTS_AT_ONCE)
        ]
    )


def _counts(ids: _Ids) -> sparse.csr_matrix:
    """(m, L) -> (m, columns): counts of each word and pair of neighbours in each text."""
    words = ids.astype(np.uint64)
    pairs = words[:, :-1] * np.uint64(BUCKETS) + words[:, 1:]
    hashed = np.concatenate([words, pairs], axis=1) * np.uint64(_PRIME) % np.uint64(2**32)
    there = np.concatenate([ids != PADDING, ids[:, 1:] != PADDING], axis=1)
    text, _ = np.nonzero(there)
    columns = (hashed[there] >> np.uint64(16)).astype(np.int64)
    found = sparse.csr_matrix((np.ones(len(text), np.float32), (text, columns)), shape=(len(ids), _COLUMNS))
    found.sum_duplicates()
    return found


def _weighted(ids: _Ids, kept: Ints, weights: Floats) -> sparse.csr_matrix:
    """(m, L) -> (m, kept) TF-IDF, rows of length 1."""
    found = _counts(ids)[:, kept].tocsr()
    found.data = (1 + np.log(found.data)) * weights[found.indices]
    lengths = np.sqrt(np.asarray(found.multiply(found).sum(axis=1))).clip(1e-12)
    return sparse.csr_matrix(found.multiply(1 / lengths), dtype=np.float32)


def _normalised(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    made: Floats = (rows / lengths).astype(np.float32)
    return made
