"""The gate of a pretext model: do its embeddings know more of the classes than what costs nothing?

Judged on the labels so far, each item by all the others (leave one out), for the trained backbone, the same
backbone untrained, and the pixels. A verdict needs the 95 % interval of the paired difference on its side, so a
few labels, or a close race, are "not enough labels".
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from worker.measuring import paired_difference
from worker.pool_view import Bools, Floats, Ints

Verdict = Literal["go", "no-go", "not enough labels"]
Rival = Literal["untrained", "pixels"]

AT_MOST = 1_000  # labels that are judged; the difference is then known to about 2 points
_LEAST_LABELS = 40
_LEAST_OF_A_CLASS = 5
_NO_WORSE = 0.05  # go: less accurate than any rival by at most that much, with 95 % confidence
_AGAIN = 1.25  # times the labels until a judgement is made anew

_PENALTIES = np.logspace(-4, 2, 13)  # of the ridge, times the mean eigenvalue
_NEIGHBOURS = 10
_TEMPERATURE = 0.07
_NAMES = {"trained": "the trained backbone", "untrained": "the untrained backbone", "pixels": "raw pixels"}


@dataclass(frozen=True)
class Gate:
    """linear, knn: accuracy by what was compared, `trained` and its rivals. better: the rival to use instead,
    where there is one; never the pixels, which no ranking can use.
    """

    verdict: Verdict
    reason: str
    labels: int
    linear: dict[str, float]
    knn: dict[str, float]
    better: Rival | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def is_due(gate: dict[str, Any] | None, labels: int) -> bool:
    """Whether that many labels deserve another judgement than `gate`, as stored."""
    return labels >= (_LEAST_LABELS if gate is None else max(_LEAST_LABELS, _AGAIN * gate["labels"]))


def enough(classes: Ints) -> bool:
    """Classes (n,) of the labeled items."""
    counts = np.bincount(classes) if len(classes) else np.zeros(1)
    return len(classes) >= _LEAST_LABELS and int((counts >= _LEAST_OF_A_CLASS).sum()) >= 2


def too_few(labels: int) -> Gate:
    reason = (
        f"The gate needs {_LEAST_LABELS} labeled items and two classes with {_LEAST_OF_A_CLASS} each; there are "
        f"{labels} labeled items so far."
    )
    return Gate("not enough labels", reason, labels, {}, {})


def judge(trained: Floats, rivals: dict[Rival, Floats], classes: Ints, of_pool: int) -> Gate:
    """Features (n, d) of the same n labeled items, drawn from the `of_pool` that there are; classes (n,)."""
    features = {"trained": trained} | {str(name): values for name, values in rivals.items()}
    right = {name: linear_probe(values, classes) for name, values in features.items()}
    linear = {name: float(found.mean()) for name, found in right.items()}
    knn = {name: float(nearest_neighbours(values, classes).mean()) for name, values in features.items()}
    differences = {name: paired_difference(right["trained"], right[name]) for name in rivals}
    # The rival that speaks most against it: by the upper end for a no-go, by the lower end for a go.
    beaten_by = min(differences, key=lambda name: differences[name][2])
    closest = min(differences, key=lambda name: differences[name][1])
    better: Rival | None = None
    if differences[beaten_by][2] < 0:
        verdict: Verdict = "no-go"
        said = f"worse than {_says(beaten_by, differences)}"
        if "untrained" in rivals and linear["untrained"] > linear["trained"]:
            better = "untrained"
    elif differences[closest][1] > -_NO_WORSE:
        verdict, said = "go", f"no worse than {_says(closest, differences)}"
    else:
        verdict, said = "not enough labels", f"not yet told apart from {_says(closest, differences)}"
    reason = (
        f"On {len(classes)} labeled items the linear probe of {_NAMES['trained']} is right for "
        f"{linear['trained']:.1%}, {said}. 10 nearest neighbours: {knn['trained']:.1%}, "
        + ", ".join(f"{knn[name]:.1%} with {_NAMES[name]}" for name in rivals)
        + "."
    )
    return Gate(verdict, reason, of_pool, linear, knn, better)


def _says(rival: Rival, differences: dict[Rival, tuple[float, float, float]]) -> str:
    gained, low, high = differences[rival]
    return (
        f"{_NAMES[rival]} ({100 * gained:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    )


def linear_probe(features: Floats, classes: Ints) -> Bools:
    """(n, d), (n,) -> (n,) whether ridge regression on the other n - 1 items tells the item's class.

    Leave-one-out residuals in closed form from one eigendecomposition, with the penalty that they like best:
    Rifkin and Lippert 2007, Notes on Regularized Least Squares, https://hdl.handle.net/1721.1/37318
    """
    inputs = _standardised(features)
    kernel = inputs @ inputs.T + 1  # + 1: an intercept
    targets = np.eye(int(classes.max()) + 1)[classes]
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)
    projected = vectors.T @ targets
    answers = []
    for penalty in _PENALTIES * values.mean():
        shrunk = 1 / (values + penalty)
        residuals = (vectors * shrunk) @ projected / (vectors**2 @ shrunk)[:, None]
        answers.append((targets - residuals).argmax(axis=1) == classes)
    return max(answers, key=lambda right: int(right.sum()))


def nearest_neighbours(features: Floats, classes: Ints) -> Bools:
    """(n, d), (n,) -> (n,) whether the nearest others, weighted by cosine similarity, tell the item's class.

    Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4,
    https://arxiv.org/abs/1805.01978
    """
    inputs = _standardised(features)
    inputs /= np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-12)
    similar = inputs @ inputs.T
    np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(classes) - 1)]
    weights = np.exp(np.take_along_axis(similar, nearest, axis=1) / _TEMPERATURE)
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(classes))[:, None], classes[nearest]), weights)
    return np.asarray(votes.argmax(axis=1) == classes)


def _standardised(features: Floats) -> npt.NDArray[np.float64]:
    values = features.astype(np.float64)
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1))
