"""Heads: downstream classifiers trained on labels. One file each; being there is registering."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from worker.arrays import Floats, Ints
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.registry import plug_ins

# Embeddings (b, d), as float16 or float32; for a head that needs items, decoded items (b, *shape), a tensor.
Inputs = Any


class FittedHead(Protocol):
    """A trained head. `arrays` rebuild it (they are the stored artifact).

    name           of the head it is, or that `auto` chose
    temperature    its logits were divided by
    held_out_loss  nats a label, cross-validated while training; None in a loaded head
    held_out       (n, c) probabilities of the labeled items, each by a training that saw neither its label nor a
                   temperature fitted to it; only of a head that needs items, which is too slow to be cross-fitted
                   from outside. None in a loaded head, and where it trained without folds.
    """

    @property
    def name(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    @property
    def held_out_loss(self) -> float | None: ...

    @property
    def held_out(self) -> Floats | None: ...

    def probabilities(self, inputs: Inputs) -> Floats:
        """b inputs -> (b, c) float32 calibrated softmax, rows sum to 1; where an item may have several classes, that of
        each for itself.
        """
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]: ...


class Head(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read.

    needs_items  it trains on the items themselves, which takes minutes: `LabeledView.items` is there, `probabilities`
                 takes decoded items, and those of the whole pool are worked out once
    several      it can tell several classes of an item (`LabeledView.several`)
    asks_pool    it learns from the graph of the whole pool (`LabeledView.graph`), which is made in advance then
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    needs_items: ClassVar[bool] = False
    several: ClassVar[bool] = False
    asks_pool: ClassVar[bool] = False

    @abstractmethod
    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        """A calibrated head. A class never seen gets a probability near 0. One class only is allowed: the head then
        says so with certainty below 1.
        """

    def cross_fit(
        self, fitted: FittedHead, view: LabeledView, folds: Ints, rng: np.random.Generator
    ) -> Floats:
        """(n, c) probabilities of each labeled item by a head that was not trained on its fold (n,), 0 and up; items of
        fold -1 teach all of them, and their rows mean nothing. fitted: by `fit`, of the same view

        A head that needs items is too slow for it. Others may keep what held-out labels chose for `fitted`, its penalty
        say: of some ten choices, which five folds hardly change.
        """
        found = np.zeros((len(view), view.n_classes), np.float32)
        for fold in range(folds.max() + 1):
            mine = folds == fold
            found[mine] = self.fit(view.keep(~mine), rng).probabilities(view.embeddings[mine])
        return found

    @abstractmethod
    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        """The inverse of `FittedHead.arrays`; a head that needs items also needs the network it was trained from."""


# `Head.fit` of some head.
Fit = Callable[[LabeledView, np.random.Generator], FittedHead]


def heads() -> dict[str, type[Head]]:
    return plug_ins(Head, "worker.heads")
