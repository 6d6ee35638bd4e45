"""Answers of stored heads: beside a head's artifact lie the items it was measured on, and whether it was right."""

import numpy as np

from service.store.artifacts import Artifacts
from worker.arrays import Bools, Ints
from worker.evaluation.held_out import HeldOut


def store_answers(artifacts: Artifacts, head_artifact: str, held_out: HeldOut) -> None:
    with artifacts.writing(_answers_of(head_artifact)) as file:
        np.savez(file, allow_pickle=False, ids=held_out.ids, right=held_out.right)


def load_answers(artifacts: Artifacts, head_artifact: str) -> tuple[Ints, Bools] | None:
    """Ids (m,), and whether the head was right (m,); None where it was not measured."""
    name = _answers_of(head_artifact)
    if not artifacts.exists(name):
        return None
    with np.load(artifacts.local_path(name), allow_pickle=False) as arrays:
        return arrays["ids"], arrays["right"]


def _answers_of(head_artifact: str) -> str:
    return f"{head_artifact.removesuffix('.npz')}-answers.npz"
