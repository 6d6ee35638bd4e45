"""Answers of a round's head on the items that it was measured on, item by item."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from service.errors import AnswersMissing, NotFound
from service.store import class_sets
from service.store.artifacts import Artifacts
from service.store.head_answers import HeadAnswers
from service.store.tables import Head, Project, Round


@dataclass(frozen=True)
class Wanted:
    """The items with a class, or without one, that the head took for a class, or did not; None: whatever it is."""

    class_name: str | None = None
    predicted_class: str | None = None
    not_class: str | None = None
    not_predicted_class: str | None = None

    @property
    def about(self) -> str | None:
        """The class whose answers are asked for, where it is one."""
        names = (self.predicted_class, self.not_predicted_class, self.class_name, self.not_class)
        return next((name for name in names if name is not None), None)


@dataclass(frozen=True)
class Answer:
    """class_name, predicted_class: as items carry them. probability: of the predicted class, by a head that had not
    seen the label; of several, of the answer about the class that is asked for, else of exactly these classes.
    """

    item_id: int
    class_name: str
    predicted_class: str
    probability: float


def of_round(
    session: Session, project: Project, artifacts: Artifacts, number: int, wanted: Wanted
) -> list[Answer]:
    """The answers of a cell, a row or a column of the confusion matrix, or all; the surest first.

    Raises `NotFound` where there is no such round, `AnswersMissing` where its head was not measured, or not kept.
    """
    found = session.get(Round, (project.id, number))
    if found is None:
        raise NotFound(what="round", id=number)
    head = session.get(Head, found.head_id) if found.head_id is not None else None
    answers = HeadAnswers.load(artifacts, head.artifact) if head is not None else None
    if head is None or answers is None or answers.classes is None:
        raise AnswersMissing(number=number)
    assert answers.predicted is not None
    assert answers.probabilities is not None
    chosen = np.ones(len(answers.ids), np.bool_)
    for told, name, there in (
        (answers.classes, wanted.class_name, True),
        (answers.predicted, wanted.predicted_class, True),
        (answers.classes, wanted.not_class, False),
        (answers.predicted, wanted.not_predicted_class, False),
    ):
        if name is not None:
            chosen &= _is(told, head.classes, name) == there
    sureness = answers.probabilities
    if sureness.ndim == 2:
        sureness = _sureness(sureness.astype(np.float32), head.classes, wanted.about)
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((answers.ids[rows], -sureness[rows]))]
    return [
        Answer(
            int(answers.ids[row]),
            _text(answers.classes[row], head.classes),
            _text(answers.predicted[row], head.classes),
            float(sureness[row]),
        )
        for row in rows
    ]


def _is(told: npt.NDArray[np.int16 | np.bool_], classes: list[str], name: str) -> npt.NDArray[np.bool_]:
    """(m,) or (m, c) -> (m,) true where it is that class, or has it among others."""
    if name not in classes:
        return np.zeros(len(told), np.bool_)
    number = classes.index(name)
    return np.asarray(told[:, number] if told.ndim == 2 else told == number, np.bool_)


def _sureness(
    probabilities: npt.NDArray[np.float32], classes: list[str], about: str | None
) -> npt.NDArray[np.float32]:
    """(m, c) -> (m,) Probability of the answer about one class, else of all, as if classes came independently."""
    each = np.maximum(probabilities, 1 - probabilities)
    return np.asarray(each[:, classes.index(about)] if about in classes else each.prod(axis=1))


def _text(of_item: npt.NDArray[np.int16 | np.bool_], classes: list[str]) -> str:
    if of_item.ndim:
        return class_sets.joined(classes[number] for number in np.flatnonzero(of_item))
    return classes[int(of_item)]
