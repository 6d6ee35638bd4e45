"""The gate of a pretext model: do its embeddings know more of the classes than what costs nothing?

Probes learn from all labels so far, for the trained backbone, the same backbone untrained, and raw features. They are
judged only on items that no strategy chose: the labels a strategy asks for are those that its own embeddings get
wrong, so on these any other features look better. A verdict needs the 95 % interval of the paired difference on its
side, so a few labels, or a close race, are "not enough labels". The interval covers both choices, of the items that
are judged and of those that taught: among few labels the second moves a probe more than the first.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from worker.arrays import Bools, Floats, Ints
from worker.evaluation.metrics import paired_difference
from worker.selection.spaces import of_equal_length

Verdict = Literal["go", "no-go", "not enough labels"]
Space = Literal["trained", "pretrained", "joined"]  # that embeddings may be served in
Better = Literal["untrained", "trained", "pretrained", "joined"]
Rival = Literal["raw"] | Better
# test: the test split. control: what the control arm asked for. random: all labels, where chance asked for them all.
JudgedOn = Literal["test", "control", "random"]

AT_MOST = 1_000  # items that teach, and that are judged; the difference is then known to about 2 points
_LEAST_LABELS = 40
_LEAST_OF_A_CLASS = 5
_NO_WORSE = 0.05  # go: less accurate than any rival by at most that much, with 95 % confidence
_AGAIN = 1.25  # times the labels until a judgement is made anew

_PARTS = 5  # of the labels that teach; each is left out once, to see how much hangs on which there are
_PENALTIES = np.logspace(-4, 2, 13)  # of the ridge, times the mean eigenvalue
_NEIGHBOURS = 10
_TEMPERATURE = 0.07
_NAMES = {
    "trained": "the trained backbone",
    "untrained": "the untrained backbone",
    "raw": "raw features",
    "pretrained": "pretrained weights",
    "joined": "the trained backbone joined with pretrained weights",
}
_COSTLESS = ("untrained", "raw")  # the verdict is about these
_ITEMS = {
    "test": "items of the test split",
    "control": "control items",
    "random": "labeled items, all drawn at random,",
}


@dataclass(frozen=True)
class Gate:
    """linear, knn: accuracy by what was compared, the `served` embeddings and their rivals, on `items` that are
    `judged_on`. labels: the labeled items that there were. better: the rival to use instead, where there is one; never
    raw features, which no ranking can use.
    """

    verdict: Verdict
    reason: str
    labels: int
    items: int
    judged_on: JudgedOn | None
    linear: dict[str, float]
    knn: dict[str, float]
    better: Better | None = None
    served: Space = "trained"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def is_due(gate: dict[str, Any] | None, labels: int) -> bool:
    """True if that many labels deserve a new judgement after `gate`, as stored."""
    return labels >= (_LEAST_LABELS if gate is None else max(_LEAST_LABELS, _AGAIN * gate["labels"]))


def enough(classes: Ints) -> bool:
    """Classes (n,) of the items that teach, or of those that are judged."""
    counts = np.bincount(classes) if len(classes) else np.zeros(1)
    return len(classes) >= _LEAST_LABELS and int((counts >= _LEAST_OF_A_CLASS).sum()) >= 2


def too_few(labels: int, readable: int) -> Gate:
    """No verdict, as only `readable` of the labeled items can be read."""
    reason = (
        f"The gate needs {_LEAST_LABELS} labeled items that can be read, and two classes with "
        f"{_LEAST_OF_A_CLASS} each; there are {readable} such items so far."
    )
    return Gate("not enough labels", reason, labels, 0, None, {}, {})


def too_few_unbiased(labels: int, unbiased: int, control_share: float) -> Gate:
    """No verdict, as only `unbiased` labeled items were chosen by no strategy; of served items, `control_share` are."""
    reason = (
        f"The gate judges on items that no strategy chose. It needs {_LEAST_LABELS} of them with labels, and two "
        f"classes with {_LEAST_OF_A_CLASS} each; among the {labels} labeled items so far there are {unbiased}. "
    )
    if control_share > 0:
        reason += (
            f"They come as control items: with a control_fraction of {control_share:.0%}, that is with about "
            f"{round(_LEAST_LABELS / control_share):,} labels. A test split of {_LEAST_LABELS} items serves as well."
        )
    else:
        reason += (
            "They come as control items, or as a test split; this project's control_fraction is 0: set one, or "
            "import a test split."
        )
    return Gate("not enough labels", reason, labels, unbiased, None, {}, {})


def judge(
    served_features: Floats,
    rivals: dict[Rival, Floats],
    classes: Ints,
    taught: Bools,
    judged: Bools,
    judged_on: JudgedOn,
    labels: int,
    served: Space = "trained",
) -> Gate:
    """Features (n, d) of the same n items, and their classes (n,): the probes learn from those `taught` (n,) and
    are compared on those `judged` (n,). An item that is both is judged by the others (leave one out). `labels` is
    how many labeled items there are.

    The verdict is about rivals that cost nothing. Another space of the embeddings is `better` only where it surely
    is, by the same interval, so that the served one does not change back and forth by chance.
    """
    features = {str(served): served_features} | {str(name): values for name, values in rivals.items()}
    right = {name: linear_probe(values, classes, taught)[judged] for name, values in features.items()}
    varies = _variances_by_teachers(features, served, classes, taught, judged)
    linear = {name: float(found.mean()) for name, found in right.items()}
    knn = {
        name: float(nearest_neighbours(values, classes, taught)[judged].mean())
        for name, values in features.items()
    }
    differences = {name: paired_difference(right[served], right[name], varies[name]) for name in rivals}
    # The rival that speaks most against it: by the upper end for a no-go, by the lower end for a go.
    costless = [name for name in rivals if name in _COSTLESS]
    beaten_by = min(costless, key=lambda name: differences[name][2])
    closest = min(costless, key=lambda name: differences[name][1])
    surely: list[Better] = [name for name in get_args(Space) if name in rivals and differences[name][2] < 0]
    if differences[beaten_by][2] < 0:
        verdict: Verdict = "no-go"
        said = f"worse than {_says(beaten_by, differences)}"
        if "untrained" in rivals and linear["untrained"] > linear[served]:
            surely.append("untrained")
    elif differences[closest][1] > -_NO_WORSE:
        verdict, said = "go", f"no worse than {_says(closest, differences)}"
    else:
        verdict, said = "not enough labels", f"not yet told apart from {_says(closest, differences)}"
    better = max(surely, key=lambda name: linear[name], default=None)
    if better is not None and better != "untrained":
        said += f", and surely worse than {_says(better, differences)}, which takes its place"
    items = int(judged.sum())
    reason = (
        f"On {items} {_ITEMS[judged_on]} the linear probe of {_NAMES[served]} is right for "
        f"{linear[served]:.1%}, {said}, taught by {int(taught.sum())} labels. "
        f"10 nearest neighbours: {knn[served]:.1%}, "
        + ", ".join(f"{knn[name]:.1%} with {_NAMES[name]}" for name in rivals)
        + "."
    )
    return Gate(verdict, reason, labels, items, judged_on, linear, knn, better, served)


def _variances_by_teachers(
    features: dict[str, Floats], served: Space, classes: Ints, taught: Bools, judged: Bools
) -> dict[str, float]:
    """The variance over other labels of the difference in accuracy between the served features and each other, by
    the grouped jackknife (Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 11.5).
    """
    part = np.full(len(classes), -1)
    part[taught] = np.arange(taught.sum()) % _PARTS
    accuracies = {
        name: np.array(
            [
                linear_probe(values, classes, taught & (part != left_out))[judged].mean()
                for left_out in range(_PARTS)
            ]
        )
        for name, values in features.items()
    }
    gained = {name: accuracies[served] - values for name, values in accuracies.items()}
    return {name: float((_PARTS - 1) * values.var()) for name, values in gained.items()}


def _says(rival: Rival, differences: dict[Rival, tuple[float, float, float]]) -> str:
    gained, low, high = differences[rival]
    return (
        f"{_NAMES[rival]} ({100 * gained:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    )


def linear_probe(features: Floats, classes: Ints, taught: Bools) -> Bools:
    """(n, d), (n,), (n,) -> (n,) true if ridge regression on the taught items, but for the item itself, tells its
    class.

    Leave-one-out residuals in closed form from one eigendecomposition, with the penalty that they like best:
    Rifkin and Lippert 2007, Notes on Regularized Least Squares, https://hdl.handle.net/1721.1/37318
    """
    inputs = _standardised(features, taught)
    kernel = inputs @ inputs[taught].T + 1  # (n, m); + 1: an intercept
    targets = np.eye(int(classes.max()) + 1)[classes[taught]]
    values, vectors = np.linalg.eigh(kernel[taught])
    values = np.maximum(values, 0)
    projected = vectors.T @ targets
    best: tuple[int, Bools] | None = None
    for penalty in _PENALTIES * values.mean():
        shrunk = 1 / (values + penalty)
        weights = (vectors * shrunk) @ projected
        residuals = weights / (vectors**2 @ shrunk)[:, None]
        answers = kernel @ weights
        answers[taught] = targets - residuals
        right = answers.argmax(axis=1) == classes
        score = int(right[taught].sum())
        if best is None or score > best[0]:
            best = score, right
    assert best is not None
    return best[1]


def nearest_neighbours(features: Floats, classes: Ints, taught: Bools) -> Bools:
    """(n, d), (n,), (n,) -> (n,) true if the nearest taught items, but for the item itself, weighted by cosine
    similarity, tell its class.

    Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4,
    https://arxiv.org/abs/1805.01978
    """
    inputs = _standardised(features, taught)
    inputs /= np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-12)
    similar = inputs @ inputs[taught].T
    similar[np.flatnonzero(taught), np.arange(similar.shape[1])] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(_NEIGHBOURS, similar.shape[1] - 1)]
    weights = np.exp(np.take_along_axis(similar, nearest, axis=1) / _TEMPERATURE)
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(classes))[:, None], classes[taught][nearest]), weights)
    return np.asarray(votes.argmax(axis=1) == classes)


def _standardised(features: Floats, taught: Bools) -> npt.NDArray[np.float64]:
    values = features.astype(np.float64)
    spread = values[taught].std(axis=0)
    if of_equal_length(features):  # as heads scale them
        spread = np.full_like(spread, np.sqrt((spread**2).mean()))
    return np.asarray((values - values[taught].mean(axis=0)) / np.where(spread > 1e-9, spread, 1))
