"""Heads: downstream classifiers trained on labels. One file each; being there is registering."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from worker.arrays import Floats, Halves, Ints
from worker.registry import plug_ins

if TYPE_CHECKING:
    from worker.heads.pool_graph import PoolGraph


class FittedHead(Protocol):
    """What training leaves. `arrays` rebuild it (they are the stored artifact).

    name           of the head it is, or that `auto` chose
    temperature    its logits were divided by
    held_out_loss  nats a label, cross-validated while training; None in a loaded head
    """

    @property
    def name(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    @property
    def held_out_loss(self) -> float | None: ...

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        """(n, d) -> (n, c) float32 calibrated softmax, rows sum to 1."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]: ...


class Head(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    uses_pool: ClassVar[bool] = False  # whether `fit` makes anything of the pool

    @abstractmethod
    def fit(
        self,
        embeddings: Halves | Floats,
        classes: Ints,
        n_classes: int,
        rng: np.random.Generator,
        pool: "PoolGraph | None" = None,
    ) -> FittedHead:
        """Train on embeddings (n, d) and classes (n,) in [0, n_classes); calibrated. A class never seen gets a
        probability near 0. One class only is allowed: the head then says so with certainty below 1.

        pool: all embeddings of the pool, labeled or not, for heads that learn from them too (`uses_pool`).
        """

    @abstractmethod
    def load(self, arrays: dict[str, npt.NDArray[np.float32]]) -> FittedHead:
        """The inverse of `FittedHead.arrays`."""


def heads() -> dict[str, type[Head]]:
    return plug_ins(Head, "worker.heads")
