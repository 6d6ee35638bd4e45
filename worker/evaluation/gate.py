"""The gate of a pretext model: do its embeddings know more of the classes than what costs nothing?

Probes learn from all labels so far, for the trained backbone, the same backbone untrained, and raw features. They are
judged only on items that no strategy chose: the labels a strategy asks for are those that its own embeddings get
wrong, so on these any other features look better. A verdict needs the 95 % interval of the paired difference on its
side, so a few labels, or a close race, are "not enough labels". The interval covers both choices, of the items that
are judged and of those that taught: among few labels the second moves a probe more than the first.

Where an item has several classes, each is told from the rest, and the accuracy is the balanced one: of each class the
mean of two shares, of the items with it and of those without it that are told right, and of these the mean over
classes. So saying of all items that a rare class is not there is worth nothing, and the accuracy is still a mean over
items of what each adds to it, whose paired difference has an interval as that of single classes has.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

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
    """linear, knn: accuracy (of several classes an item the balanced one) by what was compared, the `served` embeddings
    and their rivals, on `items` that are `judged_on`. labels: the labeled items that there were. better: the rival to
    use instead, where there is one; never raw features, which no ranking can use.
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


def enough(*groups: Ints) -> bool:
    """Classes (n,), or (n, c) of several, of the items that teach, and of those that are judged."""
    if min(map(len, groups)) < _LEAST_LABELS:
        return False
    if groups[0].ndim == 2:
        return bool(np.all([_frequent(members) for members in groups], axis=0).any())
    return all((np.bincount(classes) >= _LEAST_OF_A_CLASS).sum() >= 2 for classes in groups)


def _frequent(members: Ints) -> Bools:
    """(n, c) -> (c,) true for a class that enough items have, and enough have not."""
    have = members.sum(axis=0)
    return np.asarray(np.minimum(have, len(members) - have) >= _LEAST_OF_A_CLASS)


def too_few(labels: int, readable: int, several: bool = False) -> Gate:
    """No verdict, as only `readable` of the labeled items can be read."""
    reason = (
        f"The gate needs {_LEAST_LABELS} labeled items that can be read, and {_wanted(several)}; there are {readable} "
        "such items so far."
    )
    return Gate("not enough labels", reason, labels, 0, None, {}, {})


def _wanted(several: bool) -> str:
    if several:
        return f"a class that {_LEAST_OF_A_CLASS} of them have and {_LEAST_OF_A_CLASS} have not"
    return f"two classes with {_LEAST_OF_A_CLASS} each"


