"""Answers of a head on the items that it was measured on, by heads that had not seen their labels.

Beside the head's artifact `<head>.npz` lies `<head>-answers.npz`, `m` being these items:

    ids (m,) int64, right (m,) bool
    classes (m,) int16, predicted (m,) int16    numbers in the classes of the head: what they are, and were taken for
    probabilities (m,) float32                  of the predicted class

Where items have several classes, `c` being those of the head:

    ids (m,) int64, right (m,) bool             right: all classes of the item are
    classes (m, c) bool, predicted (m, c) bool  which it has, and was taken to have
    probabilities (m, c) float16                of having each

Heads of before there were `classes` have none of the last three.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.store.artifacts import Artifacts

_SINCE = ("classes", "predicted", "probabilities")


@dataclass(frozen=True)
class HeadAnswers:
    """Aligned by row, as above; `classes` and what follows is None where it was not kept."""

    ids: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int16 | np.bool_] | None
    predicted: npt.NDArray[np.int16 | np.bool_] | None
    probabilities: npt.NDArray[np.float32 | np.float16] | None

    def store(self, artifacts: Artifacts, head_artifact: str) -> None:
        with artifacts.writing(_beside(head_artifact)) as file:
            arrays = {name: getattr(self, name) for name in ("ids", "right", *_SINCE)}
            known = {name: array for name, array in arrays.items() if array is not None}
            np.savez(file, allow_pickle=False, **known)

    @staticmethod
    def load(artifacts: Artifacts, head_artifact: str) -> "HeadAnswers | None":
        """None where the head was not measured."""
        name = _beside(head_artifact)
        if not artifacts.exists(name):
            return None
        with np.load(artifacts.local_path(name), allow_pickle=False) as arrays:
            since = [arrays.get(name) for name in _SINCE]
            return HeadAnswers(arrays["ids"], arrays["right"], *since)


def _beside(head_artifact: str) -> str:
    return f"{head_artifact.removesuffix('.npz')}-answers.npz"
