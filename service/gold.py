"""Gold items: their class is known for certain. They are done, and mixed in to see how well annotators do."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import decisions, picks, projects, queues, reservations, training
from service.errors import ItemNotServable, UnknownClass, UnknownItem
from service.store.ids import public_id, row_number
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Project


def mark(session: Session, project: Project, entries: Sequence[tuple[str, str]]) -> int:
    """Make items, by public id, gold items of the class given; how many there are now that were none before.

    A gold item is done, of this class whatever annotators say, and heads train on it. Raises `UnknownItem`,
    `UnknownClass`, `ItemNotServable`.
    """
    projects.lock_open(session, project)
    found = _items(session, project, [item for item, _ in entries])
    new = 0
    for index, (public, class_name) in enumerate(entries):
        if class_name not in project.classes:
            raise UnknownClass(
                field=f"items[{index}].class", name=class_name, classes=", ".join(project.classes),
                project=public_id("p", project.id),
            )  # fmt: skip
        item = found[index]
        if item.split != "pool" or item.state not in ("available", "done"):
            state = "of the test split" if item.split == "test" else item.state
            raise ItemNotServable(field=f"items[{index}].item", id=public, state=state)
        new += not item.gold
        item.gold, item.state, item.class_name, item.decided_by = True, "done", class_name, None
    numbers = [item.id for item in found]
    reservations.release_items(session, project, numbers)
    queues.clear(session, project, numbers, by=())
    training.retrain_if_due(session, project)
    return new


def unmark(session: Session, project: Project, items: Sequence[str]) -> int:
    """Items that are gold no more are what their labels say; how many there were. Raises `UnknownItem`."""
    projects.lock_open(session, project)
    overlap = ProjectSettings.model_validate(project.settings).overlap
    gold = [item for item in _items(session, project, items) if item.gold]
    reservations.release_items(session, project, [item.id for item in gold])
    for labels in decisions.load(session, gold).values():
        votes_before = len(labels.votes())
        labels.item.gold, labels.item.state, labels.item.class_name = False, "available", None
        for label in labels.labels:
            label.used = label.current
        labels.settle(overlap)
        project.labels_used += len(labels.votes()) - votes_before
    if gold:
        picks.open_again(session, project, [item.id for item in gold])
        training.retrain_if_due(session, project)
    return len(gold)


def _items(session: Session, project: Project, items: Sequence[str]) -> list[Item]:
    """One for each entry."""
    numbers = [row_number("i", public) for public in items]
    query = sa.select(Item).where(Item.project_id == project.id, Item.id.in_(numbers))
    found = {item.id: item for item in session.scalars(query)}
    for index, number in enumerate(numbers):
        if number not in found:
            raise UnknownItem(field=f"items[{index}]", id=items[index])
    return [found[number] for number in numbers]
