"""Heads: downstream classifiers trained on labels. One file each; being there is registering."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from worker.pool_view import Floats, Halves, Ints
from worker.registry import plug_ins


class FittedHead(Protocol):
    """What training leaves. `arrays` rebuild it (they are the stored artifact)."""

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        """(n, d) -> (n, c) float32 calibrated softmax, rows sum to 1."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]: ...


class Head(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]

    @abstractmethod
    def fit(
        self, embeddings: Halves | Floats, classes: Ints, n_classes: int, rng: np.random.Generator
    ) -> FittedHead:
        """Train on embeddings (n, d) and classes (n,) in [0, n_classes); calibrated. A class never seen gets a
        probability near 0. One class only is allowed: the head then says so with certainty below 1."""

    @abstractmethod
    def load(self, arrays: dict[str, npt.NDArray[np.float32]]) -> FittedHead:
        """The inverse of `FittedHead.arrays`."""


def heads() -> dict[str, type[Head]]:
    return plug_ins("worker.heads", Head)