def too_few_unbiased(labels: int, unbiased: int, control_share: float, several: bool = False) -> Gate:
    """No verdict, as only `unbiased` labeled items were chosen by no strategy; of served items, `control_share` are."""
    reason = (
        f"The gate judges on items that no strategy chose. It needs {_LEAST_LABELS} of them with labels, and "
        f"{_wanted(several)}; among the {labels} labeled items so far there are {unbiased}. "
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
    """Features (n, d) of the same n items, and their classes (n,), or (n, c) of several: the probes learn from those
    `taught` (n,) and are compared on those `judged` (n,). An item that is both is judged by the others (leave one out).
    `labels` is how many labeled items there are.

    The verdict is about rivals that cost nothing. Another space of the embeddings is `better` only where it surely
    is, by the same interval, so that the served one does not change back and forth by chance.
    """
    features = {str(served): served_features} | {str(name): values for name, values in rivals.items()}
    classes = judged_classes(classes, taught, judged)
    credits = {
        name: credit(linear_probe(values, classes, taught), classes, judged)
        for name, values in features.items()
    }
    varies = _variances_by_teachers(features, served, classes, taught, judged)
    linear = {name: found.accuracy for name, found in credits.items()}
    knn = {
        name: credit(nearest_neighbours(values, classes, taught), classes, judged).accuracy
        for name, values in features.items()
    }
    differences = {name: credits[served].beyond(credits[name], varies[name]) for name in rivals}
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
    of_what = ""
    if classes.ndim == 2:
        counted = f"{classes.shape[1]} classes" if classes.shape[1] > 1 else "one class"
        of_what = f" (balanced accuracy of {counted}, by chance 50%)"
    reason = (
        f"On {items} {_ITEMS[judged_on]} the linear probe of {_NAMES[served]} is right for "
        f"{linear[served]:.1%}{of_what}, {said}, taught by {int(taught.sum())} labels. "
        f"10 nearest neighbours: {knn[served]:.1%}, "
        + ", ".join(f"{knn[name]:.1%} with {_NAMES[name]}" for name in rivals)
        + "."
    )
    return Gate(verdict, reason, labels, items, judged_on, linear, knn, better, served)


def judged_classes(classes: Ints, taught: Bools, judged: Bools) -> Ints:
    """The classes (n,) as they are; of several (n, c), the columns of those that enough of the items have and have not,
    of what teaches and of what judges.
    """
    if classes.ndim == 1:
        return classes
    return classes[:, _frequent(classes[taught]) & _frequent(classes[judged])]


class Credit(NamedTuple):
    """Shares of the judged items in the accuracy, which is their mean: of_items (m,), 1 where the answer is right; of
    several classes more for a rarer answer. unseen: see `paired_difference`.
    """

    of_items: Floats
    unseen: float

    @property
    def accuracy(self) -> float:
        return float(self.of_items.mean())

    def beyond(self, other: "Credit", other_variance: float = 0.0) -> tuple[float, float, float]:
        """The gain over the other one, on the same items, and its 95 % interval."""
        return paired_difference(self.of_items, other.of_items, other_variance, self.unseen)


def credit(right: Bools, classes: Ints, judged: Bools) -> Credit:
    """right: (n,) of classes (n,), or (n, c) of several (n, c), for which the accuracy is balanced."""
    right = right[judged]
    if classes.ndim == 1:
        return Credit(right.astype(np.float64), 1.0)
    truth = classes[judged] == 1
    n, c = truth.shape
    have = truth.sum(axis=0)
    each = n / (2 * c * np.maximum([n - have, have], 1))  # (2, c), of an item without the class, and with it
    return Credit((np.where(truth, each[1], each[0]) * right).sum(axis=1), float((each**2).sum()))


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
                credit(linear_probe(values, classes, taught & (part != left_out)), classes, judged).accuracy
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
    class. Of several classes, (n, c) -> (n, c), each for itself: see `_right`.

    Leave-one-out residuals in closed form from one eigendecomposition, with the penalty that they like best:
    Rifkin and Lippert 2007, Notes on Regularized Least Squares, https://hdl.handle.net/1721.1/37318
    """
    inputs = _standardised(features, taught)
    kernel = inputs @ inputs[taught].T + 1  # (n, m); + 1: an intercept
    targets = classes[taught] if classes.ndim == 2 else np.eye(int(classes.max()) + 1)[classes[taught]]
    values, vectors = np.linalg.eigh(kernel[taught])
    values = np.maximum(values, 0)
    projected = vectors.T @ targets
    best: tuple[float, Bools] | None = None
    for penalty in _PENALTIES * values.mean():
        shrunk = 1 / (values + penalty)
        weights = (vectors * shrunk) @ projected
        residuals = weights / (vectors**2 @ shrunk)[:, None]
        answers = kernel @ weights
        answers[taught] = targets - residuals
        right = _right(answers, classes, taught)
        score = credit(right, classes, taught).accuracy
        if best is None or score > best[0]:
            best = score, right
    assert best is not None
    return best[1]


def nearest_neighbours(features: Floats, classes: Ints, taught: Bools) -> Bools:
    """(n, d), (n,), (n,) -> (n,) true if the nearest taught items, but for the item itself, weighted by cosine
    similarity, tell its class. Of several classes, (n, c) -> (n, c), each for itself: see `_right`.

    Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4,
    https://arxiv.org/abs/1805.01978
    """
    inputs = _standardised(features, taught)
    inputs /= np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-12)
    similar = inputs @ inputs[taught].T
    similar[np.flatnonzero(taught), np.arange(similar.shape[1])] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(_NEIGHBOURS, similar.shape[1] - 1)]
    weights = np.exp(np.take_along_axis(similar, nearest, axis=1) / _TEMPERATURE)
    if classes.ndim == 2:
        shares = weights / weights.sum(axis=1, keepdims=True)
        return _right(np.einsum("nk,nkc->nc", shares, classes[taught][nearest]), classes, taught)
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(classes))[:, None], classes[taught][nearest]), weights)
    return _right(votes, classes, taught)


def _right(answers: npt.NDArray[np.float64], classes: Ints, taught: Bools) -> Bools:
    """(n, c) -> (n,) true where the largest answer is that of the class. Of several, (n, c) true where the answer is on
    the class's side of the middle between the mean answers of the taught items with it and without it.
    """
    if classes.ndim == 1:
        return np.asarray(answers.argmax(axis=1) == classes)
    has, said = classes == 1, answers[taught]
    with_it, without = (
        (said * mask).sum(axis=0) / np.maximum(mask.sum(axis=0), 1) for mask in (has[taught], ~has[taught])
    )
    return np.asarray((answers > (with_it + without) / 2) == has)


def _standardised(features: Floats, taught: Bools) -> npt.NDArray[np.float64]:
    values = features.astype(np.float64)
    spread = values[taught].std(axis=0)
    if of_equal_length(features):  # as heads scale them
        spread = np.full_like(spread, np.sqrt((spread**2).mean()))
    return np.asarray((values - values[taught].mean(axis=0)) / np.where(spread > 1e-9, spread, 1))
