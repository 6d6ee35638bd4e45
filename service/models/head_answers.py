"""Answers of a round's head on the items that it was measured on, item by item."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from service.errors import AnswersMissing, NotFound, SingleOnly
from service.store.artifacts import Artifacts
from service.store.head_answers import HeadAnswers
from service.store.ids import public_id
from service.store.tables import Head, Project, Round


@dataclass(frozen=True)
class Answer:
    """probability: of the predicted class, by a head that had not seen the label."""

    item_id: int
    class_name: str
    predicted_class: str
    probability: float


def of_round(
    session: Session,
    project: Project,
    artifacts: Artifacts,
    number: int,
    *,
    class_name: str | None,
    predicted_class: str | None,
) -> list[Answer]:
    """The answers of a cell, a row or a column of the confusion matrix, or all; the surest first.

    Raises `NotFound` where there is no such round, `AnswersMissing` where its head was not measured, or not kept,
    `SingleOnly` where an item has several classes.
    """
    if project.label_kind == "multi":
        instead = "What its head found of each class is in the round's `metrics`."
        raise SingleOnly(what="a confusion matrix", project=public_id("p", project.id), instead=instead)
    found = session.get(Round, (project.id, number))
    if found is None:
        raise NotFound(what="round", id=number)
    head = session.get(Head, found.head_id) if found.head_id is not None else None
    answers = HeadAnswers.load(artifacts, head.artifact) if head is not None else None
    if head is None or answers is None or answers.classes is None:
        raise AnswersMissing(number=number)
    assert answers.predicted is not None
    assert answers.probabilities is not None
    wanted = np.ones(len(answers.ids), np.bool_)
    for numbers, name in ((answers.classes, class_name), (answers.predicted, predicted_class)):
        if name is not None:
            wanted &= numbers == (head.classes.index(name) if name in head.classes else -1)
    rows = np.flatnonzero(wanted)
    rows = rows[np.lexsort((answers.ids[rows], -answers.probabilities[rows]))]
    return [
        Answer(
            int(answers.ids[row]),
            head.classes[answers.classes[row]],
            head.classes[answers.predicted[row]],
            float(answers.probabilities[row]),
        )
        for row in rows
    ]
