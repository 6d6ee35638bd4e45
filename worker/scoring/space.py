"""The space of a score run's embeddings: of the pretext model, of a foundation, or both joined.

Embeddings of a foundation are cut to their principal directions in this pool. They are then centred and of length 1,
and so is either part of what is joined, which makes their weights plain. Such embeddings all have one length, by which
heads and spaces of nearness know them (`worker.selection.spaces.of_equal_length`).
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from worker.arrays import Floats, Halves
from worker.selection.spaces import of_length_one

SpaceName = Literal["trained", "pretrained", "joined"]
SPACE_NAMES: dict[SpaceName, str] = {
    "trained": "of the pretext model alone",
    "pretrained": "by pretrained weights alone",
    "joined": "of the pretext model joined with those by pretrained weights",
}
DIRECTIONS = 128  # linear heads on all 1,280 are no better, and rankings are ten times as quick
# Of the pretext model's part beside the foundation's. With 1 the head lost 1 to 2 points on CIFAR-10 against the
# foundation alone; with 0.3 it gained 0.5 to 1.2 points there and on Fashion-MNIST (docs/decisions/0022).
_TRAINED_WEIGHT = np.float32(0.3)


@dataclass(frozen=True)
class Frame:
    """The means and directions that embeddings are seen against, the same for all runs of a pretext model: trained_mean
    (d,), pretrained_mean (p,) and directions (p, k).
    """

    trained_mean: Floats
    pretrained_mean: Floats
    directions: Floats

    @classmethod
    def fitted(cls, trained: Halves, pretrained: Halves) -> Self:
        """To a sample of the pool: (n, d) and (n, p)."""
        values = pretrained.astype(np.float32)
        mean = values.mean(axis=0)
        centred = values - mean
        _, directions = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
        kept = directions[:, ::-1][:, :DIRECTIONS]
        return cls(trained.astype(np.float32).mean(axis=0), mean, np.ascontiguousarray(kept, np.float32))

    @classmethod
    def load(cls, arrays: dict[str, npt.NDArray[np.float32]]) -> Self:
        return cls(arrays["trained_mean"], arrays["pretrained_mean"], arrays["directions"])

    def arrays(self) -> dict[str, Floats]:
        return {
            "trained_mean": self.trained_mean,
            "pretrained_mean": self.pretrained_mean,
            "directions": self.directions,
        }

    def embeddings(self, space: SpaceName, trained: Halves, pretrained: Halves) -> Halves:
        """(n, d) and (n, p) -> (n, d), (n, k) or (n, d + k)"""
        if space == "trained":
            return trained
        centred = pretrained.astype(np.float32) - self.pretrained_mean
        known: Floats = np.asarray(centred @ self.directions, np.float32)
        parts = [of_length_one(known)]
        if space == "joined":
            own: Floats = np.asarray(trained.astype(np.float32) - self.trained_mean, np.float32)
            parts.insert(0, _TRAINED_WEIGHT * of_length_one(own))
        return np.concatenate(parts, axis=1).astype(np.float16)
