"""The view of the pool that a strategy is given, and the selection that it returns."""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Bools, Bytes, Floats, Halves, Ints


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """The pool of one project at one moment; all arrays are aligned by row.

    embeddings      (n, d) float16, memory-mapped when large
    pretext_losses  (n,) float32
    available       (n,) bool    may be selected: not labeled, not barred, not kept for the control arm
    classes         (n,) int64   index of the known class, -1 where unlabeled; control items are -1 too
    probabilities   (n, c) float32 of the newest head, calibrated, or None while there is none
    n_classes       how many classes the project has
    round_size      labels in a round
    labels_used     labels so far, with those of control items
    loss_weight     in [-1, 1], how surely items of high pretext loss are those the head errs on: the end nearest 0
                    of the interval of their rank correlation on control items; 0 where it covers 0, or is not
                    measured
    appearance      (n, f) uint8 levels that say what items look like, or None
    stands_for      (n,) float32, how many items of the pool each stands for, itself and its duplicates that the view
                    leaves out; None = itself alone
    members         (n, c) int64, where an item may have several classes: 1 for each that a labeled item has, else 0;
                    `classes` then only says which are labeled, 0 or -1, and probabilities are of each class for
                    itself. None where an item has one class
    class_names     by index, for strategies that are told one; empty where nobody is to be told
    """

    embeddings: Halves
    pretext_losses: Floats
    available: Bools
    classes: Ints
    probabilities: Floats | None
    n_classes: int
    round_size: int
    labels_used: int
    loss_weight: float = 0.0
    appearance: Bytes | None = None
    stands_for: Floats | None = None
    class_names: tuple[str, ...] = ()
    members: Ints | None = None

    def __len__(self) -> int:
        return len(self.pretext_losses)

    @property
    def labeled(self) -> Bools:
        """(n,) bool"""
        return self.classes >= 0

    @property
    def several(self) -> bool:
        """An item may have several classes."""
        return self.members is not None

    @property
    def labels_of_class(self) -> Ints:
        """(c,) Labeled items that have each class."""
        if self.members is not None:
            return np.asarray(self.members[self.labeled].sum(axis=0))
        return np.bincount(self.classes[self.labeled], minlength=self.n_classes)

    def of_class(self, number: int) -> Bools:
        """(n,) True for labeled items that have it."""
        if self.members is not None:
            return np.asarray(self.labeled & (self.members[:, number] == 1))
        return np.asarray(self.classes == number)

    @property
    def candidates(self) -> Ints:
        """Rows that may be selected, ascending."""
        return np.flatnonzero(self.available)


@dataclass(frozen=True)
class Selection:
    """items (m,) int64: rows of the pool view, first = label first, no repeats, all available.
    scores (m,) float32: finite, higher = label sooner, never rising."""

    items: Ints
    scores: Floats
