"""Quality of labels, by other labels and a head's answers. The only file that knows cleanlab, which is
imported where it is used: that takes two seconds, and each start of a worker would wait for it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from worker.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Consensus:
    """classes (n,); quality (n,) and annotators (m,): how likely item's class and annotator's labels are right. Of
    several classes an item, classes (n, c) are 0 or 1, and quality (n, c) is that of each.
    """

    classes: Ints
    quality: Floats
    annotators: Floats


def consensus(votes: Ints, probabilities: Floats) -> Consensus:
    """votes (n, m): class by item and annotator, -1 where there is none; probabilities (n, c) of a head that saw
    none of them. Each item has a vote, and each annotator gave one.

    CROWDLAB weights annotators and head by how often they agree with the others: Goh et al. 2022, CROWDLAB:
    Supervised learning to infer consensus labels and quality scores for data with multiple annotators,
    https://arxiv.org/abs/2210.06812
    """
    from cleanlab.multiannotator import get_label_quality_multiannotator

    with _no_warnings():
        found = get_label_quality_multiannotator(
            np.where(votes < 0, np.nan, votes.astype(np.float64)),
            probabilities.astype(np.float64),
            consensus_method="best_quality",
            return_detailed_quality=False,
            verbose=False,
        )
    items, annotators = found["label_quality"], found["annotator_stats"]["annotator_quality"]
    return Consensus(
        classes=items["consensus_label"].to_numpy(np.int64),
        quality=items["consensus_quality_score"].to_numpy(np.float32),
        annotators=annotators.reindex(range(votes.shape[1])).to_numpy(np.float32),
    )


def consensus_of_several(votes: Ints, probabilities: Floats) -> Consensus:
    """As `consensus`, each class being a question of its own: votes (n, m, c), 1 for a class that the annotator gave, 0
    for one that they did not, -1 where they gave no label; probabilities (n, c).

    A class of which nobody disagrees needs no consensus: its quality is 1, and it says nothing of the annotators.
    """
    given = votes >= 0
    agreed = np.where(given, votes, 0).max(axis=1)
    disputed = np.flatnonzero((agreed != np.where(given, votes, 1).min(axis=1)).any(axis=0))
    classes, quality = agreed.astype(np.int64), np.ones(agreed.shape, np.float32)
    annotators = []
    for column in disputed:
        yes = probabilities[:, column]
        found = consensus(votes[:, :, column], np.stack([1 - yes, yes], axis=1))
        classes[:, column], quality[:, column] = found.classes, found.quality
        annotators.append(found.annotators)
    means = np.mean(annotators, axis=0) if annotators else np.ones(votes.shape[1])
    return Consensus(classes, quality, np.asarray(means, np.float32))


def doubtful(classes: Ints, probabilities: Floats) -> tuple[Bools, Floats]:
    """A mask (n,) of likely mislabeled items, and the quality (n,) of all labels, 0 to 1, lower = rather wrong.

    classes (n,), two at least; probabilities (n, c) of heads that had not seen the item. Of a class, five labels are
    left alone: heads know little of rare classes. By confident learning:
    Northcutt et al. 2021, Confident Learning: Estimating Uncertainty in Dataset Labels,
    https://arxiv.org/abs/1911.00068
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = probabilities.astype(np.float64)
    with _no_warnings():
        flags = find_label_issues(classes, given, n_jobs=1, min_examples_per_class=5)
        quality = get_label_quality_scores(classes, given, method="self_confidence")
    return np.asarray(flags, np.bool_), np.asarray(quality, np.float32)


def doubtful_of_several(members: Ints, probabilities: Floats) -> tuple[Bools, Floats]:
    """As `doubtful`, each class being a question of its own: members (n, c) 0 or 1, probabilities (n, c) -> a mask
    (n, c) of answers that are likely wrong, and the quality (n, c) of all. A class that all items have, or none, is
    left alone.

    Thyagarajan et al. 2023, Identifying Incorrect Annotations in Multi-Label Classification Data,
    https://arxiv.org/abs/2211.13895
    """
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    flags, quality = np.zeros(members.shape, np.bool_), np.ones(members.shape, np.float32)
    asked = np.flatnonzero((members == 1).any(axis=0) & (members == 0).any(axis=0))
    if len(asked):
        sets = [np.flatnonzero(row).tolist() for row in members[:, asked]]
        given = probabilities[:, asked].astype(np.float64)
        with _no_warnings():
            flags[:, asked] = find_multilabel_issues_per_class(
                sets, given, n_jobs=1, min_examples_per_class=5
            )
            quality[:, asked] = get_label_quality_scores_per_class(sets, given, method="self_confidence")
    return flags, quality


@contextmanager
def _no_warnings() -> Iterator[None]:
    """They are of rare classes and of annotators who never agree: normal here, early in a project."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@dataclass(frozen=True)
class Agreement:
    """pairs: share of pairs of labels of one item that are equal. alpha: 1 for agreement without exception, 0 for
    what chance would give; None where all labels are of one class."""

    pairs: float
    alpha: float | None


def agreement(votes: Ints, n_classes: int) -> Agreement:
    """votes (n, m): class by item and annotator, -1 where there is none; at least two an item. Of several classes an
    item, votes (n, m, c), sets are compared as wholes: two are equal, or not.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, for nominal data and missing labels,
    https://repository.upenn.edu/handle/20.500.14332/2089
    """
    if votes.ndim == 3:
        sets, codes = np.unique(votes.reshape(-1, n_classes), axis=0, return_inverse=True)
        votes = np.where(votes[:, :, 0] < 0, -1, codes.reshape(votes.shape[:2]))
        n_classes = len(sets)
    counts = np.stack([(votes == k).sum(axis=1) for k in range(n_classes)], axis=1)
    labels = counts.sum(axis=1)
    equal = (counts * (counts - 1)).sum(axis=1)
    observed = 1 - (equal / (labels - 1)).sum() / labels.sum()
    of_class, total = counts.sum(axis=0), labels.sum()
    expected = 1 - (of_class * (of_class - 1)).sum() / (total * (total - 1))
    return Agreement(
        pairs=float(equal.sum() / (labels * (labels - 1)).sum()),
        alpha=float(1 - observed / expected) if expected > 0 else None,
    )
