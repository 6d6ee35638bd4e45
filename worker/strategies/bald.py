"""Strategy `bald`."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worker.arrays import Floats, Ints
from worker.selection.herding import StandardisedSpace
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.selection.uncertainty import entropies
from worker.strategies import ColdStart, Strategy

_PENALTY = 1.0  # λ of λ/2 |W|² beside the summed loss, on standardised embeddings
_STEPS = 50
_AT_ONCE = 16_000_000  # probabilities of all heads held at a time


class BALD(Strategy):
    """The items that equally good heads disagree about most. Needs labels and a head.

    `heads` linear heads are trained on the labels, each with its own random weights of the labels (Bayesian
    bootstrap). Score: the mutual information of an item's class and the heads, in nats: the entropy of their
    mean probabilities minus the mean of their entropies. So doubt that all heads share, as about junk or
    items between two classes, does not count. The project's own head plays no part.

    Houlsby et al. 2011, Bayesian Active Learning for Classification and Preference Learning,
    https://arxiv.org/abs/1112.5745; ensembles: Beluch et al. 2018, The Power of Ensembles for Active Learning
    in Image Classification, https://doi.org/10.1109/CVPR.2018.00976; weights: Rubin 1981, The Bayesian
    Bootstrap, https://doi.org/10.1214/aos/1176345338
    """

    name = "bald"

    heads: int = Field(10, ge=2, le=100, description="how many heads are trained")

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        labeled, candidates = np.flatnonzero(pool.labeled), pool.candidates
        if pool.probabilities is None or not len(labeled):
            raise ColdStart
        space = StandardisedSpace.drawn(pool, rng)
        weights = rng.exponential(size=(len(labeled), self.heads)).astype(np.float32)
        weights /= weights.mean(axis=0)
        if pool.members is not None:
            classes, seen = pool.members[labeled], np.arange(pool.n_classes)
        else:
            seen, classes = np.unique(pool.classes[labeled], return_inverse=True)
        heads = fit_heads(space.standardised(labeled), classes, len(seen), weights)
        information = np.empty(len(candidates), np.float32)
        rows = max(_AT_ONCE // (self.heads * len(seen)), 1)
        for start in range(0, len(candidates), rows):
            inputs = torch.from_numpy(space.standardised(candidates[start : start + rows]))
            logits = torch.tensordot(_with_one(inputs), heads, 1)
            if pool.several:
                found = mutual_information(torch.sigmoid(logits).numpy(), several=True)
            else:
                found = mutual_information(torch.softmax(logits, 2).numpy())
            information[start : start + rows] = found
        return by_score(candidates, information, n, rng)


def fit_heads(inputs: Floats, classes: Ints, n_classes: int, weights: Floats) -> Tensor:
    """Softmax regressions (d + 1, h, c), the bias last, on inputs (m, d), classes (m,), weights of the items for
    each head (m, h); all found as one problem by L-BFGS (Liu and Nocedal 1989). Of several classes an item, (m, c), a
    logistic regression of each.
    """
    points, weighted = _with_one(torch.from_numpy(inputs)), torch.from_numpy(weights)
    several = classes.ndim == 2
    truth = torch.from_numpy(classes)[:, None]
    truth = truth.expand(*weighted.shape, n_classes).float() if several else truth.expand(weighted.shape)
    heads = torch.zeros(points.shape[1], weights.shape[1], n_classes, requires_grad=True)
    search = torch.optim.LBFGS([heads], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        logits = torch.tensordot(points, heads, 1).flatten(0, 1)
        if several:
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, truth.flatten(0, 1), reduction="none"
            )
            misses = each.sum(dim=1)
        else:
            misses = torch.nn.functional.cross_entropy(logits, truth.flatten(), reduction="none")
        summed = (misses * weighted.flatten()).sum() + _PENALTY / 2 * (heads[:-1] ** 2).sum()
        mean: Tensor = summed / len(points)
        mean.backward()  # type: ignore[no-untyped-call]
        return mean

    search.step(loss)  # type: ignore[no-untyped-call]
    return heads.detach()


def mutual_information(probabilities: Floats, several: bool = False) -> Floats:
    """(m, h, c) -> (m,) in nats, at least 0."""
    m, h, c = probabilities.shape
    each = entropies(probabilities.reshape(m * h, c), several).reshape(m, h)
    return np.asarray(np.maximum(entropies(probabilities.mean(axis=1), several) - each.mean(axis=1), 0))


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
