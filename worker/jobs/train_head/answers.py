"""Answers of stored heads: beside a head's artifact lie the items it was measured on, and what it said of them. The
arrays are described in `service.store.head_answers`.
"""

import numpy as np

from service.store.artifacts import Artifacts
from service.store.head_answers import HeadAnswers
from worker.arrays import Bools, Ints
from worker.evaluation.held_out import HeldOut


def store_answers(artifacts: Artifacts, head_artifact: str, held_out: HeldOut) -> None:
    if held_out.classes.ndim == 2:
        HeadAnswers(
            ids=held_out.ids,
            right=held_out.right,
            classes=held_out.classes == 1,
            predicted=held_out.probabilities >= 0.5,
            probabilities=held_out.probabilities.astype(np.float16),
        ).store(artifacts, head_artifact)
        return
    HeadAnswers(
        ids=held_out.ids,
        right=held_out.right,
        classes=held_out.classes.astype(np.int16),
        predicted=held_out.probabilities.argmax(axis=1).astype(np.int16),
        probabilities=held_out.probabilities.max(axis=1).astype(np.float32),
    ).store(artifacts, head_artifact)


def load_answers(artifacts: Artifacts, head_artifact: str) -> tuple[Ints, Bools] | None:
    """Ids (m,), and whether the head was right (m,); None where it was not measured."""
    found = HeadAnswers.load(artifacts, head_artifact)
    return None if found is None else (found.ids, found.right)
